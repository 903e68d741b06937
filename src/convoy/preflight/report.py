"""A census -> the report of the data, for people and for programs, and its judgement by the limits of params.yaml."""

from collections.abc import Callable

from convoy import atomic, layout
from convoy.layout import Task
from convoy.preflight.census import Census
from convoy.preflight.findings import Findings
from convoy.preflight.inspection import find
from convoy.preflight.limits import PreflightLimits, violations
from convoy.preflight.page import Shown, render
from convoy.raw import explain, to_csv


class DataRefused(ValueError):
    """Findings pass a limit; the message has a sentence for each, and says where the report is."""


def write_report(task: Task, census: Census, limits: PreflightLimits, show: Callable[[int], Shown]) -> Findings:
    """Write data.html, findings.json and rejected.csv; `show` gives the pixels or the text of an item of the census.

    Raises DataRefused after that, so that the page says more than the message can.
    """
    folder = layout.reports(task)
    findings = find(census)
    shown = {index: show(index) for index in findings.items_to_show()}
    atomic.write_bytes(folder / "data.html", render(findings, shown, f"{task}: the data"))
    atomic.write_json(folder / "findings.json", findings.model_dump(mode="json"))
    atomic.write_bytes(folder / "rejected.csv", to_csv(list(census.rejections)))
    print(f"{task}: {explain(list(census.rejections))}; {folder / 'data.html'} has what was found")
    section = "prepare_images" if task == "image" else "prepare_text"
    found = violations(findings, limits, f"{section}.limits")
    if found:
        raise DataRefused("\n  ".join([f"the data passes a limit; see {folder / 'data.html'}", *found]))
    return findings


def summary(findings: Findings, raw: int) -> dict[str, object]:
    """What `dvc metrics show` tells of the data."""
    return {
        "raw": raw,
        "rejected": findings.rejected.items,
        "dropped": findings.dropped,
        "leaked": {split: leak.items for split, leak in findings.near.leaked.items()},
        "splits": {split: {"n": sum(counts.values()), **counts} for split, counts in findings.counts.items()},
    }
