"""Any tasks at all, by real processes: images alone, then a second image task beside them that comes and goes; texts.

The tests of images go from step to step in one folder, while `up` runs in it from the first step to the last.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import own_sets
import pyarrow.parquet as pq
import pytest
import yaml
from built_copy import BUILD_S, command, served
from mlflow import MlflowClient
from test_ports import free_port

from convoy.bundles.bundle import read_bundle
from convoy.lineage import workspace
from convoy.operations import smoke_request

pytestmark = [pytest.mark.pipeline, pytest.mark.mlflow]
ROOT = Path(__file__).parents[1]
CLOTHES = ("Bag", "Sneaker", "Trouser")
FEW = {"max_train": 600, "max_validation": 200, "max_calibration": 300, "max_gate": 200, "max_test": 200}
SHARES = {f"{split}_share": 0.15 for split in ("validation", "calibration", "gate", "test")}
REGRESSION = {"convolutions": [], "hidden": [], "dropout": 0.0, "learning_rate": 0.01, "batch_size": 64, "epochs": 2}
NGRAMS = {"name": "ngrams", "places": 997, "smoothing": 1.0, "dropout": 0.1}
WITHDRAW = "import sys; from convoy.release.rollback import withdraw; withdraw('digits', 'nobody asks for it', print)"
WITHIN_S = 60


def has_compose() -> bool:
    """Whether `docker compose` can be asked."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


def packaged() -> dict[str, Any]:
    """The params.yaml of this repository."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    return params


def only(params: dict[str, Any], data: str, task: str, candidate: str) -> dict[str, Any]:
    """These entries alone, by their names."""
    names = {"data": data, "tasks": task, "candidates": candidate}
    return {**params, **{section: {name: params[section][name]} for section, name in names.items()}}


def clothes() -> dict[str, Any]:
    """Images alone: three labels of Fashion-MNIST, a small network."""
    params = only(packaged(), "fashion", "fashion", "fashion-cnn")
    data = params["data"]["fashion"]
    data["fetch"]["labels"] = list(CLOTHES)
    data["prepare"] |= FEW
    data["baselines"]["networks"] = {"logreg": REGRESSION}
    candidate = params["candidates"]["fashion-cnn"]
    candidate["network"]["channels"], candidate["learning"]["epochs"] = [16, 32], 2
    return params


def with_digits(params: dict[str, Any], source: Path) -> dict[str, Any]:
    """A second image task beside the first: other labels, other size, three channels, two candidates."""
    params = deepcopy(params)
    data = deepcopy(params["data"]["fashion"])
    data["fetch"] |= {"source": "folder", "path": str(source), "labels": None}
    data["prepare"] |= SHARES
    data["prepare"]["preprocessing"] |= {"size_px": 16, "channels": 3}
    params["data"]["digits"] = data
    params["tasks"]["digits"] = {**params["tasks"]["fashion"], "data": "digits"}
    params["tasks"]["digits"]["explanation"] = {"patches": 4, "patch_share": 0.25}
    cnn = deepcopy(params["candidates"]["fashion-cnn"]) | {"task": "digits", "data": "digits"}
    cnn["learning"]["epochs"] = 4
    mlp = deepcopy(cnn) | {"network": {"name": "mlp", "hidden": [64], "dropout": 0.1}, "input": {"size_px": 8}}
    mlp["learning"]["muon_learning_rate"] = None
    params["candidates"] |= {"digits-cnn": cnn, "digits-mlp": mlp}
    return params


def notes(source: Path) -> dict[str, Any]:
    """Texts alone: a table of the user's, and the cheapest network."""
    params = only(packaged(), "reviews", "reviews", "reviews-lstm")
    data = params["data"].pop("reviews")
    data["fetch"] |= {"source": "table", "path": str(source)}
    data["prepare"] |= {**SHARES, "vocabulary_size": 200}
    data["prepare"]["preprocessing"] |= {"max_tokens": 20, "head_tokens": 8}
    params["data"]["notes"] = data
    params["tasks"] = {"notes": params["tasks"]["reviews"] | {"data": "notes"}}
    candidate = params["candidates"]["reviews-lstm"] | {"task": "notes", "data": "notes", "network": NGRAMS}
    candidate["learning"]["epochs"] = 2
    params["candidates"] = {"notes-ngrams": candidate}
    return params


def write_notes(path: Path) -> Path:
    """Texts of words that mean nothing, and of two that say how it was."""
    draw = np.random.default_rng(0)
    words = [f"word{number}" for number in range(60)]
    lines = ["text,label"]
    for number in range(1000):
        label = ("good", "bad")[number % 2]
        said = [*draw.choice(words, 12), *(label if draw.random() < 0.9 else "so" for _ in range(2))]
        lines.append(f"{' '.join(draw.permutation(said))},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def build(folder: Path, params: dict[str, Any]) -> str:
    """`dvc repro` and `publish` with these params; gives what publishing says."""
    write_params(folder, params)
    release = yaml.safe_load((folder / "release.yaml").read_text())
    release["publish"]["max_calibration_error"] = 1.0  # so few examples promise little
    (folder / "release.yaml").write_text(yaml.safe_dump(release, sort_keys=False))
    command(folder, "dvc", "repro", timeout_s=BUILD_S, CONVOY_FOLLOW="0")
    return command(folder, "convoy", "publish", timeout_s=300)


@contextmanager
def up(folder: Path) -> Iterator[str]:
    """The address of the service that `up` starts, with the MLflow UI beside it."""
    port, log = free_port(), folder / "up.log"
    words = [sys.executable, "-m", "convoy", "up", "--port", str(port), "--mlflow-port", str(free_port())]
    with log.open("w") as stream:
        process = subprocess.Popen(words, cwd=folder, env=workspace.environment(folder), stdout=stream, stderr=stream)
    try:
        ready = smoke_request.wait_until_ready(
            [f"http://127.0.0.1:{port}/readyz"], WITHIN_S, lambda: process.poll() is not None
        )
        assert ready, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def wait_for_status(url: str, expected: int) -> httpx.Response:
    """The answer of a route once it has this status: a service follows deployed/ within seconds."""
    deadline = time.monotonic() + WITHIN_S
    while (answer := httpx.get(url)).status_code != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer.status_code == expected, answer.text
    return answer


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_sets.write_digits(tmp_path_factory.mktemp("sources") / "digits")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which images alone are built and published."""
    folder = tmp_path_factory.mktemp("images") / "convoy"
    workspace.create(folder)
    assert "version 1 promoted" in build(folder, clothes())
    return folder


@pytest.fixture(scope="module")
def url(images: Path) -> Iterator[str]:
    with up(images) as address:
        yield address


@pytest.fixture(scope="module")
def both(images: Path, url: str, digits: Path) -> Path:
    """The same folder once digits are built and published beside the clothes, while the service runs."""
    assert httpx.get(f"{url}/v1/models/digits").status_code == 404
    said = build(images, with_digits(clothes(), digits))
    assert "convoy-digits version 1" in said
    return images


@pytest.fixture(scope="module")
def without_winner(both: Path, digits: Path) -> tuple[Path, str, str]:
    """The folder once the winner of the digits has no entry any more: what `dvc repro` said first, and the winner."""
    winner = json.loads((both / "reports/digits/choice.json").read_text())["candidate"]
    params = with_digits(clothes(), digits)
    del params["candidates"][winner]
    write_params(both, params)
    words = [sys.executable, "-m", "dvc", "repro"]
    environment = workspace.environment(both) | {"CONVOY_FOLLOW": "0"}
    refused = subprocess.run(words, cwd=both, env=environment, capture_output=True, text=True, timeout=BUILD_S)
    assert refused.returncode != 0
    shutil.rmtree(both / "candidates/digits" / winner)
    build(both, params)
    return both, refused.stdout + refused.stderr, winner


@pytest.fixture(scope="module")
def withdrawn(without_winner: tuple[Path, str, str]) -> Path:
    """The folder once the digits are withdrawn, and no entry has them."""
    folder = without_winner[0]
    write_params(folder, clothes())
    done = subprocess.run(
        [sys.executable, "-c", WITHDRAW], cwd=folder, env=workspace.environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0 and "no longer deployed" in done.stdout, done.stderr
    return folder


def test_images_alone_are_built_published_and_served(images: Path, url: str) -> None:
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert set(httpx.get(f"{url}/v1/models").json()["tasks"]) == {"fashion"}
    assert read_bundle(images / "bundles/fashion").card.labels == CLOTHES
    assert {path.name for path in (images / "deployed").iterdir() if path.is_dir()} == {"fashion"}
    assert "reviews" not in (images / "params.yaml").read_text() + (images / "dvc.lock").read_text()


def test_images_alone_are_looked_at_reported_and_scored(images: Path, url: str, digits: Path) -> None:
    assert set(json.loads(command(images, "convoy", "status", "--json"))) == {"fashion"}
    about = [check["about"] for check in json.loads(command(images, "convoy", "doctor", "--json"))]
    assert "git" in about and not [each for each in about if "reviews" in each]
    assert "Trouser" in (images / "reports/data/fashion/data.html").read_text()
    source = digits / "digit 0"
    command(images, "convoy", "score", str(source), "scored.parquet", "--task", "fashion")
    table = pq.read_table(images / "scored.parquet")
    assert len(table) == len(list(source.iterdir())) and set(table["label"].to_pylist()) <= set(CLOTHES)


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
def test_compose_takes_the_folder_of_images_alone(images: Path) -> None:
    done = subprocess.run(["docker", "compose", "config", "--quiet"], cwd=images, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_task_published_meanwhile_appears_without_restart(both: Path, url: str, digits: Path) -> None:
    model = wait_for_status(f"{url}/v1/models/digits", 200).json()
    assert model["state"] == "ready" and httpx.get(f"{url}/readyz").status_code == 200
    image = next((digits / "digit 3").iterdir()).read_bytes()
    answer = httpx.post(f"{url}/v1/digits/predict", content=image, headers={"Content-Type": "image/png"}, timeout=30)
    assert answer.status_code == 200 and set(answer.json()["predictions"][0]["probabilities"]) == {
        f"digit {number}" for number in range(10)
    }


def test_two_image_tasks_differ_in_size_channels_and_labels(both: Path, url: str) -> None:
    cards = {task: read_bundle(both / "bundles" / task).card for task in ("fashion", "digits")}
    assert (cards["fashion"].preprocessing.size_px, cards["fashion"].preprocessing.channels) == (28, 1)
    assert cards["digits"].preprocessing.channels == 3
    assert cards["digits"].preprocessing.size_px == {"digits-cnn": 16, "digits-mlp": 8}[str(cards["digits"].candidate)]
    assert set(json.loads((both / "reports/digits/test.json").read_text())["candidates"]) == {
        "digits-cnn",
        "digits-mlp",
    }
    wait_for_status(f"{url}/v1/models/digits", 200)
    for task, card in cards.items():
        example = read_bundle(both / "bundles" / task).shown_input
        sent = {"content": example, "headers": {"Content-Type": "image/png"}, "timeout": 30}
        prediction = httpx.post(f"{url}/v1/{task}/predict", **sent).json()["predictions"][0]
        assert tuple(prediction["probabilities"]) == card.labels
        explained = httpx.post(f"{url}/v1/{task}/explain", **sent)
        assert explained.status_code == 200 and explained.json()["map"], explained.text


def test_what_was_there_is_not_built_again_for_a_second_task(both: Path) -> None:
    versions = command(both, "convoy", "history", "--task", "fashion", "--json").splitlines()
    assert len([line for line in versions if line.startswith("{")]) == 1


def test_a_removed_candidate_cannot_win(without_winner: tuple[Path, str, str]) -> None:
    folder, said, winner = without_winner
    assert f"candidates/digits holds {winner}, which no entry of candidates" in said
    [other] = {"digits-cnn", "digits-mlp"} - {winner}
    assert json.loads((folder / "reports/digits/choice.json").read_text())["candidate"] == other
    assert read_bundle(folder / "bundles/digits").card.candidate == other
    assert set(json.loads((folder / "reports/digits/test.json").read_text())["candidates"]) == {other}


def test_a_removed_task_answers_404_and_keeps_its_history(withdrawn: Path, url: str, digits: Path) -> None:
    gone = wait_for_status(f"{url}/v1/models/digits", 404)
    image = next((digits / "digit 3").iterdir()).read_bytes()
    asked = httpx.post(f"{url}/v1/digits/predict", content=image, headers={"Content-Type": "image/png"}, timeout=30)
    for answer in (gone, asked):
        assert answer.status_code == 404 and "fashion" in answer.text
    assert httpx.get(f"{url}/readyz").status_code == 200
    told = command(withdrawn, "convoy", "history", "--task", "digits")
    assert "promotion" in told and "withdrawn" in told and "nobody asks for it" in told
    ran = re.findall("Running stage '(.*)'", command(withdrawn, "dvc", "repro", timeout_s=BUILD_S))
    assert ran == ["choose@fashion"], "it depends on the entries of all candidates"
    command(withdrawn, "convoy", "publish", timeout_s=300)
    assert not (withdrawn / "deployed/digits/current").exists()
    registered = MlflowClient(f"sqlite:///{withdrawn}/mlflow-store/mlflow.db").get_registered_model("convoy-digits")
    assert "champion" not in registered.aliases, "no machine pulls it any more"


def test_texts_alone_are_built_published_and_served(tmp_path: Path) -> None:
    folder, source = tmp_path / "convoy", write_notes(tmp_path / "notes.csv")
    workspace.create(folder)
    assert "version 1 promoted" in build(folder, notes(source))
    assert "fashion" not in (folder / "params.yaml").read_text() + (folder / "dvc.lock").read_text()
    assert json.loads((folder / "reports/notes/test.json").read_text())["accuracy"] > 0.9
    command(folder, "convoy", "score", str(source), "scored.parquet", "--task", "notes")
    assert len(pq.read_table(folder / "scored.parquet")) == 1000
    assert set(json.loads(command(folder, "convoy", "status", "--json"))) == {"notes"}
    with served(folder) as url:
        assert set(httpx.get(f"{url}/v1/models").json()["tasks"]) == {"notes"}
        text = "word1 good word2 word3"
        answer = httpx.post(f"{url}/v1/notes/predict", json={"texts": [text]}, timeout=30)
        explained = httpx.post(f"{url}/v1/notes/explain", json={"text": text}, timeout=30)
    assert answer.json()["predictions"][0]["label"] == "good"
    words = {word["text"]: word["contribution"] for word in explained.json()["words"]}
    assert max(words, key=lambda word: words[word]) == "good", words
