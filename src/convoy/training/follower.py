"""Sends the progress of a training to a side process that shows it in MLflow; training never waits for it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

Status = Literal["FINISHED", "FAILED", "KILLED"]
NICE = 15  # 3 % at most of a core that training fills; at 19, 1.5 %, MLflow would take minutes to be imported
GRACE_S = 2  # wait of an ending training for the last points; `python -m convoy publish` adds missing ones


class Follower:
    """The training's end of a pipe to `python -m convoy follow`, which alone imports MLflow.

    Nothing here raises or blocks: bytes that the pipe does not take now are kept and written with the next line.
    CONVOY_FOLLOW=0 in the environment switches it off.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._unsent = b""

    def start(
        self,
        task: str,
        candidate: str,
        network: str,
        fingerprint: str,
        params: Mapping[str, Any],
        rows: Sequence[Mapping[str, float]] = (),
    ) -> None:
        """Start the side process; `rows` are the epochs before a training resumed, `params` may be nested."""
        if os.environ.get("CONVOY_FOLLOW") == "0":
            return
        elapsed_s = rows[-1]["elapsed_s"] if rows else 0.0
        started_ms = round((time.time() - elapsed_s) * 1000)
        with suppress(Exception):
            self.process = _start_side_process(Path(f".run/training/{candidate}.log"))
        run = {"task": task, "candidate": candidate, "network": network, "fingerprint": fingerprint}
        self._send("start", **run, pid=os.getpid(), started_ms=started_ms, params=params, rows=rows)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Send the figures of an epoch."""
        self._send("epoch", row=row)

    def end(self, status: Status, reason: str = "") -> None:
        """Send how the training ended and wait GRACE_S at most.

        A side process that needs longer is killed where the training finished, since publish completes the run. After
        any other end only the side process has the reason, so it is left to record it and ends by itself.
        """
        self._send("end", status=status, reason=reason)
        process, self.process = self.process, None
        if process is None or process.stdin is None:
            return
        with suppress(Exception):
            process.stdin.close()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            if status == "FINISHED" or self._unsent:
                _kill(process)

    def _send(self, event: str, **content: Any) -> None:
        if self.process is None or self.process.stdin is None:
            return
        try:
            self._unsent += json.dumps({"event": event, **content}).encode() + b"\n"
            self._unsent = self._unsent[os.write(self.process.stdin.fileno(), self._unsent) :]
        except BlockingIOError:
            pass  # the pipe is full
        except Exception:  # the side process has died: publish does its work
            _kill(self.process)
            self.process = None


def _start_side_process(log: Path) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "convoy", "follow"],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            process_group=0,  # Ctrl-C is for the training; a session of its own would void the priority below
        )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    return process


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(Exception):
        process.kill()
        if process.stdin is not None:
            process.stdin.close()
        process.wait(0.1)  # no longer: on a busy machine, at its priority, even dying takes seconds
