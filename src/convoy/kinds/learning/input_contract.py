"""How a candidate's inputs are made."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InputContract:
    """The contract of a candidate's kind, and the files that its preprocessor reads, by their names.

    `is_own` says whether it differs from the contract of the prepared splits.
    """

    preprocessing: Any
    files: dict[str, bytes]
    is_own: bool
