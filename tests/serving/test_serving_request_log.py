"""The request log: off by default; on, a line per request, nothing of what was sent, bounded, and never in the way."""

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_bundles
from conftest import serve
from starlette.testclient import TestClient

from convoy.core import request_log_files
from serving import request_log as module
from serving.deployed import Deployed
from serving.errors import RequestError
from serving.request import RequestContext
from serving.request_log import STOPPED_WITHIN_S, RequestLog, Settings

PNG = tiny_bundles.png(200)
SECRET = "a text that nobody else may read, bad"


def log_of(path: Path, **settings: Any) -> RequestLog:
    return RequestLog(Settings(path, **settings))


def answered(model: Deployed | None = None, *, answer: bytes = b"", request_id: str = "one") -> RequestContext:
    context = RequestContext()
    context.request_id, context.task, context.status = request_id, "reviews", 200
    context.model, context.answer, context.body, context.content_type = model, answer, SECRET.encode(), "text/plain"
    return context


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_is_off_where_nobody_asks_for_it_and_the_service_says_so(client: TestClient) -> None:
    assert RequestLog.from_environment({}) is None and RequestLog.from_environment({"CONVOY_REQUEST_LOG": ""}) is None
    assert client.get("/v1/models").json()["request_log"] == {"state": "off"}


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CONVOY_REQUEST_LOG_SHARE", "1.5", "is '1.5', a number from 0 to 1 is expected"),
        ("CONVOY_REQUEST_LOG_SHARE", "nan", "a number from 0 to 1"),
        ("CONVOY_REQUEST_LOG_PAYLOADS", "yes", "is 'yes', 0 or 1 is expected"),
        ("CONVOY_REQUEST_LOG_FILES", "0", "a number from 1 to 1000"),
        ("CONVOY_REQUEST_LOG_MB", "much", "is 'much', a number"),
        ("CONVOY_REQUEST_LOG", "/proc/nowhere/log", "cannot be written"),
        ("CONVOY_REQUEST_LOG", "/dev/null", "cannot be written .it is no regular file"),
        ("CONVOY_REQUEST_LOG", "x" * 300, "File name too long"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, variable: str, value: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"{variable}.* .*{words}"):
        RequestLog.from_environment({"CONVOY_REQUEST_LOG": str(tmp_path / "log"), variable: value})


def test_a_folder_gets_a_file_and_a_file_keeps_its_name(tmp_path: Path) -> None:
    assert request_log_files.current(str(tmp_path)) == tmp_path / "requests.jsonl"
    assert request_log_files.current(f"{tmp_path}/new/") == tmp_path / "new" / "requests.jsonl"
    assert request_log_files.current(f"{tmp_path}/a.log") == tmp_path / "a.log"


def test_what_was_sent_is_written_only_where_that_is_asked_for(tmp_path: Path) -> None:
    for payloads in (False, True):
        log = log_of(tmp_path / "log", payloads=payloads)
        log.note("/v1/reviews/predict", b"a=b", answered())
        log.write()
    plain, full = lines_of(tmp_path / "log")
    assert set(plain) == {"at", "id", "route", "task", "status", "ms"}
    assert base64.b64decode(full["payload"]["base64"]).decode() == SECRET and full["payload"]["query"] == "a=b"


def test_a_large_payload_is_noted_by_its_size(tmp_path: Path) -> None:
    log, context = log_of(tmp_path / "log", payloads=True), answered()
    context.body = bytes(2_000_000)
    log.note("/v1/reviews/predict", b"", context)
    log.write()
    [line] = lines_of(tmp_path / "log")
    assert line["payload"]["bytes"] == 2_000_000 and "base64" not in line["payload"]


def test_a_share_of_the_requests_is_logged(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", share=0.25)
    for _ in range(2000):
        log.note("/v1/reviews/predict", b"", answered())
    log.write()
    assert 400 < len(lines_of(tmp_path / "log")) < 600  # six standard deviations are 116


def test_who_was_turned_away_before_a_model_was_asked_fills_no_log(tmp_path: Path) -> None:
    log, stranger, gone = log_of(tmp_path / "log"), answered(), answered()
    stranger.task, gone.status = None, 0
    log.note("/v1/reviews/predict", b"", stranger)
    log.note("/v1/reviews/predict", b"", gone)
    log.write()
    assert not (tmp_path / "log").exists()


def test_a_fault_is_logged_by_its_code(tmp_path: Path) -> None:
    log, context = log_of(tmp_path / "log"), answered()
    context.error, context.status = RequestError("text_too_long"), 413
    log.note("/v1/reviews/predict", b"", context)
    log.write()
    [line] = lines_of(tmp_path / "log")
    assert (line["status"], line["code"]) == (413, "text_too_long") and "predictions" not in line


def test_of_an_explanation_the_label_and_its_probability_are_written(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    said = b'{"label": "a", "probability": 0.5, "words": [{"text": "%b"}]}' % SECRET.encode()
    log.note("/v1/reviews/explain", b"", answered(answer=said))
    log.write()
    [line] = lines_of(tmp_path / "log")
    assert line["explanation"] == {"label": "a", "probability": 0.5} and "predictions" not in line
    assert SECRET not in (tmp_path / "log").read_text()


def test_what_falls_behind_is_dropped_and_counted_and_memory_stays_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[str] = []
    monkeypatch.setattr(module, "logged_of", str)
    monkeypatch.setattr(module.metrics_buffer, "count", outcomes.append)
    log = log_of(tmp_path / "log")
    for _ in range(module.MOST_WAITING + 5):
        log.note("/v1/reviews/predict", b"", answered())
    assert outcomes == ["dropped"] * 5
    log.write()
    assert outcomes[5:] == ["written"] * module.MOST_WAITING
    large = answered(answer=bytes(module.MOST_WAITING_BYTES // 2))
    for _ in range(3):
        log.note("/v1/reviews/predict", b"", large)
    assert outcomes[-1] == "dropped" and outcomes.count("dropped") == 6


def test_a_disk_that_refuses_is_told_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[str] = []
    monkeypatch.setattr(module, "logged_of", str)
    monkeypatch.setattr(module.metrics_buffer, "count", outcomes.append)
    log = log_of(tmp_path / "folder" / "log")  # which nobody has made
    for _ in range(2):
        log.note("/v1/reviews/predict", b"", answered())
        log.write()
    assert outcomes == ["failed"] * 2 and caplog.text.count("requests are answered and not logged") == 1
    (tmp_path / "folder").mkdir()
    log.note("/v1/reviews/predict", b"", answered())
    log.write()
    assert outcomes[2:] == ["written"]


def test_a_malformed_record_ends_no_logging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[str] = []
    monkeypatch.setattr(module, "logged_of", str)
    monkeypatch.setattr(module.metrics_buffer, "count", outcomes.append)
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.01)
    log = log_of(tmp_path / "log")
    log.start()
    for request_id, answer in (("bad 1", b'{"predictions": 1}'), ("bad 2", b"no JSON"), ("good", b"")):
        log.note("/v1/reviews/predict", b"", answered(answer=answer, request_id=request_id))
        time.sleep(0.1)  # so that each is written by itself
    log.stop()
    assert [line["id"] for line in lines_of(tmp_path / "log")] == ["good"]
    assert outcomes == ["failed", "failed", "written"] and caplog.text.count("is answered and not logged") == 1


def test_a_full_file_moves_on_and_the_oldest_goes(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", max_bytes=300, files=3)
    for number in range(12):
        log.note("/v1/reviews/predict", b"", answered(request_id=f"number-{number:06d}"))
    log.write()
    assert [path.name for path in request_log_files.existing(str(tmp_path / "log"))] == ["log", "log.1", "log.2"]
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    kept = [line["id"] for name in ("log.2", "log.1", "log") for line in lines_of(tmp_path / name)]
    assert 3 <= len(kept) < 12 and kept == [f"number-{number:06d}" for number in range(12 - len(kept), 12)]
    assert all((tmp_path / name).stat().st_mode & 0o777 == 0o600 for name in os.listdir(tmp_path))
    assert all((tmp_path / name).stat().st_size <= 300 for name in os.listdir(tmp_path))


def test_one_file_alone_begins_anew_when_full(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", max_bytes=300, files=1)
    for number in range(12):
        log.note("/v1/reviews/predict", b"", answered(request_id=str(number)))
    log.write()
    assert os.listdir(tmp_path) == ["log"] and (tmp_path / "log").stat().st_size <= 300
    assert lines_of(tmp_path / "log")[-1]["id"] == "11"


def test_half_a_line_that_a_kill_left_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b'{"id": "ha')
    log = log_of(tmp_path / "log")
    log.note("/v1/reviews/predict", b"", answered())
    log.write()
    half, whole = (tmp_path / "log").read_text().splitlines()
    assert half == '{"id": "ha' and json.loads(whole)["id"] == "one"


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    for name in ("first", "second"):
        log.note("/v1/reviews/predict", b"", answered(request_id=name))
        log.write()
        (tmp_path / "log").rename(tmp_path / name)
    assert [lines_of(tmp_path / name)[0]["id"] for name in ("first", "second")] == ["first", "second"]


def test_a_full_disk_costs_its_lines_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes no byte; what did not go there must not come out later."""
    outcomes: list[str] = []
    monkeypatch.setattr(module, "logged_of", str)
    monkeypatch.setattr(module.metrics_buffer, "count", outcomes.append)
    log = log_of(tmp_path / "log")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_make_private", lambda _: None)
        (tmp_path / "log").symlink_to("/dev/full")
        log.note("/v1/reviews/predict", b"", answered(request_id="lost"))
        log.write()
    (tmp_path / "log").unlink()
    log.note("/v1/reviews/predict", b"", answered(request_id="kept"))
    log.write()
    assert outcomes == ["failed", "written"] and [line["id"] for line in lines_of(tmp_path / "log")] == ["kept"]


def test_the_files_of_all_workers_are_found(tmp_path: Path) -> None:
    for name in ("a.log", "a-2.log", "a.log.1", "a-2.log.10", "a-x.log", "b.log", "a.log.gz", "a[1].log"):
        (tmp_path / name).touch()
    found = [path.name for path in request_log_files.existing(str(tmp_path / "a.log"))]
    assert found == ["a.log", "a-2.log", "a.log.1", "a-2.log.10"]
    assert request_log_files.of_worker(tmp_path / "a.log", 1).name == "a.log"
    assert request_log_files.of_worker(tmp_path / "a.log", 2).name == "a-2.log"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="cannot be written"):
        RequestLog.from_environment({"CONVOY_REQUEST_LOG": str(tmp_path / "log")})
    assert not (tmp_path / "elsewhere").exists()


def test_a_pipe_in_its_place_blocks_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(ValueError, match="it is no regular file"):
        RequestLog.from_environment({"CONVOY_REQUEST_LOG": str(tmp_path / "log")})
    log = log_of(tmp_path / "log")
    log.start()
    log.note("/v1/reviews/predict", b"", answered())
    began_s = time.monotonic()
    log.stop()
    assert time.monotonic() - began_s < STOPPED_WITHIN_S and log._thread is not None and not log._thread.is_alive()


@pytest.mark.process
def test_a_real_service_logs_each_request_and_nothing_of_what_was_sent(deployed: Path, tmp_path: Path) -> None:
    where = {"CONVOY_REQUEST_LOG": f"{tmp_path}/requests/", "CONVOY_WORKERS": "2"}
    with serve(deployed, tmp_path, **where) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/v1/models").json()["request_log"] == {"state": "on", "share": 1.0, "payloads": False}
        headers = {"x-request-id": "mine-1", "user-agent": "a-browser-of-mine"}
        text = client.post("/v1/reviews/predict", json={"texts": [SECRET, "good"]}, headers=headers)
        image = client.post("/v1/fashion/sets", content=PNG, headers={"content-type": "image/png"})
        bad = client.post("/v1/fashion/predict", content=b"SECRET", headers={"content-type": "image/png"})
        answers_by_id = {answer.headers["x-request-id"]: answer for answer in (text, image, bad)}
        client.post("/v1/reviews/predict", json={"texts": [SECRET]}, headers={"host": "evil.example"})
        file = tmp_path / "requests" / "requests.jsonl"
        for _ in range(50):
            metrics = client.get("/metrics").text  # another worker's are half a second behind
            if 'convoy_logged_requests_total{outcome="written"} 3.0' in metrics:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(metrics)
    files = request_log_files.existing(f"{tmp_path}/requests/")
    assert {path.name for path in files} <= {"requests.jsonl", "requests-2.jsonl"} and file in files
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    lines = {line["id"]: line for path in files for line in lines_of(path)}
    assert set(lines) == set(answers_by_id)
    written = "".join(path.read_text() for path in files)
    assert not any(word in written for word in ("nobody", "browser", "SECRET", "evil"))
    release = text.json()["model"]
    text_line = lines["mine-1"]
    assert (text_line["route"], text_line["task"], text_line["status"]) == ("/v1/reviews/predict", "reviews", 200)
    assert (text_line["version"], text_line["digest"]) == (release["version"], release["digest"])
    assert 0 < text_line["ms"] < 10_000
    predictions = text.json()["predictions"]
    assert text_line["predictions"] == [{name: row[name] for name in ("label", "probability")} for row in predictions]
    assert lines[image.headers["x-request-id"]]["predictions"] == image.json()["predictions"]
    assert lines[bad.headers["x-request-id"]]["code"] == "undecodable_image"


@pytest.mark.process
def test_a_wrong_setting_stops_the_service_with_a_sentence(deployed: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="CONVOY_REQUEST_LOG_SHARE is '2', a number from 0 to 1 is expected"),
        serve(deployed, tmp_path, CONVOY_REQUEST_LOG=f"{tmp_path}/requests/", CONVOY_REQUEST_LOG_SHARE="2"),
    ):
        raise ValueError("it must not come to this")
    assert "Traceback" not in (tmp_path / "log").read_text()
