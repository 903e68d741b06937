"""A candidate is one architecture with its params: build it, keep its weights, let it predict."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from convoy.core import atomic
from convoy.core.params import Section
from convoy.core.paths import Architecture, Task, kind_of

EVALUATION_BATCH = 250
WEIGHTS, DESCRIPTION = "weights.safetensors", "candidate.json"


class Description(Section):
    """What candidate.json says: all that is needed to build the network again, and how it was trained."""

    task: Task
    architecture: Architecture
    network: dict[str, Any]
    dimensions: dict[str, int]
    labels: tuple[str, ...]
    training: dict[str, Any]


class Dataset(Protocol):
    """One split of a task, as the module `dataset` of its kind gives it."""

    arrays: Any
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    dimensions: dict[str, int]
    evaluation_order: NDArray[np.int64]

    def training_batches(self, params: Any, seed: int, epoch: int, device: torch.device) -> Any:
        """One epoch of (inputs, labels)."""

    def evaluation_batches(self, size: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
        """All items once, in `evaluation_order`."""


def open_dataset(task: Task, path: Path) -> Dataset:
    """Open a prepared split. Task and module have the same name, so that a stage loads only its own task's code."""
    words = task.split("-")
    dataset: Dataset = getattr(_data(task), "".join(map(str.capitalize, words)) + "Dataset")(path)
    return dataset


def batch_model(task: Task) -> type[Section]:
    """What the section `batches` of a task's candidates must be."""
    model: type[Section] = _data(task).BatchParams
    return model


def network_model(task: Task, architecture: Architecture) -> type[Section]:
    """What the section `network` of a candidate must be."""
    model: type[Section] = _network(task, architecture).NetworkParams
    return model


def batch_params(task: Task, params: dict[str, Any]) -> Any:
    """The `batches` section of a candidate, checked."""
    return batch_model(task).model_validate(params)


def describe(
    task: Task, architecture: Architecture, network: dict[str, Any], data: Dataset, training: dict[str, Any]
) -> Description:
    """What candidate.json says of a network for inputs and labels like those of `data`."""
    return Description(
        task=task,
        architecture=architecture,
        network=network,
        dimensions=data.dimensions,
        labels=data.names,
        training=training,
    )


def build(description: Description) -> nn.Module:
    """The network of a candidate, untrained."""
    module = _network(description.task, description.architecture)
    params = module.NetworkParams.model_validate(description.network)
    network: nn.Module = module.Network(params, labels=len(description.labels), **description.dimensions)
    return network


def pretrain(network: nn.Module, dataset: Dataset, seed: int) -> None:
    """Let a network that can learn from inputs without their labels begin so; image networks have nothing to do."""
    learn = getattr(network, "pretrain", None)
    if learn is not None:
        learn(dataset.arrays, seed)


def save(folder: Path, description: Description, network: nn.Module) -> None:
    """Write candidate.json and the weights as safetensors: no code in a file, the same weights give the same bytes."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()}
    atomic.write_bytes(folder / WEIGHTS, to_safetensors(weights))
    atomic.write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def load(folder: Path) -> tuple[Description, nn.Module]:
    """Read what `save` wrote; the network is in eval mode."""
    description = Description.model_validate_json((folder / DESCRIPTION).read_bytes())
    network = build(description)
    network.load_state_dict(load_file(folder / WEIGHTS))
    return description, network.eval()


def probabilities(network: nn.Module, dataset: Dataset) -> NDArray[np.float32]:
    """What a network in eval mode says of every item, (n, labels) float32, in the dataset's own order."""
    return softmax(logits(network, dataset))


def softmax(of_logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, labels) -> probabilities, as the exported graph computes them."""
    found: NDArray[np.float32] = torch.from_numpy(of_logits).softmax(dim=1).numpy()
    return found


@torch.inference_mode()
def logits(network: nn.Module, dataset: Dataset) -> NDArray[np.float32]:
    """The logits of every item, (n, labels) float32, in the dataset's own order; the network is in eval mode."""
    device = next(network.parameters()).device
    found = [network(inputs).float().cpu() for inputs, _ in dataset.evaluation_batches(EVALUATION_BATCH, device)]
    result = np.empty((len(dataset.labels), len(dataset.names)), dtype=np.float32)
    result[dataset.evaluation_order] = torch.cat(found).numpy()
    return result


def _data(task: Task) -> Any:
    return _module(task, f"{_variant(task)}dataset")


def _network(task: Task, architecture: Architecture) -> Any:
    return _module(task, f"networks.{_variant(task)}{architecture}")


def _variant(task: Task) -> str:
    """`stream_` of text-stream, nothing of a task that is named after its kind."""
    return "".join(f"{word}_" for word in task.split("-")[1:])


def _module(task: Task, name: str) -> Any:
    return import_module(f"convoy.kinds.{kind_of(task)}.{name}")
