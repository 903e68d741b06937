"""Findings and the items they show -> one HTML page that needs nothing else, runs nothing and believes no text."""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from convoy.core.png import encode_png
from convoy.data.findings import Findings
from convoy.data.inspection import LABELS_WITH_SAMPLES

EXCERPT_CHARACTERS = 300
NAME_CHARACTERS = 120
Shown = NDArray[np.uint8] | str


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
    environment.filters |= {"count": _count, "percent": _percent, "number": _number, "clip": _clip}
    template = environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
    html = template.render(
        f=findings,
        title=title,
        style=Markup(style),
        style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        pictures={index: _data_url(item) for index, item in shown.items() if not isinstance(item, str)},
        texts={index: _clip(item, EXCERPT_CHARACTERS) for index, item in shown.items() if isinstance(item, str)},
        kept=sum(sum(of_split.values()) for of_split in findings.counts.values()),
        labels_with_samples=LABELS_WITH_SAMPLES,
    )
    return html.encode("utf-8")


def _data_url(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()


def _clip(text: str, characters: int = NAME_CHARACTERS) -> str:
    return text if len(text) <= characters else text[:characters] + " \u2026"


def _printable(value: Any) -> Any:
    """What goes into the page, without the characters that no page may hold: control characters, lone surrogates."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    printable = "".join(each if each >= " " and not "\x7f" <= each <= "\x9f" else " " for each in value)
    return printable.encode("utf-8", "replace").decode("utf-8")


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:,.6g}"
