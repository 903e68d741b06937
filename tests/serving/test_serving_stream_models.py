"""What a stream says where another model is deployed than the one that a text began with, or none."""

from pathlib import Path

import pytest
from conftest import deploy, error_of, service_of
from starlette.testclient import WebSocketDenialResponse
from tiny_bundles import write_stream_bundle

PATH = "/v1/reviews-stream/stream"


def write_another(folder: Path) -> None:
    write_stream_bundle(folder, shift=1.0)


def test_a_state_is_good_for_another_server_with_the_same_model_and_for_no_other_model(tmp_path: Path) -> None:
    for name, write in (("one", write_stream_bundle), ("replica", write_stream_bundle), ("other", write_another)):
        for task in ("fashion", "reviews"):
            deploy(tmp_path / name, task)
        deploy(tmp_path / name, "reviews-stream", write)
    with service_of(tmp_path / "one") as client:
        state = client.post(PATH, json={"text": "the goo"}).json()["state"]
    with service_of(tmp_path / "replica") as client:
        answer = client.post(PATH, json={"text": "d film", "final": True, "state": state}).json()
        assert [word["word"] for word in answer["words"]] == ["good", "film"]
    with service_of(tmp_path / "other") as client:
        refused = client.post(PATH, json={"text": "d film", "state": state})
        assert (refused.status_code, error_of(refused)["code"]) == (409, "state_outdated")


def test_without_a_model_both_ways_say_so(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion")
    for expected in ((404, "not_found"), (503, "model_unavailable")):
        if expected[0] == 503:
            (deploy(tmp_path, "reviews-stream") / "model.onnx").unlink()
        with service_of(tmp_path) as client:
            answer = client.post(PATH, json={"text": ""})
            assert (answer.status_code, error_of(answer)["code"]) == expected
            with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(PATH):
                pass
            assert (denied.value.status_code, error_of(denied.value)["code"]) == expected
