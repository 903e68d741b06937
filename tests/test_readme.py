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


def test_the_table_of_figures_is_the_reports() -> None:
    lines = [line for line in Path("README.md").read_text().replace("*", "").splitlines() if line.startswith("|")]
    rows = [cells for line in lines if len(cells := [cell.strip() for cell in line.split("|")[1:-1]]) == 7]
    told = {(data, re.split("[,(]", model)[0].strip(), accuracy, loss) for data, model, _, accuracy, loss, *_ in rows}
    for data, task in (("Fashion-MNIST", "fashion"), ("IMDB reviews", "reviews")):
        candidates = json.loads(Path("reports", task, "test.json").read_bytes())["candidates"]
        for name, figures in candidates.items():
            network = name.removeprefix(f"{task}-").upper()
            assert (data, network, _interval(figures), f"{figures['log_loss']:.3f}") in told
        for name, figures in json.loads(Path("reports/baselines", task, "figures.json").read_bytes()).items():
            assert (data, name, _interval(figures), "") in told
    stream = json.loads(Path("reports/reviews-stream/test.json").read_bytes())
    assert ("IMDB reviews", "LSTM", _interval(stream), f"{stream['log_loss']:.3f}") in told


def _interval(figures: dict[str, float]) -> str:
    accuracy, low, high = (f"{100 * figures[name]:.1f}" for name in ("accuracy", "low", "high"))
    return f"{accuracy} % ({low} to {high})"


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
