"""Text of any length -> the token ids that the model expects; used by preparation and serving alike."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from tokenizers import Tokenizer

from convoy.params import Section
from convoy.preprocessing.rejection import InputRejected

T = TypeVar("T")


class TextPreprocessing(Section):
    """The contract of a text model, part of its card; a longer text keeps its first `head_tokens` and its last ones."""

    kind: Literal["text"]
    max_tokens: int = Field(ge=1)
    head_tokens: int = Field(ge=0)
    max_characters: int = Field(ge=1)
    pad_id: int = Field(ge=0)
    unknown_id: int = Field(ge=0)

    @model_validator(mode="after")
    def _head_fits(self) -> "TextPreprocessing":
        if self.head_tokens > self.max_tokens:
            raise ValueError(f"head_tokens is {self.head_tokens}, must not exceed max_tokens ({self.max_tokens})")
        return self


@dataclass(frozen=True)
class PreparedText:
    """Token ids ready for the model, (tokens,) int64, at least one of them."""

    array: NDArray[np.int64]
    truncated: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocatedText:
    """A prepared text, and of each of its words where it stands: start and end, in characters of the text."""

    prepared: PreparedText
    spans: list[tuple[int, int]]
    omitted: int = 0  # words between head and tail, which the model does not read


def check(text: str, contract: TextPreprocessing) -> None:
    """Raise InputRejected where a text is blank, too long, or holds a lone surrogate."""
    if not text.strip():
        raise InputRejected("blank_text", "the text is empty or only white space")
    limit = contract.max_characters
    if len(text) > limit:
        raise InputRejected("text_too_long", f"the text has {len(text)} characters, at most {limit} are allowed")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputRejected("invalid_text", "the text holds a lone surrogate, which no Unicode text has")


class TextPreprocessor:
    """Turns texts into token ids according to one contract and one tokenizer."""

    def __init__(self, contract: TextPreprocessing, tokenizer_json: bytes) -> None:
        self.contract = contract
        self.tokenizer = Tokenizer.from_str(tokenizer_json.decode("utf-8"))

    def prepare(self, text: str) -> PreparedText:
        """Encode one text. Raises InputRejected where it is blank, too long, or holds a lone surrogate."""
        check(text, self.contract)
        # Where each word stood in the text is not asked for; without that it takes three quarters of the time.
        (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return self._truncate(encoding.ids)

    def locate(self, text: str) -> LocatedText:
        """What `prepare` gives, and where each of its words stands in the text; raises what that raises."""
        check(text, self.contract)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        # The one unknown word that stands for a text of dropped characters is all of it.
        spans = self._keep(encoding.offsets) or [(0, len(text))]
        return LocatedText(self._truncate(encoding.ids), spans, max(0, len(encoding.ids) - self.contract.max_tokens))

    def prepare_all(self, texts: list[str]) -> list[PreparedText]:
        """Encode many texts, on all cores."""
        for text in texts:
            check(text, self.contract)
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._truncate(encoding.ids) for encoding in encodings]

    def collate(self, arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """Pad token ids to the longest of them: (batch, tokens) int64."""
        batch = np.full((len(arrays), max(map(len, arrays))), self.contract.pad_id, dtype=np.int64)
        for row, array in zip(batch, arrays, strict=True):
            row[: len(array)] = array
        return batch

    def _truncate(self, ids: list[int]) -> PreparedText:
        truncated = len(ids) > self.contract.max_tokens
        ids = self._keep(ids)
        # A text of nothing but characters that the tokenizer drops still gets an answer: one unknown word.
        return PreparedText(np.array(ids or [self.contract.unknown_id], dtype=np.int64), truncated)

    def _keep(self, words: list[T]) -> list[T]:
        """The head and the tail of what is too long."""
        limit, head = self.contract.max_tokens, self.contract.head_tokens
        return words if len(words) <= limit else words[:head] + words[len(words) - (limit - head) :]
