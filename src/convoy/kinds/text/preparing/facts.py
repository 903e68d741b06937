"""What preparation records of each text, and the figures that the report of the data has of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from fontTools import unicodedata
from numpy.typing import NDArray

from convoy.kinds.preparing.content import (
    UNKNOWN_TOKENS,
    Content,
    Counts,
    Histogram,
    Indices,
    PerLabel,
    Shares,
    kept_items,
    medians_per_label,
    most_frequent,
    spread,
)


@dataclass(frozen=True)
class Facts:
    """Of each text (n,): its characters, the tokens kept and how many of them are unknown, whether it was cut, and
    its letters per script (`count_scripts`)."""

    characters: Indices
    tokens: Indices
    unknown: Indices
    truncated: NDArray[np.bool_]
    scripts: Sequence[Mapping[str, int]]

    def content(self, splits: Mapping[str, Indices], labels: Indices, names: Sequence[str]) -> Content:
        """The figures of the texts in the splits; `labels` (n,) are indices of `names`."""
        kept = kept_items(splits)
        letters: Counter[str] = Counter()
        main_scripts: Counter[str] = Counter()
        for index in kept.tolist():
            scripts = self.scripts[index]
            letters.update(scripts)
            main_scripts[max(sorted(scripts), key=lambda name: scripts[name]) if scripts else "no letters"] += 1
        return Content(
            title="Texts",
            histograms=(
                Histogram(key="characters", name="Length", unit="characters", spread=spread(self.characters[kept])),
                Histogram(key="tokens", name="Length", unit="tokens kept", spread=spread(self.tokens[kept])),
            ),
            counts=(
                Counts(
                    key="letters_per_script",
                    title="Scripts of the letters",
                    what="script",
                    of="letters",
                    counts=most_frequent(letters),
                ),
                Counts(
                    key="texts_per_script",
                    title="Texts by their main script",
                    what="script",
                    of="texts",
                    counts=most_frequent(main_scripts),
                ),
            ),
            per_label=PerLabel(name="tokens", medians=medians_per_label(self.tokens, kept, labels, names)),
            shares=(
                Shares(key="truncated", name="texts cut", of_split=self._of_splits(splits, self._cut_share)),
                Shares(
                    key=UNKNOWN_TOKENS, name="unknown tokens", of_split=self._of_splits(splits, self._unknown_share)
                ),
            ),
        )

    @staticmethod
    def _of_splits(splits: Mapping[str, Indices], share: Callable[[Indices], float]) -> dict[str, float]:
        return {split: share(items) for split, items in splits.items()}

    def _cut_share(self, items: Indices) -> float:
        return round(float(self.truncated[items].mean()), 4) if len(items) else 0.0

    def _unknown_share(self, items: Indices) -> float:
        return round(float(self.unknown[items].sum() / max(self.tokens[items].sum(), 1)), 4)


def count_scripts(text: str) -> dict[str, int]:
    """Letters per Unicode script, by its name, as `Latin`, the most frequent first; digits, signs and spaces have none.

    Of a text's language only the script is certain.
    """
    scripts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            scripts[_script_of(character)] += count
    return dict(sorted(scripts.items(), key=lambda item: (-item[1], item[0])))


@lru_cache(1 << 16)
def _script_of(character: str) -> str:
    return str(unicodedata.script_name(unicodedata.script(character))).replace("_", " ")
