"""What runs on the event loop and what in a thread beside it."""

import asyncio
import threading

import pytest
import tiny_bundles

from serving import handlers
from serving.deployed import Deployed, DeployedModels
from serving.handlers import Handlers
from serving.multipart import read_images
from serving.predictions import answer_predictions
from serving.request_context import RequestContext

PNG = tiny_bundles.png(80)


def form_of(*images: bytes) -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return b"".join(head + image + b"\r\n" for image in images) + b"--edge--\r\n"


@pytest.mark.parametrize(
    ("body", "on_the_loop"),
    [(form_of(PNG), True), (form_of(PNG, PNG), True), (form_of(PNG, PNG + bytes(70_000)), False)],
    ids=["one", "two", "large"],
)
def test_only_a_small_form_is_read_on_the_event_loop(
    image_model: Deployed, monkeypatch: pytest.MonkeyPatch, body: bytes, on_the_loop: bool
) -> None:
    readers: list[int] = []

    def read(*arguments: object) -> list[bytes]:
        readers.append(threading.get_ident())
        return read_images(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(handlers, "read_images", read)
    context = RequestContext()
    context.body, context.content_type = body, "multipart/form-data; boundary=edge"
    models = DeployedModels({"image": image_model})
    answer = asyncio.run(Handlers(models, {"state": "off"}).images(answer_predictions, b"", context))
    assert answer.startswith(b'{"model":')
    assert [reader == threading.get_ident() for reader in readers] == [on_the_loop]
