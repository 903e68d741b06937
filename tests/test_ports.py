"""Ports: a taken one is a clear error, found by any Python without anything installed."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convoy.running import ports

SCRIPT = Path(ports.__file__)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    # -I -S: no site-packages, as before any set-up
    return subprocess.run([sys.executable, "-I", "-S", SCRIPT, *arguments], capture_output=True, text=True, check=False)


def test_free_ports_are_silent() -> None:
    done = run(f"PORT={free_port()}", f"MLFLOW_PORT={free_port()}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says who listens")
def test_a_taken_port_is_named_with_who_holds_it_and_the_remedy(taken: int) -> None:
    done = run(f"MLFLOW_PORT={taken}")
    assert done.returncode == 1
    assert f"port {taken} is taken by process {os.getpid()}" in done.stderr
    assert "choose MLFLOW_PORT=<a free one>" in done.stderr and "Traceback" not in done.stderr


def test_two_services_on_one_port_are_refused() -> None:
    done = run("PORT=3000", "MLFLOW_PORT=3000")
    assert done.returncode == 1 and "PORT and MLFLOW_PORT are both 3000" in done.stderr


@pytest.mark.parametrize("wrong", ["PORT=abc", "PORT=70000", "PORT"])
def test_what_is_no_port_is_refused_without_a_traceback(wrong: str) -> None:
    done = run(wrong)
    assert done.returncode == 1 and done.stderr.startswith("usage:")
