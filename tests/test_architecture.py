"""What holds the architecture of the design: who imports whom, what each stage lists, who reads the test split."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from convoy.core import paths, tasks
from convoy.kinds.registry import KINDS
from convoy.sources import registry

TRAINING_LIBRARIES = {
    "torch",
    "pytorch_lightning",
    "mlflow",
    "dvc",
    "onnx",
    "pyarrow",
    "scipy",
    "sklearn",
    "matplotlib",
}
LOADED_BY_KIND = re.compile(r'\bmodule\([^()]*(?:\([^()]*\))?, "([\w.]+)"\)')
GRAPH = grimp.build_graph("convoy", "pipelines", cache_dir=None)
ENTRIES = tasks.read()
# What no stage lists: it knows nothing of data or models.
KNOWS_NOTHING = ("src/convoy/core/", "src/convoy/kinds/registry.py")


@pytest.fixture(scope="module")
def dvc_stages() -> Iterator[dict[str, PipelineStage]]:
    with Repo() as repo:
        yield {stage.addressing: stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"}


def kind_of(stage: str) -> str:
    """The kind of the data set, the candidate or the task that a stage is of."""
    name = stage.partition("@")[2]
    entries = {**ENTRIES.data, **ENTRIES.candidates} if stage.startswith(("prep", "base", "fetch", "train")) else {}
    return (entries or ENTRIES.tasks)[name].kind


def roots(stage: str) -> list[str]:
    """The entry point of a stage, and the source or the network that it loads by its name."""
    entry, _, name = stage.partition("@")
    modules = [f"pipelines.{entry}"]
    if entry == "fetch":
        sources = registry.SOURCES.values()
        modules += [f"convoy.sources.{module}" for module, kinds in sources if kind_of(stage) in kinds]
    if entry == "train":
        modules.append(f"convoy.kinds.{kind_of(stage)}.networks.{ENTRIES.candidates[name].network}")
    return modules


@cache
def imported(root: str) -> frozenset[str]:
    return frozenset({root, *GRAPH.find_upstream_modules(root)})


def file_of(module: str) -> str:
    file = module.replace(".", "/") + ".py"
    return f"src/{file}" if file.startswith("convoy") else file


def run_by(stage: str) -> set[str]:
    """The files of all modules that a stage imports, those included that it loads by kind.

    No import names these: `module(kind, "items.prepared")` of convoy.kinds.registry.
    """
    left, found = roots(stage), set()
    while left:
        new = {module for module in imported(left.pop()) - found if not GRAPH.find_children(module)}
        found |= new
        words = {word for module in new for word in LOADED_BY_KIND.findall(Path(file_of(module)).read_text())}
        named = {f"convoy.kinds.{kind_of(stage)}.{word}" for word in words - {"networks"}}
        left += sorted(named - found)
    return {file for file in map(file_of, found) if not file.startswith(KNOWS_NOTHING)}


def names_of(things: list) -> set[str]:
    return {str(thing) for thing in things}


def listed_by(stage: PipelineStage) -> set[str]:
    """The files and folders of code that a stage lists."""
    return {
        path for path in names_of(stage.deps) if path.startswith(("src/", "pipelines/")) and not path.endswith(".yaml")
    }


def test_every_entry_has_the_stages_of_the_design(dvc_stages: dict[str, PipelineStage]) -> None:
    of_data = {stage for data in ENTRIES.data.values() for stage in (data.fetch, data.prepare, data.baselines)}
    of_tasks = {stage for task in ENTRIES.tasks.values() for stage in (task.choose, task.export, task.evaluate)}
    assert set(dvc_stages) == of_data | of_tasks | {candidate.train for candidate in ENTRIES.candidates.values()}


def test_every_stage_lists_all_code_that_it_runs(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        listed = listed_by(stage)
        missing = {file for file in run_by(name) if not any(covers(path, file) for path in listed)}
        assert not missing, name


def test_no_stage_lists_code_that_it_does_not_run(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        unused = {path for path in listed_by(stage) if not any(covers(path, file) for file in run_by(name))}
        assert not unused, name


def covers(path: str, file: str) -> bool:
    """Whether a path is a file, or a folder that holds it."""
    return file == path or (Path(path).is_dir() and file.startswith(f"{path}/"))


def test_a_new_network_or_verb_runs_no_stage_again(dvc_stages: dict[str, PipelineStage]) -> None:
    """A file beside these lies in no folder that a stage lists."""
    quiet = [*(f"src/convoy/kinds/{kind}/networks" for kind in KINDS), *map("src/convoy/{}".format, LATER_ROOMS)]
    quiet += [f"src/convoy/kinds/{kind}" for kind in KINDS]
    for name, stage in dvc_stages.items():
        for folder in quiet:
            assert not [path for path in listed_by(stage) if covers(path, f"{folder}/new.py")], name


LATER_ROOMS = ("cli", "core", "lineage", "operations", "publishing", "release", "tracking")


def test_a_candidate_names_the_code_of_its_network() -> None:
    """So that export and evaluate, which list no network, run again with it: they read candidate.json."""
    source = Path("src/convoy/kinds/learning/candidates.py").read_text()
    assert 'files = [folder / f"{name}.py", *sorted(folder.glob("layers/*.py"))]' in source
    for kind in KINDS:
        inside = [module for module in GRAPH.modules if module.startswith(f"convoy.kinds.{kind}.networks.")]
        used = {file_of(each) for module in inside for each in imported(module) if not GRAPH.find_children(each)}
        known = (f"src/convoy/kinds/{kind}/networks/", f"src/convoy/kinds/{kind}/items/", "src/convoy/kinds/learning/")
        assert not {file for file in used if not file.startswith((*known, *KNOWS_NOTHING))}, kind


def test_an_edit_of_text_code_never_retrains_images(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        others = [kind for kind in KINDS if kind != kind_of(name)]
        for kind in others:
            assert not [path for path in names_of(stage.deps) if f"kinds/{kind}" in path], name


def readers_of(split: paths.Split, stages: dict[str, PipelineStage]) -> set[str]:
    files = {str(paths.split_file(data, split)) for data in ENTRIES.data}
    return {name for name, stage in stages.items() if names_of(stage.deps) & files}


def test_only_evaluate_and_the_baselines_read_the_test_split(dvc_stages: dict[str, PipelineStage]) -> None:
    expected = {task.evaluate for task in ENTRIES.tasks.values()} | {data.baselines for data in ENTRIES.data.values()}
    assert readers_of("test", dvc_stages) == expected
    folders = {str(parent) for data in ENTRIES.data for parent in paths.split_file(data, "test").parents} - {"."}
    for name, stage in dvc_stages.items():
        assert not names_of(stage.deps) & folders, f"{name} depends on a folder that holds the test split"


def test_no_stage_but_export_reads_the_calibration_split(dvc_stages: dict[str, PipelineStage]) -> None:
    assert readers_of("calibration", dvc_stages) == {task.export for task in ENTRIES.tasks.values()}


def test_no_stage_reads_the_gate_split(dvc_stages: dict[str, PipelineStage]) -> None:
    made = set().union(*(names_of(stage.outs) for stage in dvc_stages.values()))
    assert {str(paths.prepared(data)) for data in ENTRIES.data} <= made, "the folders that hold it"
    assert not readers_of("gate", dvc_stages)


def test_nothing_depends_on_what_evaluate_says(dvc_stages: dict[str, PipelineStage]) -> None:
    reports = {
        path for name, stage in dvc_stages.items() if name.startswith("evaluate") for path in names_of(stage.outs)
    }
    for name, stage in dvc_stages.items():
        assert not names_of(stage.deps) & reports, name


def test_nothing_but_evaluate_depends_on_what_the_baselines_say(dvc_stages: dict[str, PipelineStage]) -> None:
    for data in ENTRIES.data.values():
        reports = names_of(dvc_stages[data.baselines].outs)
        readers = {name for name, stage in dvc_stages.items() if names_of(stage.deps) & reports}
        assert readers == {task.evaluate for task in ENTRIES.tasks.values() if task.data == data.name}


def test_a_stage_and_its_file_have_one_name() -> None:
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        assert stage["do"]["cmd"] == f"exec python -m pipelines.{name} ${{key}}"
    assert {path.stem for path in Path("pipelines").glob("[a-z]*.py")} == set(stages)


def test_every_stage_tracks_the_sections_that_it_reads() -> None:
    for name, stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].items():
        calls = [node for node in ast.walk(ast.parse(Path(f"pipelines/{name}.py").read_text())) if is_reading(node)]
        keys = [[ast.unparse(argument) for argument in call.args[1:]] for call in calls]
        read = {".".join(key.strip("'") if key.startswith("'") else "${key}" for key in of_one) for of_one in keys}
        assert read and read <= set(stage["do"]["params"]), name


def is_reading(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "read_section"


def test_every_value_of_params_is_tracked_by_a_stage(dvc_stages: dict[str, PipelineStage]) -> None:
    tracked = {key for stage in dvc_stages.values() for dep in stage.params for key in dep.params}

    def untracked(section: object, *keys: str) -> list[str]:
        name = ".".join(keys)
        if name in tracked:
            return []
        if not isinstance(section, dict):
            return [name]
        return [each for key, value in section.items() for each in untracked(value, *keys, key)]

    assert untracked(yaml.safe_load(paths.PARAMS.read_text())) == []


@pytest.mark.process
@pytest.mark.parametrize("kind", KINDS)
def test_opening_a_bundle_loads_no_training_library(kind: str, tmp_path: Path) -> None:
    import tiny_bundles

    getattr(tiny_bundles, f"write_{kind}_bundle")(tmp_path / "bundle")
    script = "import sys; from convoy.bundles.predictor import Predictor; Predictor(sys.argv[1]); print(*sys.modules)"
    script = script.replace("Predictor(sys.argv[1])", "from pathlib import Path; Predictor(Path(sys.argv[1])).card")
    command = [sys.executable, "-c", script, str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "onnxruntime" in loaded and not loaded & TRAINING_LIBRARIES


@pytest.mark.process
@pytest.mark.parametrize("module", ["convoy.bundles.predictor", "convoy.bundles.explanation", "serving.service"])
def test_serving_loads_no_training_library(module: str) -> None:
    script = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "onnxruntime" in loaded
    assert not loaded & TRAINING_LIBRARIES


def test_serving_uses_of_convoy_only_what_the_design_names() -> None:
    graph = grimp.build_graph("serving", "convoy", cache_dir=None)
    used = {name for name in graph.find_upstream_modules("serving.service") if name.startswith("convoy")}
    assert {name.split(".")[1] for name in used} <= {"bundles", "core", "kinds"}


def test_stages_never_import_each_other() -> None:
    stages = {module for module in GRAPH.modules if module.startswith("pipelines.")}
    for stage in stages:
        assert not GRAPH.find_modules_directly_imported_by(stage) & stages, stage


def test_package_files_hold_one_docstring_line_at_most() -> None:
    for package in ("src", "pipelines", "serving", "bench", "lab"):
        for path in Path(package).rglob("__init__.py"):
            assert re.fullmatch(r'("""[^"\n]+"""\n)?', path.read_text()), path


def test_every_module_begins_with_one_sentence_that_says_what_it_is() -> None:
    for package in ("src", "pipelines", "serving", "bench", "lab"):
        for path in Path(package).rglob("*.py"):
            if path.name != "__init__.py":
                assert path.read_text().startswith('"""'), path
