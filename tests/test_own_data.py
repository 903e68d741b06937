"""Tried as a new user would: data that Convoy does not bring, from `init --write` to the answers of a real service."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import own_sets
import pytest
import yaml
from built_copy import BUILD_S, command, served

from convoy.lineage import workspace

pytestmark = pytest.mark.pipeline
OPINIONS = ("imdb, bad", "imdb, good", "rotten_tomatoes, bad", "rotten_tomatoes, good")
# For time alone; all else is as init proposes it.
EPOCHS = {"cnn": 8, "lstm": 2}
BASELINE_EPOCHS = {name: {"epochs": 2} for name in ("two-conv-cnn", "mlp", "logreg")}


@dataclass(frozen=True)
class Tried:
    """What a user has in the end: a workspace, a service, and by task the source, its labels and a bar."""

    folder: Path
    url: str
    sources: dict[str, Path]
    labels: dict[str, tuple[str, ...]]
    images: str  # the task of these
    texts: str
    an_image: Path  # a file of the user's
    a_text: str
    least_accuracy: dict[str, float]
    to_change: dict[str, Path]  # by the data set that reads it


def lay_digits(place: Path) -> dict[str, Any]:
    opinions = own_sets.read_opinions(place, 300)
    sources = {"digits": own_sets.write_digits(place / "digits"), "opinions": place / "opinions.jsonl"}
    own_sets.write_jsonl(sources["opinions"], opinions)
    an_image = sorted(sources["digits"].rglob("*.png"))[0]
    return {
        "sources": sources,
        "labels": {"digits": tuple(f"digit {number}" for number in range(10)), "opinions": OPINIONS},
        "images": "digits",
        "texts": "opinions",
        "an_image": an_image,
        "a_text": opinions[OPINIONS[0]][0],
        "least_accuracy": {"digits": 0.9, "opinions": 0.4},
        "to_change": {"digits": an_image, "opinions": sources["opinions"]},
    }


def lay_patches(place: Path) -> dict[str, Any]:
    opinions = {label: texts for label, texts in own_sets.read_opinions(place, 200).items() if label in OPINIONS[2:]}
    sources = {"patches": own_sets.write_patches(place / "patches", 300), "notes": place / "notes.zip"}
    own_sets.write_zip(sources["notes"], opinions)
    return {
        "sources": sources,
        "labels": {"patches": ("china", "flower", "hopper"), "notes": OPINIONS[2:]},
        "images": "patches",
        "texts": "notes",
        "an_image": sources["patches"] / "img/flower0.jpg",
        "a_text": opinions[OPINIONS[2]][0],
        "least_accuracy": {"patches": 0.7, "notes": 0.0},  # no claim: 240 texts of a sentence each
        "to_change": {"patches": sources["patches"] / "labels.csv", "notes": sources["notes"]},
    }


def created(folder: Path, sources: dict[str, Path]) -> Path:
    """A workspace whose params.yaml `init --write` has written for these sources; the packaged ones are out of it."""
    workspace.create(folder)
    for number, (task, source) in enumerate(sources.items()):
        replace = () if number else ("--replace",)
        said = command(folder, "convoy", "init", "--task", task, "--from", str(source), "--write", *replace)
        assert "params.yaml is written" in said
    return folder


def quickened(params: dict[str, Any]) -> dict[str, Any]:
    """The same params with fewer epochs."""
    for candidate in params["candidates"].values():
        candidate["learning"]["epochs"] = EPOCHS.get(candidate["network"]["name"], candidate["learning"]["epochs"])
    for data in params["data"].values():
        for name in BASELINE_EPOCHS.keys() & data["baselines"].get("networks", {}).keys():
            data["baselines"]["networks"][name] |= BASELINE_EPOCHS[name]
    return params


def test_what_init_writes_prepares_the_data(tmp_path: Path) -> None:
    laid = lay_digits(tmp_path)
    folder = created(tmp_path / "convoy", laid["sources"])
    command(folder, "dvc", "repro", *(f"prepare@{data}" for data in laid["sources"]))
    for data, labels in laid["labels"].items():
        splits = json.loads((folder / "reports/data" / data / "data.json").read_text())["splits"]
        assert len(splits) == 5 and all(set(split) == {"n", *labels} for split in splits.values()), splits
    for data, path in laid["to_change"].items():
        path.write_bytes(path.read_bytes() + b"\n")
        assert f"fetch@{data}" in json.loads(command(folder, "dvc", "status", "--json", f"fetch@{data}"))


@pytest.fixture(scope="module", params=[lay_digits, lay_patches])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    place = tmp_path_factory.mktemp("own")
    laid = request.param(place)
    folder = created(place / "convoy", laid["sources"])
    params = folder / "params.yaml"
    cut = quickened(yaml.safe_load(params.read_text()))
    params.write_text(yaml.safe_dump(cut, sort_keys=False, allow_unicode=True))
    command(folder, "dvc", "repro", timeout_s=BUILD_S)
    command(folder, "convoy", "publish", timeout_s=300)
    with served(folder) as url:
        yield Tried(folder=folder, url=url, **laid)


@pytest.mark.proof
def test_models_and_answers_have_the_users_labels(tried: Tried) -> None:
    models = httpx.get(f"{tried.url}/v1/models").json()["tasks"]
    assert {task: tuple(model["card"]["labels"]) for task, model in models.items()} == tried.labels
    file = (tried.an_image.name, tried.an_image.read_bytes())
    image = httpx.post(f"{tried.url}/v1/{tried.images}/predict", files={"image": file}, timeout=30)
    text = httpx.post(f"{tried.url}/v1/{tried.texts}/predict", json={"texts": [tried.a_text]}, timeout=30)
    for task, answer in ((tried.images, image), (tried.texts, text)):
        assert answer.status_code == 200, answer.text
        (prediction,) = answer.json()["predictions"]
        assert tuple(prediction["probabilities"]) == tried.labels[task] and prediction["label"] in tried.labels[task]


@pytest.mark.proof
def test_what_serves_knows_clearly_more_than_chance(tried: Tried) -> None:
    for task, least in tried.least_accuracy.items():
        report = json.loads((tried.folder / "reports" / task / "test.json").read_text())
        assert report["accuracy"] > least, (task, report["accuracy"])
        assert set(report["slices"]["class"]) == set(tried.labels[task])


@pytest.mark.proof
def test_the_page_leads_to_the_models_routes(tried: Tried) -> None:
    page = httpx.get(f"{tried.url}/")
    assert page.status_code == 200 and "swagger-ui" in page.text
    described = httpx.get(f"{tried.url}/docs.json").json()["paths"]
    assert {"/v1/models", *(f"/v1/{task}/predict" for task in tried.sources)} <= set(described)


@pytest.mark.proof
def test_a_changed_file_of_the_user_is_fetched_anew(tried: Tried) -> None:
    assert json.loads(command(tried.folder, "dvc", "status", "--json", "dvc.yaml")) == {}
    for data, path in tried.to_change.items():
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        try:
            assert f"fetch@{data}" in json.loads(command(tried.folder, "dvc", "status", "--json", "dvc.yaml"))
        finally:
            path.write_bytes(before)
