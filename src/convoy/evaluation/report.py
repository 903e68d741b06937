"""A bundle, through the deployed predictor, and its candidates -> reports of their predictions on the test split."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.bundles.explanation import open_explainer
from convoy.bundles.predictor import Predictor
from convoy.core import atomic, paths
from convoy.core.params import Section
from convoy.core.tasks import Task
from convoy.evaluation import metrics, plots
from convoy.evaluation.faithfulness import DeletionParams, measure_deletion
from convoy.evaluation.metrics import classification_metrics
from convoy.evaluation.parity import compare, require_agreement
from convoy.evaluation.reliability import calibration_report, draw_reliability, sets_report
from convoy.evaluation.significance import compare_with_baselines
from convoy.kinds.learning import candidates
from convoy.kinds.registry import module

CANDIDATE_FIGURES = ("accuracy", "low", "high", "log_loss", "n")


class EvaluateParams(Section):
    """The section `evaluate` of params.yaml."""

    max_probability_difference: float = Field(gt=0)
    deletion: DeletionParams


def write_report(task: Task, names: list[str], params: EvaluateParams) -> None:
    """Evaluate the bundle as it will be deployed, every candidate by its name, and the explanations.

    Raises ParityBroken where the bundle's probabilities and torch's differ by more than `params` allow.
    """
    _Evaluation(task, params).run(names)


class _Evaluation:
    """The bundle of a task and the test split, as the bundle takes it."""

    def __init__(self, task: Task, params: EvaluateParams) -> None:
        self.task, self.params = task, params
        self.reports, self.pictures = paths.reports(task.name), paths.reports(task.name) / "pictures"
        self.predictor = Predictor(paths.bundle(task.name), threads=2)
        split = module(task.kind, "items.prepared").read(paths.split_file(task.data, "test"))
        self.contents, self.labels, self.names = split.contents, split.labels, split.names
        self.arrays = module(task.kind, "items.preprocessing").from_prepared(self.predictor.preprocessor, self.contents)
        self.probabilities = self.predictor.probabilities(self.arrays)

    def run(self, names: list[str]) -> None:
        """Write all reports."""
        candidate_figures = {name: self._evaluate_candidate(name) for name in names}
        report = {**self._measure_bundle(), "candidates": candidate_figures, "slices": self._measure_slices()}
        atomic.write_json(self.reports / "test.json", report)
        predictions = plots.predictions_csv(self.labels, self.probabilities, self.names)
        atomic.write_bytes(self.reports / "predictions.csv", predictions)

    def _evaluate_candidate(self, name: str) -> dict[str, float | int]:
        logits = self._logits(paths.candidate(self.task.name, name))
        probabilities = candidates.softmax(logits)
        title = f"{name}, test"
        confusion = plots.draw_confusion(self.labels, probabilities, self.names, title)
        plots.save_figure(confusion, self.pictures / f"{name}-confusion.png")
        mistakes = plots.draw_mistakes(self.task.kind, self.contents, self.labels, probabilities, self.names)
        plots.save_figure(mistakes, self.pictures / f"{name}-misclassified.png")
        figures = classification_metrics(self.labels, probabilities)
        print(f"{name}: test {figures}", flush=True)
        return {key: figures[key] for key in CANDIDATE_FIGURES}

    def _logits(self, folder: Any) -> NDArray[np.float32]:
        """What a candidate's network gives for the test split, as inputs of its own contract."""
        description, network = candidates.load(folder)
        contract = candidates.load_contract(folder, description)
        test = candidates.open_dataset(self.task.kind, paths.split_file(self.task.data, "test"), contract)
        return candidates.logits(network, test)

    def _measure_bundle(self) -> dict[str, Any]:
        """The bundle's figures, calibration, sets, explanations, and comparison with the baselines."""
        card = self.predictor.card
        logits = self._logits(paths.winner(self.task.name))
        uncalibrated = candidates.softmax(logits)
        agreement = compare(candidates.softmax(card.calibration.logits(logits)), self.probabilities)
        require_agreement(agreement, self.params.max_probability_difference, "the test split")
        correct = self.probabilities.argmax(axis=1) == self.labels
        figure = draw_reliability(self.labels, uncalibrated, self.probabilities, f"{card.candidate}, test")
        plots.save_figure(figure, self.pictures / "reliability.png")
        return {
            **classification_metrics(self.labels, self.probabilities),
            "torch_against_onnx": asdict(agreement),
            "calibration": calibration_report(self.labels, uncalibrated, self.probabilities, card.calibration),
            "sets": sets_report(self.labels, self.probabilities, card.sets, self.names),
            "against": compare_with_baselines(correct, paths.baselines(self.task.data) / "predictions.csv"),
            "explanation": self._measure_explanations(),
        }

    def _measure_explanations(self) -> dict[str, float | int] | None:
        """Whether the predictions depend on what the explanations mark; None where the bundle has no exact ones."""
        explainer = open_explainer(self.predictor, threads=2)
        if explainer is None:
            return None
        report = measure_deletion(explainer, self.arrays, self.params.deletion)
        print(f"{self.task.name}: deletion {report}", flush=True)
        return report

    def _measure_slices(self) -> dict[str, metrics.Slices]:
        """The bundle's accuracy per class and per quartile of what its kind is sliced by."""
        preprocessing = module(self.task.kind, "items.preprocessing")
        kind, values = preprocessing.slice_by(self.predictor.preprocessor, self.contents)
        correct = self.probabilities.argmax(axis=1) == self.labels
        slices = {
            "class": metrics.per_class(self.labels, correct, self.names),
            kind: metrics.per_quartile(values, correct),
        }
        plots.save_figure(plots.draw_slices(slices, f"{self.task.name}, test"), self.pictures / "slices.png")
        return slices
