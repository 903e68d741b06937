"""Write and check a bundle, the folder that is the whole contract between training and serving."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from convoy.core import atomic
from convoy.core.params import Section
from convoy.core.tasks import NAME
from convoy.kinds.registry import kind_of, module

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
RELEASE = "release.json"
Threshold = Annotated[float, Field(ge=0, le=1)]  # 0 where there are too few rows: the label is in every set
EXPLANATION = "explanation.onnx"  # optional: a bundle without it explains by occlusion, or not at all


class BundleInvalid(ValueError):
    """A bundle that is incomplete, altered, of another format, or that does not reproduce its own examples."""


class Limits(Section):
    """How much one request may bring."""

    max_items: int = Field(ge=1)
    max_body_bytes: int = Field(ge=1)


class Calibration(NamedTuple):
    """The probabilities are softmax(logits / temperature + offsets), both chosen on `n` rows."""

    temperature: float = 1.0
    offsets: tuple[float, ...] | None = None  # (labels,)
    n: int = 0

    def logits(self, network_logits: NDArray[Any]) -> NDArray[Any]:
        """Logits (n, labels) as the network gives them -> the logits of the probabilities."""
        scaled = network_logits / self.temperature
        return scaled if self.offsets is None else scaled + np.array(self.offsets, scaled.dtype)


class Sets(BaseModel):
    """How prediction sets are made: a label is in where its probability is at least its threshold.

    So a set holds the true label with probability `coverage`; with one threshold per label, also of the inputs of each
    label (class-conditional). Fitted on `n` rows that nothing was chosen by. The most likely label is in every set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float = Field(gt=0, lt=1)
    threshold: Threshold | tuple[Threshold, ...]  # of all labels, or of each
    n: int = Field(ge=0)
    n_per_label: tuple[Annotated[int, Field(ge=0)], ...] | None = None  # where each label has a threshold


def _read_preprocessing(content: Any) -> Any:
    """A contract by the model of its kind. Raises ValueError for anything else."""
    if isinstance(content, Section):
        return content
    return module(_kind_in(content), "items.preprocessing").read_contract(content)


def _read_explanation(content: Any) -> Any:
    if content is None or isinstance(content, Section):
        return content
    return module(_kind_in(content), "explanation").read(content)


def _kind_in(content: Any) -> str:
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise ValueError("a section with its kind is expected")
    return kind_of(content["kind"])


class Card(BaseModel):
    """What a bundle says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2]
    task: str = Field(pattern=f"^{NAME.pattern}$")
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: Annotated[Any, BeforeValidator(_read_preprocessing)]  # the contract of its kind
    limits: Limits
    temperature: float = Field(gt=0)  # the graph divides its logits by it
    # The graph adds them to the divided logits: after training with balanced weights, the log shares of the labels.
    logit_offsets: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    # How many rows of the calibration split both were chosen on. None in older bundles, fitted on the validation split.
    calibration_n: int | None = Field(default=None, ge=0)
    sets: Sets
    # None where the task explains nothing.
    explanation: Annotated[Any, BeforeValidator(_read_explanation)] = None
    architecture: str  # the name of its network
    candidate: str | None = None  # None in bundles that were exported before candidates had names of their own
    params: dict[str, Any]
    data: dict[str, str]  # split -> sha256 of its prepared file

    @model_validator(mode="after")
    def _has_one_number_per_label(self) -> Self:
        per_label = {
            "logit_offsets": self.logit_offsets,
            "sets.threshold": self.sets.threshold if isinstance(self.sets.threshold, tuple) else None,
            "sets.n_per_label": self.sets.n_per_label,
        }
        for name, numbers in per_label.items():
            if numbers is not None and len(numbers) != len(self.labels):
                raise ValueError(f"{name} has {len(numbers)} numbers for {len(self.labels)} labels")
        return self

    @property
    def kind(self) -> str:
        """The kind of its inputs."""
        return kind_of(self.preprocessing.kind)

    @property
    def calibration(self) -> Calibration:
        """The calibration that turns the network's logits into probabilities."""
        return Calibration(self.temperature, self.logit_offsets, self.calibration_n or 0)


class Example(BaseModel):
    """A real input with the probabilities that the exported model gave: a text, or a PNG in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    label: str
    probabilities: tuple[float, ...]


class Anchor(BaseModel):
    """How far a history of decisions had come: it has `lines` lines at least, and the last of them this sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lines: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Release(BaseModel):
    """What is only known when a bundle is registered; stands beside it in release.json, outside the digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str = Field(pattern=r"^[0-9]{1,9}$")  # a header of every answer
    run_id: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")  # the name of its folder
    promoted_at: str
    # None in releases made before this field, until the next decision; left out where a service describes a release.
    history: Anchor | None = Field(default=None, exclude=True)


class Bundle(BaseModel):
    """The checked content of a bundle folder."""

    model_config = ConfigDict(frozen=True)

    card: Card
    digest: str
    files: dict[str, bytes] = Field(repr=False)

    @property
    def examples(self) -> list[Example]:
        """The inputs that a predictor replays before it may answer."""
        return [Example.model_validate(example) for example in json.loads(self.files["examples.json"])]

    @property
    def shown_input(self) -> bytes | str:
        """An example as a user would send it."""
        raw = module(self.card.kind, "items.raw")
        shown: bytes | str = raw.shown([raw.from_example(example.input) for example in self.examples])
        return shown


def write_bundle(folder: Path, card: Card, files: dict[str, bytes]) -> str:
    """Write card, files and manifest as one step and give the digest."""
    content = {"card.json": atomic.to_json(card.model_dump(mode="json")), **files}
    manifest = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in sorted(content.items())
    }
    with atomic.new_folder(folder) as temporary:
        for name, data in content.items():
            (temporary / name).write_bytes(data)
        (temporary / MANIFEST).write_bytes(atomic.to_json(manifest))
    return digest_of(folder)


def digest_of(folder: Path) -> str:
    """The sha256 of a bundle's manifest, which names every other file by its own."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle. Raises BundleInvalid, which names the file, what is wrong and the remedy."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        names = {path.name for path in folder.iterdir()} - {MANIFEST, RELEASE}
        if unexpected := names ^ set(manifest):
            raise BundleInvalid(f"{folder}: the manifest and the folder differ in {', '.join(sorted(unexpected))}")
        files = {name: _read_checked(folder / name, entry) for name, entry in manifest.items()}
        card = _read_card(folder, files["card.json"])
    except FileNotFoundError as error:
        raise BundleInvalid(f"{error.filename} is missing: the bundle is incomplete; export it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleInvalid(f"{folder / MANIFEST} cannot be read ({error}); export the bundle again") from None
    return Bundle(card=card, digest=digest_of(folder), files=files)


def read_file(folder: Path, name: str, digest: str) -> bytes | None:
    """One file of the bundle with this digest, None where it lacks the file; the other files, maybe large, stay unread.

    Raises BundleInvalid where the folder holds another bundle by now, or the file is not the one that was written.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
        if hashlib.sha256(manifest).hexdigest() != digest:
            raise BundleInvalid(f"{folder} holds another bundle by now (its digest differs)")
        entry = json.loads(manifest).get(name)
        return None if entry is None else _read_checked(folder / name, entry)
    except FileNotFoundError as error:
        raise BundleInvalid(f"{error.filename} is missing: the bundle is incomplete; export it again") from None


def read_release(folder: Path) -> Release | None:
    """Read release.json beside a deployed bundle; None where there is none."""
    path = folder / RELEASE
    if not path.exists():
        return None
    try:
        return Release.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleInvalid(f"{path} is not a release: {_first_problem(error)}; promote again") from None
    except IsADirectoryError:
        raise BundleInvalid(f"{path} is a folder and not a release; remove it, and promote again") from None


def _first_problem(error: ValidationError) -> str:
    """Where and what, without the content: clients of the service read it, and the file may be any."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _read_checked(path: Path, entry: dict[str, Any]) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise BundleInvalid(f"{path} is not the file that the manifest names (its sha256 differs); deploy it again")
    return data


def _read_card(folder: Path, content: bytes) -> Card:
    version = json.loads(content).get("format_version")
    if version != FORMAT_VERSION:
        is_older = isinstance(version, int) and version < FORMAT_VERSION
        raise BundleInvalid(
            f"{folder} has bundle format {version!r}, this release reads format {FORMAT_VERSION}; export it again"
            + (f", or bring it over with `python -m convoy migrate {folder}`" if is_older else "")
        )
    try:
        return Card.model_validate_json(content)
    except ValidationError as error:
        raise BundleInvalid(f"{folder / 'card.json'} is not a valid card: {_first_problem(error)}") from None
