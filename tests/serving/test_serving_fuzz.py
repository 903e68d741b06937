"""Whatever bytes come in, they end as an answer or as a fault of 4xx; never as another exception."""

import json

import tiny_bundles
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.deployed import Deployed
from serving.faults import Fault
from serving.multipart import read_images
from serving.predictions import predict_images, predict_texts, read_texts

PNG = tiny_bundles.png(80)
FORM = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + PNG + b"\r\n--edge--\r\n"
REQUEST = b'{"texts": ["the good film", "b\xc3\xa4d \\u00e4 film"]}'
# onnxruntime has its thread flush subnormal numbers to zero, which hypothesis would notice.
FLOATS = st.floats(allow_subnormal=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["texts", "x"]), inner, max_size=2),
    max_leaves=8,
)
QUICK = settings(max_examples=150, deadline=None, derandomize=True)


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
@given(encoded=damaged(PNG) | st.binary(max_size=200))
def test_any_bytes_as_an_image(image_model: Deployed, encoded: bytes) -> None:
    try:
        json.loads(predict_images(image_model, [encoded], None))
    except Fault as fault:
        assert 400 <= fault.status < 500


@QUICK
@given(body=damaged(FORM) | st.binary(max_size=200), boundary=st.sampled_from(["edge", '"edge"', "e", "", "=;\\"]))
def test_any_bytes_as_a_form(image_model: Deployed, body: bytes, boundary: str) -> None:
    try:
        predict_images(image_model, read_images(body, f"multipart/form-data; boundary={boundary}", 8), None)
    except Fault as fault:
        assert 400 <= fault.status < 500


@QUICK
@given(body=damaged(REQUEST) | st.binary(max_size=100) | JSON.map(lambda content: json.dumps(content).encode()))
def test_any_bytes_as_json(text_model: Deployed, body: bytes) -> None:
    try:
        json.loads(predict_texts(text_model, read_texts(body, 8)))
    except Fault as fault:
        assert 400 <= fault.status < 500
