"""A child process ends with its parent, and takes along what it has started, wherever that stands."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from convoy.core.children import Child, descendants, end_all

pytestmark = pytest.mark.process
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.2; done"
# Its own child has a session of its own, as bentoml's workers have.
STARTS_ANOTHER = "setsid sh -c 'while :; do sleep 0.2; done' & echo ready; wait"


def started(script: str, log: Path) -> Child:
    child = Child(["sh", "-c", script], log)
    wait_for(lambda: child.last_line() == "ready")
    return child


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_a_child_ends_by_sigterm_with_its_descendants(tmp_path: Path) -> None:
    with started(STARTS_ANOTHER, tmp_path / "log") as child:
        family = descendants(child.pid)
        assert len(family) >= 1 and child.is_running()
    assert child.returncode == -signal.SIGTERM and not alive(family)


def test_a_killed_child_leaves_no_descendants(tmp_path: Path) -> None:
    child = started(STARTS_ANOTHER, tmp_path / "log")
    family = descendants(child.pid)
    assert child.is_running()  # notes them
    child.kill()
    child.end()
    assert child.returncode == -signal.SIGKILL and not alive(family)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    children = [started(DEAF, tmp_path / name) for name in ("one", "two")]
    began = time.monotonic()
    end_all(children, within_s=1)
    assert [child.returncode for child in children] == [-signal.SIGKILL] * 2
    assert time.monotonic() - began < 5


def test_a_child_keeps_its_own_status_and_log(tmp_path: Path) -> None:
    with Child(["sh", "-c", "echo one; echo two >&2; cat; exit 3"], tmp_path / "log") as child:
        assert child.wait(20) == 3
    assert child.last_line() == "two" and (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom convoy.core.children import Child\n"
        "child = Child(['sleep', '600'])\nprint(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        sleeping = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    wait_for(lambda: not alive([sleeping]))
