"""Small censuses with something planted, for tests of findings, limits and the page."""

from typing import Any

import numpy as np

from convoy.data.census import Census
from convoy.kinds.image.preparing.facts import Facts as ImageFacts
from convoy.kinds.preparing.kind import NearPair, NearPairs
from convoy.kinds.text.preparing.facts import Facts as TextFacts
from convoy.kinds.text.preparing.facts import count_scripts
from convoy.sources.items import Rejection


def text_census(texts: list[str], labels: list[int], **changes: Any) -> Census:
    """Texts that all stand in train; 10 tokens each, one of them unknown in train, two elsewhere."""
    n = len(texts)
    splits = changes.get("splits", {"train": np.arange(n), "test": np.arange(0)})
    facts = TextFacts(
        characters=np.array([len(text) for text in texts], dtype=np.int64),
        tokens=np.full(n, 10),
        unknown=np.where(np.isin(np.arange(n), splits["train"]), 1, 2),
        truncated=np.zeros(n, dtype=np.bool_),
        scripts=[count_scripts(text) for text in texts],
    )
    of: dict[str, Any] = {
        "names": [f"table.csv:{row + 2}" for row in range(n)],
        "labels": np.array(labels, dtype=np.int64),
        "label_names": tuple(f"label {label}" for label in range(max(labels, default=0) + 1)),
        "keys": [text.encode("utf-8", "surrogatepass") for text in texts],
        "splits": splits,
        "dropped": {"duplicate": 0},
        "copies": {},
        "rejections": [],
        "near": NearPairs((), "equal"),
    }
    of |= changes
    content = facts.content(splits, of["labels"], of["label_names"])
    return Census(**of, content=content)


def planted_texts() -> Census:
    """20 texts: a repeat, a conflict, 2 of 4 test items that leak, 3 rejected; 14 of one label, 6 of the other."""
    texts = [f"text number {index}" for index in range(20)]
    texts[5], texts[19] = texts[4], texts[0]
    labels = [0] * 14 + [1] * 6
    train = np.array([18, 0, 17, 1, 16, 2, 15, 3, 14, 4, 13, 6, 12])
    splits = {"train": train, "validation": np.array([7]), "test": np.array([8, 9, 10, 11])}
    near = NearPairs((NearPair(0, 8, 0.1), NearPair(1, 8, 0.2), NearPair(9, 18, 0.0), NearPair(7, 10, 0.0)), "alike")
    rejected = [Rejection(f"table.csv:{row}", "blank_text", "the text is empty") for row in (50, 51, 52)]
    dropped = {"duplicate": 1, "conflicting_labels": 2}
    copies = {0: "conflicting_labels", 5: "duplicate", 19: "conflicting_labels"}
    return text_census(texts, labels, splits=splits, near=near, rejections=rejected, dropped=dropped, copies=copies)


def image_census(n: int, labels: int = 2) -> Census:
    """Images of two sizes and modes, half in train and half in test; number i has a brightness of i."""
    numbers = np.arange(n, dtype=np.int64)
    facts = ImageFacts(
        widths=np.where(numbers % 2, 20, 640),
        heights=np.where(numbers % 2, 20, 480),
        modes=["L" if number % 2 else "RGB" for number in numbers],
        brightness=numbers.astype(np.float64),
        size_px=28,
    )
    splits, names = (
        {"train": numbers[: n // 2], "test": numbers[n // 2 :]},
        [f"class {label}" for label in range(labels)],
    )
    return Census(
        names=[f"folder/{number}.png" for number in numbers],
        labels=numbers % labels,
        label_names=tuple(names),
        keys=[str(number).encode() for number in numbers],
        splits=splits,
        dropped={},
        copies={},
        rejections=[],
        near=NearPairs((NearPair(0, n - 1, 0.03),), "alike"),
        content=facts.content(splits, numbers % labels, names),
    )
