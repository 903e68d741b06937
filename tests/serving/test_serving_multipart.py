"""Multipart bodies -> images, called directly."""

import pytest

from serving.bodies import read_images
from serving.errors import RequestError

TYPE = 'multipart/form-data; boundary="edge"'


def part(disposition: bytes, data: bytes = b"x", *more: bytes) -> bytes:
    lines = [b"--edge", b"Content-Disposition: " + disposition, *more, b"", data]
    return b"\r\n".join(lines) + b"\r\n"


FILE = b'form-data; name="image"; filename="a.png"'
END = b"--edge--\r\n"


def test_the_files_come_in_the_order_of_the_form_byte_for_byte() -> None:
    data = [bytes(range(256)), b"\r\n--edg\r\n--\r\n\r\n", b""]
    body = b"".join(part(FILE, image, b"Content-Type: image/png") for image in data) + END
    assert read_images(body, TYPE, 8) == data


@pytest.mark.parametrize(
    "form_type", ["", "application/octet-stream", "image/png", "image/jpeg", "image/jpg", "IMAGE/WEBP; q=1"]
)
def test_a_part_may_be_of_any_type_that_clients_guess_for_images(form_type: str) -> None:
    more = [b"Content-Type: " + form_type.encode()] if form_type else []
    assert read_images(part(FILE, b"x", *more) + END, TYPE, 8) == [b"x"]


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (part(FILE) + END, "multipart/form-data", "malformed_multipart"),
        (part(FILE) + END, "multipart/form-data; boundary=", "malformed_multipart"),
        (part(FILE) + END, "multipart/form-data; boundary=other", "malformed_multipart"),
        (part(FILE) + END, "multipart/form-data; boundary=" + "x" * 5000, "malformed_multipart"),
        (b"", TYPE, "malformed_multipart"),
        (b"\x89PNG", TYPE, "malformed_multipart"),
        (part(FILE), TYPE, "malformed_multipart"),
        (part(FILE)[:-20], TYPE, "malformed_multipart"),
        (part(b"attachment") + END, TYPE, "malformed_multipart"),
        (part(b"form-data") + END, TYPE, "malformed_multipart"),
        (b"--edge\r\n\r\nx\r\n" + END, TYPE, "malformed_multipart"),
        (b"--edge\r\nbroken\r\n\r\nx\r\n" + END, TYPE, "malformed_multipart"),
        (b"--edge\r\n" + b"A: b\r\n" * 1000 + b"\r\nx\r\n" + END, TYPE, "malformed_multipart"),
        (part(FILE, b"x", b"X: " + b"y" * 100_000) + END, TYPE, "malformed_multipart"),
        (END, TYPE, "image_missing"),
        (part(b'form-data; name="picture"; filename="a.png"') + END, TYPE, "unknown_field"),
        (part(FILE) + part(b'form-data; name="extra"') + END, TYPE, "unknown_field"),
        (part(b'form-data; name="image"', b"http://127.0.0.1/a.png") + END, TYPE, "not_a_file"),
        (part(b"form-data; name=\"image\"; filename*=utf-8''a.png") + END, TYPE, "not_a_file"),
        (part(FILE, b"x", b"Content-Type: text/html") + END, TYPE, "unsupported_media_type"),
        (part(FILE, b"x", b"Content-Type: multipart/mixed; boundary=in") + END, TYPE, "unsupported_media_type"),
        (part(FILE) * 9 + END, TYPE, "too_many_items"),
        (b"--edge\r\n\r\n\r\n" * 100_000, TYPE, "too_many_items"),
    ],
)
def test_any_other_form_is_refused(body: bytes, content_type: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_images(body, content_type, 8)
    assert caught.value.code == code
