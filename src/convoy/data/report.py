"""A census -> the report of the data, for people and for programs, and its judgement by the limits of params.yaml."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from convoy.core import atomic, paths
from convoy.core.paths import Task
from convoy.data.census import Census
from convoy.data.findings import Findings
from convoy.data.inspection import find
from convoy.data.limits import PreflightLimits, violations
from convoy.data.page import Shown, render
from convoy.data.raw import REJECTED, explain, to_csv
from convoy.data.splits import DivisionRefused
from convoy.sources.items import Rejection


class DataRefused(ValueError):
    """Findings pass a limit; the message has a sentence for each, and says where the report is."""


@contextmanager
def rejections_told(task: Task, rejections: Sequence[Rejection]) -> Iterator[None]:
    """Around the division: where that is refused, rejected.csv is written all the same, and the error counts its lines.

    A label may be too rare because its files are broken. DVC does not keep what a failed stage wrote, but leaves it.
    """
    try:
        yield
    except DivisionRefused as error:
        path = _write_rejected(task, rejections)
        told = f"{error}\n  before that: {explain(list(rejections))}; {path} names each with its reason"
        raise type(error)(told) from None


def write_report(task: Task, census: Census, limits: PreflightLimits, show: Callable[[int], Shown]) -> Findings:
    """Write data.html, findings.json and rejected.csv; `show` gives the pixels or the text of an item of the census.

    rejected.csv has, after what could not be used, each item that is left out as a copy; those over a max it has not.
    Raises DataRefused after that, so that the page says more than the message can.
    """
    folder = paths.reports(task)
    findings = find(census)
    shown = {index: show(index) for index in findings.items_to_show()}
    atomic.write_bytes(folder / "data.html", render(findings, shown, f"{task}: the data"))
    atomic.write_json(folder / "findings.json", findings.model_dump(mode="json"))
    _write_rejected(task, [*census.rejections, *_copies(census)])
    print(f"{task}: {explain(list(census.rejections))}; {folder / 'data.html'} has what was found")
    section = "prepare_images" if task == "image" else "prepare_text"
    found = violations(findings, limits, f"{section}.limits")
    if found:
        raise DataRefused("\n  ".join([f"the data passes a limit; see {folder / 'data.html'}", *found]))
    return findings


def _copies(census: Census) -> Iterator[Rejection]:
    """A line for each item that is left out as a copy, with another item that has its content."""
    split_of, splits, labels = census.split_of, list(census.splits), census.labels.tolist()
    wanted = {census.keys[item] for item in census.copies}
    originals: dict[bytes, int] = {}  # by content, the first that is no copy; items whose labels disagree have none
    labelled: dict[bytes, dict[int, int]] = {}  # by content, the first of each label
    for item, key in enumerate(census.keys):
        if key in wanted:
            labelled.setdefault(key, {}).setdefault(labels[item], item)
            if item not in census.copies:
                originals.setdefault(key, item)
    for item, code in sorted(census.copies.items()):
        key, label = census.keys[item], labels[item]
        if key in originals:
            other = originals[key]
            split = int(split_of[other])
            told = f"is in {splits[split]}" if split >= 0 else "is over the max of its split"
        else:
            other = next(first for its_label, first in labelled[key].items() if its_label != label)
            told = f"has the label {census.label_names[labels[other]]!r}, not {census.label_names[label]!r}"
        yield Rejection(
            census.names[item], code, f"has the content of {census.names[other]}, which {told}", ignored=True
        )


def _write_rejected(task: Task, rejections: Sequence[Rejection]) -> Path:
    path = paths.reports(task) / REJECTED
    atomic.write_bytes(path, to_csv(list(rejections)))
    return path


def summary(findings: Findings, raw: int) -> dict[str, object]:
    """What `dvc metrics show` tells of the data."""
    return {
        "raw": raw,
        "rejected": findings.rejected.items,
        "dropped": findings.dropped,
        "leaked": {split: leak.items for split, leak in findings.near.leaked.items()},
        "splits": {split: {"n": sum(counts.values()), **counts} for split, counts in findings.counts.items()},
    }
