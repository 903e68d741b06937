"""Prediction sets hold the true label as often as they promise, whatever the model and however few the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convoy.bundles.bundle import Sets
from convoy.bundles.conformal import ALL_LABELS, fit_threshold, fit_thresholds, prediction_sets, rank
from convoy.evaluation.reliability import coverage_band, sets_report

NAMES = tuple("abcde")
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


@given(st.integers(0, 10_000), st.floats(0, 1) | st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_every_set_holds_the_most_likely_label(seed: int, threshold: float | list[float]) -> None:
    _, probabilities = draw(seed, 30)
    chosen = prediction_sets(probabilities, threshold)
    assert chosen[np.arange(30), probabilities.argmax(axis=1)].all()
    others = np.ones_like(chosen)
    others[np.arange(30), probabilities.argmax(axis=1)] = False
    assert (chosen == (probabilities >= np.array(threshold)))[others].all()


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
        of_truth = probabilities[np.arange(calibration, calibration + n), labels[calibration:]]
        found.append((of_truth >= threshold).mean())
    outside = sum(not low <= each <= high for each in found)
    assert outside <= 16, "1 % of 600, and four standard deviations"
    assert np.mean(found) == pytest.approx(rank(calibration, coverage) / (calibration + 1), abs=0.006)
    assert min(found) < low + (high - low) * 0.3 and max(found) > high - (high - low) * 0.3, "the band is not too wide"


@pytest.mark.parametrize(("n", "coverage", "needed"), [(19, 0.95, 19), (18, 0.95, 19), (999, 0.9, 900), (99, 0.29, 29)])
def test_the_rank_is_exact(n: int, coverage: float, needed: int) -> None:
    assert rank(n, coverage) == needed


def covered(labels: NDArray[np.int64], probabilities: NDArray[np.float32], threshold: object) -> NDArray[np.bool_]:
    return prediction_sets(probabilities, threshold)[np.arange(len(labels)), labels]  # type: ignore[arg-type]


def hard_label(seed: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of a model that knows the last of its labels, which is rare, much worse than the others."""
    labels, probabilities = draw(seed, 3 * n)
    kept = np.flatnonzero((labels < 4) | (np.arange(3 * n) % 3 == 0))[:n]
    labels, probabilities = labels[kept], probabilities[kept].copy()
    probabilities[:, 4] *= 0.02
    return labels, (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_cover_new_rows_as_promised(coverage: float) -> None:
    found = []
    for seed in range(200):
        labels, probabilities = hard_label(seed, 1300)
        threshold = fit_threshold(labels[:300], probabilities[:300], coverage)
        found.append(covered(labels[300:], probabilities[300:], threshold).mean())
    assert np.mean(found) >= coverage - 3 * np.std(found) / np.sqrt(200)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_class_conditional_sets_cover_every_label(coverage: float) -> None:
    each, marginal = [], []
    for seed in range(200):
        labels, probabilities = hard_label(seed, 1300)
        fitted = labels[:300], probabilities[:300], coverage
        by_label, of_all = fit_thresholds(*fitted), fit_threshold(*fitted)
        new, said = labels[300:], probabilities[300:]
        each.append([covered(new, said, by_label)[new == label].mean() for label in range(5)])
        marginal.append(covered(new, said, of_all)[new == 4].mean())
    assert (np.mean(each, axis=0) >= coverage - 3 * np.std(each, axis=0) / np.sqrt(200)).all()
    assert np.mean(marginal) < coverage - 0.1, "one threshold for all leaves the hard label out"


def test_a_label_with_too_few_rows_is_always_in() -> None:
    labels, probabilities = draw(0, 400)
    kept = (labels < 4) | (np.cumsum(labels == 4) <= 18)
    thresholds = fit_thresholds(labels[kept], probabilities[kept], 0.95)
    assert thresholds[4] == ALL_LABELS and all(threshold > 0 for threshold in thresholds[:4])
    assert prediction_sets(probabilities, thresholds)[:, 4].all()


def test_too_few_rows_put_every_label_into_the_set() -> None:
    labels, probabilities = draw(0, 18)
    threshold = fit_threshold(labels, probabilities, 0.95)
    assert threshold == ALL_LABELS
    assert prediction_sets(probabilities, threshold).all()
    assert coverage_band(100, 18, 0.95) == (1.0, 1.0)
    assert sets_report(labels, probabilities, Sets(coverage=0.95, threshold=threshold, n=18), NAMES)["reached"]


def test_the_report_can_be_checked_by_hand() -> None:
    labels, probabilities = np.array([0, 1, 0, 0]), np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.7, 0.3]])
    report = sets_report(labels, probabilities, Sets(coverage=0.5, threshold=0.75, n=9), ("a", "b"))
    assert (report["coverage"], report["n"], report["mean_size"], report["fitted_n"]) == (0.5, 4, 1.0, 9)
    assert (report["below_threshold"], report["single"], report["target"]) == (0.5, 1.0, 0.5)
    assert report["per_label"] == {
        "a": {"coverage": 0.666667, "n": 3, "mean_size": 1.0},
        "b": {"coverage": 0.0, "n": 1, "mean_size": 1.0},
    }
    report = sets_report(labels, probabilities, Sets(coverage=0.5, threshold=0.4, n=9), ("a", "b"))
    assert (report["coverage"], report["mean_size"], report["single"]) == (0.75, 1.25, 0.75)
    assert (report["low"], report["reached"]) == (0, True)


def test_coverage_far_from_its_target_is_told() -> None:
    labels, probabilities = draw(0, 2000)
    sets = Sets(coverage=0.95, threshold=0.999, n=1000)
    assert not sets_report(labels, probabilities, sets, NAMES)["reached"]
    by_label = Sets(coverage=0.95, threshold=(0.0, 0.0, 0.0, 0.0, 0.999), n=1000, n_per_label=(200,) * 5)
    report = sets_report(labels, probabilities, by_label, NAMES)
    assert "reached" not in report
    assert [label["reached"] for label in report["per_label"].values()] == [True] * 4 + [False]
