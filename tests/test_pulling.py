"""A machine that only serves follows the registry's champion, from a real MLflow server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import built_pipeline
import pytest
from mlflow import MlflowClient
from mlflow_server import WITHIN_S, Server
from mlflow_store import open_empty_store

from convoy.bundles.bundle import digest_of, read_release
from convoy.core.paths import DEPLOYED, TASKS, Task

pytestmark = [pytest.mark.process, pytest.mark.mlflow]


def convoy(folder: Path, *words: str, uri: str = "") -> "subprocess.CompletedProcess[str]":
    """A verb as a user calls it in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "convoy", *words],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with an empty store, started in a folder where a pipeline is to be built."""
    home = tmp_path / "pipeline"
    home.mkdir()
    monkeypatch.chdir(home)
    open_empty_store()
    found = Server()
    found.start()
    yield found
    found.kill()


def publish(home: Path, server: Server, *tasks: Task) -> None:
    """Build these tasks and publish them."""
    for task in tasks:
        built_pipeline.lay(home, task)
    assert convoy(home, "publish", uri=server.uri).returncode == 0


def current(machine: Path, task: str) -> Path:
    return machine / DEPLOYED / task / "current"


def test_a_serving_machine_gets_the_champion_once_and_again_where_it_moves(server: Server, tmp_path: Path) -> None:
    home, machine = tmp_path / "pipeline", tmp_path / "serves"
    machine.mkdir()
    nothing = convoy(machine, "pull", "--task", "image", uri=server.uri)
    assert nothing.returncode == 1 and "convoy-image has no champion" in nothing.stderr
    publish(home, server, *TASKS)
    first = convoy(machine, "pull", uri=server.uri)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("version 1 serves now") == len(TASKS)
    for task in TASKS:
        digest = digest_of(home / "bundles" / task)
        assert os.readlink(current(machine, task)) == digest
        release = read_release(current(machine, task))
        assert release is not None and (release.digest, release.version) == (digest, "1")
    again = convoy(machine, "pull", "--task", "text", uri=server.uri)
    assert again.stdout == "text: convoy-text version 1 serves already\n"
    built_pipeline.lay(home, "image", version=2)
    assert convoy(home, "publish", uri=server.uri).returncode == 0
    assert "image: convoy-image version 2 serves now" in convoy(machine, "pull", uri=server.uri).stdout
    assert os.readlink(current(machine, "image")) == digest_of(home / "bundles/image")


def test_where_mlflow_is_away_it_is_said_and_what_serves_goes_on(server: Server, tmp_path: Path) -> None:
    home, machine = tmp_path / "pipeline", tmp_path / "serves"
    machine.mkdir()
    publish(home, server, "image")
    assert convoy(machine, "pull", "--task", "image", uri=server.uri).returncode == 0
    before = os.readlink(current(machine, "image"))
    server.kill()
    refused = convoy(machine, "pull", "--task", "image", uri=server.uri)
    assert refused.returncode == 1 and refused.stderr.startswith(f"image: MLflow ({server.uri}) refuses: ")
    assert "Traceback" not in refused.stderr
    assert os.readlink(current(machine, "image")) == before


def test_one_broken_champion_does_not_keep_the_others(server: Server, tmp_path: Path) -> None:
    home, machine = tmp_path / "pipeline", tmp_path / "serves"
    machine.mkdir()
    publish(home, server, "image", "text")
    client = MlflowClient(server.uri)
    client.delete_model_version_tag("convoy-image", "1", "digest")
    pulled = convoy(machine, "pull", uri=server.uri)
    assert pulled.returncode == 1 and "image: convoy-image: version '1' has the tag digest ''" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert [task for task in TASKS if current(machine, task).exists()] == ["text"]


def test_it_follows_the_champion_until_it_is_ended(server: Server, tmp_path: Path) -> None:
    home, machine = tmp_path / "pipeline", tmp_path / "serves"
    machine.mkdir()
    following = subprocess.Popen(
        [sys.executable, "-m", "convoy", "pull", "--task", "image", "--every", "1"],
        cwd=machine,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        publish(home, server, "image")
        deadline_s = time.monotonic() + WITHIN_S
        while not current(machine, "image").exists():
            assert following.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.2)
        time.sleep(3)  # it looks again, and has nothing new to say
    finally:
        following.send_signal(signal.SIGTERM)
        said, _ = following.communicate(timeout=20)
    lines = said.splitlines()
    assert "convoy-image has no champion" in lines[0] and lines[-1].endswith(("serves now", "serves already"))
    assert len(lines) <= 3
