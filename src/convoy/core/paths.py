"""Every path that two stages share, relative to the root of the repository."""

from pathlib import Path
from typing import Literal, get_args

Split = Literal["train", "validation", "calibration", "gate", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

PARAMS = Path("params.yaml")
RELEASE_PARAMS = Path("release.yaml")  # of what no stage reads
DEPLOYED = Path("deployed")
CONTRACT = Path("contract/preprocessing.json")  # in a folder of prepared data; beside it the files that it needs


def raw(data: str) -> Path:
    """Folder of a data set's items as they came."""
    return Path("data/raw", data)


def prepared(data: str) -> Path:
    """Folder of a data set's splits, and of the contract that they were prepared with."""
    return Path("data/prepared", data)


def split_file(data: str, split: Split) -> Path:
    """Arrow file of one split: images or texts, cleaned, and their labels."""
    return prepared(data) / f"{split}.arrow"


def candidate(task: str, name: str) -> Path:
    """Folder of one trained candidate: weights, what it is, and the files that its input contract needs."""
    return candidates(task) / name


def candidates(task: str) -> Path:
    """Folder of all trained candidates of a task."""
    return Path("candidates", task)


def winner(task: str) -> Path:
    """Folder of the chosen candidate of a task."""
    return Path("winner", task)


def reports(task: str) -> Path:
    """Folder of a task's metrics and pictures."""
    return Path("reports", task)


def candidate_reports(task: str, name: str) -> Path:
    """Folder of the curves and figures of one training."""
    return reports(task) / name


def data_reports(data: str) -> Path:
    """Folder of the reports about a data set."""
    return Path("reports/data", data)


def baselines(data: str) -> Path:
    """Folder of the figures of a data set's baselines, and of their predictions for its test split."""
    return Path("reports/baselines", data)


def choice(task: str) -> Path:
    """File that names a task's winner."""
    return reports(task) / "choice.json"


def bundle(task: str) -> Path:
    """Folder of a task's bundle, which has all that serving reads."""
    return Path("bundles", task)
