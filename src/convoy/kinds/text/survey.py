"""A sample of a user's texts -> what they are like, and the values of entries.yaml that suit them.

Each value comes with its reason, a short comment for params.yaml.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from convoy.kinds.text.items.raw import SUFFIXES

EXPECTED = f"files that end in {' or '.join(SUFFIXES)}, in a folder per label; a table with a column of them"

COLUMN_NAMES = ("text", "review", "sentence", "content", "message", "body", "comment", "title", "document")
BATCH_SIZE = 64  # of training, where there are many
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


def recognises(name: str, content: bytes) -> bool:
    """Whether a file is a text, by its name alone: its encoding is stated, never guessed."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


@dataclass
class Sample:
    """Figures of the texts that were added."""

    lengths: list[int] = field(default_factory=list)  # in words and punctuation marks
    characters: int = 0  # of the longest text
    words: Counter[str] = field(default_factory=Counter)

    def add(self, content: str) -> None:
        """Note one text."""
        words = _WORD.findall(content.lower())
        self.lengths.append(len(words))
        self.words.update(words)
        self.characters = max(self.characters, len(content))

    def describe(self) -> Iterator[str]:
        """What was seen, in plain words."""
        if self.lengths:
            low, middle, high = np.percentile(self.lengths, (5, 50, 95)).round().astype(int)
            yield f"{middle} words and marks in the middle (5 to 95 %: {low} to {high})"

    def __len__(self) -> int:
        return len(self.lengths)

    def propose(self) -> dict[str, tuple[Any, str]]:
        """Values for the template, each with its reason; the sample has one text at least."""
        repeated = sum(count > 1 for count in self.words.values())
        length = float(np.percentile(self.lengths, 95))
        tokens = int(min(400, max(16, -(-length // 8) * 8)))
        max_characters = max(20_000, self.characters * 2)
        return {
            "vocabulary_size": (
                int(min(20_000, max(200, repeated))),
                f"{repeated:,} words were seen twice in a sample",
            ),
            "max_tokens": (tokens, f"95 % have up to {length:.0f} words and marks; an LSTM's time grows with it"),
            "head_tokens": (tokens // 3, "of a longer text its start and, more so, its end"),
            "max_characters": (max_characters, f"the longest of a sample has {self.characters:,}"),
        }
