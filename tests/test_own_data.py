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
FEW_EPOCHS = {
    "train": {
        "image": {"cnn": {"learning": {"epochs": 8}}, "lstm": {"learning": {"epochs": 2}}},
        "text": {"cnn": {"learning": {"epochs": 8}}, "lstm": {"learning": {"epochs": 1}}},
    },
    "baselines": {"image": {"two-conv-cnn": {"epochs": 2}, "mlp": {"epochs": 2}, "logreg": {"epochs": 2}}},
}


@dataclass(frozen=True)
class Tried:
    """What a user has in the end: a workspace, a service, and by task the source, its labels, an input and a bar."""

    folder: Path
    url: str
    sources: dict[str, Path]
    labels: dict[str, tuple[str, ...]]
    an_image: Path  # a file of the user's
    a_text: str
    least_accuracy: dict[str, float]
    to_change: dict[str, Path]  # by the stage that reads it


def lay_digits(place: Path) -> dict[str, Any]:
    opinions = own_sets.read_opinions(place, 300)
    sources = {"image": own_sets.write_digits(place / "digits"), "text": place / "opinions.jsonl"}
    own_sets.write_jsonl(sources["text"], opinions)
    an_image = sorted(sources["image"].rglob("*.png"))[0]
    return {
        "sources": sources,
        "labels": {"image": tuple(f"digit {number}" for number in range(10)), "text": OPINIONS},
        "an_image": an_image,
        "a_text": opinions[OPINIONS[0]][0],
        "least_accuracy": {"image": 0.9, "text": 0.4},
        "to_change": {"fetch_images": an_image, "fetch_text": sources["text"]},
    }


def lay_patches(place: Path) -> dict[str, Any]:
    opinions = {label: texts for label, texts in own_sets.read_opinions(place, 200).items() if label in OPINIONS[2:]}
    sources = {"image": own_sets.write_patches(place / "patches", 300), "text": place / "notes.zip"}
    own_sets.write_zip(sources["text"], opinions)
    return {
        "sources": sources,
        "labels": {"image": ("china", "flower", "hopper"), "text": OPINIONS[2:]},
        "an_image": sources["image"] / "img/flower0.jpg",
        "a_text": opinions[OPINIONS[2]][0],
        "least_accuracy": {"image": 0.7, "text": 0.0},  # no claim: 240 texts of a sentence each
        "to_change": {"fetch_images": sources["image"] / "labels.csv", "fetch_text": sources["text"]},
    }


def created(folder: Path, sources: dict[str, Path]) -> Path:
    """A workspace whose params.yaml `init --write` has written for these sources."""
    workspace.create(folder)
    for task, source in sources.items():
        said = command(folder, "convoy", "init", "--task", task, "--from", str(source), "--write")
        assert "params.yaml is written" in said
    return folder


def test_what_init_writes_prepares_the_users_data(tmp_path: Path) -> None:
    laid = lay_digits(tmp_path)
    folder = created(tmp_path / "convoy", laid["sources"])
    command(folder, "dvc", "repro", "prepare_images", "prepare_text")
    for task, labels in laid["labels"].items():
        splits = json.loads((folder / "reports" / task / "data.json").read_text())["splits"]
        assert len(splits) == 5 and all(set(split) == {"n", *labels} for split in splits.values()), splits
    for stage, path in laid["to_change"].items():
        path.write_bytes(path.read_bytes() + b"\n")
        assert stage in json.loads(command(folder, "dvc", "status", "--json", stage))


@pytest.fixture(scope="module", params=[lay_digits, lay_patches])
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    place = tmp_path_factory.mktemp("own")
    laid = request.param(place)
    folder = created(place / "convoy", laid["sources"])
    params = folder / "params.yaml"
    cut = workspace.merge_params(yaml.safe_load(params.read_text()), FEW_EPOCHS, Path(__file__))
    params.write_text(yaml.safe_dump(cut, sort_keys=False, allow_unicode=True))
    command(folder, "dvc", "repro", timeout_s=BUILD_S)
    command(folder, "convoy", "publish", timeout_s=300)
    with served(folder) as url:
        yield Tried(folder=folder, url=url, **laid)


@pytest.mark.proof
def test_the_labels_of_the_models_and_of_their_answers_are_the_users(tried: Tried) -> None:
    models = httpx.get(f"{tried.url}/v1/models").json()
    assert {task: tuple(models[task]["card"]["labels"]) for task in tried.labels} == tried.labels
    content = tried.an_image.read_bytes()
    image = httpx.post(f"{tried.url}/v1/images/predict", files={"image": (tried.an_image.name, content)}, timeout=30)
    text = httpx.post(f"{tried.url}/v1/texts/predict", json={"texts": [tried.a_text]}, timeout=30)
    for task, answer in (("image", image), ("text", text)):
        assert answer.status_code == 200, answer.text
        (prediction,) = answer.json()["predictions"]
        assert tuple(prediction["probabilities"]) == tried.labels[task] and prediction["label"] in tried.labels[task]


@pytest.mark.proof
def test_what_serves_knows_clearly_more_than_chance(tried: Tried) -> None:
    for task, least in tried.least_accuracy.items():
        report = json.loads((tried.folder / "reports" / task / "test.json").read_text())
        assert report["accuracy"] > least, (task, report["accuracy"])
        sliced = json.loads((tried.folder / "reports" / task / "slices.json").read_text())
        assert set(sliced["class"]) == set(tried.labels[task])


@pytest.mark.proof
def test_the_page_leads_to_the_routes_of_these_models(tried: Tried) -> None:
    page = httpx.get(f"{tried.url}/")
    assert page.status_code == 200 and "swagger-ui" in page.text
    assert {"/v1/models", "/v1/images/predict"} <= set(httpx.get(f"{tried.url}/docs.json").json()["paths"])


@pytest.mark.proof
def test_a_changed_file_of_the_user_is_fetched_anew(tried: Tried) -> None:
    assert json.loads(command(tried.folder, "dvc", "status", "--json", "dvc.yaml")) == {}
    for stage, path in tried.to_change.items():
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        try:
            assert stage in json.loads(command(tried.folder, "dvc", "status", "--json", "dvc.yaml"))
        finally:
            path.write_bytes(before)
