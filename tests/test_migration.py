"""Bundles of format 1, kept for good, become bundles of today by a verb; what serves goes on serving."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import built_pipeline
import numpy as np
import pytest
from mlflow_store import open_empty_store
from typer.testing import CliRunner

from convoy.__main__ import app
from convoy.bundles.bundle import BundleInvalid, Release, digest_of, read_bundle, read_release
from convoy.bundles.predictor import Predictor
from convoy.core.paths import DEPLOYED
from convoy.operations import migrate
from convoy.release import deployment, journal, publish
from convoy.tracking import registry

pytestmark = pytest.mark.mlflow
OLD = Path(__file__).parent / "old_bundles"
NEW = Path("new")
# The cards of these bundles have the former names of the tasks.
FORMAT_1 = {"fashion": OLD / "format-1-image", "reviews": OLD / "format-1-text"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def deploy_old(task: str) -> Path:
    """A format 1 bundle that serves, as its release of Convoy left it."""
    digest = digest_of(FORMAT_1[task])
    folder = DEPLOYED / task / digest
    shutil.copytree(FORMAT_1[task], folder)
    release = Release(name=f"convoy-{task}", version="4", run_id="r", digest=digest, promoted_at="2026-01-01")
    (folder / "release.json").write_text(release.model_dump_json())
    (DEPLOYED / task / "current").symlink_to(digest)
    return folder


@pytest.mark.parametrize("task", FORMAT_1)
def test_a_bundle_of_format_1_becomes_one_of_today_that_gives_the_very_same_probabilities(task: str) -> None:
    said: list[str] = []
    migrate.migrate(FORMAT_1[task], NEW, said.append)
    new = Predictor(NEW)
    examples = json.loads((FORMAT_1[task] / "examples.json").read_bytes())
    answers = new.replay([example["input"] for example in examples])
    assert np.array_equal(answers, np.array([example["probabilities"] for example in examples], dtype=np.float32))
    for name in {path.name for path in NEW.iterdir()} - {"card.json", "manifest.json"}:
        assert (NEW / name).read_bytes() == (FORMAT_1[task] / name).read_bytes()
    assert (new.card.format_version, new.card.temperature, new.card.sets.n) == (2, 1.0, 0)
    assert any("cannot give prediction sets" in line for line in said)


def test_migrating_again_gives_the_same_digest() -> None:
    migrate.migrate(FORMAT_1["reviews"], NEW, print)
    migrate.migrate(FORMAT_1["reviews"], Path("again"), print)
    assert digest_of(NEW) == digest_of(Path("again"))


@pytest.mark.parametrize("task", FORMAT_1)
def test_one_that_serves_is_served_by_its_successor_and_stays_beside_it(task: str) -> None:
    old = deploy_old(task)
    migrate.migrate(DEPLOYED / task / "current", None, print)
    serving = DEPLOYED / task / "current"
    assert os.readlink(serving) == read_bundle(serving).digest != old.name
    release = read_release(serving)
    assert release is not None and (release.version, release.digest) == ("4", os.readlink(serving))
    assert digest_of(old) == old.name
    found, migrated = journal.read(task)
    assert (found.kind, migrated.kind) == ("found", "migration") and migrated.before == found.after
    assert migrated.after.digest == release.digest and migrated.at == release.promoted_at
    history = journal.read_history(task)
    assert history.unfinished is None and history.one_before is None, "a rollback must not end at what no longer loads"


def test_one_that_no_longer_serves_is_migrated_and_still_does_not_serve() -> None:
    old = deploy_old("reviews")
    migrate.migrate(FORMAT_1["reviews"], NEW, print)
    other = Release(name="convoy-reviews", version="5", run_id="r", digest=digest_of(NEW), promoted_at="2026-01-02")
    deployment.deploy("reviews", NEW, other)
    shutil.rmtree(deployment.folder_of("reviews", other.digest))
    migrate.migrate(old, None, print)
    assert deployment.current_digest("reviews") == other.digest and read_bundle(DEPLOYED / "reviews" / other.digest)


def test_publish_registers_the_successor_as_a_version_of_its_own() -> None:
    built_pipeline.lay(Path())
    shutil.rmtree("bundles")
    deploy_old("fashion")
    migrate.migrate(DEPLOYED / "fashion" / "current", None, print)
    client = open_empty_store()
    publish.publish(client, print, ["fashion"])
    champion = registry.version_with(client, "fashion", "champion")
    assert champion is not None and champion.tags[registry.DIGEST] == deployment.current_digest("fashion")
    release = read_release(DEPLOYED / "fashion" / "current")
    assert release is not None and release.version == str(champion.version)


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "examples.json", "manifest.json"])
def test_a_damaged_one_is_refused_and_nothing_is_written(name: str) -> None:
    shutil.copytree(FORMAT_1["fashion"], "old")
    content = bytearray(Path("old", name).read_bytes())
    content[len(content) // 2] ^= 1
    Path("old", name).write_bytes(bytes(content))
    with pytest.raises(BundleInvalid):
        migrate.migrate(Path("old"), NEW, print)
    assert not NEW.exists()


@pytest.mark.parametrize("target", [NEW, None])
def test_a_bundle_of_today_needs_no_migration(target: Path | None) -> None:
    said: list[str] = []
    migrate.migrate(OLD / "format-2-image", target, said.append)
    assert said == [f"{OLD / 'format-2-image'} has format 2, today's; nothing to do"] and not NEW.exists()


def test_what_cannot_be_migrated_is_said() -> None:
    with pytest.raises(migrate.MigrationRefused, match="--into"):
        migrate.migrate(FORMAT_1["fashion"], None, print)
    NEW.mkdir()
    with pytest.raises(migrate.MigrationRefused, match="new exists"):
        migrate.migrate(FORMAT_1["fashion"], NEW, print)


def test_the_verb_says_in_one_line_what_is_wrong() -> None:
    Path("file").touch()
    for name in ("nowhere", "file"):
        words = [sys.executable, "-m", "convoy", "migrate", name, "--into", "new"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"{name} is no folder; name that of a bundle, as deployed/<task>/current" in done.stderr
    assert not Path("deployed").exists()


def test_into_without_a_bundle_is_refused() -> None:
    done = CliRunner().invoke(app, ["migrate", "--into", "new"])
    assert done.exit_code == 2 and "is for a BUNDLE" in done.stderr
