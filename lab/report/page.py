"""The contents of the report -> one HTML page that needs nothing else, runs nothing, and shows light and dark."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from lab.learning.measuring import BATCHED
from lab.report import drawing
from lab.report.contents import ReportParams, Section
from lab.report.figures import Figure
from lab.report.verdicts import OUTCOMES


def render(sections: Sequence[Section], params: ReportParams, seeds: int) -> bytes:
    """The page as UTF-8; the same content gives the same bytes."""
    files = resources.files("lab.report")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"draw": drawing.draw, "sample": drawing.sample, "rows": _rows, "code": _code}
    template = environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
    verdicts = [verdict for section in sections for verdict in section.all_verdicts]
    html = template.render(
        sections=sections,
        counts={outcome: sum(each.outcome == outcome for each in verdicts) for outcome in OUTCOMES},
        unfair_tests=list(dict.fromkeys(verdict.unfair for verdict in verdicts if verdict.unfair)),
        unfair_count=sum(bool(verdict.unfair) for verdict in verdicts),
        seeds=seeds,
        batched=BATCHED,
        margin_points=f"{100 * params.margin:g}",
        order_margin=params.order_margin,
        style=Markup(style),
        style_sha256=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )
    return html.encode("utf-8")


def _code(text: str) -> Markup:
    """A claim, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(Markup(part)) if index % 2 else Markup(part)
        for index, part in enumerate(parts)
    )


def _rows(figure: Figure) -> list[list[str]]:
    """A row per x, a cell per curve: the mean over seeds."""
    means = [{x: mean for x, mean, _, _ in one.points} for one in figure.series]
    words = dict(figure.words)

    def cell(value: float | None) -> str:
        if value is None:
            return ""
        return f"{100 * value:.1f} %" if figure.percent else f"{value:.3g}"

    every_x = sorted({x for of_one in means for x in of_one})
    return [[words.get(x, f"{x:,.6g}"), *(cell(of_one.get(x)) for of_one in means)] for x in every_x]
