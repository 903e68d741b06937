"""What is in a source, counted whole and looked into by a sample: enough to propose params, and to tell in words."""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from convoy.core.paths import Task
from convoy.data.raw import explain, sieve
from convoy.data.splits import HELD_OUT
from convoy.kinds.image.preprocessing import decode
from convoy.kinds.rejection import InputRejected
from convoy.operations.init.detection import Detected
from convoy.sources.items import Item, Rejection

SAMPLE = 500  # of each label that are looked into: all of the first so many, then fewer and fewer
MOST_PIXELS = 100_000_000
COLOURED = 12  # of 255: a grey picture that was saved as a colour JPEG strays by less
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


@dataclass
class Survey:
    """Counts of all items, and what a sample of them is like."""

    task: Task
    counts: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    held_out: Counter[str] = field(default_factory=Counter)  # by label, those that the source holds out
    rejections: list[Rejection] = field(default_factory=list)
    sides_px: list[int] = field(default_factory=list)  # the longer side of each image
    most_pixels: int = 0
    coloured: int = 0
    dark_borders: int = 0
    lengths: list[int] = field(default_factory=list)  # in words and punctuation marks
    characters: int = 0  # of the longest text
    words: Counter[str] = field(default_factory=Counter)

    def tell(self) -> list[str]:
        """What was found, in plain words."""
        common = self.counts.most_common()
        listed = ", ".join(f"{label} {count:,}" for label, count in common[:12])
        more = f" and {len(common) - 12} more" if len(common) > 12 else ""
        told = [f"{self.counts.total():,} usable items of {len(common)} labels: {listed}{more}"]
        if self.splits:
            told.append("divided already: " + ", ".join(f"{name} {count:,}" for name, count in self.splits.items()))
            trained_alone = sorted(set(self.counts) - set(self.held_out))
            if trained_alone:
                told.append(
                    f"never held out: {', '.join(trained_alone[:5])}; is it a label? Else leave it out: --labels"
                )
        if self.sides_px:
            low, middle, high = np.percentile(self.sides_px, (5, 50, 95)).round().astype(int)
            share = self.coloured / len(self.sides_px)
            told.append(f"longer side {middle} px (5 to 95 %: {low} to {high}); {share:.0%} of a sample have colours")
        if self.lengths:
            low, middle, high = np.percentile(self.lengths, (5, 50, 95)).round().astype(int)
            told.append(f"{middle} words and marks in the middle (5 to 95 %: {low} to {high})")
        told.append(explain(self.rejections))
        return told + [f"  {one.name}: {one.message}" for one in self.rejections if not one.ignored][:5]

    def warn_of_rare(self, limit: str, least: int | None) -> list[str]:
        """Which labels will stop the pipeline: too few to train on and to cut from, or fewer than `limit` says."""
        parts = ["train", *(name for name in HELD_OUT if name not in self.splits)]
        rare = []
        for label, count in reversed(self.counts.most_common()):
            held = self.held_out[label]
            if count - held < len(parts) or (least is not None and count < least):
                rare.append(f"{label} {count - held}" + (f" and {held} held out" if held else ""))
        if not rare:
            return []
        needed = f"at least {len(parts)} each are needed for {', '.join(parts)}"
        needed += "" if least is None else f", and {least} in all ({limit})"
        return [f"too few, which stops the pipeline: {', '.join(rare[:5])}; {needed}; leave them out: --labels"]


def look(detected: Detected, task: Task) -> Survey:
    """Go through the whole source once; every label is counted, some thousand items are looked into."""
    survey = Survey(task)
    draw = np.random.default_rng(0)
    found = tqdm(detected.read(task), "looking", unit="", mininterval=1, disable=None)
    for one in sieve(found, survey.rejections, None):
        survey.counts[one.label] += 1
        if one.split:
            survey.splits[one.split] += 1
            if one.split != "train":
                survey.held_out[one.label] += 1
        # By label, since a source mostly is sorted by them, and the first one would be most of the sample.
        if draw.random() * survey.counts[one.label] < SAMPLE:
            _look_into(one, survey)
    return survey


def _look_into(item: Item, survey: Survey) -> None:
    if isinstance(item.content, str):
        words = _WORD.findall(item.content.lower())
        survey.lengths.append(len(words))
        survey.words.update(words)
        survey.characters = max(survey.characters, len(item.content))
        return
    try:
        image = decode(item.content, MOST_PIXELS)
    except InputRejected as rejection:
        survey.rejections.append(Rejection(item.name, rejection.code, rejection.message))
        return
    survey.sides_px.append(max(image.size))
    survey.most_pixels = max(survey.most_pixels, image.width * image.height)
    small = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.int16)
    survey.coloured += bool(np.ptp(small, axis=2).mean() > COLOURED)
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    survey.dark_borders += bool(border.mean() < 64)
