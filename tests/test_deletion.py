"""The deletion test tells an explanation that points at what decides from one that points anywhere."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from test_explanation import IMAGES, TEXT, TEXTS, quadrant

from convoy.bundles.explanation import Explained, Explainer
from convoy.evaluation.faithfulness import DeletionParams, measure_deletion

PARAMS = DeletionParams(share=0.1, rows=60, seed=0)
PICTURES = [quadrant(row, column) for row in (0, 1) for column in (0, 1)] * 20
SENTENCES = ["the film the film good the film the film the", "film film bad the the the the film the the"] * 30
READ = [TEXT.prepare(sentence).array for sentence in SENTENCES]


class Elsewhere(Explainer):
    """Points at what speaks against the label most."""

    def explain(self, array: np.ndarray) -> Explained:
        explained = super().explain(array)
        return Explained(explained.probabilities, -explained.contributions, explained.bias)


def test_what_decides_an_image_is_deleted_first() -> None:
    found = measure_deletion(IMAGES, PICTURES, PARAMS)
    assert found["n"] == 60 and found["share"] == 0.1
    assert found["fall_of_pointed"] > 2 * abs(found["fall_of_random"])
    assert found["difference"] == pytest.approx(found["fall_of_pointed"] - found["fall_of_random"], abs=2e-6)
    assert found["high"] >= found["difference"] >= found["low"] > 0


def test_the_word_that_decides_a_text_is_deleted_first() -> None:
    found = measure_deletion(TEXTS, READ, PARAMS)
    assert found["difference"] == pytest.approx(found["fall_of_pointed"] - found["fall_of_random"], abs=2e-6)
    assert found["low"] > 0.1


@pytest.mark.parametrize("task", ["image", "text"])
def test_an_explanation_that_points_elsewhere_does_not_pass(task: str) -> None:
    content = {"image": tiny_bundles.image_explanation, "text": tiny_bundles.text_explanation}[task]()
    explainer = Elsewhere({"image": IMAGES, "text": TEXTS}[task].model, content)
    assert measure_deletion(explainer, {"image": PICTURES, "text": READ}[task], PARAMS)["high"] < 0


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    one, other = (measure_deletion(TEXTS, READ, PARAMS.model_copy(update={"seed": seed})) for seed in (1, 2))
    assert one == measure_deletion(TEXTS, READ, PARAMS.model_copy(update={"seed": 1})) != other


def test_texts_of_one_word_are_left_out_and_too_few_rows_are_told_as_such() -> None:
    alone = [TEXT.prepare("good").array] * 5
    assert measure_deletion(TEXTS, [*alone, READ[0]], PARAMS) == {"n": 1, "share": 0.1}
    assert measure_deletion(TEXTS, [*alone, *READ[:2]], PARAMS)["n"] == 2


def test_inputs_are_left_as_they_are() -> None:
    before = [array.copy() for array in PICTURES[:4]]
    measure_deletion(IMAGES, PICTURES[:4], PARAMS)
    assert all(np.array_equal(one, other) for one, other in zip(before, PICTURES[:4], strict=True))


def test_at_random_an_image_loses_the_same_shape_somewhere_else() -> None:
    deleted: list[np.ndarray] = []

    def watch(arrays: list[np.ndarray]) -> np.ndarray:
        deleted.extend(arrays)
        return np.zeros((len(arrays), 3), dtype=np.float32)

    model = SimpleNamespace(card=IMAGES.model.card, probabilities=watch)
    watched: Any = SimpleNamespace(model=model, explain=IMAGES.explain)
    plain = [np.full((28, 28, 1), 200, dtype=np.uint8) for _ in range(6)]
    measure_deletion(watched, plain, PARAMS)
    pointed, random, scattered = (np.array(deleted[start : start + 6])[..., 0] == 100 for start in (0, 6, 12))
    for one, other, loose in zip(pointed, random, scattered, strict=True):
        assert one.sum() == other.sum() == loose.sum() == 78
        shifts = [np.roll(one, (down, right), (0, 1)) for down in range(28) for right in range(28)]
        assert any(np.array_equal(shift, other) for shift in shifts)
        assert not any(np.array_equal(shift, loose) for shift in shifts)


def test_a_text_keeps_a_word_whatever_the_share() -> None:
    short = [TEXT.prepare(text).array for text in ("good film", "the film", "bad film")]
    found = measure_deletion(TEXTS, short, PARAMS.model_copy(update={"share": 0.95}))
    assert found["n"] == 3 and found["fall_of_pointed"] > 0
