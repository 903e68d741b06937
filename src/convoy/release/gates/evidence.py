"""What the gates compare: the evidence of challenger and champion, numbers only."""

from typing import Any

from pydantic import BaseModel, ConfigDict

ONNX, REST, PREFLIGHT, GATE = "parity torch/ONNX", "parity REST", "preflight", "gate split"  # names in `unknown`


class Measured(BaseModel):
    """A part of the evidence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Alone(Measured):
    """One bundle on the gate split. Shares are of its rows; low and high are the 95 % interval of the accuracy.

    calibration_by_chance is the calibration error that a perfectly calibrated model of as many rows shows in one of
    100 splits, or more.
    """

    accuracy: float
    low: float
    high: float
    log_loss: float
    calibration_error: float
    calibration_by_chance: float


class Pair(Measured):
    """Both bundles on the same rows. wins, losses: rows that the challenger alone, the champion alone has right.

    p is that of McNemar's exact test, two-sided.
    """

    rows: int
    champion: float  # accuracies
    challenger: float
    wins: int
    losses: int
    p: float

    @property
    def difference(self) -> float:
        """The challenger's accuracy less the champion's."""
        return (self.wins - self.losses) / self.rows


class Slice(Pair):
    """Both bundles on the rows of one class, or of one quartile of what the rows differ in."""

    kind: str
    name: str


class LogLossRise(Measured):
    """The challenger's log loss less the champion's, row by row: mean, and its 95 % interval (nats)."""

    mean: float
    low: float
    high: float


class Best(Measured):
    """The best figure of an earlier champion on this gate split."""

    version: str
    value: float


class Latency(Measured):
    """Single inputs, prepared and predicted in turns: medians (ms), and the median ratio with its 95 % interval."""

    pairs: int
    champion_ms: float
    challenger_ms: float
    ratio: float
    low: float
    high: float


class Difference(Measured):
    """How far two ways to the same probabilities are apart, over n inputs."""

    max_difference: float
    class_flips: int
    n: int


class Evidence(Measured):
    """All figures that the gates use; None where it was not measured; `unknown` says why, by name.

    `obstacle` says why the two bundles cannot be compared by their answers, though these may have been measured.
    """

    rows: int
    challenger: Alone | None
    size_bytes: int
    champion: Alone | None = None
    champion_size_bytes: int | None = None
    has_champion: bool
    obstacle: str = ""
    paired: Pair | None = None
    slices: tuple[Slice, ...] = ()
    log_loss_rise: LogLossRise | None = None
    best_accuracy: Best | None = None  # of earlier champions; None where there is none to compare with
    best_log_loss: Best | None = None
    latency: Latency | None = None
    onnx: Difference | None = None
    rest: Difference | str | None = None  # a str says why the service did not answer
    preflight: tuple[str, ...] | None = None
    measured: dict[str, Any] = {}  # by gates themselves, by their names
    unknown: dict[str, str] = {}
