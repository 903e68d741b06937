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
from convoy.kinds.image.prepared import read_images
from convoy.kinds.text.prepared import read_texts
from convoy.kinds.text.preprocessing import TextPreprocessor

ExtraReport = Callable[[Predictor, list[NDArray[Any]]], None]


def write_report(task: Task, max_difference: float, report_more: ExtraReport = lambda *_: None) -> None:
    """Evaluate the bundle as it will be deployed, and every candidate; then call `report_more` with the same inputs.

    Raises ParityBroken where the bundle's probabilities and torch's differ by more than `max_difference`.
    """
    test = candidates.open_dataset(task, paths.prepared(task, "test"))
    predictor = Predictor(paths.bundle(task), threads=2)
    arrays = _prepare_inputs(task, predictor)
    bundle_probabilities = predictor.probabilities(arrays)
    candidate_figures = {}
    for name in paths.architectures(task):
        _, network = candidates.load(paths.candidate(task, name))
        logits = candidates.logits(network, test)
        probabilities = candidates.softmax(logits)
        figures = classification_metrics(test.labels, probabilities)
        candidate_figures[name] = {key: figures[key] for key in ("accuracy", "low", "high", "log_loss", "n")}
        _draw_candidate(task, name, test, probabilities)
        if name == predictor.card.architecture:
            uncalibrated = probabilities
            calibrated = candidates.softmax(predictor.card.calibration.logits(logits))
            agreement = compare(calibrated, bundle_probabilities)
            require_agreement(agreement, max_difference, "the test split")
        print(f"{task}-{name}: test {figures}", flush=True)
    atomic.write_json(paths.reports(task) / "candidates.json", candidate_figures)
    _report_bundle(task, predictor, test, uncalibrated, bundle_probabilities, agreement)
    report_more(predictor, arrays)


def _report_bundle(
    task: Task,
    predictor: Predictor,
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
    _report_slices(task, predictor, test, correct)


def _prepare_inputs(task: Task, predictor: Predictor) -> list[NDArray[Any]]:
    """The test inputs as the server prepares them: texts from their characters, images from their pixels."""
    path = paths.prepared(task, "test")
    if task == "image":
        return list(read_images(path).images)
    return [predictor.prepare(text).array for text in read_texts(path).texts]


def _report_slices(task: Task, predictor: Predictor, test: candidates.Dataset, correct: NDArray[np.bool_]) -> None:
    """Write the bundle's accuracy per class and per quartile of brightness or of length before any cut."""
    path = paths.prepared(task, "test")
    if isinstance(predictor.preprocessor, TextPreprocessor):
        tokenizer = predictor.preprocessor.tokenizer
        encodings = tokenizer.encode_batch(read_texts(path).texts, add_special_tokens=False)
        kind, values = "length_tokens", np.array([len(encoding.ids) for encoding in encodings])
    else:
        kind, values = "brightness", read_images(path).images.mean(axis=(1, 2, 3))
    slices = {
        "class": metrics.per_class(test.labels, correct, test.names),
        kind: metrics.per_quartile(values, correct),
    }
    atomic.write_json(paths.reports(task) / "slices.json", slices)
    plots.save_figure(plots.draw_slices(slices, f"{task}, test"), paths.reports(task) / "slices.png")


def _draw_candidate(
    task: Task, name: Architecture, test: candidates.Dataset, probabilities: NDArray[np.float32]
) -> None:
    folder = paths.reports(task) / name
    title = f"{task}-{name}, test"
    plots.save_figure(plots.draw_confusion(test.labels, probabilities, test.names, title), folder / "confusion.png")
    path = paths.prepared(task, "test")
    if task == "image":
        figure = plots.draw_wrong_images(read_images(path).images, test.labels, probabilities, test.names)
    else:
        figure = plots.draw_wrong_texts(read_texts(path).texts, test.labels, probabilities, test.names)
    plots.save_figure(figure, folder / "misclassified.png")
