"""The one list of gates, in the order of their verdicts, and all their verdicts on the evidence: a pure function."""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import create_model

from convoy.core.params import Section
from convoy.release.gates.evidence import GATE, Evidence
from convoy.release.gates.rules import (
    accuracy,
    bundle_size,
    calibration,
    classes_and_slices,
    latency,
    log_loss,
    onnx_parity,
    paired_test,
    preflight,
    service_parity,
)
from convoy.release.gates.verdict import Outcome, Verdict, unknown

# A gate is a module with `Limits`, its keys in the section publish; with COMPARES, whether it needs rows that neither
# model has learnt from; and with `judge`. It may have `measure`: the result is `evidence.measured[its name]`.
GATES: tuple[ModuleType, ...] = (
    paired_test,
    accuracy,
    classes_and_slices,
    log_loss,
    latency,
    calibration,
    onnx_parity,
    service_parity,
    bundle_size,
    preflight,
)


class Promotion(Section):
    """What the section publish holds besides the limits of the gates."""

    promote: Literal["automatic", "asked"]


def params_model(gates: Sequence[ModuleType]) -> type[Promotion]:
    """The model of the section publish with the limits of these gates."""
    return create_model("PublishParams", __base__=tuple(reversed([Promotion, *(gate.Limits for gate in gates)])))


if TYPE_CHECKING:
    PublishParams = Any  # its fields are those of all gates
else:  # the section publish: the reason of each number stands beside it in release.yaml
    PublishParams = params_model(GATES)


def name_of(gate: ModuleType) -> str:
    """The name of a gate's file, as `bundle_size`."""
    return gate.__name__.rpartition(".")[2]


def judge(evidence: Evidence, limits: PublishParams) -> list[Verdict]:
    """The verdicts of all gates; those that compare only where there is a champion to compare with."""
    are_comparable = not evidence.obstacle and evidence.paired is not None and evidence.log_loss_rise is not None
    verdicts: list[Verdict | None] = []
    if evidence.has_champion and not are_comparable:
        verdicts.append(_not_comparable(evidence))
    for gate in GATES:
        if not gate.COMPARES or (evidence.has_champion and are_comparable):
            name = name_of(gate)
            was_measured = name in evidence.measured or not hasattr(gate, "measure")
            verdicts.append(gate.judge(evidence, limits) if was_measured else unknown(name, "count", "it", evidence))
    return [verdict for verdict in verdicts if verdict is not None]


def outcome_of(verdicts: list[Verdict]) -> Outcome:
    """`failed` where one gate failed, else `undecided` where one is undecided."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return "failed" if "failed" in outcomes else "undecided" if "undecided" in outcomes else "passed"


def _not_comparable(evidence: Evidence) -> Verdict:
    """One verdict for accuracy, classes, slices and log loss: all need rows that neither model has learnt from."""
    pair, why = evidence.paired, evidence.obstacle or evidence.unknown.get(GATE, "it was not measured")
    figures = f" (as far as it goes: {pair.challenger:.2%} against {pair.champion:.2%} right)" if pair else ""
    return Verdict(
        gate="comparison",
        unit="share",
        champion=pair.champion if pair else None,
        challenger=evidence.challenger.accuracy if evidence.challenger else None,
        limit="same data and labels",
        outcome="undecided",
        sentence=f"it cannot be said whether it is better than the champion: {why}{figures}; accuracy, classes, slices "
        "and log loss are not compared, the rest is judged",
    )
