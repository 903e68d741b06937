"""Baselines learn what they are meant to, are what their definition says, and give the same again."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from prepared_splits import image_split, text_split, write_split
from scipy.sparse import csr_matrix

from convoy.core import paths
from convoy.core.params import read_section
from convoy.kinds.image import baselines as image_baselines
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.text import baselines as text_baselines
from convoy.kinds.text.items.prepared import Split as TextSplit
from pipelines import baselines

pytestmark = pytest.mark.torch
IMAGES = read_section(image_baselines.Baselines, "data", "fashion", "baselines").networks
TEXTS = read_section(text_baselines.Baselines, "data", "reviews", "baselines")
FEW_TEXTS = TEXTS.model_copy(update={"counting": TEXTS.counting.model_copy(update={"min_texts": 1})})


def of_words(texts: list[str], labels: list[int], names: tuple[str, ...] = ("negative", "positive")) -> TextSplit:
    return TextSplit(texts, [np.zeros(1, np.int32)] * len(texts), np.array(labels), names, 10, 0)


def test_the_tutorial_cnn_is_its_definition() -> None:
    params = IMAGES["two-conv-cnn"]
    assert sum(weight.numel() for weight in image_baselines.build(params, (28, 28, 1), 10).parameters()) == 34_826
    assert (params.learning_rate, params.batch_size, params.epochs, params.dropout) == (0.001, 128, 6, 0.5)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (20, 31, 1), (10, 10, 4)])
@pytest.mark.parametrize("name", IMAGES)
def test_images_of_any_size_and_channels_are_taken(name: str, shape: tuple[int, int, int]) -> None:
    network = image_baselines.build(IMAGES[name], shape, 7).eval()
    assert network(torch.zeros((2, *shape), dtype=torch.uint8)).shape == (2, 7)


def test_images_too_small_for_two_convolutions_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"9 x 9 pixels are too small.*size_px"):
        image_baselines.build(IMAGES["two-conv-cnn"], (9, 9, 1), 10)


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_baseline_learns_what_is_there_to_learn_and_the_same_twice(name: str) -> None:
    params = IMAGES[name].model_copy(update={"epochs": 12, "batch_size": 10})
    split, alone = image_split(120), image_baselines.Baselines(seed=3, networks={name: params})
    once, again = (dict(image_baselines.predictions(alone, split, split.contents))[name] for _ in range(2))
    assert (once == split.labels).mean() >= 0.9
    assert np.array_equal(once, again)


def test_colour_counts_too() -> None:
    labels = np.arange(80) % 2
    images = np.zeros((80, 12, 12, 3), dtype=np.uint8)
    images[np.arange(80), :, :, labels * 2] = 200
    split = ImageSplit(images, labels.astype(np.int64), ("red", "blue"))
    params = IMAGES["two-conv-cnn"].model_copy(update={"batch_size": 8})
    assert (image_baselines.predict(image_baselines.train(params, split, 0, "colour"), images) == labels).all()


@pytest.mark.parametrize("name", ["nb-svm", "nb-svm-published", "tfidf-lr"])
def test_a_text_baseline_learns_a_pair_of_words_that_alone_say_nothing(name: str) -> None:
    """`not good` is bad and `not bad` is good: each word stands equally often on both sides."""
    texts = ["not good but bad", "not bad but good"] * 20
    found = dict(text_baselines.predictions(FEW_TEXTS, of_words(texts, [0, 1] * 20), texts[:2]))
    assert list(found[name]) == [0, 1]


@pytest.mark.parametrize("name", ["nb-svm", "nb-svm-published", "tfidf-lr"])
def test_a_text_baseline_knows_more_than_two_labels(name: str) -> None:
    texts = ["sun and sand", "snow and ice", "rain and wind"] * 10
    split = of_words(texts, [0, 1, 2] * 10, ("summer", "winter", "autumn"))
    assert list(dict(text_baselines.predictions(FEW_TEXTS, split, ["ice", "sand", "rain", "wind"]))[name]) == [
        1,
        0,
        2,
        2,
    ]


def test_text_baselines_learn_what_is_there_to_learn_and_the_same_twice() -> None:
    split, asked = text_split(200), text_split(90)
    once, again = (dict(text_baselines.predictions(FEW_TEXTS, split, asked.contents)) for _ in range(2))
    for name, found in once.items():
        assert (found == asked.labels).mean() >= 0.9, name
        assert np.array_equal(found, again[name])


def test_only_the_published_nb_svm_leaves_its_intercept_whole() -> None:
    """Three of four texts are positive, so that the intercept alone decides on a text without a known word."""
    split = of_words(["good film", "good day", "fine film", "bad film"] * 10, [1, 1, 1, 0] * 10)
    known = csr_matrix(np.array([[1.0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 1, 0]] * 10))
    nothing = csr_matrix((1, 3))
    params = TEXTS.nb_svm.model_copy(update={"interpolation": 0.25})
    positive = split.labels == 1
    pulled, whole = (
        text_baselines._nb_svm_score(params.model_copy(update={"pull_intercept": pull}), known, positive, nothing, 0)[0]
        for pull in (True, False)
    )
    assert pulled == pytest.approx(whole / 4) and whole != 0


def test_the_log_count_ratio_is_that_of_the_definition_and_turns_with_the_labels() -> None:
    present, positive = csr_matrix(np.array([[1, 0], [1, 1], [0, 1]])), np.array([True, False, False])
    ratio = text_baselines.log_count_ratio(present, positive, 1.0)
    assert ratio == pytest.approx([np.log(2 / 3) - np.log(2 / 5), np.log(1 / 3) - np.log(3 / 5)])
    assert text_baselines.log_count_ratio(present, ~positive, 1.0) == pytest.approx(-ratio)


NAMES = {"fashion": ["two-conv-cnn", "mlp", "logreg"], "reviews": ["nb-svm", "nb-svm-published", "tfidf-lr"]}


@pytest.mark.parametrize(("data", "kind"), [("fashion", "image"), ("reviews", "text")])
def test_the_stage_writes_the_figures_and_a_table_of_the_test_split(
    data: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load(paths.PARAMS.read_text())
    for network in params["data"]["fashion"]["baselines"]["networks"].values():
        network["epochs"] = 1
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    write_split(kind, paths.split_file(data, "train"), 60)
    write_split(kind, paths.split_file(data, "test"), 30)
    baselines.main(data)
    report = json.loads((paths.baselines(data) / "figures.json").read_text())
    rows = list(csv.DictReader((paths.baselines(data) / "predictions.csv").read_text().splitlines()))
    assert list(report) == NAMES[data] == list(rows[0])[1:] and len(rows) == 30
    for name, figures in report.items():
        assert figures["n"] == 30
        assert figures["accuracy"] == pytest.approx(np.mean([row[name] == row["actual"] for row in rows]), abs=1e-6)
        assert 0 <= figures["low"] <= figures["accuracy"] <= figures["high"] <= 1
