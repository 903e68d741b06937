"""The page needs nothing else, runs nothing, takes no text for markup, and stays readable for 1,000 labels."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
from preflight_censuses import image_census, planted_texts, text_census

from convoy.data.census import Census
from convoy.data.inspection import LABELS_WITH_SAMPLES, SAMPLES_PER_LABEL, inspect_census
from convoy.data.report import Shown, render
from convoy.kinds.preparing.kind import NearPair, NearPairs
from convoy.sources.items import Rejection

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"' {{ 7 * 7 }} \u202e \x00\x1b \ud800 &amp;"


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def page_of(census: Census, shown: dict[int, Shown] | None = None) -> bytes:
    return render(inspect_census(census), shown or {}, "What was prepared")


def hostile_census() -> Census:
    near = NearPairs((NearPair(0, 2, 0.1),), HOSTILE)
    return text_census(
        [HOSTILE, HOSTILE, HOSTILE + "2"],
        [0, 0, 1],
        names=[HOSTILE] * 3,
        label_names=(HOSTILE, HOSTILE + "other"),
        splits={"train": np.array([0]), "test": np.array([2])},
        near=near,
        rejections=[Rejection(HOSTILE, "blank_text", HOSTILE)],
        dropped={HOSTILE: 1},
    )


def test_hostile_names_labels_and_texts_stay_text() -> None:
    page = page_of(hostile_census(), dict.fromkeys(range(3), HOSTILE))
    reader = Reader(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "iframe", "object", "link", "form", "a", "base"}
    assert not [tag for tag, attributes in reader.tags if any(name.startswith("on") for name in attributes)]
    assert all(
        (attributes["src"] or "").startswith("data:image/png;base64,")
        for tag, attributes in reader.tags
        if tag == "img"
    )
    assert reader.text.count("<script>alert(1)</script>") >= 10
    assert "{{ 7 * 7 }}" in reader.text
    assert not {"\x00", "\x1b"} & set(reader.text)


def test_the_policy_allows_nothing_but_the_pages_own_style_and_pictures() -> None:
    reader = Reader(page_of(planted_texts()))
    (policy,) = [a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", page_of(planted_texts()).decode(), re.DOTALL)
    assert policy is not None and style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}';")
    assert not [tag for tag, attributes in reader.tags if "style" in attributes]


def test_every_tag_is_closed_where_it_was_opened() -> None:
    for page in (page_of(planted_texts()), page_of(image_census(10)), page_of(hostile_census())):
        assert Reader(page).open == []


def test_it_says_what_was_found() -> None:
    text = " ".join(Reader(page_of(planted_texts())).text.split())
    for fact in (
        "20 items, 18 kept in 3 splits, 3 inputs rejected",
        "different labels: 2 items in 1 groups, 10 % of all",
        "source: the label changes 1 times from one item to the next",
        "sorted by label ; a training takes the order of train, below",
        "4 pairs, 1 of them with different labels",
        "table.csv:50 the text is empty",
    ):
        assert fact in text, fact


def test_pictures_are_shown_for_samples_and_near_duplicates() -> None:
    findings = inspect_census(image_census(40))
    shown: dict[int, Shown] = {index: np.full((28, 28, 1), index, np.uint8) for index in findings.items_to_show()}
    images = [tag for tag, _ in Reader(render(findings, shown, "Images")).tags if tag == "img"]
    assert len(images) == 2 * SAMPLES_PER_LABEL + 2
    assert len(shown) == 2 * SAMPLES_PER_LABEL + 1  # one of the pair is a sample too


def test_colour_pictures_are_shown_as_well() -> None:
    findings = inspect_census(image_census(4))
    shown: dict[int, Shown] = {index: np.zeros((28, 28, 3), np.uint8) for index in findings.items_to_show()}
    assert b"data:image/png" in render(findings, shown, "Images")


def test_a_thousand_labels_are_all_counted_and_a_few_are_shown() -> None:
    page = page_of(image_census(4000, labels=1000))
    text = " ".join(Reader(page).text.split())
    assert "class 999" in text
    assert f"Of the first {LABELS_WITH_SAMPLES} of 1,000 labels" in text
    assert len(page) < 500_000


def test_the_same_findings_give_the_same_bytes() -> None:
    assert page_of(planted_texts()) == page_of(planted_texts())


def test_no_items_at_all_are_still_a_page() -> None:
    assert b"0 items" in page_of(text_census([], []))
