"""A machine that only serves follows the registry's champion, from a real MLflow server."""

import os
import select
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
from convoy.release import publish as publishing
from convoy.tracking import mlflow_runs

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


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with an empty store, started in a folder where a pipeline is to be built."""
    home = tmp_path_factory.mktemp("pulling") / "pipeline"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        open_empty_store()
        server = Server()
        yield server
        server.kill()


@pytest.fixture
def server(one_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """It runs, and the versions of earlier tests are there, in any state."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", one_server.uri)
    one_server.ensure()
    return one_server


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The folder of a machine that only serves."""
    return tmp_path


def publish(*tasks: Task, version: int = 1) -> None:
    """Build these tasks in the server's folder, and let what is built be deployed there and be the champion."""
    for task in tasks:
        built_pipeline.lay(Path(), task, version=version)
    publishing.publish(mlflow_runs.open_store(), lambda line: None, tasks)


def current(machine: Path, task: str) -> Path:
    return machine / DEPLOYED / task / "current"


def test_a_serving_machine_gets_the_champion_once_and_again_where_it_moves(server: Server, machine: Path) -> None:
    for task in TASKS:
        built_pipeline.lay(Path(), task)
    assert convoy(Path(), "publish", uri=server.uri).returncode == 0
    first = convoy(machine, "pull", uri=server.uri)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("version 1 serves now") == len(TASKS)
    for task in TASKS:
        digest = digest_of(Path("bundles", task))
        assert os.readlink(current(machine, task)) == digest
        release = read_release(current(machine, task))
        assert release is not None and (release.digest, release.version) == (digest, "1")
    again = convoy(machine, "pull", "--task", "text", uri=server.uri)
    assert again.stdout == "text: convoy-text version 1 serves already\n"
    publish("text", version=2)
    assert "text: convoy-text version 2 serves now" in convoy(machine, "pull", uri=server.uri).stdout
    assert os.readlink(current(machine, "text")) == digest_of(Path("bundles/text"))


def test_where_mlflow_is_away_it_is_said_and_what_serves_goes_on(server: Server, machine: Path) -> None:
    publish("image")
    assert convoy(machine, "pull", "--task", "image", uri=server.uri).returncode == 0
    before = os.readlink(current(machine, "image"))
    server.kill()
    refused = convoy(machine, "pull", "--task", "image", uri=server.uri)
    assert refused.returncode == 1 and refused.stderr.startswith(f"image: MLflow ({server.uri}) refuses: ")
    assert "Traceback" not in refused.stderr
    assert os.readlink(current(machine, "image")) == before


def test_one_broken_champion_does_not_keep_the_others(server: Server, machine: Path) -> None:
    publish("image", "text-stream")
    client = MlflowClient(server.uri)
    digest = client.get_model_version("convoy-image", "1").tags["digest"]
    client.delete_model_version_tag("convoy-image", "1", "digest")
    try:
        pulled = convoy(machine, "pull", uri=server.uri)
    finally:
        client.set_model_version_tag("convoy-image", "1", "digest", digest)
    assert pulled.returncode == 1 and "image: convoy-image: version '1' has the tag digest ''" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert current(machine, "text-stream").exists() and not current(machine, "image").exists()


def test_it_follows_the_champion_until_it_is_ended(server: Server, machine: Path) -> None:
    publish("image")
    client = MlflowClient(server.uri)
    client.delete_registered_model_alias("convoy-image", "champion")
    once = convoy(machine, "pull", "--task", "image", uri=server.uri)
    assert once.returncode == 1 and "convoy-image has no champion" in once.stderr
    following = subprocess.Popen(
        [sys.executable, "-m", "convoy", "pull", "--task", "image", "--every", "1"],
        cwd=machine,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None and select.select([following.stdout], [], [], WITHIN_S)[0]
        first = following.stdout.readline()
        assert not current(machine, "image").exists()
        publish("image")  # gives the alias back
        deadline_s = time.monotonic() + WITHIN_S
        while not current(machine, "image").exists():
            assert following.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.2)
        time.sleep(3)  # it looks again, and has nothing new to say
    finally:
        following.send_signal(signal.SIGTERM)
        rest, _ = following.communicate(timeout=20)
    lines = rest.splitlines()
    assert "convoy-image has no champion" in first and lines[-1].endswith(("serves now", "serves already"))
    assert len(lines) <= 2
