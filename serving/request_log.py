"""Answered requests -> one JSON line each, a little later and by a thread of its own; off by default."""

import logging
import os
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convoy.core import request_log_files
from serving.log_file import LogFile
from serving.logged_requests import Entry, entry_of, line_of
from serving.metrics import logged_of
from serving.metrics_buffer import metrics_buffer
from serving.request import RequestContext
from serving.schemas import RequestLogState

SHARE_VARIABLE = f"{request_log_files.VARIABLE}_SHARE"
PAYLOADS_VARIABLE = f"{request_log_files.VARIABLE}_PAYLOADS"
MEGABYTES_VARIABLE = f"{request_log_files.VARIABLE}_MB"
FILES_VARIABLE = f"{request_log_files.VARIABLE}_FILES"
WRITE_EVERY_S = 0.5  # what a kill loses, as with the counts of metrics_buffer.py
# What may wait for the disk: a second and more of the fastest service measured, 3,000 requests per second.
MOST_WAITING = 8192
MOST_WAITING_BYTES = 16_000_000
WRITTEN_AT_ONCE = 32  # lines; then the event loop has its turn
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


class RequestLog:
    """Notes requests on the event loop, in microseconds, and writes them in a thread; it counts those that it drops."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._file = LogFile(settings.path, settings.max_bytes, settings.files)
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []
        self._waiting_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_error: str | None = None
        self._has_failed_line = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "RequestLog | None":
        """The log by the environment's settings. Raises ValueError for wrong ones, or a file that cannot be written."""
        settings = Settings.from_environment(environment)
        if settings is None:
            return None
        log = cls(settings)
        try:
            log._file.prove()
        except OSError as error:
            raise ValueError(
                f"{request_log_files.VARIABLE} names {settings.path}, which cannot be written ({error.strerror}); "
                "name another file or folder, or none"
            ) from None
        return log

    @property
    def state(self) -> RequestLogState:
        """The public part of the settings."""
        return {"state": "on", "share": self.settings.share, "payloads": self.settings.payloads}

    def start(self) -> None:
        """Write from now on."""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._write_regularly, args=(self._stop,), name="request log", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def note(self, route: str, query: bytes, context: RequestContext) -> None:
        """Keep the entry of a request, if it has reached a model's route and has an answer."""
        if context.task is None or not context.status or not self._is_sampled():
            return
        entry = entry_of(route, query, context, self.settings.payloads)
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
        for start in range(0, len(waiting), WRITTEN_AT_ONCE):
            entries = waiting[start : start + WRITTEN_AT_ONCE]
            lines = [line for line in map(self._format, entries) if line]
            written = len(lines) if self._append(b"".join(lines)) else 0
            for index in range(len(entries)):
                metrics_buffer.count(logged_of("written" if index < written else "failed"))

    def _is_sampled(self) -> bool:
        return self.settings.share >= 1 or random.random() < self.settings.share

    def _write_regularly(self, stop: threading.Event) -> None:
        while not stop.wait(WRITE_EVERY_S):
            self.write()
        self.write()

    def _format(self, entry: Entry) -> bytes:
        """The line of a request; empty where it cannot be made, which must not end the thread."""
        try:
            return line_of(entry)
        except Exception:
            if not self._has_failed_line:  # logged once, not for every request
                logger.exception("request %s is answered and not logged", entry.request_id)
            self._has_failed_line = True
            return b""

    def _append(self, lines: bytes) -> bool:
        try:
            self._file.append(lines)
        except OSError as error:
            if error.strerror != self._last_error:  # logged once, not for every request
                logger.error("requests are answered and not logged: %s: %s", self.settings.path, error.strerror)
            self._last_error = error.strerror
            return False
        self._last_error = None
        return True


def _read_number(environment: Mapping[str, str], name: str, default: float, lowest: float, highest: float) -> float:
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {text!r}, a number from {lowest:g} to {highest:g} is expected")
    return value
