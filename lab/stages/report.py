"""All that was measured -> the report: a page for people, its numbers for programs, and curves for `dvc plots`."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from convoy.core import atomic, stage
from convoy.core.params import read_section
from lab.images.space import SpaceParams
from lab.layout import FAMILIES, KINDS, PARAMS, REPORT
from lab.memory import MemoryParams
from lab.report import contents, figures, page
from lab.report.contents import Asked, ReportParams, Section
from lab.report.figures import Figure
from lab.report.results import Results
from lab.texts.negation import NegationParams
from lab.texts.order import OrderParams


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
    for figure in [*_figures(sections), *(figures.of_losses(results, kind) for kind in KINDS)]:
        atomic.write_bytes(REPORT / "curves" / f"{figure.name}.csv", figure.to_csv())
    atomic.write_json(REPORT / "accuracy.json", accuracies(results))
    atomic.write_json(REPORT / "numbers.json", numbers(results, sections))
    atomic.write_bytes(REPORT / "index.html", page.render(sections, asked.report, seeds))
    for verdict in (verdict for section in sections for verdict in section.all_verdicts):
        print(verdict.sentence)


def accuracies(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Kind of data -> family -> accuracy with its interval: what `dvc metrics` compares."""
    return {
        kind: {
            family: {"accuracy": found.mean, "low": found.low, "high": found.high}
            for family in FAMILIES
            for found in [results.accuracy(kind, family)]
        }
        for kind in KINDS
    }


def numbers(results: Results, sections: list[Section]) -> dict[str, Any]:
    """Everything that the page shows: costs, verdicts, curves with the values of each seed."""
    return {
        "costs": {kind: {family: results.of(kind)[family]["cost"] for family in FAMILIES} for kind in KINDS},
        "accuracy": accuracies(results),
        "verdicts": [asdict(verdict) for section in sections for verdict in section.all_verdicts],
        "figures": {figure.name: asdict(figure) for figure in _figures(sections)},
    }


def _figures(sections: list[Section]) -> Iterator[Figure]:
    return (figure for section in sections for probe in section.probes for figure in probe.figures)


if __name__ == "__main__":
    stage.run(main)
