"""Evidence and verdicts -> the report of one judgement: kept as JSON, shown as lines, its figures for a record."""

import hashlib
import json
from typing import Any, Literal

from convoy.core.paths import Task
from convoy.release.gates.evidence import Evidence, Measured
from convoy.release.gates.limits import PublishParams
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
