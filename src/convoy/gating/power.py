"""Rows and disagreements of two models -> the smallest drop that a paired test on them could tell from chance."""

from math import floor, log2

from scipy.stats import binom, binomtest


def paired_p(wins: int, losses: int) -> float:
    """That of McNemar's exact test, two-sided; 1 where the models never differ."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def fewest_losses(significance: float) -> int:
    """How many rows one model alone must have right, the other none, to differ significantly: 2 * 0.5**n is p."""
    return floor(log2(2 / significance)) + 1


def smallest_drop(rows: int, disagreements: int, significance: float) -> float:
    """The smallest drop in accuracy that is significant where the models differ on so many of the rows.

    Above 1 where there are too few rows for any.
    """
    least = fewest_losses(significance)
    if disagreements < least:
        return least / rows
    losses = int(binom.isf(significance / 2, disagreements, 0.5)) + 1
    while paired_p(disagreements - losses, losses) >= significance:  # the bound is that of one side, to one row
        losses += 1
    return (2 * losses - disagreements) / rows
