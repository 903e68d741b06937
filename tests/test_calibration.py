"""The calibration undoes what made the probabilities wrong, leaves honest ones, and the report shows by how much."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import log_softmax, softmax

from convoy.bundles.bundle import Calibration
from convoy.evaluation import plots
from convoy.evaluation.calibration import BOUNDS, LEAST_ROWS, calibrate, fit_temperature, log_shares, split_in_halves
from convoy.evaluation.reliability import BINS, calibration_report, draw_reliability, reliability

DISTANCE = 0.74  # of the means of two normal distributions from 0


def honest(n: int = 20_000, labels: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that the logits give."""
    generator = np.random.default_rng(seed)
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


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200))
def test_halves_share_no_row_and_every_label(found: list[int]) -> None:
    labels = np.array(found)
    one, other = split_in_halves(labels)
    assert sorted([*one, *other]) == list(range(len(labels)))
    of_each = [np.bincount(labels[half], minlength=5) for half in (one, other)]
    assert np.abs(of_each[0] - of_each[1]).max() <= 1


@pytest.mark.process
def test_honest_logits_keep_the_temperature_of_one() -> None:
    changed = [calibrate(*honest(400, seed=seed)).temperature != 1.0 for seed in range(100)]
    assert sum(changed) <= 12, "5 % of 100, and three standard deviations"


def test_a_temperature_is_taken_where_it_clearly_helps() -> None:
    labels, logits = honest(400)
    assert calibrate(labels, logits * 2) == Calibration(fit_temperature(labels, logits * 2), None, 400)
    assert calibrate(labels, logits * 2).temperature == pytest.approx(2, rel=0.2)


def test_few_rows_calibrate_nothing() -> None:
    labels, logits = honest(LEAST_ROWS - 1)
    assert calibrate(labels, logits * 9) == Calibration(1.0, None, LEAST_ROWS - 1)
    assert calibrate(labels, logits * 9, (0.0, -1.0, 0.0, 0.0)).offsets == (0.0, -1.0, 0.0, 0.0)


def uneven(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of two labels, 9:1, the logits of the best network that balanced weights can give: blind to frequencies."""
    generator = np.random.default_rng(0)
    labels = (generator.random(n) < 0.1).astype(np.int64)
    log_odds = 2 * DISTANCE * (generator.normal(size=n) + np.where(labels == 1, DISTANCE, -DISTANCE))
    return labels, np.stack([-log_odds / 2, log_odds / 2], axis=1)


@pytest.mark.parametrize("sharpened", [1.0, 2.0])
def test_calibration_restores_frequencies_after_balanced_training(sharpened: float) -> None:
    labels, logits = uneven(40_000)
    shares = log_shares(labels, 2)
    found = calibrate(labels[:500], logits[:500] * sharpened, shares)
    assert found.offsets == shares
    after, best = log_loss(labels, found.logits(logits * sharpened)), log_loss(labels, logits + np.array(shares))
    assert best == pytest.approx(0.24, abs=0.01) and after < best + 0.01
    assert log_loss(labels, logits * sharpened) > 0.46


def test_offsets_that_clearly_make_answers_worse_are_left_out() -> None:
    labels, logits = uneven(4000)
    already = logits + np.array(log_shares(labels, 2))
    assert calibrate(labels, already, log_shares(labels, 2)).offsets is None


def test_a_label_without_training_rows_has_finite_offsets() -> None:
    assert log_shares(np.array([0, 0, 0, 2]), 3) == pytest.approx(np.log([0.75, 0.25, 0.25]), abs=1e-6)


def test_the_error_can_be_checked_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.0, 1.0]])
    found = reliability(np.array([0, 1, 1, 1]), probabilities)
    assert list(np.flatnonzero(found.counts)) == [8, 13, 14]
    assert found.counts.sum() == 4 and len(found.counts) == BINS
    assert found.error == pytest.approx((0.45 + 2 * 0.4 + 0) / 4)


def test_honest_probabilities_have_no_error_and_sharpened_ones_have_until_the_temperature() -> None:
    labels, logits = honest()
    found = calibrate(labels[:4000], logits[:4000] * 3)
    before, after = softmax(logits * 3, axis=1), softmax(found.logits(logits * 3), axis=1)
    report = calibration_report(labels, before, after, found)
    assert report["ece_before"] > 0.1 > 0.02 > report["ece_after"]
    assert report["log_loss_before"] > report["log_loss_after"] + 0.2
    assert (report["n"], report["fitted_n"], report["temperature"]) == (20_000, 4000, found.temperature)
    assert report["frequencies_restored"] is False


@pytest.mark.process
def test_the_plot_is_drawn_and_comes_out_the_same(tmp_path: Path) -> None:
    labels, logits = honest(500)
    for name in ("one.png", "two.png"):
        figure = draw_reliability(labels, softmax(logits * 3, axis=1), softmax(logits, axis=1), "image-cnn, test")
        plots.save_figure(figure, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert min(picture.size) > 300
