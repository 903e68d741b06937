"""A JSON body -> the request that it holds, or the Fault that says why it holds none."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serving.faults import Fault

R = TypeVar("R", bound=BaseModel)


def read_request(body: bytes, form: type[R]) -> R:
    """The body as `form`. Raises Fault where it is not JSON that every parser reads alike, or not that form."""
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # also bad UTF-8, and integers of thousands of digits
        raise Fault("malformed_json", _explain_json(error)) from None
    # Unknown fields are counted here: pydantic would build an error for each of them.
    known = _fields_of(content, form)
    try:
        request = form.model_validate(known)
    except ValidationError as error:
        raise Fault("invalid_request", _explain_request(error, form)) from None
    if isinstance(content, dict) and len(known) < len(content):
        names = " and ".join(f"`{name}`" for name in form.model_fields)
        raise Fault("invalid_request", f"a field is not known; the body has {names} and nothing else")
    return request


def _fields_of(content: object, form: type[BaseModel]) -> Any:
    """The fields that `form` has; what is no object stays as it is, for pydantic to refuse."""
    if not isinstance(content, dict):
        return content
    return {name: content[name] for name in form.model_fields if name in content}


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


def _explain_request(error: ValidationError, form: type[BaseModel]) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{step}]" if isinstance(step, int) else step for step in fault["loc"])
    return f"{place or 'the body'}: {fault['msg'].replace(form.__name__, 'the request')}"
