"""What holds the architecture of the design: who imports whom, what each stage lists, who reads the test split."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage

from convoy.core import paths
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
LOADED_BY_KIND = re.compile(r'\bmodule\([^()]*(?:\([^()]*\))?, "(\w+)"\)')
GRAPH = grimp.build_graph("convoy", "pipelines", cache_dir=None)


@pytest.fixture(scope="module")
def dvc_stages() -> Iterator[dict[str, PipelineStage]]:
    with Repo() as repo:
        yield {stage.addressing: stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"}


# What the data stages load by name: convoy.kinds.registry and convoy.sources.registry.
DATA_STAGES = {
    "fetch_images": ("fetch", "image", ["raw"]),
    "fetch_text": ("fetch", "text", ["raw"]),
    "prepare_images": ("prepare", "image", ["preparation", "raw"]),
    "prepare_text": ("prepare", "text", ["preparation", "raw"]),
}
BY_KIND = {
    "export": ["explanation", "prepared", "preprocessing", "raw"],
    "evaluate": ["explanation", "mistakes", "prepared", "preprocessing", "raw"],
}
SOURCES = {
    kind: [f"convoy.sources.{module}" for module, kinds in registry.SOURCES.values() if kind in kinds]
    for kind in ("image", "text")
}


def roots(name: str) -> list[str]:
    """The entry point of a stage and, by the naming rule of convoy.kinds.candidates, the modules it loads by task."""
    entry, _, key = name.partition("@")
    task, _, architecture = key.partition("-")
    if name in DATA_STAGES:
        entry, kind, modules = DATA_STAGES[name]
        return [
            f"pipelines.{entry}",
            *(f"convoy.kinds.{kind}.{module}" for module in modules),
            *(SOURCES[kind] if entry == "fetch" else []),
        ]
    modules = [f"pipelines.{entry}"]
    stage = entry.removesuffix("_stream")
    if entry.endswith("_stream"):
        modules += ["convoy.kinds.text.stream_dataset", "convoy.kinds.text.networks.stream_lstm"]
        task = "text"
    modules += [f"convoy.kinds.{task}.{module}" for module in BY_KIND.get(stage, [])]
    if entry in ("train", "export", "evaluate"):
        modules.append(f"convoy.kinds.{task}.dataset")
        architectures = [architecture] if architecture else list(paths.ARCHITECTURES)
        modules += [f"convoy.kinds.{task}.networks.{each}" for each in architectures]
    return modules


def imported_files(name: str) -> set[str]:
    modules = {module for root in roots(name) for module in [root, *GRAPH.find_upstream_modules(root)]}
    files = [module.replace(".", "/") + ".py" for module in modules if not GRAPH.find_children(module)]
    return {f"src/{file}" if file.startswith("convoy") else file for file in files}


def names_of(things: list) -> set[str]:
    return {str(thing) for thing in things}


def test_the_stages_are_those_of_the_design(dvc_stages: dict[str, PipelineStage]) -> None:
    per_task = {f"{stage}@{task}" for stage in ("choose", "export", "evaluate") for task in paths.DATA_KINDS}
    trains = {f"train@{task}-{name}" for task in paths.DATA_KINDS for name in paths.ARCHITECTURES}
    assert set(dvc_stages) == per_task | trains | {
        "baselines",
        "evaluate_stream",
        "export_stream",
        "fetch_images",
        "fetch_text",
        "prepare_images",
        "prepare_text",
        "train_stream",
    }


def test_every_stage_lists_exactly_the_code_that_it_runs(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        listed = {path for path in names_of(stage.deps) if path.endswith(".py")}
        assert listed == imported_files(name), name


def test_every_stage_lists_what_it_loads_by_kind(dvc_stages: dict[str, PipelineStage]) -> None:
    """No import says so: `module(kind, "prepared")` of convoy.kinds.registry."""
    for name, stage in dvc_stages.items():
        listed = {path for path in names_of(stage.deps) if path.endswith(".py")}
        by_name = {word for path in listed for word in LOADED_BY_KIND.findall(Path(path).read_text())}
        kind = "image" if "image" in name else "text"
        assert {f"src/convoy/kinds/{kind}/{word}.py" for word in by_name} <= listed, name


def test_an_edit_of_text_code_never_retrains_images(dvc_stages: dict[str, PipelineStage]) -> None:
    for name, stage in dvc_stages.items():
        if name.startswith(("train@image", "prepare_images", "fetch_images", "choose@image")):
            assert not [path for path in names_of(stage.deps) if "text" in path], name


def test_only_evaluate_and_the_baselines_read_the_test_split(dvc_stages: dict[str, PipelineStage]) -> None:
    tests = {str(paths.prepared(task, "test")) for task in paths.TASKS}
    readers = {name for name, stage in dvc_stages.items() if names_of(stage.deps) & tests}
    assert readers == {"baselines", "evaluate@image", "evaluate@text", "evaluate_stream"}
    folders = {str(parent) for test in tests for parent in Path(test).parents} - {"."}
    for name, stage in dvc_stages.items():
        assert not names_of(stage.deps) & folders, f"{name} depends on a folder that holds the test split"


def test_no_stage_but_export_reads_the_calibration_split(dvc_stages: dict[str, PipelineStage]) -> None:
    calibration = {str(paths.prepared(task, "calibration")) for task in paths.TASKS}
    readers = {name for name, stage in dvc_stages.items() if names_of(stage.deps) & calibration}
    assert readers == {"export@image", "export@text", "export_stream"}


def test_no_stage_reads_the_gate_split(dvc_stages: dict[str, PipelineStage]) -> None:
    gate = {str(paths.prepared(task, "gate")) for task in paths.TASKS}
    assert gate <= set().union(*(names_of(stage.outs) for stage in dvc_stages.values()))
    assert not [name for name, stage in dvc_stages.items() if names_of(stage.deps) & gate]


def test_nothing_depends_on_what_evaluate_says(dvc_stages: dict[str, PipelineStage]) -> None:
    reports = {
        path for name, stage in dvc_stages.items() if name.startswith("evaluate") for path in names_of(stage.outs)
    }
    for name, stage in dvc_stages.items():
        assert not names_of(stage.deps) & reports, name


def test_nothing_but_evaluate_depends_on_what_the_baselines_say(dvc_stages: dict[str, PipelineStage]) -> None:
    reports = names_of(dvc_stages["baselines"].outs)
    readers = {name for name, stage in dvc_stages.items() if names_of(stage.deps) & reports}
    assert readers == {"evaluate@image", "evaluate@text", "evaluate_stream"}


def test_stage_file_and_section_have_one_name() -> None:
    params = yaml.safe_load(paths.PARAMS.read_text())
    for name, stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].items():
        module = DATA_STAGES[name][0] if name in DATA_STAGES else name
        assert stage["cmd"].startswith(f"exec python -m pipelines.{module}")
        assert Path("pipelines", f"{module}.py").exists()
        assert all(str(key).split(".")[0] == name for key in stage["params"])
        assert name in params
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    modules = {DATA_STAGES[name][0] if name in DATA_STAGES else name for name in stages}
    assert {path.stem for path in Path("pipelines").glob("[a-z]*.py")} == modules


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


def test_every_section_of_params_is_read_by_its_stage() -> None:
    params = yaml.safe_load(paths.PARAMS.read_text())
    for stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"]:
        if stage not in DATA_STAGES:  # those take its name from convoy.core.stage_names
            assert f'"{stage}"' in Path("pipelines", f"{stage}.py").read_text(), stage
        assert params[stage]


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
