"""The one list of kinds. A module of a kind is imported when it is needed: serving never imports torch."""

from importlib import import_module
from typing import Any

from convoy.core.params import ParamsInvalid

KINDS = ("image", "text")


def kind_of(contract: str) -> str:
    """The kind that a contract is of; `text-stream` is a contract of texts."""
    return contract.partition("-")[0]


def module(kind: str, name: str) -> Any:
    """The module `name` of a kind; all kinds have modules of the same names. Raises ParamsInvalid for another kind."""
    if kind not in KINDS:
        raise ParamsInvalid(f"there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return import_module(f"convoy.kinds.{kind}.{name}")
