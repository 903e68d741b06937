"""Two models on the same items -> how much better one is, and whether that may be chance."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> dict[str, float | int]:
    """The exact test of McNemar 1947 for correct (n,) of two models: only where one alone is right does it count.

    difference: our accuracy less theirs. wins, losses: items that we alone, they alone have right. p: how often
    equally good models would be at least so far apart, two-sided.
    """
    wins, losses = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return {"difference": round((wins - losses) / len(ours), 6), "wins": wins, "losses": losses, "p": p}


def against_baselines(correct: NDArray[np.bool_], predictions: Path) -> dict[str, dict[str, float | int]]:
    """Baseline -> `mcnemar` of correct (n,) against it, by the table that the stage baselines wrote of the same items.

    Raises ValueError where that table is of other items.
    """
    with predictions.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if len(rows) != len(correct):
        raise ValueError(
            f"{predictions} has {len(rows)} rows, the test split {len(correct)}: run `dvc repro baselines`"
        )
    names = [name for name in rows[0] if name != "actual"]
    found = {name: np.array([row[name] == row["actual"] for row in rows]) for name in names}
    return {name: mcnemar(correct, theirs) for name, theirs in found.items()}
