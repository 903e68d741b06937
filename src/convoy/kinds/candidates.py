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
    """One split of a task, as the data set modules of its kind give it."""

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
    dataset: Dataset = getattr(_dataset_module(task), "".join(map(str.capitalize, words)) + "Dataset")(path)
    return dataset


def batch_model(task: Task) -> type[Section]:
    """The model of the section `batches` of a task's candidates."""
    model: type[Section] = _dataset_module(task).BatchParams
    return model


def network_model(task: Task, architecture: Architecture) -> type[Section]:
    """The model of the section `network` of a candidate."""
    model: type[Section] = _network_module(task, architecture).NetworkParams
    return model


def batch_params(task: Task, params: dict[str, Any]) -> Any:
    """The `batches` section of a candidate, checked."""
    return batch_model(task).model_validate(params)


def describe(
    task: Task, architecture: Architecture, network: dict[str, Any], data: Dataset, training: dict[str, Any]
) -> Description:
    """The content of candidate.json for a network whose inputs and labels are like those of `data`."""
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
    module = _network_module(description.task, description.architecture)
    params = module.NetworkParams.model_validate(description.network)
    network: nn.Module = module.Network(params, labels=len(description.labels), **description.dimensions)
    return network


def pretrain(network: nn.Module, dataset: Dataset, seed: int) -> None:
    """Pretrain a network that can learn from inputs without labels; image networks have nothing to do."""
    pretrain_network = getattr(network, "pretrain", None)
    if pretrain_network is not None:
        pretrain_network(dataset.arrays, seed)


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
    """The probabilities of every item, (n, labels) float32, in the dataset's own order; the network is in eval mode."""
    return softmax(logits(network, dataset))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (n, labels) -> probabilities, as the exported graph computes them."""
    result: NDArray[np.float32] = torch.from_numpy(logits).softmax(dim=1).numpy()
    return result


@torch.inference_mode()
def logits(network: nn.Module, dataset: Dataset) -> NDArray[np.float32]:
    """The logits of every item, (n, labels) float32, in the dataset's own order; the network is in eval mode."""
    device = next(network.parameters()).device
    batches = [network(inputs).float().cpu() for inputs, _ in dataset.evaluation_batches(EVALUATION_BATCH, device)]
    result = np.empty((len(dataset.labels), len(dataset.names)), dtype=np.float32)
    result[dataset.evaluation_order] = torch.cat(batches).numpy()
    return result


def _dataset_module(task: Task) -> Any:
    return _import_module(task, f"{_module_prefix(task)}dataset")


def _network_module(task: Task, architecture: Architecture) -> Any:
    return _import_module(task, f"networks.{_module_prefix(task)}{architecture}")


def _module_prefix(task: Task) -> str:
    """`stream_` for text-stream, empty for a task that is named after its kind."""
    return "".join(f"{word}_" for word in task.split("-")[1:])


def _import_module(task: Task, name: str) -> Any:
    return import_module(f"convoy.kinds.{kind_of(task)}.{name}")
