"""A history -> what `python -m convoy history` prints of it, for people and for programs."""

import json
from pathlib import Path
from typing import Any

from convoy.core.process import Say
from convoy.release.decision import Decision, History, Mark


def print_history(history: History, path: Path, as_json: bool, say: Say) -> None:
    """Print each decision, the oldest first, and the number of lines that a kill has cut off."""
    marks = {mark.of: mark for mark in history.marks}
    for decision in history.decisions:
        mark = marks.get(decision.number)
        if as_json:
            outcome = mark.model_dump(mode="json", include={"kind", "at", "who", "why"}) if mark else None
            content = {**decision.model_dump(mode="json", by_alias=True), "outcome": outcome}
            say(json.dumps(content, ensure_ascii=False))
        else:
            for line in _decision_lines(decision, mark):
                say(line)
    if as_json:
        return
    if not history.decisions:
        say(f"{path} holds no decision yet; `python -m convoy publish` makes the first")
    if history.torn:
        say(f"{path} holds {history.torn} lines that a kill has cut off; they decided nothing and stay there")


def _decision_lines(decision: Decision, mark: Mark | None) -> list[str]:
    at = decision.at[:19].replace("T", " ")
    lines = [
        f"{at} UTC  {decision.kind:<10}  {decision.before or 'nothing'} -> {decision.after}  by {decision.who}",
        f"    why      {decision.why}",
    ]
    for number, line in enumerate(_figure_lines(decision.figures)):
        lines.append(f"    {'' if number else 'figures':<7}  {line}")
    details = {"report": decision.gate_report, "git": decision.revision and decision.revision[:12]}
    lines += [f"    {name:<7}  {value}" for name, value in details.items() if value]
    if mark is not None and mark.why:
        lines.append(f"    {mark.kind:<7}  {mark.at[:19].replace('T', ' ')} UTC by {mark.who}: {mark.why}")
    return lines


def _figure_lines(figures: dict[str, Any]) -> list[str]:
    """A line of the figures without a gate, and one for each gate with the figures of both models.

    A history keeps them flat: the figure of one model is named after the gate and the side.
    """
    lines, remaining = [], dict(figures)
    for gate in figures:
        sides = {
            side: remaining.pop(f"{gate}_{side}")
            for side in ("challenger", "champion")
            if f"{gate}_{side}" in remaining
        }
        if sides:
            lines.append(f"{gate} {remaining.pop(gate)}: {_join_figures(sides)}")
    return [line for line in (_join_figures(remaining), *lines) if line]


def _join_figures(figures: dict[str, Any], prefix: str = "") -> str:
    """Figures in one line: names joined by dots, numbers with four digits."""
    parts = []
    for name, value in figures.items():
        if isinstance(value, dict):
            parts.append(_join_figures(value, f"{prefix}{name}."))
        elif isinstance(value, float):
            parts.append(f"{prefix}{name} {value:.4g}")
        else:
            parts.append(f"{prefix}{name} {value}")
    return ", ".join(part for part in parts if part)
