"""Two models on the same items -> their difference in accuracy, whether it may be chance, which drop a test finds."""

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, binomtest

POWER = 0.8  # the usual one (Cohen 1988): a true drop of this size is found in four of five cases
_NEGLIGIBLE = 1e-9  # a number of disagreements that is less probable is left out of a sum


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, float | int]:
    """The exact test of McNemar 1947 for correct (n,) of two models: only items that one alone has right count.

    difference: our accuracy less theirs. wins, losses: items that we alone, they alone have right. p: how often
    equally good models would be at least so far apart, two-sided.
    """
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    difference = round((wins - losses) / len(ours), 6)
    return {"difference": difference, "wins": wins, "losses": losses, "p": paired_p(wins, losses)}


def compare_with_baselines(correct: NDArray[np.bool_], predictions: Path) -> dict[str, dict[str, float | int]]:
    """Baseline -> `mcnemar` of correct (n,) against it; `predictions` is the table of the stage baselines, of the same
    items.

    Raises ValueError where the numbers of items differ.
    """
    with predictions.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if len(rows) != len(correct):
        raise ValueError(f"{predictions} has {len(rows)} rows, the test split {len(correct)}: run `dvc repro` again")
    names = [name for name in rows[0] if name != "actual"]
    baselines = {name: np.array([row[name] == row["actual"] for row in rows]) for name in names}
    return {name: mcnemar(correct, theirs) for name, theirs in baselines.items()}


def paired_p(wins: int, losses: int) -> float:
    """The p of McNemar's exact test, two-sided; 1 where the models never differ."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def fewest_losses(significance: float) -> int:
    """How many rows one model alone must have right, the other none, to differ significantly: 2 * 0.5**n is p."""
    return math.floor(math.log2(2 / significance)) + 1


def detectable_drop(rows: int, disagreements: int, significance: float) -> float:
    """The true drop in accuracy that McNemar's test finds with a probability of POWER on so many rows.

    The models differ on as large a share of rows as observed, or on more where the drop itself needs more. It is
    infinite where the rows are too few for any drop. (Power of the exact conditional test: Duffy 1984.)
    """
    if rows < fewest_losses(significance):
        return math.inf

    def missing_power(drop: float) -> float:
        return POWER - _power(rows, disagreements / rows, drop, significance)

    return float(brentq(missing_power, 0.0, 1.0, xtol=1e-6))


def pass_rate(rows: int, disagreements: int, drop: float, least: float) -> float:
    """How often a model whose accuracy truly is lower by `drop` shows a difference of at least `least` on the rows."""
    counts, chances, loss = _disagreements(rows, disagreements / rows, drop)
    allowed = np.floor((counts - least * rows + 1e-9) / 2)  # wins - losses = counts - 2 losses
    return float((chances * binom.cdf(allowed, counts, loss)).sum())


def _power(rows: int, share: float, drop: float, significance: float) -> float:
    """How often the test finds a true drop that large."""
    counts, chances, loss = _disagreements(rows, share, drop)
    critical = binom.isf(significance / 2, counts, 0.5)  # more losses than that are significant
    return float((chances * binom.sf(critical, counts, loss)).sum())


def _disagreements(rows: int, share: float, drop: float) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Numbers of rows on which the models may differ, their probabilities, and how often such a row is a loss."""
    drop = min(max(drop, -1.0), 1.0)
    share = max(share, abs(drop))
    if share < _NEGLIGIBLE:
        return np.zeros(1, dtype=np.int64), np.ones(1), 0.5
    low, high = binom.ppf(_NEGLIGIBLE, rows, share), binom.isf(_NEGLIGIBLE, rows, share)
    counts = np.arange(int(low), int(high) + 1)
    return counts, binom.pmf(counts, rows, share), (1 + drop / share) / 2
