"""Evidence and verdicts -> the report of one judgement: kept as JSON, shown as lines and as a picture."""

import hashlib
import json
import math
import textwrap
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from convoy.evaluation.plots import DRAWN_SLICES
from convoy.release.gates.evidence import Evidence, Measured, Pair
from convoy.release.gates.registry import PublishParams
from convoy.release.gates.verdict import Outcome, Unit, Verdict

FORMAT = 1  # a report of another format is not read: its gates are judged again
_FORMATS: dict[Unit, str] = {
    "share": "{:.2%}",
    "nats": "{:.4f}",
    "difference": "{:.1e}",
    "bytes": "{:,.0f} B",
    "ms": "{:.3f} ms",
    "count": "{:g}",
}
_COLOURS = {"passed": "tab:green", "failed": "tab:red", "undecided": "tab:orange"}
_WRAP_WIDTH = 116  # characters of a sentence on one line


class Party(Measured):
    """A registered version and the digest of its bundle."""

    version: str
    digest: str


class Report(Measured):
    """What was judged, by which limits, and the outcome. `judged_before`: how many earlier reports used this split."""

    format: Literal[1] = 1
    task: str
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
            f"{verdict.gate}: {verdict.sentence}"
            for outcome in order
            for verdict in self.verdicts
            if verdict.outcome == outcome
        ]

    @property
    def figures(self) -> dict[str, float | str]:
        """The figures that a record of the decision should hold."""
        figures: dict[str, float | str] = {"outcome": self.outcome, "gate_split": self.gate_split[:12]}
        for verdict in self.verdicts:
            name = verdict.gate.replace(" ", "_").replace("/", "_")
            figures |= {name: verdict.outcome}
            figures |= {f"{name}_challenger": verdict.challenger} if verdict.challenger is not None else {}
            figures |= {f"{name}_champion": verdict.champion} if verdict.champion is not None else {}
        return figures

    @property
    def title(self) -> str:
        """Which version was judged against which, and the outcome."""
        against = f"against version {self.champion.version}" if self.champion else "without a champion"
        rows = f"{self.evidence.rows:,} rows of the gate split"
        return f"{self.task}: version {self.challenger.version} {against}, {rows}: {self.outcome}"

    def table(self) -> list[str]:
        """The lines of a table: who was judged, and a line for verdict gate."""
        header = ("gate", "champion", "challenger", "limit", "")
        rows = [(verdict.gate, *_format_figures(verdict), verdict.limit, verdict.outcome) for verdict in self.verdicts]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)
        ]
        return [self.title, *(line.rstrip() for line in table)]


def key_of(content: dict[str, Any]) -> str:
    """The sha256 of all that a judgement depends on: challenger, champion, gate split and limits."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **content}, sort_keys=True).encode()).hexdigest()


def _format_figures(verdict: Verdict) -> tuple[str, str]:
    text_format = _FORMATS[verdict.unit]
    champion, challenger = (
        "" if value is None else text_format.format(value) for value in (verdict.champion, verdict.challenger)
    )
    return champion, challenger


def draw(report: Report) -> Figure:
    """The gates on the left, the slices on the right; of many slices, those that lost most."""
    is_compared = report.evidence.paired is not None
    slices = sorted(report.evidence.slices, key=lambda part: part.difference)[:DRAWN_SLICES]
    height = max(1.5 + 0.62 * len(report.verdicts), 2.0 + 0.3 * len(slices))
    figure = Figure(figsize=(14 if is_compared else 8, height), layout="constrained")
    figure.suptitle(report.title, color=_COLOURS[report.outcome], weight="bold")
    widths = [8, 5] if is_compared else [8]
    panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    _draw_verdicts(panels[0], report)
    if report.evidence.paired is not None:
        rows = [("all", report.evidence.paired), *((_slice_name(part.kind, part.name), part) for part in slices)]
        _draw_differences(panels[1], rows, report.limits.max_slice_drop)
    return figure


def _draw_verdicts(axes: Axes, report: Report) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(report.verdicts), 0))
    for row, verdict in enumerate(report.verdicts):
        colour = _COLOURS[verdict.outcome]
        axes.text(0, row + 0.3, verdict.gate, weight="bold", fontsize=9)
        axes.text(0.2, row + 0.3, verdict.outcome, color=colour, weight="bold", fontsize=9)
        axes.text(0, row + 0.4, _wrap_lines(verdict.sentence), fontsize=7.5, va="top")


def _draw_differences(axes: Axes, rows: list[tuple[str, Pair]], margin: float) -> None:
    """Draw each difference with its 95 % interval, by the normal approximation."""
    differences = [pair.difference * 100 for _, pair in rows]
    intervals = [196 * _standard_error(pair) for _, pair in rows]
    axes.axvline(0, color="grey", linewidth=1)
    axes.axvline(-margin * 100, color="tab:red", linestyle=":", linewidth=1)
    axes.errorbar(differences, range(len(rows)), xerr=intervals, fmt="o", color="tab:blue", capsize=3)
    captions = [f"{name}, n = {pair.rows:,}" for name, pair in rows]
    axes.set_yticks(range(len(rows)), captions, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, challenger less champion (points)", title="dotted: what a class or slice may lose")


def _standard_error(pair: Pair) -> float:
    differing = (pair.wins + pair.losses) / pair.rows
    return math.sqrt(max(differing - pair.difference**2, 0) / pair.rows)


def _slice_name(kind: str, name: str) -> str:
    return name if kind == "class" else f"{kind} {name}"


def _wrap_lines(text: str) -> str:
    lines = textwrap.wrap(text, _WRAP_WIDTH)
    return "\n".join(lines[:3]) + ("..." if len(lines) > 3 else "")
