"""A figure -> one SVG picture that takes its colours from the page, readable on a phone; no library draws it.

matplotlib's SVG of such a figure is ten times as large, has fixed colours, and letters as outlines.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape

from lab.report.figures import Figure, Scale, Series

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 36
DASHES = {"gru": "6 3", "rnn": "2 3", "linear": "1 4", "mlp": "8 2 2 2", "cnn-far": "6 3", "cnn-max": "2 3"}


@dataclass(frozen=True)
class Axis:
    """Numbers -> places from `start` to `end`, and the ticks with their labels."""

    start: float
    end: float
    low: float
    high: float
    transform: Callable[[float], float]
    ticks: list[tuple[float, str]]

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        span = self.high - self.low or 1
        return self.start + (self.end - self.start) * (self.transform(value) - self.low) / span


def draw(figure: Figure) -> Markup:
    """The picture; every curve has its class `s-KEY`, whose colour the page says, and dashes, which need no colour."""
    points = [point for one in figure.series for point in one.points]
    x = _axis(figure.x_scale, [each[0] for each in points], (LEFT, WIDTH - RIGHT), False, dict(figure.words))
    values = [value for each in points for value in each[1:]]
    y = _axis(figure.y_scale, values, (HEIGHT - BOTTOM, TOP), figure.percent, {})
    parts = [_grid(x, y), *(_curve(one, x, y) for one in figure.series), _labels(figure)]
    name = escape(f"{figure.title}: {figure.y_label} by {figure.x_label}")
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">' + "".join(parts) + "</svg>")


def sample(key: str) -> Markup:
    """A short line as a curve of that key has it, for the legend."""
    return Markup(
        f'<svg class="key" viewBox="0 0 28 8" aria-hidden="true"><line class="s-{key}" x1="1" x2="27" y1="4" y2="4" '
        f'stroke-dasharray="{DASHES.get(key, "none")}"/></svg>'
    )


def _curve(one: Series, x: Axis, y: Axis) -> str:
    top = [f"{x.place(at):.1f},{y.place(high):.1f}" for at, _, _, high in one.points]
    bottom = [f"{x.place(at):.1f},{y.place(low):.1f}" for at, _, low, _ in reversed(one.points)]
    line = " ".join(f"{x.place(at):.1f},{y.place(mean):.1f}" for at, mean, _, _ in one.points)
    dashes = DASHES.get(one.key, "none")
    return (
        f'<polygon class="s-{one.key}" points="{" ".join(top + bottom)}"/>'
        f'<polyline class="s-{one.key}" stroke-dasharray="{dashes}" points="{line}"><title>{escape(one.name)}</title>'
        "</polyline>"
    )


def _grid(x: Axis, y: Axis) -> str:
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.place(at):.1f}" y2="{y.place(at):.1f}"/>'
        f'<text x="{LEFT - 5}" y="{y.place(at) + 4:.1f}" text-anchor="end">{escape(label)}</text>'
        for at, label in y.ticks
    ]
    lines += [
        f'<line class="grid" x1="{x.place(at):.1f}" x2="{x.place(at):.1f}" y1="{HEIGHT - BOTTOM}" '
        f'y2="{HEIGHT - BOTTOM + 4}"/>'
        f'<text x="{x.place(at):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{_anchor(x, at)}">{escape(label)}</text>'
        for at, label in x.ticks
    ]
    return "".join(lines)


def _anchor(x: Axis, at: float) -> str:
    """The last label must not be cut at the border."""
    return "end" if x.place(at) > WIDTH - RIGHT - 12 else "middle"


def _labels(figure: Figure) -> str:
    return (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(figure.x_label)}</text>'
    )


def _axis(scale: Scale, values: list[float], ends: tuple[float, float], percent: bool, words: dict[float, str]) -> Axis:
    kinds = sorted(set(values)) or [0.0, 1.0]
    if scale == "steps":
        places = {value: float(index) for index, value in enumerate(kinds)}
        ticks = [(value, words.get(value, f"{value:g}")) for value in kinds]
        return Axis(*ends, -0.15, len(kinds) - 0.85, places.__getitem__, ticks)
    if scale == "log":
        low, high = math.log10(kinds[0]), math.log10(kinds[-1])
        return Axis(*ends, low, high, math.log10, _powers(low, high))
    least = max(abs(kinds[0]), abs(kinds[-1])) / 20  # a flat curve must not look like mountains
    spare = max(0.0, least - (kinds[-1] - kinds[0])) / 2
    shown = kinds[0] - spare, kinds[-1] + spare
    ticks = list(words.items()) or [(at, _label(at, percent)) for at in _round_steps(*shown)]
    low, high = min(shown[0], ticks[0][0]), max(shown[1], ticks[-1][0])
    return Axis(*ends, low, high, float, ticks)


def _label(value: float, percent: bool) -> str:
    return f"{100 * value:.3g} %" if percent else f"{value:.4g}"


def _round_steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    rough = (high - low or 1) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _powers(low: float, high: float) -> list[tuple[float, str]]:
    """Powers of ten within the two, of which there may be too many, or 1, 2, 5 times them where there are few."""
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(powers) > 3:
        return [
            (10.0**power, f"10^{power}" if abs(power) > 3 else f"{10.0**power:g}")
            for power in powers[:: -(-len(powers) // 6)]
        ]
    found = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 2, 5)]
    return [(value, _short(value)) for value in found if low - 1e-9 <= math.log10(value) <= high + 1e-9]


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
