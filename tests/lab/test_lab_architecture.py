"""The laboratory's stages list what they run, stand apart from the pipeline, and read the train split alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage

from convoy.core import paths
from convoy.core.params import read_section
from lab.layout import FAMILIES, PARAMS, READERS, SIZED
from lab.learning.items import DataParams

pytestmark = pytest.mark.pipeline
GRAPH = grimp.build_graph("convoy", "lab", cache_dir=None)
UNLISTED = ("src/convoy/core/", "lab/layout.py")  # they know nothing of data or networks


@pytest.fixture(scope="module")
def dvc_stages() -> Iterator[dict[str, PipelineStage]]:
    with Repo() as repo:
        yield {stage.name: stage for stage in repo.index.stages if stage.path_in_repo == "lab/dvc.yaml"}


def names_of(things: list) -> set[str]:
    return {str(thing.fs_path).removeprefix(f"{thing.repo.root_dir}/") for thing in things}


def listed_by(stage: PipelineStage) -> set[str]:
    """The files and folders of code that a stage lists."""
    code = {path for path in names_of(stage.deps) if path.startswith(("src/", "lab/"))}
    return code - {str(PARAMS)}


def run_by(name: str) -> set[str]:
    root = f"lab.stages.{name.split('@')[0]}"
    modules = {root, *GRAPH.find_upstream_modules(root)}
    files = {module.replace(".", "/") + ".py" for module in modules if not GRAPH.find_children(module)}
    return {f"src/{file}" if file.startswith("convoy") else file for file in files}


def covers(path: str, file: str) -> bool:
    """Whether a path is a file, or a folder that holds it."""
    return file == path or (Path(path).is_dir() and file.startswith(f"{path}/"))


def test_there_is_a_stage_for_every_family_so_that_a_kill_costs_one(dvc_stages: dict[str, PipelineStage]) -> None:
    wanted = {f"{stage}@{family}" for stage in ("learn_images", "learn_text", "permute") for family in FAMILIES}
    wanted |= {f"sizes@{family}" for family in SIZED} | {f"remember@{reader}" for reader in READERS}
    assert set(dvc_stages) == wanted | {"report"}


def test_every_stage_lists_all_code_that_it_runs(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        run = {file for file in run_by(name) if not file.startswith(UNLISTED)}
        assert not {file for file in run if not any(covers(path, file) for path in listed_by(stage))}, name


def test_no_stage_lists_code_that_it_does_not_run(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        assert not {path for path in listed_by(stage) if not any(covers(path, file) for file in run_by(name))}, name


def test_what_knows_no_networks_is_never_listed(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        assert not [path for path in listed_by(stage) if f"{path}/".startswith(UNLISTED)], name


def test_no_stage_reads_another_split_than_train(dvc_stages: dict[str, PipelineStage]) -> None:
    data = read_section(DataParams, "data", path=PARAMS)
    read = {path for stage in dvc_stages.values() for path in names_of(stage.deps) if path.startswith("data/")}
    names = (data.image.prepared, data.text.prepared)
    trains = {str(paths.split_file(name, "train")) for name in names}
    assert read == trains | {str((paths.prepared(name) / paths.CONTRACT).parent) for name in names}


def test_an_edit_of_text_code_never_learns_images_anew(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        if name.startswith(("learn_images", "permute", "sizes", "remember")):
            assert not [path for path in names_of(stage.deps) if "text" in path], name


def test_the_report_reads_all_that_is_measured(dvc_stages: dict[str, PipelineStage]) -> None:
    measured = {path for name, stage in dvc_stages.items() if name != "report" for path in names_of(stage.outs)}
    read = names_of(dvc_stages["report"].deps)
    assert not {path for path in measured if not any(covers(each, path) for each in read)}


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of a library of DVC's
def test_the_report_is_made_after_all_that_is_measured() -> None:
    with Repo() as repo:
        graph = repo.index.graph
        by_name = {stage.name: stage for stage in graph if stage.path_in_repo == "lab/dvc.yaml"}
        before = {stage.name for stage in graph.successors(by_name["report"])}
    assert before == set(by_name) - {"report"}


def test_dvc_repro_without_a_target_leaves_the_laboratory_alone() -> None:
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--force"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pipelines.evaluate" in shown and "lab." not in shown
