"""A machine that only serves follows the registry's champion, from a real MLflow server."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import built_pipeline
import pytest
from kept_folder import KeptFolder
from mlflow import MlflowClient
from mlflow_server import WITHIN_S, Server
from mlflow_store import open_empty_store
from tiny_bundles import write_image_bundle

from convoy.bundles.bundle import Release, digest_of, read_release
from convoy.core.paths import DEPLOYED
from convoy.release import deployment, journal
from convoy.release import publish as publishing
from convoy.release import pull as pulling
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


def publish(*tasks: str, version: int = 1) -> None:
    """Build these tasks in the server's folder, and let what is built be deployed there and be the champion."""
    for task in tasks:
        built_pipeline.lay(Path(), task, version=version)
    publishing.publish(mlflow_runs.open_store(), lambda line: None, tasks)


def current(machine: Path, task: str) -> Path:
    return machine / DEPLOYED / task / "current"


def test_a_serving_machine_gets_the_champion_once_and_again_where_it_moves(server: Server, machine: Path) -> None:
    for task in built_pipeline.DATA:
        built_pipeline.lay(Path(), task)
    assert convoy(Path(), "publish", uri=server.uri).returncode == 0
    first = convoy(machine, "pull", uri=server.uri)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("version 1 serves now") == len(built_pipeline.DATA)
    for task in built_pipeline.DATA:
        digest = digest_of(Path("bundles", task))
        assert os.readlink(current(machine, task)) == digest
        release = read_release(current(machine, task))
        assert release is not None and (release.digest, release.version) == (digest, "1")
    again = convoy(machine, "pull", "--task", "reviews", uri=server.uri)
    assert again.stdout == "reviews: convoy-reviews version 1 serves already\n"
    publish("reviews", version=2)
    assert "reviews: convoy-reviews version 2 serves now" in convoy(machine, "pull", uri=server.uri).stdout
    assert os.readlink(current(machine, "reviews")) == digest_of(Path("bundles/reviews"))


def test_where_mlflow_is_away_it_is_said_and_what_serves_goes_on(server: Server, machine: Path) -> None:
    publish("fashion")
    assert convoy(machine, "pull", "--task", "fashion", uri=server.uri).returncode == 0
    before = os.readlink(current(machine, "fashion"))
    server.kill()
    refused = convoy(machine, "pull", "--task", "fashion", uri=server.uri)
    assert refused.returncode == 1 and refused.stderr.startswith(f"fashion: MLflow ({server.uri}) refuses: ")
    assert "Traceback" not in refused.stderr
    assert os.readlink(current(machine, "fashion")) == before


def test_one_broken_champion_does_not_keep_the_others(server: Server, machine: Path) -> None:
    publish("fashion", "reviews-stream")
    client = MlflowClient(server.uri)
    digest = client.get_model_version("convoy-fashion", "1").tags["digest"]
    client.delete_model_version_tag("convoy-fashion", "1", "digest")
    try:
        pulled = convoy(machine, "pull", uri=server.uri)
    finally:
        client.set_model_version_tag("convoy-fashion", "1", "digest", digest)
    assert pulled.returncode == 1 and "fashion: convoy-fashion: version '1' has the tag digest ''" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert current(machine, "reviews-stream").exists() and not current(machine, "fashion").exists()


def test_it_follows_the_champion_until_it_is_ended(server: Server, machine: Path) -> None:
    publish("fashion")
    client = MlflowClient(server.uri)
    client.delete_registered_model_alias("convoy-fashion", "champion")
    once = convoy(machine, "pull", "--task", "fashion", uri=server.uri)
    assert once.returncode == 1 and "convoy-fashion has no champion" in once.stderr
    following = subprocess.Popen(
        [sys.executable, "-m", "convoy", "pull", "--task", "fashion", "--every", "1"],
        cwd=machine,
        env={**os.environ, "MLFLOW_TRACKING_URI": server.uri},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout is not None and select.select([following.stdout], [], [], WITHIN_S)[0]
        first = following.stdout.readline()
        assert not current(machine, "fashion").exists()
        publish("fashion")  # gives the alias back
        deadline_s = time.monotonic() + WITHIN_S
        while not current(machine, "fashion").exists():
            assert following.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.2)
        time.sleep(3)  # it looks again, and has nothing new to say
    finally:
        following.send_signal(signal.SIGTERM)
        rest, _ = following.communicate(timeout=20)
    lines = rest.splitlines()
    assert "convoy-fashion has no champion" in first and lines[-1].endswith(("serves now", "serves already"))
    assert len(lines) <= 2


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> KeptFolder:
    """A folder in which the images are published."""
    return KeptFolder(tmp_path_factory.mktemp("published"), lambda: publish("fashion"))


@pytest.fixture
def registry(pipeline: KeptFolder, machine: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """The store of that folder; the working directory is the machine's."""
    pipeline.restore(monkeypatch)
    client = mlflow_runs.open_store()
    monkeypatch.chdir(machine)
    return client


def follow_once(client: MlflowClient) -> list[str]:
    """What one round of `pull --every` says."""
    lines: list[str] = []

    def end(_: float) -> None:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(pulling, "time", SimpleNamespace(sleep=end))
        pulling.follow(client, None, 1, lines.append)
    return lines


@pytest.mark.parametrize("name", ["..", ".run", "decisions", "a/b", "Fashion"])
def test_a_name_that_no_task_has_is_refused(name: str, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine)
    Path(".hidden").mkdir()
    write_image_bundle(Path("bundle"))
    release = Release(name="x", version="1", run_id="0" * 32, digest=digest_of(Path("bundle")), promoted_at="")
    with pytest.raises(ValueError, match="is no name of a task"):
        deployment.copy_bundle(name, Path("bundle"), release)
    with pytest.raises(deployment.TaskNameInvalid):
        pulling.pull(MlflowClient("sqlite:///never-asked.db"), name, print)
    assert Path(".hidden").exists() and not list(Path("deployed").glob("**/current"))


def test_models_with_such_names_are_not_pulled(registry: MlflowClient) -> None:
    registry.rename_registered_model("convoy-fashion", "convoy-..")
    assert pulling.tasks_with_champions(registry) == []
    assert not any("serves now" in line for line in follow_once(registry))


def test_a_champion_without_its_alias_is_withdrawn(registry: MlflowClient) -> None:
    assert any("serves now" in line for line in follow_once(registry))
    registry.delete_registered_model_alias("convoy-fashion", "champion")
    assert any("is no longer deployed" in line for line in follow_once(registry))
    assert deployment.current_digest("fashion") is None and journal.read("fashion")[-1].kind == "withdrawn"
    registry.set_registered_model_alias("convoy-fashion", "champion", "1")
    follow_once(registry)
    assert deployment.current_digest("fashion")


def test_one_pull_withdraws_too(registry: MlflowClient) -> None:
    follow_once(registry)
    registry.delete_registered_model_alias("convoy-fashion", "champion")
    done = convoy(Path(), "pull", uri=registry.tracking_uri)
    assert done.returncode == 1 and "has no champion" in done.stderr and "is no longer deployed" in done.stdout
    assert deployment.current_digest("fashion") is None


def test_a_withdrawal_that_was_cut_off_is_completed(registry: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    follow_once(registry)
    registry.delete_registered_model_alias("convoy-fashion", "champion")
    with monkeypatch.context() as patch:
        patch.delattr(deployment, "remove_current")
        follow_once(registry)
    assert deployment.current_digest("fashion")
    follow_once(registry)
    assert deployment.current_digest("fashion") is None


def test_a_registry_without_the_model_withdraws_nothing(registry: MlflowClient) -> None:
    follow_once(registry)
    registry.delete_registered_model("convoy-fashion")
    follow_once(registry)
    assert deployment.current_digest("fashion")


def test_what_a_person_promoted_is_not_withdrawn(
    registry: MlflowClient, pipeline: KeptFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pipeline.root)
    registry.delete_registered_model_alias("convoy-fashion", "champion")
    follow_once(registry)
    assert deployment.current_digest("fashion")


def test_a_renamed_task_leaves_its_former_name(registry: MlflowClient) -> None:
    registry.rename_registered_model("convoy-fashion", "convoy-image")
    follow_once(registry)
    digest = deployment.current_digest("image")
    registry.rename_registered_model("convoy-image", "convoy-fashion")
    follow_once(registry)
    assert digest and (deployment.current_digest("fashion"), deployment.current_digest("image")) == (digest, None)
