"""Accuracy in parts of a split: per class, and per quartile of the texts' lengths or the images' brightness."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from convoy.evaluation.metrics import accuracy

DRAWN = 40  # of a kind; of more those with the lowest accuracy

Slices = dict[str, dict[str, Any]]


def per_class(labels: NDArray[np.int64], correct: NDArray[np.bool_], names: Sequence[str]) -> Slices:
    """Label -> `accuracy` of the items that truly are of it; a label that none has is left out."""
    groups = {name: labels == label for label, name in enumerate(names)}
    return {name: accuracy(correct[group]) for name, group in groups.items() if group.any()}


def per_quartile(values: NDArray[Any], correct: NDArray[np.bool_]) -> Slices:
    """Quartile of the values (n,) -> from, to (the values in it, both included) and `accuracy`.

    Equal values are never parted: where they are many a quartile may be large, and one that is empty is left out.
    """
    bounds = np.quantile(values, [0.25, 0.5, 0.75])
    quartiles = np.searchsorted(bounds, values) + 1
    return {
        f"quartile {quartile}": {
            "from": round(float(values[quartiles == quartile].min()), 3),
            "to": round(float(values[quartiles == quartile].max()), 3),
            **accuracy(correct[quartiles == quartile]),
        }
        for quartile in np.unique(quartiles)
    }


def draw(slices: Mapping[str, Slices], title: str) -> Figure:
    """A panel per kind of slice, a bar per slice with its 95 % interval and n; of many slices the worst."""
    slices = {kind: _worst(groups) for kind, groups in slices.items()}
    tallest = max(map(len, slices.values()))
    figure = Figure(figsize=(11, 1.5 + 0.4 * tallest), layout="constrained")
    for axes, (kind, groups) in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices.items(), strict=True):
        found = list(groups.values())
        shares = np.array([each["accuracy"] for each in found])
        sides = np.array([[each["accuracy"] - each["low"], each["high"] - each["accuracy"]] for each in found])
        axes.barh(range(len(found)), shares, xerr=np.maximum(sides, 0).T, color="tab:blue", alpha=0.6, capsize=3)
        axes.set_yticks(range(len(found)), [_caption(name, each) for name, each in groups.items()], fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="accuracy", title=f"{title}, per {kind}", xlim=(0, 1))
    return figure


def _worst(groups: Slices) -> Slices:
    if len(groups) <= DRAWN:
        return groups
    return dict(sorted(groups.items(), key=lambda item: item[1]["accuracy"])[:DRAWN])


def _caption(name: str, figures: Mapping[str, Any]) -> str:
    bounds = f" ({figures['from']:g} to {figures['to']:g})" if "from" in figures else ""
    return f"{name}{bounds}\nn = {figures['n']}"
