"""What is said of networks and space -> verdicts, by what was measured on images."""

from collections.abc import Sequence

import numpy as np

from lab.images.space import SpaceParams
from lab.learning.estimates import Estimate, estimate
from lab.report.results import NAMES, Results
from lab.report.verdicts import Verdict, above, percent, points, unfair, within

STRIDES = (
    "Images, shifted or permuted: the CNN halves its maps by four strides without pooling, so that a shift meets "
    "other places of the grid and neighbours count less than in CNNs as people build them."
)
TARGET = (
    "Weights for equal accuracy: the target is the best that both networks reach, where the feed-forward network's "
    "curve is almost flat, so that the ratio depends on the target more than on the networks."
)


def of_accuracy(results: Results, margin: float) -> list[Verdict]:
    """Who suits images, at the same compute."""
    best = results.best_recurrent("image")
    ahead, beside = results.ahead("image", "cnn", best), results.ahead("image", "cnn", "mlp")
    cnn = percent(results.accuracy("image", "cnn"))
    return [
        Verdict(
            "CNNs suit images better than recurrent networks",
            above(ahead, margin),
            f"the CNN has {cnn}, {points(ahead)} more than the {NAMES[best]}, the best of the recurrent ones",
        ),
        Verdict(
            "For the same compute, weights that are shared across space beat weights for each place",
            above(beside, margin),
            f"the CNN has {points(beside)} more than the feed-forward network",
        ),
    ]


def of_shift(results: Results, params: SpaceParams, margin: float) -> list[Verdict]:
    """Whether a pattern is found wherever it is."""
    px = params.judged_shift_px
    cnn, mlp = (results.at("image", family, "shift", px) for family in ("cnn", "mlp"))
    less = mlp.minus(cnn)
    verdicts = [
        Verdict(
            "A CNN bears a shift better than a feed-forward network",
            above(less, margin),
            f"by {px} pixels the CNN loses {points(cnn)}, the feed-forward network {points(mlp)}",
        ),
        Verdict(
            "A CNN finds its patterns wherever they are, and loses nothing by a shift",
            within(cnn, margin),
            f"by {px} pixels it loses {points(cnn)}",
        ),
    ]
    return unfair(STRIDES, verdicts)


def of_permutation(results: Results, margin: float) -> list[Verdict]:
    """Whether what is beside what counts."""
    cnn, mlp, lstm = (results.lost_by_permuting(family) for family in ("cnn", "mlp", "lstm"))
    lives = Verdict(
        "A CNN lives on what is beside what",
        above(cnn, margin),
        f"with all pixels in another order it learns {points(cnn)} less",
        STRIDES,
    )
    return [
        lives,
        Verdict(
            "To a feed-forward network the order of the pixels is nothing",
            within(mlp, margin),
            f"it learns {points(mlp)} less",
        ),
        Verdict(
            "An LSTM that reads rows needs its neighbours less than a CNN does",
            above(cnn.minus(lstm), margin),
            f"it learns {points(lstm)} less, the CNN {points(cnn)}",
            STRIDES,
        ),
    ]


def of_hiding(results: Results, params: SpaceParams, margin: float) -> list[Verdict]:
    """Whether a patch that is hidden costs less where only local patterns are looked for."""
    px = params.judged_patch_px
    cnn, mlp = (results.at("image", family, "hide", px) for family in ("cnn", "mlp"))
    return [
        Verdict(
            "A hidden patch costs a CNN less than a feed-forward network",
            above(mlp.minus(cnn), margin),
            f"{px} x {px} pixels cost the CNN {points(cnn)}, the feed-forward network {points(mlp)}",
        )
    ]


def of_sizes(results: Results) -> list[Verdict]:
    """Weights for equal accuracy."""
    ratio = weights_ratio(*(results.sizes_of(family) for family in ("cnn", "mlp")))
    low, mean, high = (10**value for value in (ratio.low, ratio.mean, ratio.high))
    return [
        Verdict(
            "A CNN needs fewer weights than a feed-forward network for the same accuracy",
            above(ratio, 0.0),
            f"the feed-forward network needs {mean:,.1f} times as many ({low:,.1f} to {high:,.1f})",
            TARGET,
        )
    ]


Sizes = tuple[Sequence[int], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]


def weights_ratio(cnn: Sizes, mlp: Sizes) -> Estimate:
    """log10 of how many times the weights of a CNN a feed-forward network needs for the best that both can reach."""
    ratios = []
    for of_cnn, of_mlp in zip(cnn[1], mlp[1], strict=True):
        target = min(of_cnn.max(), of_mlp.max())
        ratios.append(_needed(mlp[0], of_mlp, target) - _needed(cnn[0], of_cnn, target))
    return estimate(np.array(ratios)[:, None])


def _needed(weights: Sequence[int], accuracies: Sequence[float], target: float) -> float:
    """log10 of the weights at which accuracy comes to the target, on lines between the sizes; at least the smallest."""
    logs = np.log10(weights)
    for place, accuracy in enumerate(accuracies):
        if accuracy >= target:
            if place == 0:
                return float(logs[0])
            share = (target - accuracies[place - 1]) / (accuracy - accuracies[place - 1])
            return float(logs[place - 1] + share * (logs[place] - logs[place - 1]))
    return float(logs[-1])
