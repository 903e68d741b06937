"""How the models behave (Ribeiro et al. 2020, arXiv:2005.04118): what means nothing changes nothing."""

from pathlib import Path

import numpy as np
import pytest

from convoy.bundles.predictor import Predictor
from convoy.core import paths
from convoy.kinds.image.items.prepared import read as read_images

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def text(copy: Path) -> Predictor:
    return Predictor(copy / paths.bundle("reviews"))


@pytest.fixture(scope="module")
def image(copy: Path) -> Predictor:
    return Predictor(copy / paths.bundle("fashion"))


def positive(predictor: Predictor, text: str) -> float:
    row = predictor.probabilities([predictor.prepare(text).array])[0]
    return float(row[predictor.card.labels.index("positive")])


@pytest.mark.parametrize(
    "change", [str.upper, str.title, lambda text: text.replace(" ", "  "), lambda text: f"{text}<br />"]
)
def test_case_spaces_and_line_breaks_mean_nothing(text: Predictor, change) -> None:
    review = "an excellent film with a great cast, I loved it"
    assert positive(text, change(review)) == pytest.approx(positive(text, review), abs=1e-6)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("an excellent film, one of the best", "an awful film, one of the worst"),
        ("wonderful and great, I loved it", "boring and bad, a waste of time"),
        ("a perfect, beautiful story", "a terrible, stupid story"),
    ],
)
def test_praise_is_more_positive_than_blame(text: Predictor, better: str, worse: str) -> None:
    assert positive(text, better) > positive(text, worse)


def test_a_neutral_sentence_added_changes_little(text: Predictor) -> None:
    review = "the worst film, awful acting, a terrible waste of time"
    assert abs(positive(text, f"{review} . I saw it in London .") - positive(text, review)) < 0.25


def test_one_pixel_of_shift_rarely_changes_the_label(copy: Path, image: Predictor) -> None:
    images = read_images(copy / paths.split_file("fashion", "test")).contents[:300]
    before = image.probabilities(list(images)).argmax(axis=1)
    after = image.probabilities(list(np.roll(images, 1, axis=2))).argmax(axis=1)
    assert (before == after).mean() > 0.8


def test_a_little_noise_rarely_changes_the_label(copy: Path, image: Predictor) -> None:
    images = read_images(copy / paths.split_file("fashion", "test")).contents[:300].astype(int)
    noise = np.random.default_rng(0).integers(-4, 5, images.shape)
    before = image.probabilities(list(images.astype(np.uint8))).argmax(axis=1)
    after = image.probabilities(list((images + noise).clip(0, 255).astype(np.uint8))).argmax(axis=1)
    assert (before == after).mean() > 0.9


def test_every_label_is_given_to_some_image(copy: Path, image: Predictor) -> None:
    images = read_images(copy / paths.split_file("fashion", "test")).contents
    given = image.probabilities(list(images)).argmax(axis=1)
    assert len(set(given)) == len(image.card.labels)
