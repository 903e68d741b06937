"""torch -> ONNX in one file, and the proof that both say the same."""

import logging
import warnings
from collections.abc import Iterable
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from convoy.layout import Task

# What may vary from request to request: the batch, and for texts their length.
SYMBOLIC: dict[Task, tuple[int, ...]] = {"image": (0,), "text": (0, 1)}


class ExportFailed(RuntimeError):
    """The exported graph is not what serving needs: a frozen size, data outside the file, or other answers."""


class Probabilities(nn.Module):
    """A network with the softmax that serving would otherwise have to add."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of the network -> (batch, labels) probabilities."""
        logits: Tensor = self.network(inputs)
        return logits.softmax(dim=1)


def export(network: nn.Module, example: Tensor, task: Task) -> bytes:
    """The network in eval mode as one ONNX file; the same weights give the same bytes in any folder.

    `example` is a batch of at least 2: the exporter takes a size of 1 for a constant. Export one model per process:
    a second LSTM in the same process silently gets a frozen length. Raises ExportFailed.
    """
    sizes = {dimension: torch.export.Dim.DYNAMIC for dimension in SYMBOLIC[task]}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, whose operators we do not use
    with warnings.catch_warnings():
        # The exporter's own use of torch, and that an LSTM keeps its weights in a list too.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", ".*_flat_weights.*", UserWarning)
        program = torch.onnx.export(
            Probabilities(network).eval(),
            (example,),
            dynamo=True,
            dynamic_shapes=(sizes,),
            input_names=["input"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    _check_sizes(model, task)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter writes for its own debugging: stack traces with source paths, names of scopes."""
    del model.metadata_props[:]
    model.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]
        function.doc_string = ""
        _strip_each(function.node)
        _strip_each(function.value_info)
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    for things in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
        _strip_each(things)


def _strip_each(things: Iterable[Any]) -> None:
    for thing in things:
        del thing.metadata_props[:]
        thing.doc_string = ""


def _check_sizes(model: onnx.ModelProto, task: Task) -> None:
    shape = model.graph.input[0].type.tensor_type.shape.dim
    frozen = [index for index in SYMBOLIC[task] if not shape[index].dim_param]
    if frozen:
        raise ExportFailed(f"the graph froze input dimension {frozen} of {task} at the example's size")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportFailed("the graph keeps weights outside the file")
