"""Prediction sets hold the true label as often as they promise, whatever the model and however few the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.bundle import Sets
from convoy.conformal import ALL_LABELS, fit_threshold, prediction_sets, rank
from convoy.coverage import coverage_band, sets_report

COVERAGES = st.integers(50, 99).map(lambda percent: percent / 100)


def draw(seed: int, n: int, labels: int = 5) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of a model that is sure of itself and too often wrong: coverage must hold for a bad model too."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(labels, size=n)
    logits = generator.normal(size=(n, labels)) * 3
    logits[np.arange(n), truth] += 4
    powers = np.exp(logits)
    return truth, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 10_000), st.integers(20, 300), COVERAGES)
@settings(deadline=None)
def test_a_higher_coverage_gives_supersets(seed: int, n: int, coverage: float) -> None:
    labels, probabilities = draw(seed, n)
    lower, higher = (fit_threshold(labels, probabilities, each) for each in (coverage, (1 + coverage) / 2))
    assert not (prediction_sets(probabilities, lower) & ~prediction_sets(probabilities, higher)).any()


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_set_that_holds_any_label_holds_the_top_one(seed: int, threshold: float) -> None:
    _, probabilities = draw(seed, 30)
    chosen = prediction_sets(probabilities, threshold)
    some = chosen.any(axis=1)
    assert chosen[some, probabilities[some].argmax(axis=1)].all()


@given(st.integers(0, 10_000), st.integers(1, 200), COVERAGES)
def test_the_calibration_rows_are_covered_as_often_as_the_promise_needs(seed: int, n: int, coverage: float) -> None:
    labels, probabilities = draw(seed, n)
    chosen = prediction_sets(probabilities, fit_threshold(labels, probabilities, coverage))
    assert chosen[np.arange(n), labels].sum() >= min(n, rank(n, coverage))


@pytest.mark.parametrize(("n", "calibration", "coverage"), [(1000, 1000, 0.95), (400, 100, 0.9), (50, 30, 0.8)])
def test_the_coverage_of_new_rows_is_beta_binomial(n: int, calibration: int, coverage: float) -> None:
    low, high = coverage_band(n, calibration, coverage)
    found = []
    for seed in range(600):
        labels, probabilities = draw(seed, calibration + n)
        threshold = fit_threshold(labels[:calibration], probabilities[:calibration], coverage)
        chosen = prediction_sets(probabilities[calibration:], threshold)
        found.append(chosen[np.arange(n), labels[calibration:]].mean())
    outside = sum(not low <= each <= high for each in found)
    assert outside <= 16, "1 % of 600, and four standard deviations"
    assert np.mean(found) == pytest.approx(rank(calibration, coverage) / (calibration + 1), abs=0.006)
    assert min(found) < low + (high - low) * 0.3 and max(found) > high - (high - low) * 0.3, "the band is not too wide"


@pytest.mark.parametrize(("n", "coverage", "needed"), [(19, 0.95, 19), (18, 0.95, 19), (999, 0.9, 900), (99, 0.29, 29)])
def test_the_rank_is_exact(n: int, coverage: float, needed: int) -> None:
    assert rank(n, coverage) == needed


def test_too_few_rows_put_every_label_into_the_set() -> None:
    labels, probabilities = draw(0, 18)
    threshold = fit_threshold(labels, probabilities, 0.95)
    assert threshold == ALL_LABELS
    assert prediction_sets(probabilities, threshold).all()
    assert coverage_band(100, 18, 0.95) == (1.0, 1.0)
    assert sets_report(labels, probabilities, Sets(coverage=0.95, threshold=threshold, n=18))["inside"]


def test_the_report_can_be_checked_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.7, 0.3]])
    report = sets_report(np.array([0, 1, 0, 0]), probabilities, Sets(coverage=0.5, threshold=0.75, n=9))
    assert (report["coverage"], report["n"], report["mean_size"]) == (0.25, 4, 0.5)
    assert (report["empty"], report["single"], report["target"]) == (0.5, 0.5, 0.5)
    report = sets_report(np.array([0, 1, 0, 0]), probabilities, Sets(coverage=0.5, threshold=0.4, n=9))
    assert (report["coverage"], report["mean_size"], report["single"]) == (0.75, 1.25, 0.75)
    assert (report["low"], report["high"], report["inside"]) == (0, 1, True)


def test_coverage_far_from_its_target_is_told() -> None:
    labels, probabilities = draw(0, 2000)
    assert not sets_report(labels, probabilities, Sets(coverage=0.95, threshold=0.999, n=1000))["inside"]
