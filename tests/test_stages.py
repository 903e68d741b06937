"""Names of stages: those that the code builds and prints, for every entry, are those of dvc.yaml."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import built_pipeline
import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from bench.interruptions import kills, races
from convoy.core import stage as stages
from convoy.core import tasks
from convoy.core.params import ParamsInvalid
from convoy.core.paths import PARAMS
from convoy.lineage import trace
from convoy.lineage.state import State
from convoy.operations import status
from convoy.tracking.build_state import read_build_state
from convoy.tracking.provenance import Lock

pytestmark = pytest.mark.mlflow
ROOT = Path(__file__).parent.parent
ENTRIES = tasks.read(ROOT / PARAMS)
EACH_TASK = pytest.mark.parametrize("task", ENTRIES.tasks)


@pytest.fixture(scope="module")
def pipeline() -> dict[str, PipelineStage]:
    """Every stage of dvc.yaml, in the order of the file, by what DVC calls it."""
    with Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All tasks, as `dvc repro` leaves them."""
    monkeypatch.chdir(tmp_path)
    for task in ENTRIES.tasks:
        built_pipeline.lay(tmp_path, task)
    return tmp_path


def reran(text: str) -> Iterator[str]:
    """What `dvc repro` is told to run where a text names that command."""
    for command in re.findall(r"`dvc repro ([^`{]+)`", text):
        yield from command.split()


def named() -> set[str]:
    """Every name that an entry has for a stage."""
    of_data = {name for data in ENTRIES.data.values() for name in (data.fetch, data.prepare, data.baselines)}
    of_tasks = {name for task in ENTRIES.tasks.values() for name in (task.choose, task.export, task.evaluate)}
    return of_data | of_tasks | {candidate.train for candidate in ENTRIES.candidates.values()}


def test_the_names_are_those_of_dvc_yaml(pipeline: dict[str, PipelineStage]) -> None:
    assert named() == set(pipeline)


def test_a_stage_runs_its_module_with_its_entry_and_calls_itself_as_dvc_does(
    pipeline: dict[str, PipelineStage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)

    def refuse(*_: str) -> None:
        raise ParamsInvalid("no")

    for name, stage in pipeline.items():
        module, key = name.split("@")
        assert stage.cmd == f"exec python -m pipelines.{module} {key}"
        monkeypatch.setattr(sys, "argv", [str(ROOT / "pipelines" / f"{module}.py")])
        with pytest.raises(SystemExit, match=f"^{name}: no$"):
            stages.run(refuse, key)


def test_an_entry_that_there_is_not_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import baselines, choose, fetch, prepare

    monkeypatch.chdir(tmp_path)
    built_pipeline.write_params(tmp_path, "fashion")
    Path("params.yaml").write_text(Path("params.yaml").read_text() + "choose: {metric: accuracy}\n")
    for module in (baselines, choose, fetch, prepare):
        name = module.__name__.removeprefix("pipelines.")
        monkeypatch.setattr(sys, "argv", [f"{name}.py"])
        with pytest.raises(SystemExit, match=rf"^{name}@digits: there is no .* 'digits' in params\.yaml; there is"):
            stages.run(module.main, "digits")


def test_the_key_of_a_candidate_is_its_section() -> None:
    params = yaml.safe_load((ROOT / PARAMS).read_text())
    for candidate in ENTRIES.candidates.values():
        section = params
        for key in candidate.key.split("."):
            section = section[key]
        assert {"learning", "batches", "network"} <= set(section)


@EACH_TASK
def test_trace_names_a_stage_that_exists(task: str, built: Path, pipeline: dict[str, PipelineStage]) -> None:
    for lock in (None, Lock.read()):
        *_, repro = trace.commands(State(task, revision="a" * 40, lock=lock))
        assert repro.split(" dvc repro ")[1] == ENTRIES.task(task).evaluate
    assert ENTRIES.task(task).evaluate in pipeline


def test_trace_names_the_stage_of_the_time_of_its_lock() -> None:
    """The packaged tasks had other names, and the stream stages of its own."""
    outs, deps = [{"path": "bundles/text-stream", "md5": ""}], [{"path": "bundles/text-stream", "md5": ""}]
    lock = Lock({"export_stream": {"outs": outs}, "evaluate_stream": {"deps": deps}})
    *_, repro = trace.commands(State("reviews-stream", revision="a" * 40, lock=lock))
    assert repro.endswith("dvc repro evaluate_stream")


def test_trace_brings_back_nothing_of_no_task() -> None:
    state = State(None, revision="a" * 40)
    assert trace.commands(state) == []
    assert not any("To bring it back" in line for line in trace._format_state(state))


@EACH_TASK
def test_what_has_not_run_is_named_rightly(task: str, pipeline: dict[str, PipelineStage]) -> None:
    missing = read_build_state(task, Lock({})).missing
    told = {found[1] for line in missing if (found := re.fullmatch(r"stage (\S+) has not run", line))}
    assert ENTRIES.task(task).evaluate in told and told <= set(pipeline) and len(told) == len(missing)


@EACH_TASK
def test_runs_name_the_command_that_made_them(task: str, built: Path, pipeline: dict[str, PipelineStage]) -> None:
    content = read_build_state(task, Lock.read())
    assert set(content.runs) == {candidate.name for candidate in ENTRIES.of_task(task)}
    runs = [*content.runs.values(), *content.baselines]
    assert {run.tags["mlflow.source.name"].removeprefix("dvc repro ") for run in runs} <= set(pipeline)


def test_status_names_stages_that_exist(built: Path, pipeline: dict[str, PipelineStage]) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    for task in ENTRIES.tasks.values():
        del lock["stages"][task.evaluate]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    for found in status.read_status(1):
        told = re.findall(r"stage (\S+) has not run", found.built.remark)
        assert told == [ENTRIES.task(found.task).evaluate] and told[0] in pipeline
        assert {step.command for step in found.next if step.command.startswith("dvc")} == {"dvc repro"}


def test_what_sources_tell_to_run_exists(pipeline: dict[str, PipelineStage]) -> None:
    files = [path for top in ("src", "serving", "bench", "lab", "pipelines") for path in (ROOT / top).rglob("*.py")]
    pages = [ROOT / "README.md", ROOT / "EXTENDING.md", *(ROOT / "docs").glob("*.md")]
    told = [word for path in [*files, *pages] for word in reran(path.read_text())]
    assert told
    for word in told:
        known = word in pipeline or word in {name.partition("@")[0] for name in pipeline}
        assert known or (ROOT / word).exists() or word.startswith("-"), word


def test_disturbed_and_prepared_stages_exist(pipeline: dict[str, PipelineStage]) -> None:
    laboratory = yaml.safe_load((ROOT / "lab/params.yaml").read_text())["data"]
    assert {f"prepare@{laboratory[kind]['prepared']}" for kind in ("image", "text")} <= set(pipeline)
    assert set(races.STAGES) <= set(pipeline)
    assert set(kills._LASTS_S) <= {name.partition("@")[0] for name in pipeline}
