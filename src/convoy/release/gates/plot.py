"""A report -> its picture: each gate with what came of it, and the change in accuracy, overall and in each slice."""

import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convoy.evaluation.slices import DRAWN
from convoy.release.gates.evidence import Pair
from convoy.release.gates.report import Report

matplotlib.rcParams["text.parse_math"] = False  # a label may well hold dollar signs
_COLOURS = {"passed": "tab:green", "failed": "tab:red", "undecided": "tab:orange"}
_WRAPPED = 116  # characters of a sentence on one line


def draw(report: Report) -> Figure:
    """The gates on the left, the slices on the right; of many slices those that lost most."""
    compared = report.evidence.paired is not None
    slices = sorted(report.evidence.slices, key=lambda one: one.difference)[:DRAWN]
    height = max(1.5 + 0.62 * len(report.verdicts), 2.0 + 0.3 * len(slices))
    figure = Figure(figsize=(14 if compared else 8, height), layout="constrained")
    figure.suptitle(report.title, color=_COLOURS[report.outcome], weight="bold")
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False, width_ratios=[8, 5][: 2 if compared else 1])[0]
    _list(panels[0], report)
    if report.evidence.paired is not None:
        rows = [("all", report.evidence.paired), *((_name(one.kind, one.name), one) for one in slices)]
        _changes(panels[1], rows, report.limits.max_slice_drop)
    return figure


def _list(axes: Axes, report: Report) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(report.verdicts), 0))
    for row, verdict in enumerate(report.verdicts):
        colour = _COLOURS[verdict.outcome]
        axes.text(0, row + 0.3, verdict.gate, weight="bold", fontsize=9)
        axes.text(0.2, row + 0.3, verdict.outcome, color=colour, weight="bold", fontsize=9)
        axes.text(0, row + 0.4, _wrap(verdict.sentence), fontsize=7.5, va="top")


def _changes(axes: Axes, rows: list[tuple[str, Pair]], margin: float) -> None:
    """Each with the 95 % interval of a paired difference, by the normal approximation."""
    points = [pair.difference * 100 for _, pair in rows]
    sides = [196 * _deviation(pair) for _, pair in rows]
    axes.axvline(0, color="grey", linewidth=1)
    axes.axvline(-margin * 100, color="tab:red", linestyle=":", linewidth=1)
    axes.errorbar(points, range(len(rows)), xerr=sides, fmt="o", color="tab:blue", capsize=3)
    captions = [f"{name}, n = {pair.rows:,}" for name, pair in rows]
    axes.set_yticks(range(len(rows)), captions, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, challenger less champion (points)", title="dotted: what a class or slice may lose")


def _deviation(pair: Pair) -> float:
    differing = (pair.wins + pair.losses) / pair.rows
    return math.sqrt(max(differing - pair.difference**2, 0) / pair.rows)


def _name(kind: str, name: str) -> str:
    return name if kind == "class" else f"{kind} {name}"


def _wrap(text: str) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= _WRAPPED:
            lines.append("")
        lines[-1] += word + " "
    shown = lines[:3]
    return "\n".join(shown) + ("..." if len(lines) > 3 else "")
