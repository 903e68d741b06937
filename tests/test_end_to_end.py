"""Raw data to REST answers, in a copy of the working tree: real repro, publish, `bentoml serve` and HTTP."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from built_copy import command, served
from mlflow import MlflowClient

from convoy.bundles.bundle import read_bundle
from convoy.bundles.predictor import Predictor
from convoy.core.png import encode_png
from convoy.kinds.image.items.prepared import read as read_images
from convoy.kinds.text.items.prepared import read as read_texts
from convoy.lineage import workspace

pytestmark = [pytest.mark.pipeline, pytest.mark.mlflow]


@pytest.fixture(scope="module")
def url(copy: Path) -> Iterator[str]:
    """The service as a user starts it."""
    with served(copy) as address:
        yield address


def probabilities(answer: dict[str, Any], labels: tuple[str, ...]) -> np.ndarray:
    return np.array([[prediction["probabilities"][label] for label in labels] for prediction in answer["predictions"]])


def test_a_second_repro_runs_nothing(copy: Path) -> None:
    output = command(copy, "dvc", "repro")
    assert "Running stage" not in output
    assert "up to date" in output


def test_the_reports_hold_the_promised_figures(copy: Path) -> None:
    for task in ("fashion", "reviews"):
        test = json.loads((copy / "reports" / task / "test.json").read_text())
        assert set(test) >= {"accuracy", "macro_f1", "log_loss", "n"}
        baselines = json.loads((copy / "reports/baselines" / task / "figures.json").read_text())
        assert set(test["against"]) == set(baselines) >= {"fashion": {"two-conv-cnn"}, "reviews": {"nb-svm"}}[task]
        for name, found in test["against"].items():
            assert found["difference"] == pytest.approx(test["accuracy"] - baselines[name]["accuracy"], abs=2e-6)
            assert 0 < found["p"] <= 1
        assert all(sum(each["n"] for each in kind.values()) == test["n"] for kind in test["slices"].values())
        candidates = test["candidates"]
        for figures in (test, *candidates.values(), *baselines.values()):
            assert figures["low"] <= figures["accuracy"] <= figures["high"] and figures["n"] == test["n"]
        assert set(candidates) == {f"{task}-cnn", f"{task}-lstm"}
        winner = json.loads((copy / "reports" / task / "choice.json").read_text())["candidate"]
        assert candidates[winner]["accuracy"] == pytest.approx(test["accuracy"], abs=1e-6)
        assert test["accuracy"] > {"fashion": 0.5, "reviews": 0.52}[task]


def test_the_bundle_is_calibrated_and_its_sets_cover_the_test_split_as_promised(copy: Path) -> None:
    for task in ("fashion", "reviews"):
        card = read_bundle(copy / "bundles" / task).card
        test = json.loads((copy / "reports" / task / "test.json").read_text())
        assert test["calibration"]["temperature"] == card.temperature
        assert test["calibration"]["log_loss_after"] == pytest.approx(test["log_loss"], abs=1e-5)
        data = json.loads((copy / "reports/data" / task / "data.json").read_text())
        assert card.sets.n + card.calibration_n == data["splits"]["calibration"]["n"]
        assert test["sets"]["target"] == card.sets.coverage and test["sets"]["reached"], test["sets"]
        assert set(test["sets"]["per_label"]) == set(card.labels)


def test_sets_over_http_are_those_of_the_card(copy: Path, url: str) -> None:
    texts = read_texts(copy / "data/prepared/reviews/test.arrow").contents[:40]
    sets = read_bundle(copy / "bundles" / "reviews").card.sets
    full = httpx.post(f"{url}/v1/reviews/predict", json={"texts": texts}, timeout=30).json()["predictions"]
    answer = httpx.post(f"{url}/v1/reviews/sets", json={"texts": texts}, timeout=30).json()
    assert answer["coverage"] == sets.coverage
    for one, other in zip(answer["predictions"], full, strict=True):
        likely = {label for label, probability in other["probabilities"].items() if probability >= sets.threshold}
        assert set(one["labels"]) == likely | {other["label"]}


def test_what_explanations_point_at_matters_more_than_what_is_drawn_at_random(copy: Path) -> None:
    for task in ("fashion", "reviews"):
        found = json.loads((copy / "reports" / task / "test.json").read_text())["explanation"]
        assert found["n"] == 500 and found["low"] > 0, found


def test_explanations_over_http_add_up_to_the_predictions(copy: Path, url: str) -> None:
    text = read_texts(copy / "data/prepared/reviews/test.arrow").contents[0]
    found = httpx.post(f"{url}/v1/reviews/explain", json={"text": text}, timeout=30).json()
    predicted = httpx.post(f"{url}/v1/reviews/predict", json={"texts": [text]}, timeout=30).json()["predictions"][0]
    assert found["label"] == predicted["label"]
    assert found["probability"] == pytest.approx(predicted["probability"], abs=1e-4)
    # Of two labels the logit that is relative to their mean is half of the log odds.
    odds = np.log(found["probability"] / (1 - found["probability"])) / 2
    assert sum(word["contribution"] for word in found["words"]) + found["bias"] == pytest.approx(odds, abs=1e-3)
    png = base64.b64decode(read_bundle(copy / "bundles" / "fashion").examples[0].input)
    for method in ("contributions", "occlusion"):
        image = httpx.post(f"{url}/v1/fashion/explain?method={method}", files={"image": png}, timeout=30)
        assert image.status_code == 200 and len(image.json()["map"]) == 7


def test_dvc_shows_dag_metrics_diff_and_plots(copy: Path) -> None:
    assert "train@reviews-lstm" in command(copy, "dvc", "dag", "--dot")
    assert "log_loss" in command(copy, "dvc", "metrics", "show")
    assert "index.html" in command(copy, "dvc", "plots", "show")


def test_images_over_http_equal_the_offline_predictions_of_the_bundle(copy: Path, url: str) -> None:
    predictor = Predictor(copy / "bundles" / "fashion")
    pngs = [base64.b64decode(example.input) for example in read_bundle(copy / "bundles" / "fashion").examples]
    expected = predictor.probabilities([predictor.prepare(png).array for png in pngs])
    many = httpx.post(f"{url}/v1/fashion/predict", files=[("image", (f"{i}.png", png)) for i, png in enumerate(pngs)])
    assert many.status_code == 200, many.text
    assert many.json()["model"]["digest"] == predictor.digest
    assert np.abs(probabilities(many.json(), predictor.card.labels) - expected).max() <= 1e-5
    one = httpx.post(f"{url}/v1/fashion/predict", content=pngs[0], headers={"Content-Type": "image/png"})
    assert np.abs(probabilities(one.json(), predictor.card.labels) - expected[:1]).max() <= 1e-5


def test_test_images_as_files_equal_the_pixels_that_evaluation_saw(copy: Path) -> None:
    predictor = Predictor(copy / "bundles" / "fashion")
    images = read_images(copy / "data/prepared/fashion/test.arrow").contents[:100]
    for image in images:
        assert np.array_equal(predictor.prepare(encode_png(image)).array, image)


def test_texts_over_http_equal_the_offline_predictions_of_the_bundle(copy: Path, url: str) -> None:
    predictor = Predictor(copy / "bundles" / "reviews")
    texts = read_texts(copy / "data/prepared/reviews/test.arrow").contents[:40]
    prepared = [predictor.prepare(text) for text in texts]
    expected = predictor.probabilities([text.array for text in prepared])
    answer = httpx.post(f"{url}/v1/reviews/predict", json={"texts": texts}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert np.abs(probabilities(answer.json(), predictor.card.labels) - expected).max() <= 1e-5
    cut = [prediction.get("truncated", False) for prediction in answer.json()["predictions"]]
    assert cut == [text.truncated for text in prepared]


def test_a_text_alone_gets_the_answer_that_it_gets_in_a_batch(copy: Path, url: str) -> None:
    labels = read_bundle(copy / "bundles" / "reviews").card.labels
    texts = sorted(read_texts(copy / "data/prepared/reviews/test.arrow").contents, key=len)
    batch = [texts[0], *texts[-10:]]
    together = httpx.post(f"{url}/v1/reviews/predict", json={"texts": batch}, timeout=30).json()
    alone = httpx.post(f"{url}/v1/reviews/predict", json={"texts": batch[:1]}, timeout=30).json()
    assert np.abs(probabilities(together, labels)[0] - probabilities(alone, labels)[0]).max() <= 1e-5


def test_what_serves_is_the_champion_in_the_registry(copy: Path, url: str) -> None:
    client = MlflowClient(f"sqlite:///{copy}/mlflow-store/mlflow.db")
    models = httpx.get(f"{url}/v1/models").json()["tasks"]
    for task in ("fashion", "reviews"):
        champion = client.get_model_version_by_alias(f"convoy-{task}", "champion")
        release = models[task]["release"]
        assert (release["version"], release["run_id"]) == (str(champion.version), champion.run_id)
        assert champion.tags["digest"] == read_bundle(copy / "bundles" / task).digest


def test_one_changed_param_reruns_only_what_it_must(copy: Path) -> None:
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["choose"]["metric"] = "log_loss"
    before = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        changed = json.loads(command(copy, "dvc", "status", "--json", "dvc.yaml"))
    finally:
        (copy / "params.yaml").write_text(before)
    assert set(changed) == {"choose@fashion", "choose@reviews", "choose@reviews-stream"}


def test_an_experiment_runs_by_one_line_and_never_touches_what_serves(copy: Path) -> None:
    serving = [(copy / "deployed" / task / "current").resolve() for task in ("fashion", "reviews")]
    before = (copy / "reports/reviews/test.json").read_text()
    command(copy, "dvc", "exp", "run", "-S", "evaluate.deletion.seed=1", "--name", "another-seed", timeout_s=300)
    assert yaml.safe_load((copy / "params.yaml").read_text())["evaluate"]["deletion"]["seed"] == 1
    assert (copy / "reports/reviews/test.json").read_text() != before
    assert "reports/reviews/reviews-cnn/metrics.json" in command(copy, "dvc", "metrics", "show")
    assert "reports/reviews/test.json" in command(copy, "dvc", "metrics", "diff", "--json")
    assert [(copy / "deployed" / task / "current").resolve() for task in ("fashion", "reviews")] == serving


@pytest.mark.proof
def test_two_threads_give_the_same_weights_twice(copy: Path, tmp_path: Path) -> None:
    """All other trainings of the tests have one thread."""
    weights = []
    for number in "12":
        folder = tmp_path / number
        folder.mkdir()
        for name in ("src", "pipelines", "data", "params.yaml"):
            os.symlink(copy / name, folder / name)
        environment = workspace.environment(folder) | {"OMP_NUM_THREADS": "2"}
        words = [sys.executable, "-m", "pipelines.train", "reviews-lstm"]
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True, timeout=300)
        weights.append((folder / "candidates/reviews/reviews-lstm/weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_weights_are_the_same_in_another_folder_and_with_another_hash_seed(copy: Path, tmp_path: Path) -> None:
    for name in ("src", "pipelines", "data", "params.yaml"):
        os.symlink(copy / name, tmp_path / name)
    environment = workspace.environment(tmp_path) | {"PYTHONHASHSEED": "1"}
    words = [sys.executable, "-m", "pipelines.train", "reviews-lstm"]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
    weights = "candidates/reviews/reviews-lstm/weights.safetensors"
    assert (tmp_path / weights).read_bytes() == (copy / weights).read_bytes()
