"""All that was measured -> the report: a page for people, its numbers for programs, and curves for `dvc plots`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from convoy.core import atomic, stage
from convoy.core.params import read_section
from convoy.core.paths import DATA_KINDS
from lab import contents, figures, page
from lab.contents import Asked, ReportParams, Section
from lab.figures import Figure
from lab.layout import FAMILIES, PARAMS, REPORT
from lab.memory import MemoryParams
from lab.negation import NegationParams
from lab.order import OrderParams
from lab.results import Results
from lab.space import SpaceParams


def main() -> None:
    """Judge, draw, write."""
    results = Results.read()
    asked = Asked(
        space=read_section(SpaceParams, "space", path=PARAMS),
        order=read_section(OrderParams, "order", path=PARAMS),
        negation=read_section(NegationParams, "negation", path=PARAMS),
        memory=read_section(MemoryParams, "memory", path=PARAMS),
        report=read_section(ReportParams, "report", path=PARAMS),
    )
    sections = contents.sections(results, asked)
    seeds = len(results.image["cnn"]["seeds"])
    for figure in [*_figures(sections), *(figures.of_losses(results, task) for task in DATA_KINDS)]:
        atomic.write_bytes(REPORT / "curves" / f"{figure.name}.csv", figure.to_csv())
    atomic.write_json(REPORT / "accuracy.json", accuracies(results))
    atomic.write_json(REPORT / "numbers.json", numbers(results, sections))
    atomic.write_bytes(REPORT / "index.html", page.render(sections, asked.report, seeds))
    for verdict in (verdict for section in sections for verdict in section.all_verdicts):
        print(verdict.sentence)


def accuracies(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> family -> accuracy with its interval: what `dvc metrics` compares."""
    return {
        task: {
            family: {"accuracy": found.mean, "low": found.low, "high": found.high}
            for family in FAMILIES
            for found in [results.accuracy(task, family)]
        }
        for task in DATA_KINDS
    }


def numbers(results: Results, sections: list[Section]) -> dict[str, Any]:
    """Everything that the page shows: costs, verdicts, curves with the values of each seed."""
    return {
        "costs": {task: {family: results.of(task)[family]["cost"] for family in FAMILIES} for task in DATA_KINDS},
        "accuracy": accuracies(results),
        "verdicts": [asdict(verdict) for section in sections for verdict in section.all_verdicts],
        "figures": {figure.name: asdict(figure) for figure in _figures(sections)},
    }


def _figures(sections: list[Section]) -> Iterator[Figure]:
    return (figure for section in sections for probe in section.probes for figure in probe.figures)


if __name__ == "__main__":
    stage.run(main)
