"""trace: from one name of a state all others; that state in a folder of its own; whether a rebuild gives the same."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import built_pipeline
import pytest
import small_repository
import yaml
from mlflow_store import open_empty_store

from convoy.bundles.bundle import digest_of
from convoy.lineage import trace
from convoy.lineage.checkout import CheckoutRefused
from convoy.lineage.index import GitRecord, Index, lock_of
from convoy.lineage.resolve import IdUnresolved, resolve_id
from convoy.lineage.state import State
from convoy.release import publish
from convoy.tracking.provenance import Lock
from convoy.tracking.store import RunRecord, StoreContents

pytestmark = [pytest.mark.process, pytest.mark.mlflow]
PREPARED = "data/prepared/fashion"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One published version, of a tree with an edit, and a log with its requests; nobody may change it."""
    root = tmp_path_factory.mktemp("traced") / "convoy"
    root.mkdir()
    small_repository.lay(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        publish.publish(open_empty_store(), lambda line: None, ["fashion"])
        digest = digest_of(root / "bundles/fashion")
        prediction = {"label": "Shirt", "probability": 0.75}
        line = {
            "at": "2026-11-25T22:00:00.000+00:00",
            "id": "mine-1",
            "route": "/v1/fashion/predict",
            "task": "fashion",
        }
        line |= {"status": 200, "ms": 1.5, "version": "1", "digest": digest, "predictions": [prediction]}
        lines = [json.dumps(each) for each in ({**line, "id": "mine-10"}, line, {**line, "id": "gone", "digest": None})]
        Path(root, ".run").mkdir(exist_ok=True)
        Path(root, ".run/requests.jsonl").write_text("\n".join([*lines, '{"id": "mine-1", "ha']))
        yield root


@pytest.fixture(autouse=True)
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def world(repository: Path) -> Index:
    """What there is, read once."""
    return Index(".run")


def traced(
    asked: str, checkout: Path | None = None, verify: bool = False, world: Index | None = None
) -> tuple[int, dict[str, Any]]:
    told: list[str] = []
    world = world or Index(".run")
    status = trace.trace(asked, world, checkout, verify, True, told.append, lambda line: None, lambda question: True)
    return status, json.loads("\n".join(told))


def names(world: Index | None = None) -> dict[str, str]:
    """An ID of each kind, for the one state that there is."""
    known, lock = (world or Index()).mlflow, Lock.read()
    [version] = known.versions
    return {
        "version": "fashion/1",
        "version of MLflow": "convoy-fashion:1",
        "run": version.run_id,
        "build": version.tags["convoy.build_run"],
        "digest": version.digest,
        "beginning of a digest": version.digest[:8],
        "prepared data": lock.outs("prepare@fashion")[PREPARED],
        "training split": lock.deps("train@fashion-cnn")[f"{PREPARED}/train.arrow"],
        "raw data": lock.outs("fetch@fashion")["data/raw/fashion"],
        "weights": lock.outs("train@fashion-cnn")["candidates/fashion/fashion-cnn"],
        "bundle": lock.outs("export@fashion")["bundles/fashion"],
        "code": lock.deps("train@fashion-cnn")["pipelines/train.py"],
        "revision": built_pipeline.git(Path(), "rev-parse", "HEAD").strip(),
        "beginning of a revision": built_pipeline.git(Path(), "rev-parse", "--short", "HEAD").strip(),
        "request": "mine-1",
    }


@pytest.mark.parametrize("kind", [
    "version", "version of MLflow", "run", "build", "digest", "beginning of a digest", "prepared data",
    "training split", "raw data", "weights", "bundle", "revision", "beginning of a revision", "request",
])  # fmt: skip
def test_each_name_of_a_state_leads_to_all_others(kind: str, world: Index) -> None:
    held = names(world)
    status, answer = traced(held[kind], world=world)
    [state] = [each for each in answer["states"] if each["version"]]
    assert status == 0 and state["version"]["version"] == "1" and state["version"]["aliases"] == ["champion"]
    assert state["run"]["id"] == held["run"] and state["build"] == held["build"] and state["digest"] == held["digest"]
    assert state["git"] == {"revision": held["revision"], "edits": "kept"}
    assert state["data"][PREPARED] == held["prepared data"]
    assert state["data"]["bundles/fashion"] == held["bundle"]
    assert state["params"]["learning.epochs"] == "3" and state["params"]["prepare.seed"] == "0"
    assert state["places"] == ["bundles/fashion", f"deployed/fashion/{held['digest']}"] and state["serves_since"]
    assert [decision["kind"] for decision in state["decisions"]] == ["promotion"] and state["missing"] == []


def test_a_hash_of_code_is_found_in_dvc_lock_alone_and_leads_to_its_task() -> None:
    _, answer = traced(names()["code"])
    assert "pipelines/train.py" in resolve_id(names()["code"], Index()).what
    assert answer["states"][0]["task"] == "fashion" and answer["states"][0]["data"][PREPARED]


def test_people_read_the_prediction_the_state_and_the_commands_that_bring_it_back() -> None:
    told: list[str] = []
    assert trace.trace("mine-1", Index(".run"), None, False, False, told.append, told.append, lambda _: False) == 0
    said = "\n".join(told)
    held = names()
    assert "request answered at 2026-11-25T22:00:00.000+00:00" in said and "Shirt 0.7500" in said
    assert f"git         {held['revision']}" in said
    assert "python -m convoy trace fashion/1 --checkout FOLDER" in said and "dvc repro evaluate@fashion" in said
    assert "with the edits in source.patch" in said and "learning.learning_rate = 0.006" in said


def test_a_request_that_no_bundle_answered_says_so() -> None:
    status, answer = traced("gone")
    assert status == 0 and answer["states"] == [] and answer["request"]["id"] == "gone"


def test_an_unknown_id_says_where_it_was_looked_for_and_what_is_nearest() -> None:
    with pytest.raises(IdUnresolved) as failed:
        traced("fashion/7")
    said = str(failed.value)
    assert "fashion/7 is no version or digest or run or data or revision or request that is known here" in said
    assert "1 versions and 4 runs in sqlite:///" in said and "2 bundles in bundles/ and deployed/" in said
    assert "request log .run: 1 files" in said and "nearest: fashion/1" in said
    wrong = names()["digest"][:-4] + "0000"
    with pytest.raises(IdUnresolved, match=f"nearest: {names()['digest']}"):
        traced(wrong)
    with pytest.raises(IdUnresolved, match="at least 8 digits"):
        traced("abc")
    with pytest.raises(IdUnresolved, match="no request log: --requests or CONVOY_REQUEST_LOG names it"):
        resolve_id("mine-1", Index())


def test_an_id_that_names_two_things_asks_which_and_takes_the_answer(tmp_path: Path) -> None:
    line = {"id": "HEAD", "at": "now", "task": "fashion", "digest": names()["digest"]}
    (tmp_path / "log").write_text(json.dumps(line) + "\n")
    world = Index(str(tmp_path / "log"))
    with pytest.raises(IdUnresolved, match=r"HEAD names 2 things; say which:\n  revision:\w{40} .*\n  request:HEAD"):
        resolve_id("HEAD", world)
    assert resolve_id("request:HEAD", world).kind == "request" and resolve_id("revision:HEAD", world).kind == "revision"


def test_without_mlflow_the_lock_and_the_bundles_tell_what_they_know(monkeypatch: pytest.MonkeyPatch) -> None:
    held = names()
    for uri, words in (("sqlite:////nowhere/mlflow.db", "is not there"), ("http://127.0.0.1:1", "does not answer")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        _, answer = traced(held["prepared data"])
        [state] = answer["states"]
        assert state["version"] is None and state["lock"] == "here"
        assert state["data"]["bundles/fashion"] == held["bundle"]
        assert any(words in each for each in state["missing"])
        _, answer = traced(held["digest"])
        assert answer["states"][0]["serves_since"] and any(words in each for each in answer["states"][0]["missing"])


def test_a_checkout_has_the_edit_the_data_the_models_and_nothing_left_to_do(tmp_path: Path) -> None:
    before = built_pipeline.git(Path(), "status", "--porcelain"), Path("dvc.lock").read_bytes()
    Path("pipelines/train.py").write_text("# trains otherwise now\n")
    folder = tmp_path / "then"
    try:
        assert traced("fashion/1", folder)[0] == 0
        assert (folder / "pipelines/train.py").read_text() == "# trains, with an edit\n"
        assert Path("pipelines/train.py").read_text() == "# trains otherwise now\n"
        assert (folder / "bundles/fashion/model.onnx").read_bytes() == Path("bundles/fashion/model.onnx").read_bytes()
        assert yaml.safe_load((folder / "params.yaml").read_text()) == small_repository.PARAMS
        assert "up to date" in small_repository.dvc(folder, "repro")
        assert not list((folder / ".dvc").glob("cache/files/*"))
        with pytest.raises(CheckoutRefused, match="is there already; name a folder that is not"):
            traced("fashion/1", folder)
    finally:
        Path("pipelines/train.py").write_text("# trains, with an edit\n")
        built_pipeline.git(Path(), "worktree", "remove", "--force", str(folder))
    assert (built_pipeline.git(Path(), "status", "--porcelain"), Path("dvc.lock").read_bytes()) == before


def test_a_patch_is_shown_and_needs_consent(tmp_path: Path) -> None:
    shown: list[str] = []
    with pytest.raises(CheckoutRefused, match="nothing was applied; read the patch above, then add --yes"):
        trace.trace("fashion/1", Index(), tmp_path / "then", False, True, shown.append, shown.append, lambda _: False)
    assert not (tmp_path / "then").exists()
    assert "  +# trains, with an edit" in shown and any("come from MLflow" in line for line in shown)


def test_no_control_character_hides_a_line() -> None:
    hidden = b"+import os\x1b[2K\r+harmless\n+\xe2\x80\xaeright to left\n+caf\xc3\xa9\tok\n"
    told = trace._printable(hidden.decode())
    assert told == "+import os\\x1b[2K\\r+harmless\n+\\u202eright to left\n+caf\u00e9\tok\n"


LINK = b"""diff --git a/out b/out
new file mode 120000
index 0000000..3594e94
--- /dev/null
+++ b/out
@@ -0,0 +1 @@
+/etc
\\ No newline at end of file
"""
RETARGETED = b"diff --git a/out b/out\nindex 3594e94..4594e94 120000\n--- a/out\n+++ b/out\n@@ -1 +1 @@\n-a\n+/etc\n"
CHANGED = b"diff --git a/a b/a\nold mode 100644\nnew mode 120000\n"
SUBMODULE = (
    b"diff --git a/m b/m\nnew file mode 160000\nindex 0000000..3594e94\n--- /dev/null\n+++ b/m\n@@ -0,0 +1 @@\n+x\n"
)


@pytest.mark.parametrize("patch", [LINK, RETARGETED, CHANGED, SUBMODULE, LINK.replace(b"\n", b"\r\n")])
def test_a_patch_that_makes_a_link_is_refused(patch: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StoreContents.artifact
    monkeypatch.setattr(
        StoreContents,
        "artifact",
        lambda known, run, name: patch if name.endswith("source.patch") else real(known, run, name),
    )
    with pytest.raises(CheckoutRefused, match="makes something other than a plain file"):
        traced("fashion/1", tmp_path / "then")
    assert not (tmp_path / "then").exists()


def test_a_checkout_runs_nothing_of_the_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a patch names like a module of DVC's, or of Python's start, is not imported."""
    real, ran = StoreContents.artifact, tmp_path / "ran"
    code = f"open({str(ran)!r}, 'a').write(__name__)"
    new = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+{1}\n"
    evil = b"".join(
        new.format(name, code).encode()
        for name in ("sitecustomize.py", "usercustomize.py", "dvc.py", "yaml.py", "src/sitecustomize.py", "src/dvc.py")
    )
    monkeypatch.setattr(
        StoreContents,
        "artifact",
        lambda known, run, name: evil if name.endswith("source.patch") else real(known, run, name),
    )
    folder = tmp_path / "then"
    try:
        assert traced("fashion/1", folder)[0] == 0
        assert (folder / "sitecustomize.py").read_text().startswith("open(")
        assert (folder / "bundles/fashion/model.onnx").exists(), "DVC has worked there"
        assert not ran.exists()
    finally:
        built_pipeline.git(Path(), "worktree", "remove", "--force", str(folder))


def test_a_report_outside_reports_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreContents, "artifacts", lambda *_: ["reports/../../escaped"])
    with pytest.raises(CheckoutRefused, match="names a report outside reports/"):
        traced("fashion/1", tmp_path / "then")
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "then").exists()


@pytest.mark.parametrize("tag", ["--output=/tmp/x", "main~1", "main; touch x", "a" * 39, "A" * 40, "a" * 40 + "\n"])
def test_a_revision_that_is_no_hash_never_reaches_git(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = GitRecord._execute
    monkeypatch.setattr(GitRecord, "_execute", lambda git, words, stdin: asked.extend(words) or real(git, words, stdin))
    world = Index()
    for run in world.mlflow.runs.values():
        run.tags["convoy.git_revision"] = tag
    for version in world.mlflow.versions:
        version.tags["convoy.git_revision"] = tag
    _, answer = traced("fashion/1", world=world)
    [state] = answer["states"]
    assert state["git"]["revision"] != tag and not any(tag in word for word in asked)
    assert all(tag not in command for command in state["commands"])


def test_commands_quote_what_mlflow_names() -> None:
    run = RunRecord("$(touch x)", "fashion-cnn", "FINISHED", 0, {}, {})
    state = State("fashion", run=run, revision="a" * 40)
    told = trace.commands(state, "a folder; touch z")
    assert told[0] == "python -m convoy trace '$(touch x)' --checkout 'a folder; touch z'"
    assert told[1] == "cd 'a folder; touch z'"


def hostile_locks() -> dict[str, dict[str, Any]]:
    """Entries by which DVC would write, or read, somewhere else."""
    up = "../" * 30 + "tmp"
    return {
        "hash that climbs": {"path": "bundles/fashion", "hash": "md5", "md5": f"aa{up}/x.dir"},
        "files of an entry": {
            "path": "bundles/fashion",
            "hash": "md5",
            "files": [{"relpath": "../../x", "md5": "a" * 32}],
        },
        "path that climbs": {"path": "../x", "hash": "md5", "md5": "a" * 32},
        "absolute path": {"path": "/tmp/x", "hash": "md5", "md5": "a" * 32},
        "cloud": {"path": "bundles/fashion", "md5": "a" * 32, "cloud": {"x": {}}},
        "line end": {"path": "bundles/fashion", "hash": "md5", "md5": "a" * 32 + "\n"},
    }


@pytest.mark.parametrize("name", sorted(hostile_locks()))
def test_a_lock_that_dvc_did_not_write_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StoreContents.artifact
    lock = yaml.safe_load(Path("dvc.lock").read_bytes())
    lock["stages"]["export@fashion"]["outs"] = [hostile_locks()[name]]
    content = yaml.safe_dump(lock).encode()
    monkeypatch.setattr(
        StoreContents,
        "artifact",
        lambda known, run, name: content if name.endswith("dvc.lock") else real(known, run, name),
    )
    with pytest.raises(CheckoutRefused, match=r"has an entry in the stage 'export@fashion' that DVC does not write"):
        traced("fashion/1", tmp_path / "then")
    assert not (tmp_path / "then").exists()


def test_a_report_that_is_not_the_locks_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StoreContents.artifact
    monkeypatch.setattr(
        StoreContents,
        "artifact",
        lambda known, run, name: b"forged" if name.startswith("reports/") else real(known, run, name),
    )
    folder = tmp_path / "then"
    try:
        assert traced("fashion/1", folder)[0] == 0
        assert not [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"forged"]
    finally:
        built_pipeline.git(Path(), "worktree", "remove", "--force", str(folder))


def test_nested_aliases_of_a_lock_cost_nothing() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(6)
    )
    assert lock_of(b"stages: {}\n") == Lock({})
    assert lock_of(f"{bomb}stages: {{x: *g}}\n".encode()) is None


def test_a_checkout_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convoy.tracking.store.StoreContents.artifact", lambda *_: b"no patch at all")
    with pytest.raises(CheckoutRefused, match="git apply"):
        traced("fashion/1", tmp_path / "then")
    assert not (tmp_path / "then").exists()
    assert built_pipeline.git(Path(), "worktree", "list").count("\n") == 1
    monkeypatch.setattr("convoy.tracking.store.StoreContents.artifact", lambda *_: None)
    with pytest.raises(CheckoutRefused, match="with edits that were not kept"):
        traced("fashion/1", tmp_path / "then")


def test_a_rebuild_says_of_each_file_whether_it_is_the_same_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = sorted(str(path) for path in Path(".dvc/cache").rglob("*"))
    status, answer = traced("fashion/1", verify=True)
    files = {each["path"]: each["same"] for each in answer["verified"]}
    weights = set(small_repository.CANDIDATES)
    assert status == 0 and set(files.values()) == {True}
    assert set(files) >= {PREPARED, *weights, "bundles/fashion/model.onnx", "bundles/fashion/card.json"}
    monkeypatch.setenv("OTHERWISE", "1")
    told: list[str] = []
    assert trace.trace("fashion/1", Index(), None, True, False, told.append, told.append, lambda _: True) == 1
    assert {line.split()[0] for line in told if "differs: " in line} == weights
    assert told[-1].endswith("files: 2 differ")
    assert not [path for path in Path(".run/trace").iterdir() if path.is_dir()]
    assert built_pipeline.git(Path(), "worktree", "list").count("\n") == 1
    assert sorted(str(path) for path in Path(".dvc/cache").rglob("*")) == objects


def test_where_no_revision_was_published_a_committed_lock_leads_to_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody commits code and lock after the build, and publishes after another edit."""
    root = tmp_path / "convoy"
    shutil.copytree(
        repository, root, symlinks=True, ignore=shutil.ignore_patterns("mlruns", "mlflow-store", "deployed")
    )
    monkeypatch.chdir(root)
    built_pipeline.git(root, "add", ".")
    built_pipeline.git(root, "commit", "--quiet", "--message", "The build")
    made = built_pipeline.git(root, "rev-parse", "HEAD").strip()
    Path("pipelines/train.py").write_text("# another edit\n")
    publish.publish(open_empty_store(), lambda line: None, ["fashion"])
    for build in (True, False):
        if not build:  # of a version that was published before builds were recorded
            known = Index().mlflow
            assert known.client is not None
            known.client.delete_run(known.versions[0].tags["convoy.build_run"])
            Path("dvc.lock").unlink()
        _, answer = traced("fashion/1")
        [state] = answer["states"]
        assert state["git"] == {"revision": made, "edits": "found by its dvc.lock; all code there is what made it"}
    done = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, env=os.environ, check=True)
    assert "dvc.lock" in done.stdout
