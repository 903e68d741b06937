"""What runs on the event loop and what in a thread beside it."""

import asyncio
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
import tiny_bundles
from conftest import ROOT, no_bentoml
from test_serving_overload import request as send_request

from serving.bodies import read_images
from serving.deployed import Deployed
from serving.kinds import image as kind
from serving.middleware import Middleware
from serving.models import DeployedModels, Work
from serving.request import RequestContext
from serving.request_log import RequestLog, Settings

PNG = tiny_bundles.png(80)


def form_of(*images: bytes) -> bytes:
    head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return b"".join(head + image + b"\r\n" for image in images) + b"--edge--\r\n"


def test_an_image_request_enters_at_most_nine_files(image_model: Deployed, tmp_path: Path) -> None:
    """With connections.py, which reads it from the network; its line is written later, by a thread."""
    models = DeployedModels({"fashion": image_model})
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(ROOT / "serving"):
            entered.add(frame.f_code.co_filename)

    async def ask_twice() -> int:
        layer = Middleware(no_bentoml, models, request_log=RequestLog(Settings(tmp_path / "log")))
        await send_request(layer, PNG)  # computes what stays
        sys.setprofile(note)
        try:
            status, _ = await send_request(layer, PNG)
        finally:
            sys.setprofile(None)
        return status

    assert asyncio.run(ask_twice()) == 200
    assert 5 < len({*entered, "connections.py"}) <= 9, entered


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

    monkeypatch.setattr(kind, "read_images", read)
    context = RequestContext()
    context.body, context.content_type = body, "multipart/form-data; boundary=edge"
    models = DeployedModels({"fashion": image_model})
    handler = models.by_path["/v1/fashion/predict"].handler
    assert handler is not None

    async def ask() -> bytes:
        return await handler(Work(models), image_model, context)

    answer = asyncio.run(ask())
    assert answer.startswith(b'{"model":')
    assert [reader == threading.get_ident() for reader in readers] == [on_the_loop]
