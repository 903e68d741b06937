"""Counts all items of a source, and samples them."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from convoy.core.rejection import InputRejected
from convoy.data.raw import explain, sieve
from convoy.data.splits import HELD_OUT
from convoy.kinds.registry import module
from convoy.operations.init.source import Detected
from convoy.sources.items import Rejection

_SPLIT_LIKE = re.compile(r"(^|[^a-z])(train|test|valid|eval)")
SAMPLE = 500  # of each label: the first so many items are all sampled, then fewer and fewer


@dataclass
class Survey:
    """Counts of all items, and figures of a sample."""

    sample: Any  # of the kind's module `survey`
    encoding: str
    counts: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    held_out: Counter[str] = field(default_factory=Counter)  # by label, those that the source holds out
    rejections: list[Rejection] = field(default_factory=list)

    def describe(self) -> Iterator[str]:
        """What was found, in plain words."""
        common = self.counts.most_common()
        listed = ", ".join(f"{label} {count:,}" for label, count in common[:12])
        remaining = f" and {len(common) - 12} more" if len(common) > 12 else ""
        yield f"{self.counts.total():,} usable items of {len(common)} labels: {listed}{remaining}"
        if len(alike := [label for label in self.counts if _SPLIT_LIKE.search(label.lower())]) > 1:
            yield (
                f"{', '.join(alike[:5])} look like splits, not like labels; a division that stays has the folders "
                "train, validation and test, with a folder per label in each"
            )
        if self.splits:
            yield "divided already: " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
            if trained_alone := sorted(set(self.counts) - set(self.held_out)):
                yield f"never held out: {', '.join(trained_alone[:5])}; is it a label? Else leave it out: --labels"
        yield from self.sample.describe()
        yield explain(self.rejections)
        rejected = [rejection for rejection in self.rejections if not rejection.ignored]
        yield from (f"  {rejection.name}: {rejection.message}" for rejection in rejected[:5])
        if any(rejection.message.startswith(f"not {self.encoding}: ") for rejection in rejected):
            yield f"some are not {self.encoding}: --encoding states another, as latin-1 or cp1252"

    def warn_of_rare(self, limit: str, minimum: int | None) -> Iterator[str]:
        """Labels that will stop the pipeline: too few to train on and to divide, or fewer than `limit` says."""
        parts = ["train", *(name for name in HELD_OUT if name not in self.splits)]
        rare = []
        for label, count in reversed(self.counts.most_common()):
            held_out = self.held_out[label]
            if count - held_out < len(parts) or (minimum is not None and count < minimum):
                rare.append(f"{label} {count - held_out}" + (f" and {held_out} held out" if held_out else ""))
        if rare:
            needed = f"at least {len(parts)} each are needed for {', '.join(parts)}"
            needed += "" if minimum is None else f", and {minimum} in all ({limit})"
            yield f"too few, which stops the pipeline: {', '.join(rare[:5])}; {needed}; leave them out: --labels"


def take_survey(detected: Detected) -> Survey:
    """Read the whole source once: count every label, sample some thousand items."""
    survey = Survey(module(detected.kind, "survey").Sample(), detected.params.table.encoding)
    generator = np.random.default_rng(0)
    items = tqdm(detected.read(), "looking", unit="", mininterval=1, disable=None)
    for item in sieve(items, survey.rejections, None):
        survey.counts[item.label] += 1
        if item.split:
            survey.splits[item.split] += 1
            if item.split != "train":
                survey.held_out[item.label] += 1
        # By label: most sources are sorted by them, and the first label would be most of the sample.
        if generator.random() * survey.counts[item.label] < SAMPLE:
            try:
                survey.sample.add(item.content)
            except InputRejected as rejection:
                survey.rejections.append(Rejection(item.name, rejection.code, rejection.message))
    return survey
