"""A bundle, through the predictor that serves, and its candidates -> what they say of the test split, as reports."""

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
from convoy.evaluation.significance import against_baselines
from convoy.kinds import candidates
from convoy.kinds.image.prepared import read_images
from convoy.kinds.text.prepared import read_texts
from convoy.kinds.text.preprocessing import TextPreprocessor

ExtraReport = Callable[[Predictor, list[NDArray[Any]]], None]


def write_report(task: Task, max_difference: float, report_more: ExtraReport = lambda *_: None) -> None:
    """Judge the bundle as it will be served, and every candidate beside it; then `report_more` on the same inputs.

    Raises ParityBroken where its probabilities and those of torch differ by more than `max_difference`.
    """
    test = candidates.open_dataset(task, paths.prepared(task, "test"))
    predictor = Predictor(paths.bundle(task), threads=2)
    arrays = _prepare(task, predictor)
    served = predictor.probabilities(arrays)
    metrics = {}
    for name in paths.architectures(task):
        _, network = candidates.load(paths.candidate(task, name))
        logits = candidates.logits(network, test)
        found = candidates.softmax(logits)
        figures = classification_metrics(test.labels, found)
        metrics[name] = {key: figures[key] for key in ("accuracy", "low", "high", "log_loss", "n")}
        _draw(task, name, test, found)
        if name == predictor.card.architecture:
            before = found
            agreement = compare(candidates.softmax(predictor.card.calibration.logits(logits)), served)
            require_agreement(agreement, max_difference, "the test split")
        print(f"{task}-{name}: test {figures}", flush=True)
    atomic.write_json(paths.reports(task) / "candidates.json", metrics)
    _report(task, predictor, test, before, served, agreement)
    report_more(predictor, arrays)


def _report(
    task: Task,
    predictor: Predictor,
    test: candidates.Dataset,
    before: NDArray[np.float32],
    served: NDArray[np.float32],
    agreement: Agreement,
) -> None:
    """What ships: its figures, its calibration, its sets, against the baselines, and in slices."""
    folder = paths.reports(task)
    correct = served.argmax(axis=1) == test.labels
    report = {
        **classification_metrics(test.labels, served),
        "torch_against_onnx": asdict(agreement),
        "calibration": calibration_report(test.labels, before, served, predictor.card.calibration),
        "sets": sets_report(test.labels, served, predictor.card.sets, test.names),
        "against": against_baselines(correct, paths.baselines(task)),
    }
    atomic.write_json(folder / "test.json", report)
    picture = draw_reliability(test.labels, before, served, f"{task}-{predictor.card.architecture}, test")
    plots.save_figure(picture, folder / "reliability.png")
    atomic.write_bytes(folder / "predictions.csv", plots.predictions_csv(test.labels, served, test.names))
    _slice(task, predictor, test, correct)


def _prepare(task: Task, predictor: Predictor) -> list[NDArray[Any]]:
    """The test inputs as serving prepares them: texts from their characters, images from their pixels."""
    path = paths.prepared(task, "test")
    if task == "image":
        return list(read_images(path).images)
    return [predictor.prepare(text).array for text in read_texts(path).texts]


def _slice(task: Task, predictor: Predictor, test: candidates.Dataset, correct: NDArray[np.bool_]) -> None:
    """What ships, per class and per quartile of what its inputs differ in, measured before anything is cut off."""
    path = paths.prepared(task, "test")
    if isinstance(predictor.preprocessor, TextPreprocessor):
        tokenizer = predictor.preprocessor.tokenizer
        encodings = tokenizer.encode_batch(read_texts(path).texts, add_special_tokens=False)
        kind, values = "length_tokens", np.array([len(encoding.ids) for encoding in encodings])
    else:
        kind, values = "brightness", read_images(path).images.mean(axis=(1, 2, 3))
    found = {
        "class": metrics.per_class(test.labels, correct, test.names),
        kind: metrics.per_quartile(values, correct),
    }
    atomic.write_json(paths.reports(task) / "slices.json", found)
    plots.save_figure(plots.draw_slices(found, f"{task}, test"), paths.reports(task) / "slices.png")


def _draw(task: Task, name: Architecture, test: candidates.Dataset, found: NDArray[np.float32]) -> None:
    folder = paths.reports(task) / name
    title = f"{task}-{name}, test"
    plots.save_figure(plots.draw_confusion(test.labels, found, test.names, title), folder / "confusion.png")
    path = paths.prepared(task, "test")
    if task == "image":
        figure = plots.draw_wrong_images(read_images(path).images, test.labels, found, test.names)
    else:
        figure = plots.draw_wrong_texts(read_texts(path).texts, test.labels, found, test.names)
    plots.save_figure(figure, folder / "misclassified.png")
