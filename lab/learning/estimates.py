"""Values per seed and item -> their mean with an interval that covers both, other seeds and other items."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error and the degrees of freedom of that."""

    mean: float
    error: float
    freedom: float

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.mean - self._reach

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self._reach

    @property
    def _reach(self) -> float:
        return 0.0 if self.error == 0 else float(t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference, as if the two were independent: where both are of the same items that is too cautious."""
        return _combine(self.mean - other.mean, [(self.error, self.freedom), (other.error, other.freedom)])

    def to_json(self) -> dict[str, float]:
        """All of it, and the interval."""
        freedom = self.freedom if self.freedom < 1e9 else 1e9  # JSON has no infinity
        numbers = {"mean": self.mean, "low": self.low, "high": self.high, "error": self.error, "freedom": freedom}
        return {name: float(f"{value:.6g}") for name, value in numbers.items()}

    @classmethod
    def from_json(cls, content: dict[str, float]) -> "Estimate":
        """What `to_json` gave."""
        return cls(content["mean"], content["error"], content["freedom"])


def estimate(values: NDArray[Any]) -> Estimate:
    """Of (seeds, items): the variance of the mean over items and that over seeds are added.

    Items and seeds are two samples that cross; degrees of freedom after Welch and Satterthwaite. With one seed, or one
    item, its share is unknown and left out.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds, items = values.shape
    of_items = values.mean(axis=0).std(ddof=1) / sqrt(items) if items > 1 else 0.0
    of_seeds = values.mean(axis=1).std(ddof=1) / sqrt(seeds) if seeds > 1 else 0.0
    return _combine(float(values.mean()), [(float(of_items), items - 1), (float(of_seeds), seeds - 1)])


def _combine(mean: float, parts: list[tuple[float, float]]) -> Estimate:
    """Add independent errors, each with its degrees of freedom."""
    known = [(error**2, freedom) for error, freedom in parts if error > 0]
    total = sum(variance for variance, _ in known)
    spread = sum(variance**2 / freedom for variance, freedom in known)
    return Estimate(mean, sqrt(total), total**2 / spread if spread else inf)
