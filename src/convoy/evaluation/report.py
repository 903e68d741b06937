"""A bundle, through the deployed predictor, and its candidates -> reports of their predictions on the test split."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.predictor import Predictor
from convoy.core import atomic, paths
from convoy.core.paths import Architecture, Task
from convoy.evaluation import metrics, plots
from convoy.evaluation.metrics import classification_metrics
from convoy.evaluation.parity import Agreement, compare, require_agreement
from convoy.evaluation.reliability import calibration_report, draw_reliability, sets_report
from convoy.evaluation.significance import compare_with_baselines
from convoy.kinds import candidates
from convoy.kinds.registry import module

ExtraReport = Callable[[Predictor, list[NDArray[Any]]], None]


def write_report(task: Task, max_difference: float, report_more: ExtraReport = lambda *_: None) -> None:
    """Evaluate the bundle as it will be deployed, and every candidate; then call `report_more` with the same inputs.

    Raises ParityBroken where the bundle's probabilities and torch's differ by more than `max_difference`.
    """
    test = candidates.open_dataset(task, paths.prepared(task, "test"))
    predictor = Predictor(paths.bundle(task), threads=2)
    contents = module(predictor.card.kind, "prepared").read(paths.prepared(task, "test")).contents
    arrays = module(predictor.card.kind, "preprocessing").from_prepared(predictor.preprocessor, contents)
    bundle_probabilities = predictor.probabilities(arrays)
    candidate_figures = {}
    for name in paths.architectures(task):
        _, network = candidates.load(paths.candidate(task, name))
        logits = candidates.logits(network, test)
        probabilities = candidates.softmax(logits)
        figures = classification_metrics(test.labels, probabilities)
        candidate_figures[name] = {key: figures[key] for key in ("accuracy", "low", "high", "log_loss", "n")}
        _draw_candidate(task, name, contents, test, probabilities)
        if name == predictor.card.architecture:
            uncalibrated = probabilities
            calibrated = candidates.softmax(predictor.card.calibration.logits(logits))
            agreement = compare(calibrated, bundle_probabilities)
            require_agreement(agreement, max_difference, "the test split")
        print(f"{task}-{name}: test {figures}", flush=True)
    atomic.write_json(paths.reports(task) / "candidates.json", candidate_figures)
    _report_bundle(task, predictor, contents, test, uncalibrated, bundle_probabilities, agreement)
    report_more(predictor, arrays)


def _report_bundle(
    task: Task,
    predictor: Predictor,
    contents: Any,
    test: candidates.Dataset,
    uncalibrated: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    agreement: Agreement,
) -> None:
    """Write the bundle's figures, calibration, sets, comparison with the baselines and slices."""
    folder = paths.reports(task)
    correct = probabilities.argmax(axis=1) == test.labels
    report = {
        **classification_metrics(test.labels, probabilities),
        "torch_against_onnx": asdict(agreement),
        "calibration": calibration_report(test.labels, uncalibrated, probabilities, predictor.card.calibration),
        "sets": sets_report(test.labels, probabilities, predictor.card.sets, test.names),
        "against": compare_with_baselines(correct, paths.baselines(task)),
    }
    atomic.write_json(folder / "test.json", report)
    title = f"{task}-{predictor.card.architecture}, test"
    figure = draw_reliability(test.labels, uncalibrated, probabilities, title)
    plots.save_figure(figure, folder / "reliability.png")
    atomic.write_bytes(folder / "predictions.csv", plots.predictions_csv(test.labels, probabilities, test.names))
    _report_slices(task, predictor, contents, test, correct)


def _report_slices(
    task: Task, predictor: Predictor, contents: Any, test: candidates.Dataset, correct: NDArray[np.bool_]
) -> None:
    """Write the bundle's accuracy per class and per quartile of what its kind is sliced by."""
    kind, values = module(predictor.card.kind, "preprocessing").slice_by(predictor.preprocessor, contents)
    slices = {
        "class": metrics.per_class(test.labels, correct, test.names),
        kind: metrics.per_quartile(values, correct),
    }
    atomic.write_json(paths.reports(task) / "slices.json", slices)
    plots.save_figure(plots.draw_slices(slices, f"{task}, test"), paths.reports(task) / "slices.png")


def _draw_candidate(
    task: Task, name: Architecture, contents: Any, test: candidates.Dataset, probabilities: NDArray[np.float32]
) -> None:
    folder = paths.reports(task) / name
    title = f"{task}-{name}, test"
    plots.save_figure(plots.draw_confusion(test.labels, probabilities, test.names, title), folder / "confusion.png")
    figure = plots.draw_mistakes(paths.kind_of(task), contents, test.labels, probabilities, test.names)
    plots.save_figure(figure, folder / "misclassified.png")
