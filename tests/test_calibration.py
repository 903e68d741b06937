"""The temperature undoes what sharpened or flattened the probabilities, and the report shows by how much."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax

from convoy import evaluation
from convoy.calibration import BOUNDS, fit_temperature
from convoy.reliability import BINS, calibration_report, draw_reliability, reliability


def honest(n: int = 20_000, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that the logits give."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(n, labels)) * 2
    return (softmax(logits, axis=1).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1), logits


@pytest.mark.parametrize("factor", [0.3, 1, 2.5, 8])
def test_the_factor_of_the_logits_is_found(factor: float) -> None:
    labels, logits = honest()
    assert fit_temperature(labels, (logits * factor).astype(np.float32)) == pytest.approx(factor, rel=0.03)


def test_no_other_temperature_has_a_lower_log_loss() -> None:
    labels, logits = honest(300)

    def loss(temperature: float) -> float:
        return -log_softmax(logits * 3 / temperature, axis=1)[np.arange(len(labels)), labels].mean()

    best = fit_temperature(labels, logits * 3)
    assert all(loss(best) <= loss(other) + 1e-7 for other in np.geomspace(*BOUNDS, 200))


def test_where_every_row_is_right_or_the_model_knows_nothing_the_temperature_stays_within_its_bounds() -> None:
    labels = np.arange(90) % 3
    for logits in (np.eye(3)[labels] * 50, np.zeros((90, 3)), -np.eye(3)[labels] * 50, np.eye(3)[labels] * 1e30):
        assert BOUNDS[0] <= fit_temperature(labels, logits) <= BOUNDS[1]


def test_a_model_that_is_always_right_in_validation_is_not_made_certain_of_everything() -> None:
    labels = np.arange(90) % 3
    assert fit_temperature(labels, np.eye(3)[labels] * 3) == 1.0


def test_the_error_can_be_checked_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.0, 1.0]])
    found = reliability(np.array([0, 1, 1, 1]), probabilities)
    assert list(np.flatnonzero(found.counts)) == [8, 13, 14]
    assert found.counts.sum() == 4 and len(found.counts) == BINS
    assert found.error == pytest.approx((0.45 + 2 * 0.4 + 0) / 4)


def test_honest_probabilities_have_no_error_and_sharpened_ones_have_until_the_temperature() -> None:
    labels, logits = honest()
    temperature = fit_temperature(labels, logits * 3)
    before, after = softmax(logits * 3, axis=1), softmax(logits * 3 / temperature, axis=1)
    report = calibration_report(labels, before, after, temperature)
    assert report["ece_before"] > 0.1 > 0.02 > report["ece_after"]
    assert report["log_loss_before"] > report["log_loss_after"] + 0.2
    assert (report["n"], report["temperature"]) == (20_000, temperature)


def test_the_plot_is_drawn_and_comes_out_the_same(tmp_path: Path) -> None:
    labels, logits = honest(500)
    for name in ("one.png", "two.png"):
        figure = draw_reliability(labels, softmax(logits * 3, axis=1), softmax(logits, axis=1), "image-cnn, test")
        evaluation.save_figure(figure, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 300
