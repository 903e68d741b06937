"""Two predictors that answer single inputs in turns -> how many times as long one takes as the other."""

import time
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from convoy.bundles.predictor import Model
from convoy.release.gates.evidence import Latency

WARM_UP = 5  # calls of each that are not counted


def compare_latency(champion: Model, challenger: Model, inputs: Sequence[bytes | str], pairs: int) -> Latency:
    """Time both on the same input, one right after the other, and who begins alternates.

    What slows the machine for a while slows both calls of a pair, so the ratio stays; its median does not mind the
    pairs that something came between. The interval is that of order statistics, which assumes nothing of the times.
    """
    for model in (champion, challenger):
        for raw in inputs[:WARM_UP]:
            _answer(model, raw)
    times = np.empty((pairs, 2))
    for pair in range(pairs):
        raw = inputs[pair % len(inputs)]
        order = ((0, champion), (1, challenger))
        for side, model in order if pair % 2 else reversed(order):
            began = time.perf_counter()
            _answer(model, raw)
            times[pair, side] = time.perf_counter() - began
    ratios = np.sort(times[:, 1] / times[:, 0])
    outside = int(binom.ppf(0.025, pairs, 0.5))
    champion_s, challenger_s = np.median(times, axis=0)
    return Latency(
        pairs=pairs,
        champion_ms=round(float(champion_s) * 1000, 4),
        challenger_ms=round(float(challenger_s) * 1000, 4),
        ratio=round(float(np.median(ratios)), 4),
        low=round(float(ratios[max(outside - 1, 0)]), 4),
        high=round(float(ratios[min(pairs - outside, pairs - 1)]), 4),
    )


def _answer(model: Model, raw: bytes | str) -> None:
    model.probabilities([model.prepare(raw).array])
