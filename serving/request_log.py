"""Answered requests -> one JSON line each, a little later and by a thread of its own; off by default.

A line has model and answer, and what was sent only where the settings say so. Each worker has a file of its own.
"""

import base64
import errno
import logging
import os
import random
import stat
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from convoy.core import request_log_files
from serving.metrics import logged_of, metrics_buffer
from serving.request import RequestContext
from serving.schemas import RequestLogState

SHARE_VARIABLE = f"{request_log_files.VARIABLE}_SHARE"
PAYLOADS_VARIABLE = f"{request_log_files.VARIABLE}_PAYLOADS"
MEGABYTES_VARIABLE = f"{request_log_files.VARIABLE}_MB"
FILES_VARIABLE = f"{request_log_files.VARIABLE}_FILES"
MAX_PAYLOAD_BYTES = 1_000_000  # of one request; a larger one is noted by its size alone
WRITE_EVERY_S = 0.5  # what a kill loses, as with the counts of metrics.py
STOPPED_WITHIN_S = 5.0
# What may wait for the disk: a second and more of the fastest service measured, 3,000 requests per second.
MOST_WAITING = 8192
MOST_WAITING_BYTES = 16_000_000
logger = logging.getLogger("bentoml.convoy")


@dataclass(frozen=True)
class Settings:
    """Path, share of the requests, whether with their payloads, and how much is kept."""

    path: Path
    share: float = 1.0
    payloads: bool = False
    max_bytes: int = 50_000_000  # of one file: about 200,000 requests
    files: int = 5

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings | None":
        """The settings of the environment; None where no log is wanted. Raises ValueError, naming the variable."""
        path_text = environment.get(request_log_files.VARIABLE, "")
        if not path_text:
            return None
        payloads = environment.get(PAYLOADS_VARIABLE, "") or "0"
        if payloads not in ("0", "1"):
            raise ValueError(f"{PAYLOADS_VARIABLE} is {payloads!r}, 0 or 1 is expected")
        return cls(
            path=request_log_files.current(path_text),
            share=_read_number(environment, SHARE_VARIABLE, 1, 0, 1),
            payloads=payloads == "1",
            max_bytes=int(_read_number(environment, MEGABYTES_VARIABLE, 50, 0.001, 100_000) * 1e6),
            files=int(_read_number(environment, FILES_VARIABLE, 5, 1, 1000)),
        )


class _Entry(NamedTuple):
    """What is kept of a request until it is written; the answer is parsed then, as that would slow down the request."""

    content: dict[str, Any]
    answer: bytes
    body: bytes

    @property
    def size(self) -> int:
        """About how many bytes of memory it holds."""
        return len(self.answer) + len(self.body)


class RequestLog:
    """Notes requests on the event loop, in microseconds, and writes them in a thread; it counts those that it drops."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._file = _File(settings.path, settings)
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._waiting_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_error: str | None = None
        self._has_failed_line = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "RequestLog | None":
        """The log by the environment's settings. Raises ValueError for wrong ones, or a file that cannot be written."""
        try:
            settings = Settings.from_environment(environment)
        except OSError as error:  # a name that is too long
            raise ValueError(f"{request_log_files.VARIABLE}: {error.strerror}; name another file, or none") from None
        if settings is None:
            return None
        try:
            settings.path.parent.mkdir(parents=True, exist_ok=True)
            _make_private(settings.path)
        except OSError as error:
            raise ValueError(
                f"{request_log_files.VARIABLE} names {settings.path}, which cannot be written ({error.strerror}); "
                "name another file or folder, or none"
            ) from None
        return cls(settings)

    @property
    def state(self) -> RequestLogState:
        """The public part of the settings."""
        return {"state": "on", "share": self.settings.share, "payloads": self.settings.payloads}

    def start(self, worker: int = 1) -> None:
        """Write from now on, into the file of this worker; they count from 1."""
        self._file = _File(request_log_files.of_worker(self.settings.path, worker), self.settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._write_regularly, args=(self._stop,), name="request log", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and stop the thread; a disk that does not answer holds nothing up."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOPPED_WITHIN_S)

    def note(self, route: str, query: bytes, context: RequestContext) -> None:
        """Keep what is to be written of a request, if it has reached a model's route and has an answer."""
        share = self.settings.share
        if context.task is None or not context.status or (share < 1 and random.random() >= share):
            return
        entry = self._entry(route, query, context)
        with self._lock:
            fits = len(self._waiting) < MOST_WAITING and self._waiting_bytes + entry.size <= MOST_WAITING_BYTES
            if fits:
                self._waiting_bytes += entry.size
                self._waiting.append(entry)
        if not fits:
            metrics_buffer.count(logged_of("dropped"))

    def write(self) -> None:
        """Write the waiting lines."""
        with self._lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for entry in waiting:
            metrics_buffer.count(logged_of("written" if self._write(entry) else "failed"))
        self._file.release()

    def _entry(self, route: str, query: bytes, context: RequestContext) -> _Entry:
        content: dict[str, Any] = {
            "at": time.time(),
            "id": context.request_id,
            "route": route,
            "task": context.task,
            "status": context.status,
            "ms": round((time.monotonic() - context.arrived_s) * 1000, 3),
        }
        if context.model is not None:
            release = context.model.release
            content["version"], content["digest"] = release.version, release.digest
        if context.error is not None:
            content["code"] = context.error.code
        if not self.settings.payloads:
            return _Entry(content, context.answer, b"")
        size = len(context.body)
        content["payload"] = {"content_type": context.content_type, "query": query.decode("latin-1"), "bytes": size}
        return _Entry(content, context.answer, context.body if size <= MAX_PAYLOAD_BYTES else b"")

    def _write(self, entry: _Entry) -> bool:
        """Whether it is written; why it is not is logged once, not for every request."""
        try:
            self._file.append(_line(entry))
        except OSError as error:
            if error.strerror != self._last_error:
                logger.error("requests are answered and not logged: %s: %s", self._file.baseFilename, error.strerror)
            self._last_error = error.strerror
            return False
        except Exception:  # a line that cannot be made; it must not end the thread
            if not self._has_failed_line:
                logger.exception("request %s is answered and not logged", entry.content["id"])
            self._has_failed_line = True
            return False
        self._last_error = None
        return True

    def _write_regularly(self, stop: threading.Event) -> None:
        while not stop.wait(WRITE_EVERY_S):
            self.write()
        self.write()


class _File(RotatingFileHandler):
    """A file that becomes FILE.1 when it is full, as FILE.1 becomes FILE.2, and so on; the oldest is deleted."""

    def __init__(self, path: Path, settings: Settings) -> None:
        super().__init__(
            path, maxBytes=settings.max_bytes, backupCount=settings.files - 1, encoding="utf-8", delay=True
        )

    def append(self, line: bytes) -> None:
        """Add a line. Raises OSError."""
        if self.stream is None:
            _make_private(Path(self.baseFilename))
        self.emit(logging.makeLogRecord({"msg": line.decode()}))

    def doRollover(self) -> None:
        """Called by emit() where the line would not fit."""
        if not self.backupCount:
            Path(self.baseFilename).unlink()
        super().doRollover()
        _make_private(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by emit() where it failed; by itself it would print a traceback for every request."""
        self.release()
        if error := sys.exception():
            raise error

    def release(self) -> None:
        """Close the file until the next line, which makes it anew where somebody has moved it away."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):  # of what could not be written, which has been told
                stream.close()


def _make_private(path: Path) -> None:
    """Make the file where it is missing, for its owner alone, and end a line that a kill or a full disk has cut.

    Raises OSError, also for a pipe or a device: writing there may block, and its rights are not ours to change.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    with open(descriptor, "rb+", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        os.fchmod(descriptor, 0o600)  # one that was there before may have been open to all
        length = os.fstat(descriptor).st_size
        if length and os.pread(descriptor, 1, length - 1) != b"\n":
            stream.write(b"\n")


def _line(entry: _Entry) -> bytes:
    """The line, as JSON, without its end."""
    content = {**entry.content, "at": _to_text(entry.content["at"])}
    payload = content.pop("payload", None)
    if entry.answer:
        content |= _shorten_answer(orjson.loads(entry.answer))
    if payload is not None:
        is_whole = payload["bytes"] == len(entry.body)
        kept = {"base64": base64.b64encode(entry.body).decode()}
        content["payload"] = payload | (kept if is_whole else {"left_out": f"more than {MAX_PAYLOAD_BYTES} bytes"})
    return orjson.dumps(content)


def _to_text(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


def _shorten_answer(answer: dict[str, Any]) -> dict[str, object]:
    """What is kept of the predictions, or of the explanation, whose label the client may have chosen."""
    if "predictions" in answer:
        return {"predictions": [_shorten(prediction) for prediction in answer["predictions"]]}
    if "label" in answer:
        return {"explanation": _shorten(answer)}
    return {"predictions": _shorten_stream(answer["probabilities"])}


def _shorten_stream(probabilities: dict[str, float] | None) -> list[dict[str, object]]:
    """The prediction for a text in pieces so far, and none of its words."""
    if probabilities is None:
        return []
    best = max(probabilities, key=probabilities.__getitem__)
    return [_shorten({"label": best, "probability": probabilities[best]})]


def _shorten(prediction: dict[str, object]) -> dict[str, object]:
    """The label and its probability, or the labels of a set with theirs."""
    if "label" in prediction:
        return {"label": prediction["label"], "probability": prediction["probability"]}
    return {"labels": prediction["labels"], "probabilities": prediction["probabilities"]}


def _read_number(environment: Mapping[str, str], name: str, default: float, lowest: float, highest: float) -> float:
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {text!r}, a number from {lowest:g} to {highest:g} is expected")
    return value
