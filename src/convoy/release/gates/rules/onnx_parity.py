"""Gate: torch and ONNX Runtime give the same probabilities, as export measured."""

from convoy.release.gates.evidence import ONNX, Evidence
from convoy.release.gates.rules.parity import ParityLimits, judge_parity
from convoy.release.gates.verdict import Verdict

COMPARES = False


class Limits(ParityLimits):
    """Those of both gates of parity."""


def judge(evidence: Evidence, limits: Limits) -> Verdict:
    """Undecided where the report of the export is not the one that dvc.lock names."""
    return judge_parity(ONNX, evidence.onnx, evidence, limits, "torch and ONNX Runtime")
