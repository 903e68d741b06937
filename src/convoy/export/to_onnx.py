"""A trained network -> model.onnx and explanation.onnx, each one file without paths of the machine; proven."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convoy.bundles.bundle import EXPLANATION, Calibration
from convoy.bundles.explanation import Explainer
from convoy.bundles.predictor import Model
from convoy.core import stage
from convoy.evaluation.parity import compare_explanations, require_agreement, require_close
from convoy.kinds.learning import candidates
from convoy.kinds.learning.class_activation import PlaceNetwork
from convoy.kinds.registry import module

Dimensions = dict[str, tuple[int, ...]]  # input of a graph -> its dimensions that differ between requests


class ExportFailed(RuntimeError):
    """The exported graph cannot be deployed: a frozen size, data outside the file."""


class Calibrated(nn.Module):
    """A network whose logits are calibrated."""

    offsets: Tensor | None

    def __init__(self, network: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.temperature = calibration.temperature
        offsets = calibration.offsets
        self.register_buffer("offsets", None if offsets is None else torch.tensor(offsets), persistent=False)

    def calibrate(self, logits: Tensor) -> Tensor:
        """(..., labels) logits of the network -> the logits of the probabilities."""
        scaled = logits / self.temperature
        return scaled if self.offsets is None else scaled + self.offsets


class Probabilities(Calibrated):
    """A network with the calibration and the softmax, so that the server adds neither."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of the network -> (batch, labels) probabilities."""
        return self.calibrate(self.network(inputs)).softmax(dim=1)


class StepProbabilities(Calibrated):
    """The same for a network that carries a state from word to word."""

    def forward(self, inputs: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """(streams, words) token ids and the state -> (streams, words, labels) probabilities and the next state."""
        logits, carried = self.network.step(inputs, carried)  # type: ignore[operator]
        return self.calibrate(logits).softmax(dim=2), carried


class Contributions(Calibrated):
    """What each place adds to the logits whose softmax `Probabilities` gives, and these logits.

    Softmax depends on differences between labels only, so contributions are relative to the mean over labels. The
    logits are the sum of the contributions, so that parity proves both.
    """

    def __init__(self, network: nn.Module, calibration: Calibration) -> None:
        super().__init__(network, calibration)
        assert isinstance(network, PlaceNetwork)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the network -> (batch, labels, rows, columns) contributions and (batch, labels) logits."""
        assert isinstance(self.network, PlaceNetwork)
        added = self.network.contributions(inputs) / self.temperature
        added = added - added.mean(dim=1, keepdim=True)
        bias = self.calibrate(self.network.bias())
        return added, added.sum(dim=(2, 3)) + (bias - bias.mean())


def export(
    network: nn.Module, example: Tensor, kind: str, calibration: Calibration, carries_state: bool = False
) -> bytes:
    """The network in eval mode as one ONNX file; the same weights give the same bytes in any folder.

    With `carries_state` it is the graph of `network.step`, for a text in pieces.
    `example` is a batch of at least 2: the exporter takes a size of 1 for a constant. Export one model per process:
    a second LSTM in the same process silently gets a frozen length. Raises ExportFailed.
    """
    dimensions = {"input": module(kind, "items.preprocessing").DYNAMIC}
    if not carries_state:
        return _export_graph(Probabilities(network, calibration), (example,), dimensions, ["probabilities"])
    begun = network.begin(len(example))  # type: ignore[operator]
    outputs = ["probabilities", "next_state"]
    return _export_graph(
        StepProbabilities(network, calibration), (example, begun), {**dimensions, "state": (0,)}, outputs
    )


def export_explanation(network: nn.Module, example: Tensor, kind: str, calibration: Calibration) -> bytes:
    """The graph that explains the graph of `export`, under the same rules.

    It is a file of its own, since ONNX Runtime runs a whole graph, whichever of its outputs are requested.
    """
    dimensions = {"input": module(kind, "items.preprocessing").DYNAMIC}
    return _export_graph(Contributions(network, calibration), (example,), dimensions, ["contributions", "logits"])


def _export_graph(graph: nn.Module, examples: tuple[Tensor, ...], dimensions: Dimensions, outputs: list[str]) -> bytes:
    sizes = tuple(dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC) for dynamic in dimensions.values())
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns of a missing torchvision, whose operators no network uses
    with warnings.catch_warnings():
        # Of the exporter's own use of torch, and of the list in which an LSTM keeps its weights.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", ".*_flat_weights.*", UserWarning)
        program = torch.onnx.export(
            graph.eval(),
            examples,
            dynamo=True,
            dynamic_shapes=sizes,
            input_names=list(dimensions),
            output_names=outputs,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_debug_info(model)
    _free_output_sizes(model)
    onnx.checker.check_model(model, full_check=True)
    _check_sizes(model, dimensions)
    return bytes(model.SerializeToString(deterministic=True))


def _strip_debug_info(model: onnx.ModelProto) -> None:
    """Remove what the exporter writes for its own debugging: stack traces with source paths, names of scopes."""
    _strip_messages([model, *model.functions])
    for function in model.functions:
        _strip_messages(function.node)
        _strip_messages(function.value_info)
    for graph in _all_graphs(model.graph):
        _strip_messages([graph])
        for messages in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
            _strip_messages(messages)


def _all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _all_graphs(inner)


def _strip_messages(messages: Iterable[Any]) -> None:
    for message in messages:
        del message.metadata_props[:]
        message.doc_string = ""


def _free_output_sizes(model: onnx.ModelProto) -> None:
    """Let contributions have any number of rows and columns: the exporter may write those of the example."""
    for output in model.graph.output:
        if output.name == "contributions":
            for dimension in list(output.type.tensor_type.shape.dim)[2:]:
                dimension.Clear()


def _check_sizes(model: onnx.ModelProto, dimensions: Dimensions) -> None:
    for graph_input, dynamic in zip(model.graph.input, dimensions.values(), strict=True):
        shape = graph_input.type.tensor_type.shape.dim
        frozen = [index for index in dynamic if not shape[index].dim_param]
        if frozen:
            name = f"dimension {frozen} of {graph_input.name}"
            raise ExportFailed(f"the graph froze {name} at the example's size")
    tensors = [tensor for graph in _all_graphs(model.graph) for tensor in graph.initializer]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise ExportFailed("the graph keeps weights outside the file")


def prove_explanation(
    network: nn.Module, model: Model, content: bytes, arrays: Sequence[NDArray[Any]], limits: tuple[float, float]
) -> dict[str, Any]:
    """The probabilities of `content`, explanation.onnx, against model.onnx; its contributions against torch's.

    `limits` are of a probability, and of the contributions in the mean. Raises ParityBroken where one is passed.
    """
    contributions, explainer = Contributions(network, model.card.calibration), Explainer(model, content, threads=2)
    sums, difference = compare_explanations(contributions, explainer, arrays)
    return {
        **asdict(require_agreement(sums, limits[0], "the sums of explanation.onnx")),
        "mean_contribution_difference": require_close(difference, limits[1]),
    }


def export_with_explanation(
    network: nn.Module, folder: Path, example: Tensor, kind: str, calibration: Calibration
) -> dict[str, bytes]:
    """model.onnx and explanation.onnx, each from a process of its own, in parallel; `folder` holds the candidate."""
    # Spawned: a fork would hang in the threads that torch has started.
    with ProcessPoolExecutor(1, get_context("spawn"), stage.end_with_parent, (os.getpid(),)) as pool:
        explanation = pool.submit(_export_explanation, folder, example.cpu().numpy(), kind, calibration)
        return {"model.onnx": export(network, example, kind, calibration), EXPLANATION: explanation.result()}


def _export_explanation(folder: Path, example: NDArray[Any], kind: str, calibration: Calibration) -> bytes:
    _, network = candidates.load(folder)
    return export_explanation(network, torch.from_numpy(example), kind, calibration)
