"""A census -> the data report: JSON, an HTML page without scripts, rejected.csv; refused past params.yaml's limits."""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from convoy.core import atomic, paths
from convoy.core.png import encode_png
from convoy.data.census import Census
from convoy.data.findings import Findings, PreflightLimits, percent, violations
from convoy.data.inspection import LABELS_WITH_SAMPLES, inspect_census
from convoy.data.raw import REJECTED, explain, to_csv
from convoy.data.splits import DivisionRefused
from convoy.sources.items import Rejection

EXCERPT_CHARACTERS = 300
NAME_CHARACTERS = 120
Shown = NDArray[np.uint8] | str


class DataRefused(ValueError):
    """Findings pass a limit; the message has a sentence for each such limit, and names the report."""


def write_report(
    data: str, census: Census, limits: PreflightLimits, section: str, show: Callable[[int], Shown]
) -> Findings:
    """Write data.html, findings.json and rejected.csv; `show` returns the pixels or the text of an item of the census.
    `section` of params.yaml has the limits.

    rejected.csv has the rejections, then each item that is left out as a copy, but not the items over a max. Raises
    DataRefused after all files are written: the page says more than the message can.
    """
    folder = paths.data_reports(data)
    findings = inspect_census(census)
    shown = {index: show(index) for index in findings.items_to_show()}
    atomic.write_bytes(folder / "data.html", render(findings, shown, f"{data}: the data"))
    atomic.write_json(folder / "findings.json", findings.model_dump(mode="json"))
    _write_rejected(data, [*census.rejections, *_list_copies(census)])
    print(f"{data}: {explain(list(census.rejections))}; {folder / 'data.html'} has what was found")
    violated = violations(findings, limits, f"{section}.limits")
    if violated:
        raise DataRefused("\n  ".join([f"the data passes a limit; see {folder / 'data.html'}", *violated]))
    return findings


@contextmanager
def rejections_reported(data: str, rejections: Sequence[Rejection]) -> Iterator[None]:
    """Run the division in this context: where it is refused, rejected.csv is written, and the error counts its lines.

    A label may be rare because its files are broken. DVC leaves the output of a failed stage, but does not track it.
    """
    try:
        yield
    except DivisionRefused as error:
        path = _write_rejected(data, rejections)
        message = f"{error}\n  before that: {explain(list(rejections))}; {path} names each with its reason"
        raise type(error)(message) from None


def summary(findings: Findings, raw: int) -> dict[str, object]:
    """What `dvc metrics show` prints about the data."""
    return {
        "raw": raw,
        "rejected": findings.rejected.items,
        "dropped": findings.dropped,
        "leaked": {split: leak.items for split, leak in findings.near.leaked.items()},
        "splits": {split: {"n": sum(counts.values()), **counts} for split, counts in findings.counts.items()},
    }


def render(findings: Findings, shown: Mapping[int, Shown], title: str) -> bytes:
    """The page as UTF-8; the same content gives the same bytes.

    `shown` has for each of `findings.items_to_show()` the prepared pixels (size, size, channels) uint8, or the text;
    an item that it lacks is shown by its name alone.
    """
    files = resources.files("convoy.data")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    formats = {"count": _format_count, "percent": percent, "number": _format_number, "clip": _shorten}
    environment.filters |= formats
    template = environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
    html = template.render(
        findings=findings,
        title=title,
        style=Markup(style),
        style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        pictures={index: _data_url(item) for index, item in shown.items() if not isinstance(item, str)},
        texts={index: _shorten(item, EXCERPT_CHARACTERS) for index, item in shown.items() if isinstance(item, str)},
        kept=sum(sum(of_split.values()) for of_split in findings.counts.values()),
        labels_with_samples=LABELS_WITH_SAMPLES,
    )
    return html.encode("utf-8")


def _list_copies(census: Census) -> Iterator[Rejection]:
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
            original = originals[key]
            split = int(split_of[original])
            reason = f"is in {splits[split]}" if split >= 0 else "is over the max of its split"
        else:
            original = next(first for its_label, first in labelled[key].items() if its_label != label)
            reason = f"has the label {census.label_names[labels[original]]!r}, not {census.label_names[label]!r}"
        yield Rejection(
            census.names[item], code, f"has the content of {census.names[original]}, which {reason}", ignored=True
        )


def _write_rejected(data: str, rejections: Sequence[Rejection]) -> Path:
    path = paths.data_reports(data) / REJECTED
    atomic.write_bytes(path, to_csv(list(rejections)))
    return path


def _data_url(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()


def _shorten(text: str, characters: int = NAME_CHARACTERS) -> str:
    return text if len(text) <= characters else text[:characters] + " \u2026"


def _printable(value: Any) -> Any:
    """A value for the page, without the characters that no page may hold: control characters, lone surrogates."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    printable = "".join(
        character if character >= " " and not "\x7f" <= character <= "\x9f" else " " for character in value
    )
    return printable.encode("utf-8", "replace").decode("utf-8")


def _format_count(value: int) -> str:
    return f"{value:,}"


def _format_number(value: Any) -> str:
    return "none" if value is None else f"{value:,.6g}"
