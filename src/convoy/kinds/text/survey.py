"""A sample of a user's texts -> what they are like, and the params that suit them, each with its reason."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from convoy.kinds.kind import Proposal

COLUMN_NAMES = ("text", "review", "sentence", "content", "message", "body", "comment", "title", "document")
BATCH_SIZE = 64  # of training, where there are many
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


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

    def propose_preparation(self) -> Iterator[Proposal]:
        """Values below the section that prepares them."""
        if not self.lengths:
            return
        repeated = sum(count > 1 for count in self.words.values())
        size = int(min(20_000, max(200, repeated)))
        yield Proposal(("vocabulary_size",), size, f"{repeated:,} words were seen twice in a sample")
        length = float(np.percentile(self.lengths, 95))
        tokens = int(min(400, max(16, -(-length // 8) * 8)))
        reason = f"95 % have up to {length:.0f} words and marks; "
        reason += f"{tokens} at most, since an LSTM's time" if length > tokens else "an LSTM's time"
        yield Proposal(("preprocessing", "max_tokens"), tokens, f"{reason} grows with it")
        reason = "of a longer text its start and, more so, its end"
        yield Proposal(("preprocessing", "head_tokens"), tokens // 3, reason)
        max_characters = max(20_000, self.characters * 2)
        reason = f"the longest one of a sample has {self.characters:,}"
        yield Proposal(("preprocessing", "max_characters"), max_characters, reason)

    def propose_batches(self) -> Iterator[Proposal]:
        """Values below the section `batches` of each candidate: none that depend on the texts."""
        yield from ()
