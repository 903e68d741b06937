"""A JSON body that is wrong in a million places costs little more than one that is wrong in one."""

import json
import tracemalloc
from typing import TypeVar

import pytest
from pydantic import BaseModel

from serving.bodies import read_request
from serving.errors import RequestError
from serving.kinds.text import TextsRequest, TextToExplain
from serving.streams import StreamMessage, StreamRequest

R = TypeVar("R", bound=BaseModel)
COUNT = 20_000
MOST_BYTES_EACH = 250  # of memory, for one wrong item; an error of pydantic takes some 800
FORMS: list[tuple[type[BaseModel], str]] = [
    (TextsRequest, '"texts": ["a"]'),
    (TextToExplain, '"text": "a"'),
    (StreamRequest, '"text": "a"'),
    (StreamMessage, '"text": "a"'),
]
UNKNOWN = "a field is not known; the body has "


def refuse(body: str, form: type[R]) -> str:
    """The message of the refusal."""
    with pytest.raises(RequestError) as caught:
        read_request(body.encode(), form)
    assert caught.value.code == "invalid_request"
    return caught.value.message


def peak_bytes(body: str, form: type[R]) -> int:
    """The most memory that was in use while the body was refused."""
    tracemalloc.start()
    try:
        refuse(body, form)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("item", ["1", "null", "[]", "{}", "[[]]", "1e99"])
def test_wrong_items_build_one_error(item: str) -> None:
    body = '{"texts": [' + ",".join([item] * COUNT) + "]}"
    assert peak_bytes(body, TextsRequest) < COUNT * MOST_BYTES_EACH
    assert refuse(body, TextsRequest) == "texts[0]: Input should be a valid string"


@pytest.mark.parametrize(("form", "right"), FORMS)
@pytest.mark.parametrize("beside", [True, False])
def test_unknown_fields_build_one_error(form: type[BaseModel], right: str, beside: bool) -> None:
    unknown = ",".join(f'"{index:x}":1' for index in range(COUNT))
    body = f"{{{right},{unknown}}}" if beside else f"{{{unknown}}}"
    assert peak_bytes(body, form) < COUNT * MOST_BYTES_EACH
    name = next(iter(form.model_fields))
    assert refuse(body, form).startswith(UNKNOWN if beside else f"{name}: Field required")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"texts": [1], "x": 1}, "texts[0]: Input should be a valid string"),
        ({"x": 1, "texts": "a"}, "texts: Input should be a valid list"),
        ({"x": 1, "texts": ["a", "b", 2, None]}, "texts[2]: Input should be a valid string"),
        ({"texts": []}, "texts: List should have at least 1 item after validation, not 0"),
        ({"texts": ["a"], "": 1}, f"{UNKNOWN}`texts` and nothing else"),
        ([{"texts": ["a"]}], "the body: Input should be a valid dictionary or instance of the request"),
    ],
)
def test_the_first_error_is_the_one_told(body: object, message: str) -> None:
    assert refuse(json.dumps(body), TextsRequest) == message
