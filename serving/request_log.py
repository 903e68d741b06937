"""Answered requests -> one JSON line each, a little later and by a thread of its own; off where nobody asks for it."""

import logging
import os
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convoy.core import request_files
from serving.log_file import LogFile
from serving.logged_requests import Entry, entry_of, line_of
from serving.metrics import logged_of
from serving.metrics_buffer import tally
from serving.request_context import RequestContext
from serving.schemas import RequestLogState

SHARE_VARIABLE = f"{request_files.VARIABLE}_SHARE"
PAYLOADS_VARIABLE = f"{request_files.VARIABLE}_PAYLOADS"
MEGABYTES_VARIABLE = f"{request_files.VARIABLE}_MB"
FILES_VARIABLE = f"{request_files.VARIABLE}_FILES"
WRITE_EVERY_S = 0.5  # what a kill loses, as with the counts of tally.py
# What may wait for the disk: a second and more of the fastest service measured, 3,000 requests per second.
MOST_WAITING = 8192
MOST_WAITING_BYTES = 16_000_000
WRITTEN_AT_ONCE = 32  # lines; then the event loop has its turn
logger = logging.getLogger("bentoml.convoy")


@dataclass(frozen=True)
class Settings:
    """Where to, how many of the requests, whether with what was sent, and how much is kept."""

    path: Path
    share: float = 1.0
    payloads: bool = False
    max_bytes: int = 50_000_000  # of one file: about 200,000 requests
    files: int = 5

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Settings | None":
        """What the environment says; None where nothing is to be logged. Raises ValueError, naming the variable."""
        named = environment.get(request_files.VARIABLE, "")
        if not named:
            return None
        payloads = environment.get(PAYLOADS_VARIABLE, "") or "0"
        if payloads not in ("0", "1"):
            raise ValueError(f"{PAYLOADS_VARIABLE} is {payloads!r}, 0 or 1 is expected")
        return cls(
            path=request_files.current(named),
            share=_number(environment, SHARE_VARIABLE, 1, 0, 1),
            payloads=payloads == "1",
            max_bytes=int(_number(environment, MEGABYTES_VARIABLE, 50, 0.001, 100_000) * 1e6),
            files=int(_number(environment, FILES_VARIABLE, 5, 1, 1000)),
        )


class RequestLog:
    """Notes requests on the event loop, in microseconds, and writes them in a thread; what does not fit is counted."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._file = LogFile(settings.path, settings.max_bytes, settings.files)
        self._lock = threading.Lock()
        self._waiting: list[Entry] = []
        self._waiting_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing: str | None = None
        self._misread = False

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "RequestLog | None":
        """The log that the environment asks for. Raises ValueError where it asks for what cannot be."""
        settings = Settings.of(environment)
        if settings is None:
            return None
        log = cls(settings)
        try:
            log._file.prove()
        except OSError as error:
            raise ValueError(
                f"{request_files.VARIABLE} names {settings.path}, which cannot be written ({error.strerror}); "
                "name another file or folder, or none"
            ) from None
        return log

    @property
    def state(self) -> RequestLogState:
        """What anyone may know of it."""
        return {"state": "on", "share": self.settings.share, "payloads": self.settings.payloads}

    def start(self) -> None:
        """Write from now on."""
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._write_regularly, args=(self._stop,), name="request log", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, and no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def note(self, route: str, query: bytes, exchange: RequestContext) -> None:
        """Keep what is to be written of a request, if it has come to a model's route and has an answer."""
        if exchange.task is None or not exchange.status or not self._is_chosen():
            return
        entry = entry_of(route, query, exchange, self.settings.payloads)
        with self._lock:
            fits = len(self._waiting) < MOST_WAITING and self._waiting_bytes + entry.size <= MOST_WAITING_BYTES
            if fits:
                self._waiting_bytes += entry.size
                self._waiting.append(entry)
        if not fits:
            tally.count(logged_of("dropped"))

    def write(self) -> None:
        """Write what waits."""
        with self._lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for start in range(0, len(waiting), WRITTEN_AT_ONCE):
            part = waiting[start : start + WRITTEN_AT_ONCE]
            lines = [line for line in map(self._line, part) if line]
            written = len(lines) if self._append(b"".join(lines)) else 0
            for index in range(len(part)):
                tally.count(logged_of("written" if index < written else "failed"))

    def _is_chosen(self) -> bool:
        return self.settings.share >= 1 or random.random() < self.settings.share

    def _write_regularly(self, stop: threading.Event) -> None:
        while not stop.wait(WRITE_EVERY_S):
            self.write()
        self.write()

    def _line(self, entry: Entry) -> bytes:
        """The line of a request; nothing for one that has none, which must not end the thread."""
        try:
            return line_of(entry)
        except Exception:
            if not self._misread:  # logged once, not for every request
                logger.exception("request %s is answered and not logged", entry.request_id)
            self._misread = True
            return b""

    def _append(self, lines: bytes) -> bool:
        try:
            self._file.append(lines)
        except OSError as error:
            if error.strerror != self._failing:  # told once, not for every request
                logger.error("requests are answered and not logged: %s: %s", self.settings.path, error.strerror)
            self._failing = error.strerror
            return False
        self._failing = None
        return True


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    given = environment.get(name, "")
    try:
        value = float(given) if given else default
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise ValueError(f"{name} is {given!r}, a number from {least:g} to {most:g} is expected")
    return value
