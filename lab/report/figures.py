"""What was measured -> the curves of the report: mean and band over seeds, for the page, for `dvc plots` and MLflow."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import Any, Literal

import numpy as np

from lab.layout import RECURRENT, SIZED, Kind
from lab.report.results import LEAST_GRADIENT, NAMES, Results

Scale = Literal["linear", "log", "steps"]  # steps: one beside the other, whatever the numbers


@dataclass(frozen=True)
class Series:
    """One curve: what it is of, its x, and the values of each seed (seeds, points). `geometric` is of its mean.

    An arithmetic mean of values that differ by powers of ten shows the largest alone.
    """

    key: str
    x: tuple[float, ...]
    per_seed: tuple[tuple[float, ...], ...]
    geometric: bool = False

    @property
    def name(self) -> str:
        """As people say it."""
        return NAMES[self.key]

    @property
    def points(self) -> list[tuple[float, float, float, float]]:
        """x, mean, least and greatest over the seeds."""
        mean = geometric_mean if self.geometric else fmean
        return [
            (x, mean(of_seeds), min(of_seeds), max(of_seeds))
            for x, of_seeds in zip(self.x, zip(*self.per_seed, strict=True), strict=True)
        ]


@dataclass(frozen=True)
class Figure:
    """Curves that share their axes. `percent`: y is a share. `words` are shown in place of numbers of x."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    percent: bool = True
    words: tuple[tuple[float, str], ...] = ()

    def to_csv(self) -> bytes:
        """A line per x, a column per curve with its mean, as `dvc plots` reads it."""
        means = {one.key: {x: mean for x, mean, _, _ in one.points} for one in self.series}
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["x", *means])
        for x in sorted({x for of_one in means.values() for x in of_one}):
            writer.writerow([f"{x:g}", *(_cell(of_one.get(x)) for of_one in means.values())])
        return stream.getvalue().encode()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def of_losses(results: Results, kind: Kind) -> Figure:
    """How each family learns."""
    title = f"Loss while {kind}s are learnt"
    return _by_family(f"loss-{kind}", title, "share of training", "loss", results.of(kind), "loss", percent=False)


def of_shift(results: Results) -> Figure:
    """Accuracy on shifted images."""
    return _by_family("shift", "Shifted images", "shift in pixels", "accuracy", results.image, "shift")


def of_hiding(results: Results) -> Figure:
    """Accuracy on partly hidden images."""
    return _by_family("hide", "A patch hidden", "side of the patch in pixels", "accuracy", results.image, "hide")


def of_permutation(results: Results) -> Figure:
    """Accuracy with the pixels as they are, and in another order."""
    series = []
    for family, found in results.image.items():
        rows = zip(found["accuracy"]["per_seed"], results.permuted[family]["accuracy"]["per_seed"], strict=True)
        series.append(Series(family, (0, 1), tuple(rows)))
    words = ((0.0, "as they are"), (1.0, "permuted"))
    return Figure("permuted", "All pixels in another order", "pixels", "accuracy", tuple(series), "steps", words=words)


def of_sizes(results: Results) -> Figure:
    """Accuracy by weights."""
    series = []
    for family in SIZED:
        weights, rows = results.sizes_of(family)
        series.append(Series(family, tuple(weights), tuple(map(tuple, rows.tolist()))))
    return Figure("sizes", "Accuracy for weights", "weights", "accuracy", tuple(series), "log")


def of_shuffling(results: Results) -> Figure:
    """Accuracy on texts shuffled within windows; the whole text comes last."""
    found = _by_family(
        "shuffle", "Words shuffled", "within windows of so many words", "accuracy", results.text, "shuffle"
    )
    last = 2 * max(found.series[0].x)
    series = tuple(Series(one.key, tuple(x or last for x in one.x), one.per_seed) for one in found.series)
    words = tuple((x, "all" if x == last else f"{x:g}") for x in series[0].x)
    return Figure(found.name, found.title, found.x_label, found.y_label, series, "steps", words=words)


def of_cutting(results: Results, end: Literal["front", "back"]) -> Figure:
    """Accuracy on what is left of texts."""
    kept = "first" if end == "front" else "last"
    return _by_family(end, f"Only the {kept} words kept", f"{kept} words kept", "accuracy", results.text, end, "log")


def of_phrases(results: Results) -> Figure:
    """How far a phrase moves the probability, by its place."""
    words = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    return _by_family(
        "phrase", "A key phrase put in", "its place", "moves the probability", results.text, "phrase", words=words
    )


def of_sentences(results: Results, probe: Literal["negation", "contrast"]) -> Figure:
    """How much `not` or `but` turns what follows, by its distance."""
    word = "not" if probe == "negation" else "but"
    title = f"What \u201c{word}\u201d turns around"
    return _by_family(probe, title, "words between", "turned, in logits", results.text, probe, percent=False)


def of_lengths(results: Results) -> Figure:
    """Accuracy by length."""
    return _by_family("length", "Short and long texts", "words", "accuracy", results.text, "length")


def of_reach(results: Results) -> Figure:
    """Accuracy on the memory task, by distance."""
    series = tuple(
        Series(reader, tuple(found["distances"]), tuple(map(tuple, found["per_seed"])))
        for reader, found in results.memory.items()
    )
    return Figure("memory", "One token decides, so far back", "distance in tokens", "accuracy", series, "log")


def of_gradients(results: Results, when: Literal["at_start", "trained"]) -> Figure:
    """The gradient's norm at each token before the last, of recurrent networks."""
    series = []
    for family in RECURRENT:
        rows = [row for row in results.memory[family][f"gradient_{when}"] if row is not None]
        if rows:
            kept = np.unique(np.geomspace(1, len(rows[0]), 60).astype(int)) - 1
            values = tuple(tuple(max(row[each], LEAST_GRADIENT) for each in kept) for row in rows)
            series.append(Series(family, tuple(float(each) for each in kept), values, geometric=True))
    title = "Gradient before training" if when == "at_start" else "Gradient once trained"
    return Figure(
        f"gradient-{when}", title, "tokens back", "of the last token's", tuple(series), y_scale="log", percent=False
    )


def _by_family(
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    measured: Mapping[Any, dict[str, Any]],
    probe: str,
    x_scale: Scale = "linear",
    percent: bool = True,
    words: Sequence[tuple[float, str]] = (),
) -> Figure:
    series = []
    for family, found in measured.items():
        if found.get(probe, {}).get("x"):
            points = found[probe]
            rows = zip(*points["per_seed"], strict=True)
            series.append(Series(family, tuple(map(float, points["x"])), tuple(map(tuple, rows))))
    return Figure(name, title, x_label, y_label, tuple(series), x_scale, "linear", percent, tuple(words))
