"""Texts that were taken for something else -> a picture of their beginnings and ends."""

from collections.abc import Sequence

from matplotlib.figure import Figure

SHOWN = 10


def draw(texts: Sequence[str], captions: Sequence[str]) -> Figure:
    """At most SHOWN texts, each under its caption."""
    figure = Figure(figsize=(12, 1 + 0.9 * max(len(texts), 1)))
    for position, (content, caption) in enumerate(zip(texts, captions, strict=True)):
        text = " ".join(content.replace("<br />", " ").split())
        excerpt = text if len(text) <= 300 else f"{text[:150]} [...] {text[-145:]}"
        height = 1 - (position + 0.5) / max(len(texts), 1)
        figure.text(0.01, height, caption.replace("\n", ", "), fontsize=9, weight="bold", va="bottom")
        figure.text(0.01, height, _wrap(excerpt, 170), fontsize=8, va="top")
    return figure


def _wrap(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += word + " "
    return "\n".join(lines)
