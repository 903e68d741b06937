"""The report is one page that needs nothing else, from whatever was measured."""

import csv
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from lab_results import SEEDS, as_people_say, the_other_way_round
from test_lab_verdicts import asked

from lab.report import contents, drawing, figures, page
from lab.report.figures import Figure, Series
from lab.report.results import Results
from lab.stages import report

pytestmark = pytest.mark.torch


def render(results: Results) -> str:
    return page.render(contents.sections(results, asked()), asked().report, SEEDS).decode()


@pytest.fixture(scope="module")
def html() -> str:
    return render(as_people_say())


def test_the_page_loads_and_runs_nothing(html: str) -> None:
    assert not re.findall(r"<script|<link|<img|<iframe|src=|href=|url\(|@import|\bon[a-z]+=", html)
    assert "default-src 'none'" in html and len(html) < 2_000_000


def test_the_page_says_every_verdict_and_counts_them(html: str) -> None:
    found = [each for section in contents.sections(as_people_say(), asked()) for each in section.all_verdicts]
    assert html.count('<span class="held">held</span>') == len(found)
    assert f'<strong class="held">{len(found)}</strong>' in html
    other = render(the_other_way_round())
    assert other.count('<span class="did-not-hold">did not hold</span>') == len(found) - 1


def test_every_tag_is_closed(html: str) -> None:
    stack: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag, f"{self.getpos()}: </{tag}>"

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Reader().feed(html)
    assert stack == []


def test_the_same_figures_give_the_same_bytes(html: str) -> None:
    assert render(as_people_say()) == html


@pytest.mark.parametrize("x_scale", ["linear", "log", "steps"])
@pytest.mark.parametrize("y_scale", ["linear", "log"])
def test_every_curve_lies_within_its_picture(x_scale: figures.Scale, y_scale: figures.Scale) -> None:
    series = Series("cnn", (1, 10, 500), ((1e-9, 0.5, 1.0), (2e-9, 0.4, 0.9)))
    svg = ElementTree.fromstring(drawing.draw(Figure("f", "F", "x", "y", (series,), x_scale, y_scale, False)))
    (line,) = svg.findall("polyline")
    for pair in line.attrib["points"].split():
        x, y = map(float, pair.split(","))
        assert drawing.LEFT <= x <= drawing.WIDTH - drawing.RIGHT and 0 <= y <= drawing.HEIGHT - drawing.BOTTOM + 0.1
    assert len(svg.findall("text")) > 4


def test_a_figure_of_one_value_can_be_drawn() -> None:
    flat = Series("rnn", (0, 1), ((0.0, 0.0), (0.0, 0.0)))
    assert "polyline" in drawing.draw(Figure("f", "F", "x", "y", (flat,)))


def test_a_band_goes_from_the_least_to_the_greatest_seed() -> None:
    assert Series("cnn", (1.0,), ((0.2,), (0.4,), (0.9,))).points == [(1.0, pytest.approx(0.5), 0.2, 0.9)]


def test_a_mean_over_powers_of_ten_is_geometric() -> None:
    assert Series("rnn", (1.0,), ((1.0,), (1e-10,)), geometric=True).points == [(1.0, pytest.approx(1e-5), 1e-10, 1.0)]
    assert all(one.geometric for one in figures.of_gradients(as_people_say(), "trained").series)


def test_curves_are_tables_that_dvc_can_plot() -> None:
    rows = list(csv.DictReader(io.StringIO(figures.of_shift(as_people_say()).to_csv().decode())))
    assert [row["x"] for row in rows] == ["0", "3"] and float(rows[1]["cnn"]) == pytest.approx(0.895, abs=1e-3)


def test_the_numbers_have_all_that_the_page_shows() -> None:
    found = as_people_say()
    numbers = report.numbers(found, contents.sections(found, asked()))
    assert numbers["accuracy"]["text"]["lstm"]["accuracy"] == pytest.approx(0.92)
    assert {"shift", "hide", "permuted", "sizes", "shuffle", "memory", "negation"} <= set(numbers["figures"])
    assert all(verdict["outcome"] == "held" for verdict in numbers["verdicts"])


def test_the_top_names_the_unfair_tests(html: str) -> None:
    verdicts = [each for section in contents.sections(as_people_say(), asked()) for each in section.all_verdicts]
    marked = [verdict for verdict in verdicts if verdict.unfair]
    assert {verdict.claim for verdict in marked} >= {
        "A CNN bears a shift better than a feed-forward network",
        "A CNN lives on what is beside what",
        "A CNN needs fewer weights than a feed-forward network for the same accuracy",
        "Recurrent networks suit texts better than CNNs",
        "The LSTM lets `not` turn what follows at once",
        "The LSTM remembers longer than the Elman RNN",
    }
    assert not any(verdict.unfair for verdict in verdicts if "bag of words order" in verdict.claim)
    top, _, rest = html.partition("<h2>Six families")
    assert f"{len(marked)} of these verdicts rest on a test that cannot settle their claim" in top
    assert len(re.findall("Unfair test: see [1-5] at the top", rest)) == len(marked)
    reasons = re.search("<ol>(.*?)</ol>", top)
    assert reasons and reasons[1].count("<li>") == len({verdict.unfair for verdict in marked}) == 5
