"""Labels and probabilities -> the pictures and tables of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from convoy.core import atomic, spreadsheet
from convoy.evaluation.metrics import Slices
from convoy.kinds.registry import module

WRITTEN_LABELS = 40  # a confusion matrix of more has no room for names and counts
DRAWN_SLICES = 40  # of a kind; of more those with the lowest accuracy

matplotlib.rcParams["text.parse_math"] = False  # a label may hold dollar signs


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG that is the same bytes for the same figure."""
    with atomic.new_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def draw_confusion(labels: NDArray[np.int64], probabilities: NDArray[Any], names: Sequence[str], title: str) -> Figure:
    """Share of each true label (row) that was predicted as each label (column); with many labels the colours alone."""
    classes = range(len(names))
    counts = confusion_matrix(labels, probabilities.argmax(axis=1), labels=list(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.55 * min(len(names), WRITTEN_LABELS)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if len(names) > WRITTEN_LABELS:
        return figure
    for row in classes:
        for column in classes:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(classes, names, rotation=45, ha="right")
    axes.set_yticks(classes, names)
    return figure


def surest_mistakes(labels: NDArray[np.int64], probabilities: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Indices of at most `count` wrong predictions, the most probable first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    order = np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")
    return wrong[order][:count]


def _caption(label: int, probabilities: NDArray[Any], names: Sequence[str]) -> str:
    predicted = int(probabilities.argmax())
    return f"{names[label]}\ntaken for {names[predicted]} ({probabilities[predicted]:.0%})"


def draw_mistakes(
    kind: str, contents: Sequence[Any], labels: NDArray[np.int64], probabilities: NDArray[Any], names: Sequence[str]
) -> Figure:
    """The surest mistakes, each with its true and its predicted label; `contents` are those of a prepared split."""
    mistakes = module(kind, "mistakes")
    rows = surest_mistakes(labels, probabilities, mistakes.SHOWN)
    captions = [_caption(labels[row], probabilities[row], names) for row in rows]
    figure: Figure = mistakes.draw([contents[row] for row in rows.tolist()], captions)
    return figure


def draw_slices(slices: Mapping[str, Slices], title: str) -> Figure:
    """A panel per kind of slice, a bar per slice with its 95 % interval and n; of many slices the least accurate."""
    slices = {kind: _worst_slices(groups) for kind, groups in slices.items()}
    tallest = max(map(len, slices.values()))
    figure = Figure(figsize=(11, 1.5 + 0.4 * tallest), layout="constrained")
    for axes, (kind, groups) in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices.items(), strict=True):
        bars = list(groups.values())
        accuracies = np.array([bar["accuracy"] for bar in bars])
        errors = np.array([[bar["accuracy"] - bar["low"], bar["high"] - bar["accuracy"]] for bar in bars])
        axes.barh(range(len(bars)), accuracies, xerr=np.maximum(errors, 0).T, color="tab:blue", alpha=0.6, capsize=3)
        axes.set_yticks(range(len(bars)), [_slice_caption(name, bar) for name, bar in groups.items()], fontsize=8)
        axes.invert_yaxis()
        axes.set(xlabel="accuracy", title=f"{title}, per {kind}", xlim=(0, 1))
    return figure


def predictions_csv(labels: NDArray[np.int64], probabilities: NDArray[Any], names: Sequence[str]) -> bytes:
    """A line per test item, actual and predicted label, as `dvc plots` reads it for a confusion matrix."""
    pairs = zip(labels, probabilities.argmax(axis=1), strict=True)
    rows = [(names[actual], names[predicted]) for actual, predicted in pairs]
    return spreadsheet.to_csv([("actual", "predicted"), *rows]).encode()


def _worst_slices(groups: Slices) -> Slices:
    if len(groups) <= DRAWN_SLICES:
        return groups
    return dict(sorted(groups.items(), key=lambda item: item[1]["accuracy"])[:DRAWN_SLICES])


def _slice_caption(name: str, figures: Mapping[str, Any]) -> str:
    bounds = f" ({figures['from']:g} to {figures['to']:g})" if "from" in figures else ""
    return f"{name}{bounds}\nn = {figures['n']}"
