"""Registered versions: raw inputs in, predictions out, anywhere and without a pickle."""

import base64
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import built_pipeline
import mlflow
import numpy as np
import pandas as pd
import pytest
import tiny_bundles
from mlflow_store import open_empty_store

from convoy.bundles.bundle import digest_of
from convoy.bundles.predictor import Predictor
from convoy.core.rejection import InputRejected
from convoy.operations.cleanup import run_cleanup
from convoy.release import publish
from convoy.tracking import registry

pytestmark = pytest.mark.mlflow

# Runs where Convoy is not on the path: what the version carries must be enough.
LOAD = """
import json, sys
sys.path = [entry for entry in sys.path if entry != sys.argv[1]]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[2])
answers = {}
for task in ("fashion", "reviews"):
    model = mlflow.pyfunc.load_model(f"models:/convoy-{task}@champion")
    raw = [bytes.fromhex(item) if task == "fashion" else item for item in json.loads(sys.argv[3])[task]]
    answers[task] = model.predict(pd.DataFrame({task: raw})).to_dict("records")
    answers[f"{task} example"] = len(model.predict(model.input_example))
import convoy
answers["code"] = list(convoy.__path__)[0]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space in its name, in which both tasks are published."""
    root = tmp_path_factory.mktemp("a published place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for task in ("fashion", "reviews"):
            built_pipeline.lay(root, task)
        publish.publish(open_empty_store(), lambda line: None)
    return root


def test_a_version_answers_raw_inputs_where_convoy_is_not_installed(published: Path, tmp_path: Path) -> None:
    inputs = {
        "fashion": [tiny_bundles.png(250).hex(), tiny_bundles.png(5, (90, 40)).hex()],
        "reviews": ["bad", "good film"],
    }
    source = str(Path(__file__).parents[1] / "src")
    words = [sys.executable, "-c", LOAD, source, f"sqlite:///{published}/mlflow-store/mlflow.db", json.dumps(inputs)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert Path(answers["code"]).parent.name == "code"
    assert answers["fashion example"] == answers["reviews example"] == 1
    assert [answer["label"] for answer in answers["fashion"]] == ["bright", "dark"]
    predictor = Predictor(published / "deployed/reviews/current")
    expected = predictor.replay(inputs["reviews"])
    for answer, row in zip(answers["reviews"], expected, strict=True):
        assert list(answer["probabilities"]) == ["negative", "positive"]
        assert list(answer["probabilities"].values()) == pytest.approx([float(value) for value in row], abs=1e-6)


@pytest.fixture(scope="module")
def models(published: Path) -> dict[str, mlflow.pyfunc.PyFuncModel]:
    """The champions as MLflow loads them, with its check of inputs against the signature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))  # MLflow puts the code of each version in front
        # Not by set_tracking_uri, which stays in this process and its environment.
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{published}/mlflow-store/mlflow.db")
        loaded = {task: mlflow.pyfunc.load_model(f"models:/convoy-{task}@champion") for task in ("fashion", "reviews")}
    return loaded


TEXTS = {"good film": "positive", "bad": "negative", "good": "positive", "the bad film": "negative"}


@pytest.mark.parametrize(
    "index",
    [
        [3, 1, 0, 2],
        [40, 10, 30, 20],
        ["d", "a", "c", "b"],
        pd.MultiIndex.from_tuples([("b", 1), ("a", 2), ("b", 0), ("a", 1)], names=["shop", "item"]),
        pd.to_datetime(["2026-02-01", "2026-01-01", "2026-03-01", "2025-01-01"]),
        [7, 7, 1, 7],
    ],
)
def test_pyfunc_answers_have_the_index_of_the_question(models: dict[str, Any], index: Any) -> None:
    table = pd.DataFrame({"reviews": list(TEXTS)}, index=index)
    answers = models["reviews"].predict(table)
    assert answers.index.equals(table.index) and answers.index.names == table.index.names
    table["label"] = answers["label"]
    assert list(table["label"]) == list(TEXTS.values())


def test_a_sample_of_images_gets_its_own_labels(models: dict[str, Any]) -> None:
    brightness = pd.Series([5, 120, 250] * 10)
    table = pd.DataFrame({"fashion": [tiny_bundles.png(each) for each in brightness]}).sample(frac=0.5, random_state=1)
    table["label"] = models["fashion"].predict(table)["label"]
    expected = brightness[table.index].map({5: "dark", 120: "middle", 250: "bright"})
    assert list(table["label"]) == list(expected)


def test_an_empty_selection_gets_an_empty_answer(models: dict[str, Any]) -> None:
    table = pd.DataFrame({"reviews": list(TEXTS)}, index=list("abcd"))
    answers = models["reviews"].predict(table[table["reviews"] == "nothing"])
    assert len(answers) == 0 and list(answers) == ["label", "probability", "probabilities"]


@pytest.mark.parametrize(
    ("given", "index"),
    [
        (pd.Series(list(TEXTS), list("dacb"), name="reviews"), list("dacb")),
        ({"reviews": np.array(list(TEXTS))}, [0, 1, 2, 3]),
        ([{"reviews": text} for text in TEXTS], [0, 1, 2, 3]),
    ],
)
def test_other_inputs_are_answered_in_their_order(models: dict[str, Any], given: Any, index: list[Any]) -> None:
    answers = models["reviews"].predict(given)
    assert list(answers.index) == index and list(answers["label"]) == list(TEXTS.values())


@pytest.mark.parametrize(
    ("task", "value", "why"),
    [
        ("reviews", None, "`reviews` is missing"),
        ("reviews", float("nan"), "`reviews` is missing"),
        ("reviews", pd.NA, "`reviews` is missing"),
        ("reviews", " \n", "the text is empty or only white space"),
        ("reviews", 5, "`reviews` is a int, a string is expected"),
        ("reviews", ["good"], "`reviews` is a list, a string is expected"),
        ("fashion", None, "`fashion` is missing"),
        ("fashion", b"", "the image is empty"),
        ("fashion", "a.png", "`fashion` is a str, bytes are expected"),
        ("fashion", b"no image", "the bytes are not a whole PNG, JPEG or WebP image"),
    ],
)
def test_rejected_rows_are_named_by_their_index(models: dict[str, Any], task: str, value: Any, why: str) -> None:
    good: Any = "good" if task == "reviews" else tiny_bundles.png(5)
    table = pd.DataFrame({task: pd.Series([good, value, good, value], dtype=object)})
    for index, named in (([30, 10, 20, 0], ("10", "0")), (list("dacb"), ("'a'", "'b'"))):
        with pytest.raises(InputRejected) as refused:
            models[task].predict(table.set_axis(index))
        for name in named:
            assert f"row {name}: {why}" in str(refused.value)
        assert "2 of 4 rows cannot be used" in str(refused.value)


def test_many_rejected_rows_are_counted_not_listed(models: dict[str, Any]) -> None:
    with pytest.raises(InputRejected) as refused:
        models["reviews"].predict(pd.DataFrame({"reviews": [""] * 1000}))
    assert "1000 of 1000 rows" in str(refused.value) and str(refused.value).endswith("; and 995 more")
    assert len(str(refused.value)) < 500


def test_a_version_is_the_bundle_itself_with_signature_and_example_and_no_pickle(published: Path) -> None:
    for task in ("fashion", "reviews"):
        (model,) = (published / "mlruns" / f"convoy-{task}").glob("*/artifacts/model")
        for file in (published / "bundles" / task).iterdir():
            assert (model / "data" / "bundle" / file.name).read_bytes() == file.read_bytes()
        assert not [path for path in model.rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc", ".pt")]
        described = (model / "MLmodel").read_text()
        assert "loader_module: convoy.tracking.pyfunc" in described and "signature:" in described
        example = json.loads((model / "input_example.json").read_text())
        assert example["columns"] == [task]
    shown = base64.b64decode(
        json.loads(
            (next((published / "mlruns").glob("convoy-fashion/*/artifacts/model")) / "input_example.json").read_text()
        )["data"][0][0]
    )
    assert shown.startswith(b"\x89PNG")


def test_the_loader_of_older_versions_still_exists() -> None:
    older = importlib.import_module("convoy.publishing.mlflow_model")
    assert older._load_pyfunc is importlib.import_module("convoy.tracking.pyfunc")._load_pyfunc


def test_two_exports_of_one_training_keep_their_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = open_empty_store()
    for shift in (0.0, 1.0):
        built_pipeline.lay(tmp_path, shift=shift)
        publish.publish(client, lambda line: None, ["fashion"])
    first, second = (client.get_model_version("convoy-fashion", number) for number in ("1", "2"))
    assert first.run_id == second.run_id
    for version in (first, second):
        with registry.bundle_of(client, version, nearby=[]) as bundle:
            assert digest_of(bundle.folder) == version.tags[registry.DIGEST]
    run_cleanup.retire_version(client, "fashion", second)
    with registry.bundle_of(client, first, nearby=[]) as bundle:
        assert digest_of(bundle.folder) == first.tags[registry.DIGEST]
    assert [path.name for path in Path("mlruns").glob("*/*/artifacts/model*")] == ["model"]
