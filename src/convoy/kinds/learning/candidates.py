"""A candidate is one network with its numbers and its input contract: build it, keep it, let it predict."""

import hashlib
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from convoy.core import atomic, params, paths
from convoy.core.params import ParamsInvalid, Section
from convoy.core.tasks import Candidate
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.registry import module

EVALUATION_BATCH = 250
WEIGHTS, DESCRIPTION = "weights.safetensors", "candidate.json"


class Description(Section):
    """What candidate.json says: all that is needed to build the network again, and how it was trained."""

    name: str
    task: str
    data: str
    kind: str
    network: dict[str, Any]  # its name and its numbers
    contract: dict[str, Any]  # of its input
    has_own_input: bool
    dimensions: dict[str, int]
    labels: tuple[str, ...]
    code: str  # sha256 of the network's file and of the layers beside it: what reads the weights runs again with it
    training: dict[str, Any]
    validation: dict[str, float | int] = Field(default_factory=dict)  # the figures of the best weights

    @property
    def architecture(self) -> str:
        """The name of its network."""
        return str(self.network["name"])


class Dataset(Protocol):
    """One split of a data set as a candidate's inputs: the class `Dataset` of a kind's module `dataset`."""

    arrays: Any
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    dimensions: dict[str, int]
    evaluation_order: NDArray[np.int64]

    def training_batches(self, params: Any, seed: int, epoch: int, device: torch.device) -> Any:
        """One epoch of (inputs, labels)."""

    def evaluation_batches(self, size: int, device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
        """All items once, in `evaluation_order`."""


def input_contract(candidate: Candidate, own: dict[str, Any] | None) -> InputContract:
    """The contract of a candidate's inputs: that of its data set, with what its `input` says otherwise.

    Raises ParamsInvalid where `own` has a key or a value that the kind does not allow.
    """
    contract: InputContract
    contract = module(candidate.kind, "items.inputs").make(
        paths.prepared(candidate.data), own or {}, f"{candidate.key}.input"
    )
    return contract


def open_dataset(kind: str, path: Path, contract: InputContract) -> Dataset:
    """Open a prepared split as inputs of this contract."""
    dataset: Dataset = module(kind, "items.dataset").Dataset(path, contract)
    return dataset


def batch_model(kind: str) -> type[Section]:
    """The model of the section `batches` of a candidate."""
    model: type[Section] = module(kind, "items.dataset").BatchParams
    return model


def network_params(candidate: Candidate, section: dict[str, Any]) -> Section:
    """The section `network` of a candidate, checked. Raises ParamsInvalid."""
    numbers = {key: value for key, value in section.items() if key != "name"}
    model: type[Section] = _network_module(candidate.kind, candidate.network).NetworkParams
    return params.validate(model, numbers, f"{candidate.key}.network")


def describe(
    candidate: Candidate, network: dict[str, Any], contract: InputContract, data: Dataset, training: dict[str, Any]
) -> Description:
    """The content of candidate.json for a network whose inputs and labels are like those of `data`."""
    return Description(
        name=candidate.name,
        task=candidate.task,
        data=candidate.data,
        kind=candidate.kind,
        network=network,
        contract=contract.preprocessing.model_dump(mode="json"),
        has_own_input=contract.is_own,
        dimensions=data.dimensions,
        labels=data.names,
        code=_hash_network_code(candidate.kind, candidate.network),
        training=training,
    )


def build(description: Description) -> nn.Module:
    """The network of a candidate, untrained."""
    numbers = dict(description.network)
    code = _network_module(description.kind, numbers.pop("name"))
    checked = code.NetworkParams.model_validate(numbers)
    network: nn.Module = code.Network(checked, labels=len(description.labels), **description.dimensions)
    return network


def pretrain(network: nn.Module, dataset: Dataset, seed: int) -> None:
    """Let a network begin with what it can count in the training split; most have nothing to do."""
    pretrain_network = getattr(network, "pretrain", None)
    if pretrain_network is not None:
        pretrain_network(dataset.arrays, dataset.labels, seed)


def save(folder: Path, description: Description, network: nn.Module, files: dict[str, bytes]) -> None:
    """Write candidate.json, the files of the contract, and the weights as safetensors.

    There is no code in a file, and the same weights give the same bytes.
    """
    weights = {name: weight.detach().cpu().contiguous() for name, weight in network.state_dict().items()}
    atomic.write_bytes(folder / WEIGHTS, to_safetensors(weights))
    for name, content in files.items():
        atomic.write_bytes(folder / name, content)
    atomic.write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def read_description(folder: Path) -> Description:
    """What candidate.json in a folder says."""
    return Description.model_validate_json((folder / DESCRIPTION).read_bytes())


def load(folder: Path) -> tuple[Description, nn.Module]:
    """Read what `save` wrote; the network is in eval mode."""
    description = read_description(folder)
    network = build(description)
    network.load_state_dict(load_file(folder / WEIGHTS))
    return description, network.eval()


def load_contract(folder: Path, description: Description) -> InputContract:
    """The input contract that `save` wrote, with its files."""
    preprocessing = module(description.kind, "items.preprocessing")
    files = {name: (folder / name).read_bytes() for name in preprocessing.FILES}
    contract = preprocessing.read_contract(description.contract)
    return InputContract(contract, files, description.has_own_input)


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


def _hash_network_code(kind: str, name: str) -> str:
    folder = Path(module(kind, "networks").__path__[0])
    files = [folder / f"{name}.py", *sorted(folder.glob("layers/*.py"))]
    return hashlib.sha256("".join(map(atomic.sha256_of, files)).encode()).hexdigest()


def _network_module(kind: str, name: str) -> Any:
    package = module(kind, "networks")
    there = sorted(path.stem for path in Path(package.__path__[0]).glob("[!_]*.py"))
    if name not in there:
        raise ParamsInvalid(
            f"{paths.PARAMS}: there is no network {name!r} for kind {kind}; there is {', '.join(there)}"
        )
    return import_module(f"{package.__name__}.{name}")
