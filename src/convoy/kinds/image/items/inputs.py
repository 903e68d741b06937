"""The `input` of a candidate of images -> its contract: the data set's, or its images smaller, in other channels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from convoy.core import params, paths
from convoy.core.params import ParamsInvalid, Section
from convoy.core.paths import CONTRACT
from convoy.kinds.image.items.preprocessing import ImagePreprocessing, Stored
from convoy.kinds.learning.input_contract import InputContract


class Input(Section):
    """What differs from the prepared images: the side, at most theirs, and the channels."""

    size_px: int | None = Field(default=None, ge=4)
    channels: Literal[1, 3] | None = None


def make(folder: Path, own: Mapping[str, Any], key: str) -> InputContract:
    """The contract for the prepared images in `folder`; `key` is the place of `own` in params.yaml.

    Raises ParamsInvalid.
    """
    prepared = ImagePreprocessing.model_validate_json((folder / CONTRACT).read_bytes())
    changed = params.validate(Input, dict(own), key).model_dump(exclude_none=True)
    if all(getattr(prepared, name) == value for name, value in changed.items()):
        return InputContract(prepared, {}, False)
    if changed.get("size_px", 0) > prepared.size_px:
        raise ParamsInvalid(
            f"{paths.PARAMS}: {key}.size_px is {changed['size_px']}, the prepared images have {prepared.size_px}: "
            "raise prepare.preprocessing.size_px of the data set"
        )
    stored = Stored(size_px=prepared.size_px, channels=prepared.channels)
    return InputContract(prepared.model_copy(update={**changed, "stored": stored}), {}, True)
