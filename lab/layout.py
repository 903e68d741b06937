"""The families that are compared, and every path of the laboratory, relative to the root of the repository."""

from pathlib import Path
from typing import Literal, get_args

Kind = Literal["image", "text"]  # of data: what a family reads
KINDS: tuple[Kind, ...] = get_args(Kind)
Family = Literal["cnn", "lstm", "gru", "rnn", "mlp", "linear"]
FAMILIES: tuple[Family, ...] = get_args(Family)
RECURRENT: tuple[Literal["lstm", "gru", "rnn"], ...] = ("lstm", "gru", "rnn")
Reader = Literal["lstm", "gru", "rnn", "cnn-near", "cnn-far", "cnn-max"]  # who is asked to remember
READERS: tuple[Reader, ...] = get_args(Reader)
SIZED: tuple[Family, ...] = ("cnn", "mlp")  # trained in several sizes

PARAMS = Path("lab/params.yaml")
REPORT = Path("reports/compare")


def learnt(kind: Kind, family: Family) -> Path:
    """What was measured of a family on images or on texts: accuracy, costs, probes."""
    return REPORT / "measured" / f"{kind}-{family}.json"


def permuted(family: Family) -> Path:
    """What a family makes of images whose pixels are all permuted alike."""
    return REPORT / "measured" / f"permuted-{family}.json"


def sized(family: Family) -> Path:
    """What smaller networks of a family make of images."""
    return REPORT / "measured" / f"sizes-{family}.json"


def remembered(reader: Reader) -> Path:
    """Over which distances a reader remembers."""
    return REPORT / "measured" / f"memory-{reader}.json"
