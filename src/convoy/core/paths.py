"""Every path that two stages share, relative to the root of the repository."""

from pathlib import Path
from typing import Literal, get_args

Task = Literal["image", "text", "text-stream"]  # what is built, published and deployed
DataKind = Literal["image", "text"]  # `text-stream` learns from the data prepared for `text`
Architecture = Literal["cnn", "lstm"]
Split = Literal["train", "validation", "calibration", "gate", "test"]
TASKS: tuple[Task, ...] = get_args(Task)
DATA_KINDS: tuple[DataKind, ...] = get_args(DataKind)
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
SPLITS: tuple[Split, ...] = get_args(Split)

PARAMS = Path("params.yaml")
RELEASE_PARAMS = Path("release.yaml")  # of what no stage reads
DEPLOYED = Path("deployed")
BASELINES = Path("reports/baselines.json")
TOKENIZER = Path("data/prepared/text/contract/tokenizer.json")


def kind_of(task: Task) -> DataKind:
    """The kind of a task's data."""
    return "image" if task == "image" else "text"


def architectures(task: Task) -> tuple[Architecture, ...]:
    """The candidates of a task; with only one, no stage chooses."""
    return ("lstm",) if task == "text-stream" else ARCHITECTURES


def raw(task: Task) -> Path:
    """Folder of the files as they were published, verified."""
    return Path("data/raw", kind_of(task))


def prepared(task: Task, split: Split) -> Path:
    """Arrow file of one split: uint8 images or texts with their token ids, and labels."""
    return Path("data/prepared", kind_of(task), f"{split}.arrow")


def contract(task: Task) -> Path:
    """File of the preprocessing contract that a task's data was prepared with; export copies it into the card."""
    return Path("data/prepared", kind_of(task), "contract", "preprocessing.json")


def candidate(task: Task, architecture: Architecture) -> Path:
    """Folder of one trained candidate: weights.safetensors and candidate.json."""
    return Path("candidates", f"{task}-{architecture}")


def reports(task: Task) -> Path:
    """Folder of a task's metrics and pictures."""
    return Path("reports", task)


def data_reports(task: Task) -> Path:
    """Folder of the reports about a task's data."""
    return reports(kind_of(task))


def baselines(task: Task) -> Path:
    """Table of the predictions of each baseline for the test split of a task's data."""
    return Path("reports/baselines", f"{kind_of(task)}.csv")


def choice(task: Task) -> Path:
    """File that names a task's winner."""
    return reports(task) / "choice.json"


def bundle(task: Task) -> Path:
    """Folder of a task's bundle, which has all that serving reads."""
    return Path("bundles", task)
