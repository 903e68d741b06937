"""What runs before anything is installed: the check of the ports and .ci/set-up, which makes .venv."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convoy.operations import ports

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
    assert (
        "choose MLFLOW_PORT=<a free one> (make), --mlflow-port <a free one> " in done.stderr
        and "Traceback" not in done.stderr
    )


def test_two_services_on_one_port_are_refused() -> None:
    done = run("PORT=3000", "MLFLOW_PORT=3000")
    assert done.returncode == 1 and "PORT and MLFLOW_PORT are both 3000" in done.stderr


@pytest.mark.parametrize("wrong", ["PORT=abc", "PORT"])
def test_what_is_no_port_is_refused_without_a_traceback(wrong: str) -> None:
    done = run(wrong)
    assert done.returncode == 1 and done.stderr.startswith("usage:")


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_number_that_is_no_port_is_refused_with_the_range(port: int) -> None:
    done = run(f"PORT={port}")
    assert (
        done.returncode == 1
        and done.stderr
        == f"{port} is no port; choose PORT=<1 to 65535> (make), --port <1 to 65535> (python -m convoy)\n"
    )
    with pytest.raises(ports.PortTaken, match="is no port"):
        ports.check({"PORT": port})


# Says that it is Python {version}, makes a .venv whose python is itself, and notes what it was asked.
PYTHON = """#!/usr/bin/env bash
echo "{version} $*" >>asked
case "$*" in
*version_info*) echo {version} ;;
*ensurepip*) exit {without_ensurepip} ;;
*venv*) rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
esac
"""
# A Debian whose package lists are not there: only folders of one's own can be filled.
APT_GET = """#!/usr/bin/env bash
echo "apt-get $*" >>{place}/asked
case "$*" in
*install*) exit 1 ;;
*lists*download*) touch python3-pip-whl_1_all.deb ;;
*download*) exit 1 ;;
esac
"""
DPKG_DEB = """#!/usr/bin/env bash
mkdir -p usr/share/python-wheels && touch usr/share/python-wheels/pip-1-py3-none-any.whl
"""


class SetUp:
    """A tree with .ci/set-up and interpreters that only pretend."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in (".ci/set-up", "src/convoy/operations/ports.py"):
            (place / name).parent.mkdir(parents=True)
            shutil.copy(Path(__file__).parents[1] / name, place / name)
        for name in ("pyproject.toml", "requirements.lock", "requirements-cuda.lock"):
            (place / name).touch()

    def put(self, name: str, script: str, **values: object) -> Path:
        path = self.place / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script.format(**values) if values else script)
        path.chmod(0o755)
        return path

    def run(self, python: Path | None) -> "subprocess.CompletedProcess[str]":
        path = f"{self.place / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, "PYTHON": str(python or "")}
        return subprocess.run([self.place / ".ci/set-up"], env=variables, capture_output=True, text=True, check=False)

    def asked(self) -> str:
        """What the interpreters and apt-get were asked since last time."""
        asked = (self.place / "asked").read_text()
        (self.place / "asked").unlink()
        return asked


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


def test_venv_is_made_anew_only_where_another_version_is_asked_for(set_up: SetUp) -> None:
    old = set_up.put("an old one/python", PYTHON, version="3.11", without_ensurepip=0)
    new = set_up.put("a new one/python", PYTHON, version="3.13", without_ensurepip=0)
    for python, made in ((old, True), (old, False), (new, True), (None, False), (new, False), (old, True)):
        done = set_up.run(python)
        assert done.returncode == 0, done.stderr
        assert (f"making .venv with {python}" in done.stdout) == made
        assert ("-m pip install" in set_up.asked()) == made


def test_an_interpreter_that_is_not_there_or_too_old_is_named(set_up: SetUp) -> None:
    done = set_up.run(set_up.place / "no such python")
    assert done.returncode == 1 and "no such python was asked for, found: no Python at all" in done.stderr
    set_up.run(set_up.put("fits", PYTHON, version="3.12", without_ensurepip=0))
    old = set_up.put("old", PYTHON, version="3.9", without_ensurepip=0)
    done = set_up.run(old)
    assert done.returncode == 1 and f"{old} is 3.9" in done.stderr


def test_without_ensurepip_pip_comes_from_debians_wheel_and_lists_of_ones_own(set_up: SetUp) -> None:
    set_up.put("bin/apt-get", APT_GET, place=set_up.place)
    set_up.put("bin/dpkg-deb", DPKG_DEB)
    done = set_up.run(set_up.put("python", PYTHON, version="3.11", without_ensurepip=1))
    assert done.returncode == 0 and "taking pip from Debian's python3-pip-whl" in done.stdout, done.stderr
    asked = set_up.asked()
    assert "-m venv --clear --without-pip .venv" in asked and asked.count("apt-get -o Dir::State::lists=") == 2


def test_where_pip_is_nowhere_the_remedy_is_said(set_up: SetUp) -> None:
    set_up.put("bin/apt-get", "#!/bin/sh\nexit 1\n")
    done = set_up.run(set_up.put("python", PYTHON, version="3.11", without_ensurepip=1))
    assert done.returncode == 1 and "'sudo apt-get install python3.11-venv'" in done.stderr
    assert "installing the versions" not in done.stdout
