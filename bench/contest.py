"""Contestants that take turns, round by round -> every round's figures and the median of their ratios."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from tqdm import tqdm

Figures = float | Mapping[str, float]  # one figure of a contestant's, or several by their names


@dataclass(frozen=True)
class Ratio:
    """One figure over another, and the least (or, with `at_most`, the most) that it should be; None is only told."""

    over: str
    under: str
    goal: float | None
    at_most: bool = False

    def met(self, found: float) -> bool | None:
        """Whether the goal is reached."""
        if self.goal is None:
            return None
        return found <= self.goal if self.at_most else found >= self.goal


@dataclass(frozen=True)
class Contest:
    """Contestants, each giving its figure anew at each call, and the ratios that are asked for."""

    unit: str
    rounds: int
    contestants: Mapping[str, Callable[[], Figures]]
    ratios: dict[str, Ratio]


def hold(contest: Contest, title: str) -> dict[str, Any]:
    """Let all take turns, after a round that does not count; gives a report per ratio.

    Every other round goes in reverse order: who runs second, on a warmer machine, is not always the same one.
    A ratio is taken within a round, so that what slows the machine for a minute slows both.
    """
    rounds: list[dict[str, float]] = []
    names = list(contest.contestants)
    with tqdm(total=(contest.rounds + 1) * len(names), desc=title, mininterval=0) as bar:
        for number in range(contest.rounds + 1):
            figures: dict[str, float] = {}
            for name in names if number % 2 else reversed(names):
                bar.set_postfix_str(f"round {number} of {contest.rounds}: {name}")
                found = contest.contestants[name]()
                figures |= found if isinstance(found, Mapping) else {name: found}
                bar.update()
            rounds.append({name: round(figure, 4) for name, figure in figures.items()})
    counted = rounds[1:]
    return {name: _judge(ratio, contest.unit, counted) for name, ratio in contest.ratios.items()}


def _judge(ratio: Ratio, unit: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    each = sorted(row[ratio.over] / row[ratio.under] for row in rounds)
    middle = round(median(each), 3)
    return {
        "ratio": middle,
        "lowest": round(each[0], 3),
        "highest": round(each[-1], 3),
        "goal": ratio.goal,
        "at_most": ratio.at_most,
        "met": ratio.met(middle),
        "unit": unit,
        "over": ratio.over,
        "under": ratio.under,
        "rounds": [{name: row[name] for name in (ratio.over, ratio.under)} for row in rounds],
    }


def table(results: dict[str, Any]) -> str:
    """A line per ratio, for the terminal."""
    lines = [f"{'':<44}{'ratio':>7}  {'rounds':<15}{'goal':>7}"]
    for name, result in results.items():
        spread = f"{result['lowest']:g} to {result['highest']:g}"
        goal = "" if result["goal"] is None else f"{'<=' if result['at_most'] else '>='}{result['goal']:g}"
        met = {True: "met", False: "MISSED", None: ""}[result["met"]]
        lines.append(f"{name:<44}{result['ratio']:>7g}  {spread:<15}{goal:>7}  {met}".rstrip())
    return "\n".join(lines)
