"""A text in pieces -> the probabilities after each word, and the state that any replica can go on with."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.predictor import Model
from convoy.core.rejection import InputRejected

# Unicode's White_Space separates words for the tokenizer. Python's white space has four more control characters.
_WHITE_SPACE = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_APOSTROPHES = "'\u2019"  # within a word they are part of it
# The tokenizer drops a whole line break of HTML and reads a part of one as words. This finds whole line breaks, and one
# that may still become whole. It accepts more white space than the tokenizer, so that none is missed.
_BREAK = re.compile(r"<br\s*(?:/?>|/?\Z)")


@dataclass(frozen=True)
class StreamState:
    """All that is kept of a text so far; its size does not grow with the text."""

    carried: NDArray[np.float32]  # (state_size,), in the layout of the model's graph
    latest: NDArray[np.float32]  # (labels,) after the last word; (0,) before the first
    words: int
    pending: str  # the end of the last piece, which the next one may still change


@dataclass(frozen=True)
class Reading:
    """The result of one piece: its words, the probabilities after each, (words, labels), and the new state."""

    words: list[str]
    probabilities: NDArray[np.float32]
    state: StreamState


def begin(model: Model) -> StreamState:
    """The state before the first piece."""
    return StreamState(np.zeros(model.state_size, np.float32), np.zeros(0, np.float32), 0, "")


def read(model: Model, state: StreamState, piece: str, final: bool = False) -> Reading:
    """Read the next piece, which may be empty; `final` says that its last word does not continue.

    However a text is divided, its words and probabilities are the same, to the rounding of float32. Raises
    InputRejected for a piece that is too long or no Unicode text, a word without end, and more words than the model
    counts exactly; `state` is unchanged then.
    """
    preprocessor, contract = model.preprocessor, model.card.preprocessing
    if not contract.carries_state:
        raise TypeError(f"a {model.card.task} model carries no state")
    preprocessor.check_piece(piece)
    text = state.pending + piece
    end = len(text) if final else settled_length(text)
    words, ids = preprocessor.words(text[:end])
    _check_limits(len(text) - end, state.words + len(words), contract)
    if not words:
        nothing = np.zeros((0, len(model.card.labels)), np.float32)
        return Reading([], nothing, StreamState(state.carried, state.latest, state.words, text[end:]))
    probabilities, carried = model.step(ids[np.newaxis], state.carried[np.newaxis])
    next_state = StreamState(carried[0], probabilities[0, -1], state.words + len(words), text[end:])
    return Reading(words, probabilities[0], next_state)


def settled_length(text: str) -> int:
    """How many characters have the same words whatever follows them, so that the tokenizer can read them alone.

    They end before white space or a punctuation mark. Neither can join the character before it, nor continue its word;
    what follows it, such as an accent, stays together with it. This is true for the tokenizers of
    convoy.kinds.text.items.prepared, to which every punctuation mark is a word of its own.
    """
    # Only the last break matters: the search goes no further back than the "<" that it begins with.
    start = max(text.rfind("<br"), 0)
    line_break = _BREAK.match(text, start)
    end = line_break.end() if line_break else 0
    for place in range(len(text) - 1, 0, -1):
        if _separates(text[place]) and not start < place < end:
            return place
    return 0


def _check_limits(pending: int, words: int, contract: Any) -> None:
    if pending > contract.max_pending_characters:
        most = contract.max_pending_characters
        raise InputRejected("word_too_long", f"{pending} characters without an end of a word, at most {most} are kept")
    if words > contract.max_words:
        raise InputRejected("stream_too_long", f"the stream has {words} words, at most {contract.max_words} are read")


@lru_cache(maxsize=4096)
def _separates(character: str) -> bool:
    if character in _WHITE_SPACE or character == "<":
        return True
    # A full-width apostrophe becomes a plain one, and some marks become letters.
    normalized = unicodedata.normalize("NFKC", character)
    return all(_is_separating_mark(mark) for mark in normalized)


def _is_separating_mark(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("P") and category != "Pc" and character not in _APOSTROPHES  # Pc joins, as "_" does
