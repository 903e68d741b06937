"""Whatever comes in ends as an answer or as an error of 4xx, in the functions and over HTTP."""

import http.client
import json
import time
from contextlib import closing

import psutil
import pytest
import tiny_bundles
from conftest import FUZZ, Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.bodies import read_images, read_request
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.kinds.image import METHODS, Question
from serving.kinds.image import explain as explain_image
from serving.kinds.image import predict as predict_images
from serving.kinds.text import TextToExplain, read_texts
from serving.kinds.text import explain as explain_text
from serving.kinds.text import predict as predict_texts
from serving.schemas import Method

pytestmark = pytest.mark.process
PNG = tiny_bundles.png(80)
FORM = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + PNG + b"\r\n--edge--\r\n"
REQUEST = b'{"texts": ["the good film", "b\xc3\xa4d \\u00e4 film"]}'
QUESTION = b'{"text": "the good film, b\xc3\xa4d \\u00e4 film", "label": "positive"}'
# onnxruntime has its thread flush subnormal numbers to zero, which hypothesis would notice.
FLOATS = st.floats(allow_subnormal=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["texts", "x"]), inner, max_size=2),
    max_leaves=8,
)
MANY = settings.get_current_profile_name() == FUZZ
QUICK = settings(
    max_examples=30_000 if MANY else 150,
    deadline=None,
    derandomize=not MANY,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
IMAGES = [PNG, *(tiny_bundles.encoded(form) for form in ("JPEG", "WEBP"))]
WITHIN_S = 10  # the service's own deadline


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with a few of them replaced, removed or doubled."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 9)))
        content[start:end] = draw(st.binary(max_size=9))
    return bytes(content)


@QUICK
@given(encoded=st.sampled_from(IMAGES).flatmap(damaged) | st.binary(max_size=200))
def test_any_bytes_as_an_image(image_model: Deployed, encoded: bytes) -> None:
    try:
        json.loads(predict_images(image_model, [encoded], None))
    except RequestError as error:
        assert 400 <= error.status < 500


@QUICK
@given(body=damaged(FORM) | st.binary(max_size=200), boundary=st.sampled_from(["edge", '"edge"', "e", "", "=;\\"]))
def test_any_bytes_as_a_form(image_model: Deployed, body: bytes, boundary: str) -> None:
    try:
        predict_images(image_model, read_images(body, f"multipart/form-data; boundary={boundary}", 8), None)
    except RequestError as error:
        assert 400 <= error.status < 500


@QUICK
@given(encoded=st.sampled_from(IMAGES).flatmap(damaged) | st.binary(max_size=200), method=st.sampled_from(METHODS))
def test_any_bytes_as_an_image_to_explain(image_model: Deployed, encoded: bytes, method: Method) -> None:
    try:
        json.loads(explain_image(image_model, encoded, Question(method=method)))
    except RequestError as error:
        assert 400 <= error.status < 500


@QUICK
@given(body=damaged(QUESTION) | st.text(max_size=80).map(lambda text: json.dumps({"text": text}).encode()))
def test_any_text_to_explain_has_its_words_where_they_stand(text_model: Deployed, body: bytes) -> None:
    try:
        request = read_request(body, TextToExplain)
        words = json.loads(explain_text(text_model, request.text, None))["words"]
        assert all(request.text[word["start"] : word["end"]] == word["text"] for word in words)
    except RequestError as error:
        assert 400 <= error.status < 500


@QUICK
@given(body=damaged(REQUEST) | st.binary(max_size=100) | JSON.map(lambda content: json.dumps(content).encode()))
def test_any_bytes_as_json(text_model: Deployed, body: bytes) -> None:
    try:
        json.loads(predict_texts(text_model, read_texts(body, 8)))
    except RequestError as error:
        assert 400 <= error.status < 500


ROUTES = [f"/v1/{things}/{verb}" for things in ("fashion", "reviews") for verb in ("predict", "sets", "explain")]
PATHS = st.sampled_from([*ROUTES, "/v1/reviews-stream/stream", "/", "/x"])
TYPES = st.sampled_from(
    [
        "image/png",
        "image/jpeg",
        "image/webp",
        "application/json",
        "multipart/form-data; boundary=edge",
        "text/plain",
        "",
    ]
)
QUERIES = st.sampled_from(
    [
        "",
        "",
        "?polarity=dark_on_light",
        "?label=dark&method=occlusion",
        "?label=%ff",
        "?polarity=",
        "?x=%00",
        "?" + "a" * 300,
    ]
)
BODIES = st.one_of(
    st.sampled_from(IMAGES).flatmap(damaged),
    damaged(FORM),
    damaged(REQUEST),
    damaged(QUESTION),
    st.binary(max_size=300),
    JSON.map(json.dumps),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "x-request-id",
            "x-request-timeout-ms",
            "origin",
            "authorization",
            "content-encoding",
            "accept",
            "x-a",
            "expect",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20),
    max_size=3,
)


@pytest.fixture(scope="module")
def worker(server: Server) -> psutil.Process:
    """The process that answers, which must still be the same in the end."""
    return _worker(server)


def _worker(server: Server) -> psutil.Process:
    return max(psutil.Process(server.pid).children(recursive=True), key=lambda child: child.memory_info().rss)


@QUICK
@given(path=PATHS, query=QUERIES, content_type=TYPES, headers=HEADERS, body=BODIES)
def test_any_request_over_http(
    server: Server,
    worker: psutil.Process,
    path: str,
    query: str,
    content_type: str,
    headers: dict[str, str],
    body: bytes | str,
) -> None:
    began_s = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WITHIN_S)) as connection:
        content = body.encode() if isinstance(body, str) else body
        named = {name: value.encode("latin-1") for name, value in headers.items()}
        connection.request("POST", path + query, content, {"content-type": content_type, **named})
        response = connection.getresponse()
        answer = response.read()
    assert response.status < 500, answer
    assert time.monotonic() - began_s < WITHIN_S


def test_after_all_this_the_same_worker_lives(server: Server, worker: psutil.Process) -> None:
    assert _worker(server) == worker and worker.is_running()
