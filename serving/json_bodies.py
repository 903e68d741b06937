"""A JSON body -> the request that it holds, or the RequestError that says why it holds none."""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from serving.errors import RequestError

R = TypeVar("R", bound=BaseModel)


def read_request(body: bytes, form: type[R]) -> R:
    """The body as `form`. Raises RequestError where it is not JSON that every parser reads alike, or not that form."""
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # also bad UTF-8, and integers of thousands of digits
        raise RequestError("malformed_json", _explain_json(error)) from None
    if isinstance(content, dict) and len(content) > len(form.model_fields):
        content = _with_one_unknown(content, form)
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise RequestError("invalid_request", _explain_request(error, form)) from None


def _with_one_unknown(content: dict[str, object], form: type[BaseModel]) -> dict[str, object]:
    """What has too many fields, with one of those that `form` lacks: pydantic would build an error for each of them."""
    known = {name: content[name] for name in form.model_fields if name in content}
    unknown = next(name for name in content if name not in known)
    return {**known, unknown: content[unknown]}


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
    if fault["type"] == "extra_forbidden":
        names = " and ".join(f"`{name}`" for name in form.model_fields)
        return f"a field is not known; the body has {names} and nothing else"
    place = "".join(f"[{step}]" if isinstance(step, int) else step for step in fault["loc"])
    return f"{place or 'the body'}: {fault['msg'].replace(form.__name__, 'the request')}"
