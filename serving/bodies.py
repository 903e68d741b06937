"""A whole body, JSON or a form of images -> what it holds, or the RequestError that says why it holds nothing."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.errors import RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

R = TypeVar("R", bound=BaseModel)
FIELD = b"image"
# curl, browsers and requests guess the type from the file's name; the bytes decide in the end.
PART_TYPES = frozenset({b"", b"application/octet-stream", b"image/png", b"image/jpeg", b"image/jpg", b"image/webp"})


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


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: list[bytes] = field(default_factory=list)


class _Form:
    """The callbacks of the parser; keeps at most `max_items` parts, so that a hostile form costs no more."""

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self.parts: list[_Part] = []
        self.ended = False
        self._name = b""
        self._value = b""

    def callbacks(self) -> "MultipartCallbacks":
        """The methods by the names that the parser knows."""
        return {
            "on_part_begin": self.on_part_begin,
            "on_part_data": self.on_part_data,
            "on_header_begin": self.on_header_begin,
            "on_header_field": self.on_header_field,
            "on_header_value": self.on_header_value,
            "on_header_end": self.on_header_end,
            "on_end": self.on_end,
        }

    def on_part_begin(self) -> None:
        if len(self.parts) == self.max_items:
            raise RequestError("too_many_items", f"the form has more than {self.max_items} parts")
        self.parts.append(_Part())

    def on_header_begin(self) -> None:
        self._name = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self.parts[-1].headers[self._name.lower()] = self._value

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data.append(data[start:end])

    def on_end(self) -> None:
        self.ended = True


def read_images(body: bytes, content_type: str, max_items: int) -> list[bytes]:
    """The encoded images in the order of the form. Raises RequestError for any other form, and never fetches a URL."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise RequestError("malformed_multipart", "the content type names no boundary")
    form = _Form(max_items)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
    except FormParserError:
        raise RequestError(
            "malformed_multipart", "the body does not follow the boundary that its content type names"
        ) from None
    if not form.ended:
        raise RequestError("malformed_multipart", "the form ends before its closing boundary")
    images = [_image(index, part) for index, part in enumerate(form.parts)]
    if not images:
        raise RequestError("image_missing", "the form has no field `image`")
    return images


def _image(index: int, part: _Part) -> bytes:
    disposition, options = parse_options_header(part.headers.get(b"content-disposition", b""))
    if disposition != b"form-data" or b"name" not in options:
        raise RequestError("malformed_multipart", f"part {index} has no form-data name")
    if options[b"name"] != FIELD:
        raise RequestError("unknown_field", f"part {index} of the form has another name than `image`")
    if b"filename" not in options:
        raise RequestError("not_a_file", f"image[{index}] is text, not a file; URLs and paths are never fetched")
    media_type, _ = parse_options_header(part.headers.get(b"content-type", b""))
    if media_type not in PART_TYPES:
        raise RequestError("unsupported_media_type", f"image[{index}] must be image/png, image/jpeg or image/webp")
    return b"".join(part.data)
