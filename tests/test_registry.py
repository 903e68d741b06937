"""Registered versions: raw inputs in, predictions out, anywhere and without a pickle."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import built_pipeline
import pytest
import tiny_bundles
from mlflow_store import open_empty_store

from convoy.bundle import digest_of
from convoy.predictor import Predictor
from convoy.publishing import publication, registry, retired

# Runs where Convoy is not on the path: what the version carries must be enough.
LOAD = """
import json, sys
sys.path = [entry for entry in sys.path if entry != sys.argv[1]]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[2])
answers = {}
for task in ("image", "text"):
    model = mlflow.pyfunc.load_model(f"models:/convoy-{task}@champion")
    raw = [bytes.fromhex(item) if task == "image" else item for item in json.loads(sys.argv[3])[task]]
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
        for task in ("image", "text"):
            built_pipeline.lay(root, task)
        publication.publish(open_empty_store(), lambda line: None)
    return root


def test_a_version_answers_raw_inputs_where_convoy_is_not_installed(published: Path, tmp_path: Path) -> None:
    inputs = {"image": [tiny_bundles.png(250).hex(), tiny_bundles.png(5, (90, 40)).hex()], "text": ["bad", "good film"]}
    source = str(Path(__file__).parents[1] / "src")
    words = [sys.executable, "-c", LOAD, source, f"sqlite:///{published}/mlflow-store/mlflow.db", json.dumps(inputs)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert Path(answers["code"]).parent.name == "code"
    assert answers["image example"] == answers["text example"] == 1
    assert [answer["label"] for answer in answers["image"]] == ["bright", "dark"]
    predictor = Predictor(published / "deployed/text/current")
    expected = predictor.replay(inputs["text"])
    for answer, row in zip(answers["text"], expected, strict=True):
        assert list(answer["probabilities"]) == ["negative", "positive"]
        assert list(answer["probabilities"].values()) == pytest.approx([float(value) for value in row], abs=1e-6)


def test_a_version_is_the_bundle_itself_with_signature_and_example_and_no_pickle(published: Path) -> None:
    for task in ("image", "text"):
        (model,) = (published / "mlruns" / f"convoy-{task}").glob("*/artifacts/model")
        for file in (published / "bundles" / task).iterdir():
            assert (model / "data" / "bundle" / file.name).read_bytes() == file.read_bytes()
        assert not [path for path in model.rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc", ".pt")]
        described = (model / "MLmodel").read_text()
        assert "loader_module: convoy.publishing.mlflow_model" in described and "signature:" in described
        example = json.loads((model / "input_example.json").read_text())
        assert example["columns"] == [task]
    shown = base64.b64decode(
        json.loads(
            (next((published / "mlruns").glob("convoy-image/*/artifacts/model")) / "input_example.json").read_text()
        )["data"][0][0]
    )
    assert shown.startswith(b"\x89PNG")


def test_two_exports_of_one_training_keep_their_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = open_empty_store()
    for shift in (0.0, 1.0):
        built_pipeline.lay(tmp_path, shift=shift)
        publication.publish(client, lambda line: None, ["image"])
    first, second = (client.get_model_version("convoy-image", number) for number in ("1", "2"))
    assert first.run_id == second.run_id
    for version in (first, second):
        with registry.bundle_of(client, version, nearby=[]) as folder:
            assert digest_of(folder) == version.tags[registry.DIGEST]
    retired.retire_version(client, second)
    with registry.bundle_of(client, first, nearby=[]) as folder:
        assert digest_of(folder) == first.tags[registry.DIGEST]
    assert [path.name for path in Path("mlruns").glob("*/*/artifacts/model*")] == ["model"]
