"""The bytes of a JSON body -> a checked request, or the Fault that says what is wrong and repeats nothing of it."""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from serving.faults import Fault

M = TypeVar("M", bound=BaseModel)


def read_json(model: type[M], body: bytes) -> M:
    """The body as `model`. Raises Fault where it is not JSON that every parser reads alike, or has other fields."""
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # also bad UTF-8, and integers of thousands of digits
        raise Fault("malformed_json", _explain_json(error)) from None
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise Fault("invalid_request", _explain_request(model, error)) from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(_: str) -> object:
    raise ValueError("NaN and Infinity are not JSON")


def _explain_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"the body is not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"the body is not JSON at line {error.lineno}, column {error.colno}"
    # int() has a limit of its own, and tells about Python.
    return "a number has too many digits" if "digits" in str(error) else str(error)


def _explain_request(model: type[BaseModel], error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if fault["type"] == "extra_forbidden":
        known = ", ".join(f"`{name}`" for name in model.model_fields)
        return f"a field is not known; the body has {known} and nothing else"
    place = "".join(f"[{step}]" if isinstance(step, int) else step for step in fault["loc"])
    return f"{place or 'the body'}: {fault['msg'].replace(model.__name__, 'the request')}"
