"""README.md, ARCHITECTURE.md, EXTENDING.md and docs/ name only targets that exist, and figures of the reports."""

import json
import re
from pathlib import Path

PAGES = (*map(Path, ("README.md", "ARCHITECTURE.md", "EXTENDING.md")), *sorted(Path("docs").glob("*.md")))
TEXT = "\n".join(page.read_text() for page in PAGES)


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", TEXT)) - {"predictions"} <= targets


def test_no_figure_is_left_to_fill_in() -> None:
    assert not re.findall(r"@[A-Z]+@", TEXT)


def test_the_laboratory_is_told_as_its_report_has_it() -> None:
    told = " ".join(TEXT.split())
    numbers = json.loads(Path("reports/compare/numbers.json").read_bytes())
    outcomes = [verdict["outcome"] for verdict in numbers["verdicts"] if not verdict["unfair"]]
    held, not_held, not_shown = (outcomes.count(each) for each in ("held", "did not hold", "not shown"))
    assert f"{len(numbers['verdicts'])} things that people say are judged" in told
    assert f"**{len(numbers['verdicts']) - len(outcomes)} of these verdicts rest" in told
    assert f"**{held} held, {not_held} did not, {not_shown} are neither shown nor refuted**" in told
    assert "76 times" not in told and "31.8 points" not in told
    for family in (each for of_task in numbers["accuracy"].values() for each in of_task.values()):
        mean, low, high = (f"{100 * family[name]:.1f}" for name in ("accuracy", "low", "high"))
        assert f"{mean} % ({low} to {high})" in told
