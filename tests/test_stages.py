"""Names of stages: those that the code builds and prints, for every task, are those of dvc.yaml."""

import re
from collections.abc import Iterator
from pathlib import Path

import built_pipeline
import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from bench.interruptions import kills, races
from convoy.core import stage_names as stages
from convoy.core.paths import PARAMS, TASKS, Task, architectures, kind_of
from convoy.lineage import trace
from convoy.lineage.state import State
from convoy.operations import status
from convoy.tracking.build_state import read_build_state
from convoy.tracking.provenance import Lock
from lab import smoke

pytestmark = pytest.mark.mlflow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pipeline() -> dict[str, PipelineStage]:
    """Every stage of dvc.yaml, in the order of the file, by what DVC calls it."""
    with Repo(str(ROOT)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All tasks, as `dvc repro` leaves them."""
    monkeypatch.chdir(tmp_path)
    for task in TASKS:
        built_pipeline.lay(tmp_path, task)
    return tmp_path


def named(task: Task) -> set[str]:
    """Every name that there is for a task."""
    one = {
        stages.fetch(task),
        stages.prepare(task),
        stages.export(task),
        stages.evaluate(task),
        stages.BASELINES,
    }
    one |= {stages.train(task, architecture) for architecture in architectures(task)}
    one |= {stages.choose(task)} if stages.is_chosen(task) else set()
    return one.union(
        stages.train_to_bundle(task),
        stages.raw_to_bundle(task),
        stages.raw_to_reports(task),
        stages.all_before_reports(task),
    )


def reran(text: str) -> Iterator[str]:
    """What `dvc repro` is told to run where a text names that command."""
    for command in re.findall(r"`dvc repro ([^`{]+)`", text):
        yield from command.split()


def test_the_names_are_those_of_dvc_yaml(pipeline: dict[str, PipelineStage]) -> None:
    for task in TASKS:
        assert named(task) <= set(pipeline), task
    assert set().union(*map(named, TASKS)) == set(pipeline)


@pytest.mark.parametrize("task", TASKS)
def test_stages_come_after_what_they_read(task: Task, pipeline: dict[str, PipelineStage]) -> None:
    made: set[str] = set()
    everything = {str(out) for stage in pipeline.values() for out in stage.outs}
    for name in stages.all_before_reports(task):
        read = {str(dep) for dep in pipeline[name].deps} & everything
        assert read <= made, name
        made |= {str(out) for out in pipeline[name].outs}


def test_a_stage_runs_its_module_with_its_key(pipeline: dict[str, PipelineStage]) -> None:
    for name, stage in pipeline.items():
        of_data = {"images": "image", "text": "text"}.get(name.partition("_")[2], "")
        key = name.partition("@")[2].replace("-", " ") or of_data
        assert stage.cmd == f"exec python -m {stages.module_of(name)} {key}".rstrip()
        module, *arguments = stage.cmd.split()[3:]
        assert stages.of_module(module.removeprefix("pipelines."), *arguments) == name


def test_a_stage_leads_back_to_its_task() -> None:
    for task in TASKS:
        own = {*stages.train_to_bundle(task), stages.evaluate(task)}
        assert {stages.task_of(name) for name in own} == {task}
        assert stages.task_of(stages.fetch(task)) == stages.task_of(stages.prepare(task)) == kind_of(task)
    assert stages.task_of(stages.BASELINES) is None


def test_sections_are_those_of_params_yaml() -> None:
    params = yaml.safe_load((ROOT / PARAMS).read_text())
    for task in TASKS:
        assert {stages.fetch(task), stages.prepare(task)} <= set(params)
        for architecture in architectures(task):
            section = params
            for key in stages.training_section(task, architecture):
                section = section[key]
            assert {"learning", "batches", "network"} <= set(section)


@pytest.mark.parametrize("task", TASKS)
def test_trace_names_a_stage_that_exists(task: Task, pipeline: dict[str, PipelineStage]) -> None:
    *_, repro = trace.commands(State(task, revision="a" * 40))
    assert repro.split(" dvc repro ")[1] in pipeline


def test_trace_brings_back_nothing_of_no_task() -> None:
    state = State(None, revision="a" * 40)
    assert trace.commands(state) == []
    assert not any("To bring it back" in line for line in trace._format_state(state))


@pytest.mark.parametrize("task", TASKS)
def test_what_has_not_run_is_named_rightly(task: Task, pipeline: dict[str, PipelineStage]) -> None:
    missing = read_build_state(task, Lock({})).missing
    told = {found[1] for line in missing if (found := re.fullmatch(r"stage (\S+) has not run", line))}
    assert stages.evaluate(task) in told and told <= set(pipeline) and len(told) == len(missing)


@pytest.mark.parametrize("task", TASKS)
def test_runs_name_the_command_that_made_them(task: Task, built: Path, pipeline: dict[str, PipelineStage]) -> None:
    content = read_build_state(task, Lock.read())
    assert set(content.runs) == set(architectures(task))
    runs = [*content.runs.values(), *content.baselines]
    assert {run.tags["mlflow.source.name"].removeprefix("dvc repro ") for run in runs} <= set(pipeline)


def test_status_names_stages_that_exist(built: Path, pipeline: dict[str, PipelineStage]) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    for task in TASKS:
        del lock["stages"][stages.evaluate(task)]
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    for found in status.read_status(1):
        told = re.findall(r"stage (\S+) has not run", found.built.remark)
        assert told == [stages.evaluate(found.task)] and told[0] in pipeline
        assert {step.command for step in found.next if step.command.startswith("dvc")} == {"dvc repro"}


def test_what_sources_tell_to_run_exists(pipeline: dict[str, PipelineStage]) -> None:
    files = [path for top in ("src", "serving", "bench", "lab", "pipelines") for path in (ROOT / top).rglob("*.py")]
    told = [word for path in [*files, ROOT / "README.md"] for word in reran(path.read_text())]
    assert "baselines" in told
    for word in told:
        assert word in pipeline or (ROOT / word).exists() or word.startswith("-"), word


def test_disturbed_and_prepared_stages_exist(pipeline: dict[str, PipelineStage]) -> None:
    assert {*races.STAGES, *kills._LASTS_S, *smoke.PREPARED} <= set(pipeline)
