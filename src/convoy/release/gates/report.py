"""Evidence and verdicts -> the report of one judgement: kept as JSON, shown as lines and as a picture."""

import hashlib
import json
import math
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convoy.core.paths import Task
from convoy.evaluation.plots import DRAWN_SLICES
from convoy.release.gates.evidence import Evidence, Measured, Pair, PublishParams
from convoy.release.gates.rules import Outcome, Unit, Verdict

FORMAT = 1  # a report of another format is not read again: its gates are judged anew
_FORMS: dict[Unit, str] = {
    "share": "{:.2%}",
    "nats": "{:.4f}",
    "difference": "{:.1e}",
    "bytes": "{:,.0f} B",
    "ms": "{:.3f} ms",
    "count": "{:g}",
}

matplotlib.rcParams["text.parse_math"] = False  # a label may well hold dollar signs
_COLOURS = {"passed": "tab:green", "failed": "tab:red", "undecided": "tab:orange"}
_WRAPPED = 116  # characters of a sentence on one line


class Party(Measured):
    """A registered version and the digest of its bundle."""

    version: str
    digest: str


class Report(Measured):
    """What was judged, by which limits, and what came of it. `judged_before`: how often this gate split has decided."""

    format: Literal[1] = 1
    task: Task
    challenger: Party
    champion: Party | None
    gate_split: str  # sha256 of its file; empty where it is missing
    judged_before: int
    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    limits: PublishParams
    evidence: Evidence

    @property
    def objections(self) -> list[str]:
        """Why the challenger does not take the champion's place by itself, what failed first; empty where it does."""
        order: tuple[Outcome, ...] = ("failed", "undecided")
        return [
            f"{each.gate}: {each.sentence}" for outcome in order for each in self.verdicts if each.outcome == outcome
        ]

    @property
    def figures(self) -> dict[str, float | str]:
        """The figures that a record of the decision should hold."""
        found: dict[str, float | str] = {"outcome": self.outcome, "gate_split": self.gate_split[:12]}
        for each in self.verdicts:
            name = each.gate.replace(" ", "_").replace("/", "_")
            found |= {name: each.outcome}
            found |= {f"{name}_challenger": each.challenger} if each.challenger is not None else {}
            found |= {f"{name}_champion": each.champion} if each.champion is not None else {}
        return found

    @property
    def title(self) -> str:
        """Who was judged against whom, and what came of it."""
        against = f"against version {self.champion.version}" if self.champion else "without a champion"
        rows = f"{self.evidence.rows:,} rows of the gate split"
        return f"{self.task}: version {self.challenger.version} {against}, {rows}: {self.outcome}"

    def table(self) -> list[str]:
        """The lines of a table: who was judged, and a line for each gate."""
        head = ("gate", "champion", "challenger", "limit", "")
        rows = [(each.gate, *_shown(each), each.limit, each.outcome) for each in self.verdicts]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return [self.title, *(line.rstrip() for line in table)]


def key_of(content: dict[str, Any]) -> str:
    """The sha256 of all that a judgement hangs on: who is judged, against whom, on what and by which limits."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **content}, sort_keys=True).encode()).hexdigest()


def _shown(verdict: Verdict) -> tuple[str, str]:
    form = _FORMS[verdict.unit]
    champion, challenger = (
        "" if value is None else form.format(value) for value in (verdict.champion, verdict.challenger)
    )
    return champion, challenger


def draw(report: Report) -> Figure:
    """The gates on the left, the slices on the right; of many slices those that lost most."""
    compared = report.evidence.paired is not None
    slices = sorted(report.evidence.slices, key=lambda one: one.difference)[:DRAWN_SLICES]
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
