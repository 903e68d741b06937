"""Text of any length -> the token ids that the model expects; used by preparation and serving alike."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from tokenizers import Tokenizer

from convoy.core.params import Section
from convoy.core.rejection import InputRejected

T = TypeVar("T")
FILES = ("tokenizer.json",)  # of a bundle, that the preprocessor reads
DYNAMIC = (0, 1)  # dimensions of the graph's input that differ between requests: the batch and the length

# Words that a model which carries its state reads at once; a longer text continues from the state. A power of 2, as
# the model's graph finds the greatest value so far by doubling its reach (convoy.kinds.text.networks.stream_lstm).
LONGEST_RUN = 128
_SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_NFKC = 18  # characters that Unicode's NFKC, which tokenizers apply, makes of one character, U+FDFA


class TextPreprocessing(Section):
    """The contract of a text model, part of its card; a longer text keeps its first `head_tokens` and its last ones.

    With `max_tokens` of null nothing is cut off.
    """

    carries_state: ClassVar[bool] = False
    kind: Literal["text"]
    max_tokens: int | None = Field(ge=1)
    head_tokens: int = Field(ge=0)
    max_characters: int = Field(ge=1)
    pad_id: int = Field(ge=0)
    unknown_id: int = Field(ge=0)

    @property
    def longest_run(self) -> int:
        """The most tokens that the model is given at once; a token has one character at least."""
        return self.max_tokens or self.max_characters

    @property
    def cuts(self) -> bool:
        """Whether long texts are cut."""
        return self.max_tokens is not None

    def keep(self, words: list[T]) -> list[T]:
        """The words, or the head and the tail of too many."""
        if self.max_tokens is None or len(words) <= self.max_tokens:
            return words
        tail = self.max_tokens - self.head_tokens
        return words[: self.head_tokens] + words[len(words) - tail :]

    @model_validator(mode="after")
    def _head_fits(self) -> "TextPreprocessing":
        if self.max_tokens is not None and self.head_tokens > self.max_tokens:
            raise ValueError(f"head_tokens is {self.head_tokens}, must not exceed max_tokens ({self.max_tokens})")
        return self


class StreamPreprocessing(Section):
    """The contract of a model that reads a text in pieces, part of its card: nothing is cut off.

    `max_characters` are those of a piece, or of a text that is given whole; `max_words` those of all pieces together;
    `max_pending_characters` those at the end of a piece that may still belong to an unfinished word.
    """

    carries_state: ClassVar[bool] = True
    cuts: ClassVar[bool] = False
    kind: Literal["text-stream"]
    max_characters: int = Field(ge=1)
    max_pending_characters: int = Field(ge=1)
    max_words: int = Field(ge=1)
    pad_id: int = Field(ge=0)
    unknown_id: int = Field(ge=0)

    @property
    def longest_run(self) -> int:
        """The most tokens that the model is given at once."""
        return LONGEST_RUN

    def keep(self, words: list[T]) -> list[T]:
        """All of them."""
        return words


TextContract = TextPreprocessing | StreamPreprocessing


@dataclass(frozen=True)
class PreparedText:
    """Token ids ready for the model, (tokens,) int64, at least one of them."""

    array: NDArray[np.int64]
    truncated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocatedText:
    """A prepared text, and the start and end of each of its words, in characters of the text."""

    prepared: PreparedText
    spans: list[tuple[int, int]]
    omitted: int = 0  # words between head and tail, which the model does not read


def check(text: str, contract: TextContract) -> None:
    """Raise InputRejected where a text is blank, too long, or holds a lone surrogate."""
    if not text.strip():
        raise InputRejected("blank_text", "the text is empty or only white space")
    check_characters(text, contract)


def check_characters(text: str, contract: TextContract) -> None:
    """Raise InputRejected where a text is too long, also after normalisation, or holds a lone surrogate."""
    limit = contract.max_characters
    if len(text) > limit:
        raise InputRejected("text_too_long", f"the text has {len(text)} characters, at most {limit} are allowed")
    ascii_characters = len(text.encode("ascii", "ignore"))
    # Few texts need more than this quick bound.
    upper_bound = ascii_characters + LONGEST_NFKC * (len(text) - ascii_characters)
    if upper_bound > limit and (length := _normalized_length(text)) > limit:
        raise InputRejected(
            "text_too_long", f"the text has {length} characters after Unicode's NFKC, at most {limit} are allowed"
        )
    if not text.isascii() and _SURROGATE.search(text):
        raise InputRejected("invalid_text", "the text holds a lone surrogate, which no Unicode text has")


class TextPreprocessor:
    """Turns texts into token ids according to one contract and one tokenizer."""

    def __init__(self, contract: TextContract, tokenizer_json: bytes) -> None:
        self.contract = contract
        self.tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))

    def prepare(self, text: str) -> PreparedText:
        """Encode one text. Raises InputRejected where it is blank, too long, or holds a lone surrogate."""
        check(text, self.contract)
        # Without the offsets of the words it takes three quarters of the time.
        (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return self._truncate(encoding.ids)

    def locate(self, text: str) -> LocatedText:
        """The result of `prepare`, and the start and end of each word. Raises InputRejected as `prepare` does."""
        check(text, self.contract)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        spans = self.contract.keep(encoding.offsets)
        omitted = len(encoding.offsets) - len(spans)
        # A text of nothing but dropped characters is one unknown word, which covers all of it.
        return LocatedText(self._truncate(encoding.ids), spans or [(0, len(text))], omitted)

    def prepare_all(self, texts: list[str]) -> list[PreparedText]:
        """Encode many texts, on all cores."""
        for text in texts:
            check(text, self.contract)
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._truncate(encoding.ids) for encoding in encodings]

    def check_piece(self, piece: str) -> None:
        """Raise InputRejected where a piece of a text, which may be empty, is too long or holds a lone surrogate."""
        check_characters(piece, self.contract)

    def words(self, text: str) -> tuple[list[str], NDArray[np.int64]]:
        """The words of a text as written, and their ids, (words,) int64; there may be none."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return [text[start:end] for start, end in encoding.offsets], np.array(encoding.ids, dtype=np.int64)

    def collate(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """Pad token ids to the longest of them: (batch, tokens) int64."""
        batch = np.full((len(arrays), max(map(len, arrays))), self.contract.pad_id, dtype=np.int64)
        for row, array in zip(batch, arrays, strict=True):
            row[: len(array)] = array
        return batch

    def _truncate(self, ids: list[int]) -> PreparedText:
        kept = self.contract.keep(ids)
        # A text of nothing but characters that the tokenizer drops still gets an answer: one unknown word.
        return PreparedText(np.array(kept or [self.contract.unknown_id], dtype=np.int64), len(kept) < len(ids))


def open_preprocessor(contract: TextContract, files: Mapping[str, bytes]) -> TextPreprocessor:
    """The preprocessor of a bundle."""
    return TextPreprocessor(contract, files["tokenizer.json"])


def read_contract(content: dict[str, Any]) -> TextContract:
    """The contract that a candidate keeps."""
    model = StreamPreprocessing if content.get("kind") == "text-stream" else TextPreprocessing
    return model.model_validate(content)


def from_prepared(preprocessor: TextPreprocessor, contents: Sequence[str]) -> list[NDArray[np.int64]]:
    """The contents of a prepared split as the model takes them."""
    return [preprocessor.prepare(text).array for text in contents]


def slice_by(preprocessor: TextPreprocessor, contents: Sequence[str]) -> tuple[str, NDArray[np.int64]]:
    """What figures are also sliced by, and its value for each of the contents of a prepared split: tokens uncut."""
    encodings = preprocessor.tokenizer.encode_batch(list(contents), add_special_tokens=False)
    return "length_tokens", np.array([len(encoding.ids) for encoding in encodings])


def blank_batch(contract: TextContract) -> NDArray[np.int64]:
    """A batch of one input of the largest size."""
    return np.full((1, contract.longest_run), contract.unknown_id, dtype=np.int64)


def _normalized_length(text: str) -> int:
    """How many characters the tokenizer reads, before accents join their letters.

    It normalises each character by itself: `normalize` takes quadratic time for accents in an unusual order.
    """
    return sum(len(unicodedata.normalize("NFKC", character)) * count for character, count in Counter(text).items())
