"""Machines that share an MLflow: its champion is the truth, and who has not seen it pulls first."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import built_pipeline
import pytest
from mlflow import MlflowClient
from mlflow_server import WITHIN_S, Server
from mlflow_store import open_empty_store

from convoy.release import deployment, journal, rollback
from convoy.release import promote as promoting
from convoy.release import publish as publishing
from convoy.release import pull as pulling
from convoy.release.publish import PublishFailed
from convoy.release.registry_sync import ChampionMoved
from convoy.tracking import artifacts, mlflow_runs, registry

pytestmark = [pytest.mark.process, pytest.mark.mlflow]
PULL_FIRST = r"run `python -m convoy pull --task fashion` first"


def silently(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("shared"))
        open_empty_store()
        server = Server()
        server.start()
        yield server
        server.kill()


class Machine:
    """The folder of a machine that builds and publishes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    @contextmanager
    def here(self) -> Iterator[MlflowClient]:
        before = Path.cwd()
        os.chdir(self.root)
        try:
            yield mlflow_runs.open_store()
        finally:
            os.chdir(before)

    def build(self, version: int) -> None:
        built_pipeline.lay(self.root, version=version)

    def publish(self) -> None:
        with self.here() as client:
            publishing.publish(client, silently, ["fashion"])

    def pull(self) -> None:
        with self.here() as client:
            pulling.pull(client, "fashion", silently)

    @property
    def deployed(self) -> str | None:
        with self.here():
            return deployment.current_digest("fashion")

    @property
    def kinds(self) -> list[str]:
        with self.here():
            return [decision.kind for decision in journal.read("fashion")]


@pytest.fixture
def machines(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    """Two machines that have seen the champion, and have built another bundle each."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    client = mlflow_runs.open_store()
    for name in ("convoy-fashion", "convoy-decisions"):
        if (experiment := client.get_experiment_by_name(name)) is not None:
            for run in client.search_runs([experiment.experiment_id]):
                client.delete_run(run.info.run_id)
    if registry.has_model(client, "convoy-fashion"):
        client.delete_registered_model("convoy-fashion")
    first, second = Machine(tmp_path / "first"), Machine(tmp_path / "second")
    first.build(1)
    first.publish()
    second.pull()
    for version, machine in ((2, first), (3, second)):
        machine.build(version)
    return first, second


def champion() -> str:
    version = registry.version_with(mlflow_runs.open_store(), "fashion", "champion")
    assert version is not None
    return str(version.tags[registry.DIGEST])


def test_who_has_not_seen_the_champion_pulls_first(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    first.publish()
    before = second.deployed
    with pytest.raises(PublishFailed, match=PULL_FIRST):
        second.publish()
    with second.here() as client, pytest.raises(ChampionMoved, match=PULL_FIRST):
        promoting.promote(client, silently, "fashion", "1", "", before)
    assert champion() == first.deployed and second.deployed == before and second.kinds == ["pull"]
    second.pull()
    second.publish()
    assert champion() == second.deployed != first.deployed and second.kinds == ["pull", "pull", "promotion"]


def test_decisions_of_another_machine_are_not_adopted(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    """A new machine, or one whose deployed/ was lost, that has built the champion."""
    first, _ = machines
    third = Machine(tmp_path / "third")
    third.build(1)
    third.publish()
    assert third.kinds == ["pull"] and third.deployed == first.deployed
    first.publish()
    third.build(3)
    with pytest.raises(PublishFailed, match=PULL_FIRST):
        third.publish()
    assert champion() == first.deployed and third.kinds == ["pull"]


def test_a_machine_without_deployed_pulls_first(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    first.publish()
    former, versions = lines_in_mlflow(), count_versions()
    shutil.rmtree(first.root / "deployed")
    first.build(3)
    with pytest.raises(PublishFailed, match=PULL_FIRST):
        first.publish()
    assert first.deployed is None and lines_in_mlflow() == former and count_versions() == versions
    first.pull()
    assert first.deployed == champion() and first.kinds == ["pull"]
    first.publish()
    assert first.kinds == ["pull", "promotion"] and champion() == first.deployed != second.deployed
    assert {*former} < {*lines_in_mlflow()} and count_versions() == versions + 1


def lines_in_mlflow() -> list[bytes]:
    """The lines in MLflow's copy of the histories."""
    client = mlflow_runs.open_store()
    experiment = client.get_experiment_by_name("convoy-decisions")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    return artifacts.read(client, run, "decisions.jsonl").splitlines()


def count_versions() -> int:
    """How many versions are registered."""
    return len(mlflow_runs.open_store().search_model_versions("name = 'convoy-fashion'"))


def test_lines_that_mlflow_has_lost_stop_nobody(machines: tuple[Machine, Machine]) -> None:
    first, _ = machines
    client = mlflow_runs.open_store()
    experiment = client.get_experiment_by_name("convoy-decisions")
    for run in client.search_runs([experiment.experiment_id]):
        client.delete_run(run.info.run_id)
    first.publish()
    assert champion() == first.deployed and first.kinds == ["promotion", "promotion"]


def test_a_rollback_asks_a_shared_mlflow_too(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    second.publish()
    first.pull()
    first.publish()
    with second.here(), pytest.raises(ChampionMoved, match=PULL_FIRST):
        rollback.rollback(silently, "fashion", None, "it answers worse", deployment.current_digest("fashion"))
    with first.here() as client:
        rollback.rollback(silently, "fashion", None, "it answers worse", deployment.current_digest("fashion"))
        promoting.align_and_update_mlflow(client, "fashion")
    assert champion() == first.deployed == second.deployed


def test_a_rollback_that_mlflow_lacks_is_told_later(
    machines: tuple[Machine, Machine], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = machines
    before = first.deployed
    first.publish()
    said: list[str] = []
    with first.here(), monkeypatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        rollback.rollback(said.append, "fashion", None, "it answers worse", deployment.current_digest("fashion"))
    assert "does not say whether another machine has decided" in said[0] and champion() != before
    first.publish()
    assert champion() == before == first.deployed


@contextmanager
def between(name: str, other: Callable[[], None], *, before: bool) -> Iterator[None]:
    """Let another machine act right before, or right after, the first call of a client's method."""
    call, done = getattr(MlflowClient, name), []

    def wrapped(*arguments: object) -> None:
        is_first = not done
        done.append(1)
        if is_first and before:
            other()
        call(*arguments)
        if is_first and not before:
            other()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, name, wrapped)
        yield


def test_of_two_publishers_who_race_one_is_champion(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    with between("set_registered_model_alias", first.publish, before=True):
        second.publish()  # both have looked, and the second moves the alias last
    assert champion() == second.deployed != first.deployed
    with pytest.raises(PublishFailed, match=PULL_FIRST):
        first.publish()
    first.pull()
    assert first.deployed == second.deployed == champion()


def test_an_alias_that_moves_meanwhile_ends_a_decision(machines: tuple[Machine, Machine]) -> None:
    _, second = machines
    seen, client = second.deployed, mlflow_runs.open_store()

    def move_back() -> None:
        client.set_registered_model_alias("convoy-fashion", "champion", "1")

    with between("set_registered_model_alias", move_back, before=False), pytest.raises(PublishFailed, match=PULL_FIRST):
        second.publish()
    assert champion() == second.deployed == seen and second.kinds == ["pull"]


def test_two_commands_at_once_end_with_one_champion(machines: tuple[Machine, Machine]) -> None:
    words = [sys.executable, "-m", "convoy", "publish"]
    both = [subprocess.Popen(words, cwd=machine.root, stderr=subprocess.PIPE, text=True) for machine in machines]
    errors = [process.communicate(timeout=WITHIN_S)[1] for process in both]
    for process, error in zip(both, errors, strict=True):
        assert process.returncode == 0 or "pull --task fashion` first" in error, error
    for machine in machines:
        machine.pull()
    assert {machine.deployed for machine in machines} == {champion()}


def test_a_kill_between_alias_and_line_is_made_good(
    machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = machines
    with monkeypatch.context() as patch:
        patch.delattr(journal, "decide")
        with pytest.raises(PublishFailed):
            first.publish()
    assert champion() != first.deployed
    first.publish()
    assert champion() == first.deployed and first.kinds == ["promotion", "promotion"]
