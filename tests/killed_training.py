"""Run as a programme: kill one training again and again at random moments until it is done, and say what happened.

Arguments: candidate, number of kills, seed. The current folder is one that tiny_training has laid. Each
attempt is a process of its own, forked after the imports, which take longer than the training itself.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from convoy.core import atomic, paths, tasks
from pipelines import train

FOREVER_S = 600.0


def child(name: str, killed_in_write: int | None) -> None:
    """Train; with `killed_in_write` be killed at that sync: the odd ones come before a rename, the even ones after."""
    sync, left = atomic.sync, [killed_in_write or 0]

    def deadly(path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(path)

    atomic.sync = deadly
    try:
        train.main(name)
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    os._exit(0)


def take_signals() -> None:
    """Give every later child, from its first instant to its last, the exit codes that a training's signals have.

    training.train takes them only while it trains: before and after, as data are read and weights written, SIGTERM
    ends a stage as it ends any process, by itself and not with a code.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda came, _: os._exit(128 + came))


def attempt(run: Callable[[], None], after_s: float, number: int) -> int:
    """Exit code of a training that gets a signal after so many seconds; minus the signal where that ended it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        run()
    deadline = time.monotonic() + after_s
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def results(name: str) -> dict[str, object]:
    """Everything that must not depend on kills."""
    entry = tasks.read().candidate(name)
    folder, reports = paths.candidate(entry.task, name), paths.candidate_reports(entry.task, name)
    lines = (reports / "curves.csv").read_text().splitlines()
    return {
        "weights": (folder / "weights.safetensors").read_bytes(),
        "description": (folder / "candidate.json").read_bytes(),
        "metrics and fingerprint": (reports / "metrics.json").read_bytes(),
        "curves": [line.rsplit(",", 1)[0] for line in lines],  # all but elapsed_s
    }


def main(name: str, kills: int, seed: int) -> None:
    """Raises AssertionError where a training that was killed gives anything else than one that was not."""
    rng = random.Random(seed)
    moments = (signal.SIGKILL, signal.SIGTERM, "while writing", signal.SIGINT)
    take_signals()
    began = time.monotonic()
    assert attempt(lambda: child(name, None), FOREVER_S, signal.SIGKILL) == 0
    whole_s, expected = time.monotonic() - began, results(name)
    weights = paths.candidate(tasks.read().candidate(name).task, name) / "weights.safetensors"
    before = load_file(weights)
    finished = killed = 0
    while True:
        moment = moments[killed % len(moments)] if killed < kills else None
        in_write = rng.randint(1, 4) if moment == "while writing" else None
        after_s = rng.uniform(0, whole_s / 2) if isinstance(moment, signal.Signals) else FOREVER_S
        number = moment if isinstance(moment, signal.Signals) else signal.SIGKILL
        code = attempt(lambda in_write=in_write: child(name, in_write), after_s, number)
        if code:
            how = "SIGKILL while writing" if in_write else f"{number.name} after {after_s:.2f} s"
            print(f"kill {killed + 1}: {how}: exit code {code}")
            assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number], code
            killed += 1
            continue
        assert results(name) == expected
        after = load_file(weights)
        difference = max(float(np.abs(after[layer] - before[layer]).max()) for layer in before)
        assert not list(Path(".run/training").iterdir())
        shutil.rmtree("candidates")
        finished += 1
        print(f"finished after {killed} kills, max |dw| = {difference}")
        if killed >= kills:
            break
    print(f"{name}: {killed} kills, {finished} trainings finished, each equal to the unbroken one bitwise")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
