"""dvc.lock as a graph: which stages are behind a stage, a bundle or its reports, and which inputs are made anew."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from convoy.core import paths, tasks
from convoy.tracking.provenance import Lock, md5_of

ROOT = Path(__file__).parents[1]
BEFORE = "d4ec35b"  # a revision with a stage for each kind of data
OLD_NAMES = {"image": "images", "text": "text"}


def resolved() -> dict[str, dict[str, Any]]:
    """dvc.lock as a run of everything in dvc.yaml leaves it; a path's hash is its name."""
    params = yaml.safe_load((ROOT / paths.PARAMS).read_text())
    stages = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        for key, item in params[stage["foreach"][2:-1]].items():
            stages[f"{name}@{key}"] = {
                side: [{"path": path, "md5": path} for path in entries(stage["do"], lists, key, item)]
                for side, lists in (("deps", ["deps"]), ("outs", ["outs", "metrics", "plots"]))
            }
    return stages


def entries(stage: dict[str, Any], lists: list[str], key: str, item: dict[str, Any]) -> list[str]:
    def fill(match: re.Match[str]) -> str:
        value: Any = {"key": key, "item": item}
        for word in match[1].split("."):
            value = value[word]
        return str(value)

    named = [entry if isinstance(entry, str) else next(iter(entry)) for name in lists for entry in stage.get(name, [])]
    return [re.sub(r"\$\{([\w.]+)\}", fill, name) for name in named]


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    monkeypatch.chdir(tmp_path)
    return Lock(resolved())


PREPARED = {"fashion": ["fetch@fashion", "prepare@fashion"], "reviews": ["fetch@reviews", "prepare@reviews"]}


@pytest.mark.parametrize("name", tasks.read(ROOT / paths.PARAMS).tasks)
def test_a_bundle_and_its_reports_come_from_the_stages_of_their_task(lock: Lock, name: str) -> None:
    known = tasks.read(ROOT / paths.PARAMS)
    task, data = known.task(name), known.data_set(known.task(name).data)
    trainings = {candidate.train for candidate in known.of_task(name)}
    built = {data.fetch, data.prepare, *trainings, task.choose, task.export}
    assert set(lock.to_bundle(name)) == built
    assert set(lock.to_reports(name)) == built | {data.baselines, task.evaluate}


@pytest.mark.parametrize("name", tasks.read(ROOT / paths.PARAMS).tasks)
def test_stages_come_after_what_they_read_and_once(lock: Lock, name: str) -> None:
    ordered = lock.to_reports(name)
    assert len(ordered) == len(set(ordered)) and ordered[0].startswith("fetch@")
    for place, stage in enumerate(ordered):
        needed = {producer for path in lock.deps(stage) for producer in lock.producers(path)} - {stage}
        assert needed <= set(ordered[:place]), stage


def test_a_producer_wrote_the_path_a_folder_around_it_or_a_part(lock: Lock) -> None:
    assert lock.producers("data/prepared/fashion/train.arrow") == ["prepare@fashion"]
    assert lock.producers("data/prepared/fashion") == ["prepare@fashion"]
    assert lock.producers("candidates/fashion") == ["train@fashion-cnn", "train@fashion-lstm"]
    assert lock.producers("candidates/reviews") == ["train@reviews-cnn", "train@reviews-lstm"], "not of reviews-stream"
    assert lock.producers("src/convoy/training") == []


def test_what_is_behind_a_stage_ends_with_it(lock: Lock) -> None:
    assert lock.behind("fetch@fashion") == ["fetch@fashion"]
    assert lock.behind("prepare@reviews") == PREPARED["reviews"]
    assert lock.behind("train@reviews-stream-lstm") == [*PREPARED["reviews"], "train@reviews-stream-lstm"]
    trainings = ["train@fashion-cnn", "train@fashion-lstm"]
    assert lock.behind("choose@fashion") == [*PREPARED["fashion"], *trainings, "choose@fashion"]
    assert lock.behind("train@none") == []


def test_a_task_that_was_never_built_has_no_stages(lock: Lock) -> None:
    assert lock.name_of("digits") is None and lock.to_bundle("digits") == lock.to_reports("digits") == []
    assert Lock({}).tasks == [] and Lock({}).to_bundle("fashion") == []
    assert lock.tasks == ["fashion", "reviews", "reviews-stream"] and lock.name_of("reviews") == "reviews"


def test_outputs_are_told_by_their_folders(lock: Lock) -> None:
    stages = lock.to_reports("fashion")
    assert set(lock.outs_of(stages, "data/")) == {"data/raw/fashion", "data/prepared/fashion"}
    assert "winner/fashion" in lock.outs_of(stages) and "bundles/reviews" not in lock.outs_of(stages)
    assert set(lock.outs_of(stages, "candidates/", "winner/")) == {
        "candidates/fashion/fashion-cnn",
        "candidates/fashion/fashion-lstm",
        "winner/fashion",
    }


def write(path: str, content: bytes) -> str:
    """A file, and DVC's hash of it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
    return md5_of(Path(path))


def test_a_stage_is_up_to_date_until_another_makes_its_input_anew(lock: Lock) -> None:
    assert all(lock.outdated(stage) == [] for stage in lock.stages)
    lock.stages["choose@fashion"]["outs"][0]["md5"] = "another"
    assert lock.outdated("export@fashion") == ["winner/fashion"] == lock.outdated("evaluate@fashion")
    assert lock.outdated("choose@fashion") == lock.outdated("export@reviews") == []


def test_a_file_of_a_made_folder_is_compared_with_what_lies_here(lock: Lock) -> None:
    path = "data/prepared/fashion/train.arrow"
    deps = lock.stages["train@fashion-cnn"]["deps"]
    next(dep for dep in deps if dep["path"] == path)["md5"] = write(path, b"rows")
    assert lock.outdated("train@fashion-cnn") == []
    write(path, b"other rows")
    assert lock.outdated("train@fashion-cnn") == [path]
    Path(path).unlink()
    assert lock.outdated("train@fashion-cnn") == [], "it is not here: nothing says that it is another"


def test_a_folder_of_several_outputs_is_compared_with_what_lies_here(lock: Lock) -> None:
    folder = Path("candidates/fashion")
    for name in ("fashion-cnn", "fashion-lstm"):
        write(f"{folder}/{name}/weights.safetensors", name.encode())
    (dep,) = [dep for dep in lock.stages["choose@fashion"]["deps"] if dep["path"] == str(folder)]
    dep["md5"] = md5_of(folder)
    assert dep["md5"].endswith(".dir") and lock.outdated("choose@fashion") == []
    write(f"{folder}/__pycache__/x.pyc", b"no part of it")
    assert lock.outdated("choose@fashion") == []
    write(f"{folder}/fashion-gru/weights.safetensors", b"a third")
    assert lock.outdated("choose@fashion") == [str(folder)]


def test_changed_code_is_named_in_files_and_folders(lock: Lock) -> None:
    lock.stages["train@fashion-cnn"]["deps"] = [
        {"path": "pipelines/train.py", "md5": write("pipelines/train.py", b"train")},
        {"path": "src/convoy/training", "md5": ""},
        {"path": "data/prepared/fashion/train.arrow", "md5": "no code"},
    ]
    write("src/convoy/training/trainer.py", b"trainer")
    lock.stages["train@fashion-cnn"]["deps"][1]["md5"] = md5_of(Path("src/convoy/training"))
    assert lock.changed_code(["train@fashion-cnn"]) == []
    write("src/convoy/training/trainer.py", b"edited")
    Path("pipelines/train.py").unlink()
    assert lock.changed_code(["train@fashion-cnn"]) == ["pipelines/train.py", "src/convoy/training"]


@pytest.fixture(scope="module")
def old() -> Lock:
    command = ["git", "show", f"{BEFORE}:dvc.lock"]
    shown = subprocess.run(command, capture_output=True, cwd=ROOT)
    if shown.returncode:
        pytest.skip("a checkout without that revision")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Lock(yaml.load(shown.stdout, Loader=loader)["stages"])


@pytest.mark.parametrize(("task", "former"), [("fashion", "image"), ("reviews", "text")])
def test_a_lock_of_before_gives_the_stages_of_its_time(old: Lock, task: str, former: str) -> None:
    assert old.name_of(task) == old.name_of(former) == former
    data = OLD_NAMES[former]
    trainings = [f"train@{former}-cnn", f"train@{former}-lstm"]
    built = {f"fetch_{data}", f"prepare_{data}", *trainings, f"choose@{former}", f"export@{former}"}
    assert set(old.to_bundle(task)) == built and old.to_bundle(task)[-1] == f"export@{former}"
    reports = set(old.to_reports(task))
    # One stage made the baselines of all data.
    others = {stage for other in OLD_NAMES.values() for stage in (f"fetch_{other}", f"prepare_{other}")}
    assert reports == built | others | {"baselines", f"evaluate@{former}"}


def test_a_stream_of_before_needs_no_choice(old: Lock) -> None:
    stages = ["fetch_text", "prepare_text", "train_stream", "export_stream"]
    assert old.to_bundle("reviews-stream") == stages and old.name_of("reviews-stream") == "text-stream"
    assert {"baselines", "evaluate_stream"} < set(old.to_reports("reviews-stream"))
    assert old.tasks == ["image", "text", "text-stream"]
    assert all(old.outdated(stage) == [] for stage in old.stages)


def test_stages_of_removed_entries_are_left_out() -> None:
    stages = resolved()
    lock = Lock({**stages, "mine": {}, "train@gone": {"outs": [{"path": "candidates/fashion/gone", "md5": "1"}]}})
    assert "train@gone" in lock.to_bundle("fashion")
    kept = lock.without_leftovers(tasks.read(ROOT / paths.PARAMS).stages)
    assert set(kept.stages) == {*stages, "mine"}
