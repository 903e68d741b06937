"""The laboratory's stages list what they run, stand apart from the pipeline, and read the train split alone."""

import subprocess
import sys
from collections.abc import Iterator

import grimp
import pytest
from dvc.repo import Repo
from dvc.stage import PipelineStage

from convoy.core import paths
from lab.layout import FAMILIES, READERS, SIZED

pytestmark = pytest.mark.pipeline
GRAPH = grimp.build_graph("convoy", "lab", cache_dir=None)


@pytest.fixture(scope="module")
def dvc_stages() -> Iterator[dict[str, PipelineStage]]:
    with Repo() as repo:
        yield {stage.name: stage for stage in repo.index.stages if stage.path_in_repo == "lab/dvc.yaml"}


def names_of(things: list) -> set[str]:
    return {str(thing.fs_path).removeprefix(f"{thing.repo.root_dir}/") for thing in things}


def test_there_is_a_stage_for_every_family_so_that_a_kill_costs_one(dvc_stages: dict[str, PipelineStage]) -> None:
    wanted = {f"{stage}@{family}" for stage in ("learn_images", "learn_text", "permute") for family in FAMILIES}
    wanted |= {f"sizes@{family}" for family in SIZED} | {f"remember@{reader}" for reader in READERS}
    assert set(dvc_stages) == wanted | {"report"}


def test_every_stage_lists_exactly_the_code_that_it_runs(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        root = f"lab.stages.{name.split('@')[0]}"
        modules = {root, *GRAPH.find_upstream_modules(root)}
        files = {module.replace(".", "/") + ".py" for module in modules if not GRAPH.find_children(module)}
        wanted = {f"src/{file}" if file.startswith("convoy") else file for file in files}
        assert {path for path in names_of(stage.deps) if path.endswith(".py")} == wanted, name


def test_no_stage_reads_another_split_than_train(dvc_stages: dict[str, PipelineStage]) -> None:
    read = {path for stage in dvc_stages.values() for path in names_of(stage.deps) if path.startswith("data/")}
    assert read == {
        *(str(paths.prepared(task, "train")) for task in paths.DATA_KINDS),
        str(paths.TOKENIZER.parent),
    }


def test_an_edit_of_text_code_never_learns_images_anew(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        if name.startswith(("learn_images", "permute", "sizes", "remember")):
            assert not [path for path in names_of(stage.deps) if "text" in path], name


def test_the_report_reads_all_that_is_measured(dvc_stages: dict[str, PipelineStage]) -> None:
    measured = {path for name, stage in dvc_stages.items() if name != "report" for path in names_of(stage.outs)}
    assert measured <= names_of(dvc_stages["report"].deps)


def test_dvc_repro_without_a_target_leaves_the_laboratory_alone() -> None:
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--force"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "pipelines.evaluate" in shown and "lab." not in shown
