"""A text in pieces -> the probabilities after each word, and the state that any replica can go on with."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.predictor import Model
from convoy.kinds.rejection import InputRejected
from convoy.kinds.text.preprocessing import StreamPreprocessing, TextPreprocessor, check_characters
from convoy.kinds.text.text_buffer import settled


@dataclass(frozen=True)
class StreamState:
    """All that is kept of a text so far; its size does not depend on how long that was."""

    carried: NDArray[np.float32]  # (state_size,), as the model's graph has it
    latest: NDArray[np.float32]  # (labels,) after the last word; (0,) before the first
    words: int
    pending: str  # the end of the last piece, which the next one may still change


@dataclass(frozen=True)
class Reading:
    """What one piece has added: its words, the probabilities after each, (words, labels), and the new state."""

    words: list[str]
    probabilities: NDArray[np.float32]
    state: StreamState


def begin(model: Model) -> StreamState:
    """The state before the first piece."""
    return StreamState(np.zeros(model.state_size, np.float32), np.zeros(0, np.float32), 0, "")


def read(model: Model, state: StreamState, piece: str, final: bool = False) -> Reading:
    """Go on with a piece, which may be empty; `final` says that no unfinished word goes on after it.

    However a text is divided, its words and probabilities are the same, to the rounding of float32. Raises
    InputRejected for a piece that is too long or no Unicode text, a word without end, and more words than the model
    counts exactly; the state stays as it was.
    """
    preprocessor, contract = _parts(model)
    check_characters(piece, contract)
    text = state.pending + piece
    end = len(text) if final else settled(text)
    words, ids = preprocessor.words(text[:end])
    _refuse_endless(len(text) - end, state.words + len(words), contract)
    if not words:
        nothing = np.zeros((0, len(model.card.labels)), np.float32)
        return Reading([], nothing, StreamState(state.carried, state.latest, state.words, text[end:]))
    probabilities, carried = model.step(ids[np.newaxis], state.carried[np.newaxis])
    found, latest = probabilities[0], probabilities[0, -1]
    return Reading(words, found, StreamState(carried[0], latest, state.words + len(words), text[end:]))


def _parts(model: Model) -> tuple[TextPreprocessor, StreamPreprocessing]:
    preprocessor = model.preprocessor
    if not isinstance(preprocessor, TextPreprocessor) or not isinstance(preprocessor.contract, StreamPreprocessing):
        raise TypeError(f"a {model.card.task} model carries no state")
    return preprocessor, preprocessor.contract


def _refuse_endless(pending: int, words: int, contract: StreamPreprocessing) -> None:
    if pending > contract.max_pending_characters:
        most = contract.max_pending_characters
        raise InputRejected("word_too_long", f"{pending} characters without an end of a word, at most {most} are kept")
    if words > contract.max_words:
        raise InputRejected("stream_too_long", f"the stream has {words} words, at most {contract.max_words} are read")
