"""A JSON body -> the request that it holds, or the RequestError that says why it holds none."""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from serving.errors import RequestError

R = TypeVar("R", bound=BaseModel)


def read_request(body: bytes, form: type[R]) -> R:
    """The body as `form`. Raises RequestError where it is not JSON that every parser reads alike, or not that form."""
    try:
        content = json.loads(
            body.decode("utf-8"), object_pairs_hook=_reject_duplicate_keys, parse_constant=_reject_constant
        )
    except (ValueError, RecursionError) as error:  # also bad UTF-8, and integers of thousands of digits
        raise RequestError("malformed_json", _explain_json(error)) from None
    if isinstance(content, dict) and len(content) > len(form.model_fields):
        content = _keep_one_unknown(content, form)
    try:
        return form.model_validate(content)
    except ValidationError as error:
        raise RequestError("invalid_request", _explain_request(error, form)) from None


def _keep_one_unknown(content: dict[str, object], form: type[BaseModel]) -> dict[str, object]:
    """The fields of `form` and one unknown field: pydantic would build an error for each unknown one."""
    fields = {name: content[name] for name in form.model_fields if name in content}
    unknown = next(name for name in content if name not in fields)
    return {**fields, unknown: content[unknown]}


def _reject_duplicate_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return content


def _reject_constant(_: str) -> object:
    raise ValueError("NaN and Infinity are not JSON")


def _explain_json(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"the body is not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"the body is not JSON at line {error.lineno}, column {error.colno}"
    # int() has a limit of its own, and a message about Python.
    return "a number has too many digits" if "digits" in str(error) else str(error)


def _explain_request(error: ValidationError, form: type[BaseModel]) -> str:
    details = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if details["type"] == "extra_forbidden":
        names = " and ".join(f"`{name}`" for name in form.model_fields)
        return f"a field is not known; the body has {names} and nothing else"
    place = "".join(f"[{step}]" if isinstance(step, int) else step for step in details["loc"])
    return f"{place or 'the body'}: {details['msg'].replace(form.__name__, 'the request')}"
