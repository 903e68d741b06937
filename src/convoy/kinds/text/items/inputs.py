"""The `input` of a candidate of texts -> its contract: the data set's, cut otherwise, in pieces, or of more words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from convoy.core import params
from convoy.core.params import Section
from convoy.core.paths import CONTRACT
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.items.prepared import build_tokenizer
from convoy.kinds.text.items.prepared import read as read_texts
from convoy.kinds.text.items.preprocessing import FILES, StreamPreprocessing, TextContract, TextPreprocessing

(TOKENIZER,) = FILES


class Input(Section):
    """What differs from the contract of the prepared texts; the last two are of a candidate that reads in pieces."""

    vocabulary_size: int | None = Field(default=None, ge=100)
    max_tokens: int | None = Field(default=None, ge=1)
    head_tokens: int | None = Field(default=None, ge=0)
    max_pending_characters: int | None = Field(default=None, ge=1)
    max_words: int | None = Field(default=None, ge=1)


def make(folder: Path, own: Mapping[str, Any], key: str) -> InputContract:
    """The contract for the prepared texts in `folder`; `key` is the place of `own` in params.yaml.

    Of a vocabulary of its own the tokenizer is built from the training split. Raises ParamsInvalid.
    """
    prepared = TextPreprocessing.model_validate_json((folder / CONTRACT).read_bytes())
    changed = params.validate(Input, dict(own), key).model_dump(exclude_unset=True)
    vocabulary_size = changed.pop("vocabulary_size", None)
    contract = _contract(prepared, changed, key)
    if vocabulary_size is None:
        tokenizer = (folder / CONTRACT).with_name(TOKENIZER).read_bytes()
    else:
        tokenizer = build_tokenizer(read_texts(folder / "train.arrow").contents, vocabulary_size).encode()
    is_own = vocabulary_size is not None or contract != prepared
    return InputContract(contract, {TOKENIZER: tokenizer}, is_own)


def _contract(prepared: TextPreprocessing, changed: dict[str, Any], key: str) -> TextContract:
    if not {"max_pending_characters", "max_words"} & set(changed):
        return params.validate(TextPreprocessing, {**prepared.model_dump(), **changed}, key)
    kept = {name: getattr(prepared, name) for name in ("max_characters", "pad_id", "unknown_id")}
    return params.validate(StreamPreprocessing, {"kind": "text-stream", **kept, **changed}, key)
