"""The winner of a task -> a calibrated, proven bundle: ONNX files, card, examples."""

from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from convoy.bundles.bundle import EXPLANATION, Calibration, Card, Example, Limits, Sets, write_bundle
from convoy.bundles.conformal import ALL_LABELS, fit_threshold, fit_thresholds
from convoy.bundles.predictor import Model, Predictor
from convoy.core import atomic, params, paths
from convoy.core.atomic import sha256_of
from convoy.core.params import Section
from convoy.core.tasks import Task
from convoy.evaluation.calibration import calibrate, log_shares, split_in_halves
from convoy.evaluation.parity import (
    Agreement,
    compare,
    compare_batches,
    compare_pieces,
    compare_sizes,
    require_agreement,
)
from convoy.export.to_onnx import Probabilities, export, export_with_explanation, prove_explanation
from convoy.kinds.learning import candidates
from convoy.kinds.learning.candidates import Dataset, Description
from convoy.kinds.learning.class_activation import PlaceNetwork
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.registry import module

EXPORT_BATCH = 4  # any size but 1, which the exporter takes for a constant
BATCH_SAMPLE = 320  # inputs compared alone and in a batch: ten batches


class ExportParams(Section):
    """The section `export` of params.yaml."""

    examples: int = Field(ge=1)
    max_probability_difference: float = Field(gt=0)
    max_batch_difference: float = Field(gt=0)
    max_contribution_difference: float = Field(gt=0)
    max_piece_difference: float = Field(gt=0)
    piece_texts: int = Field(ge=1)
    coverage: float = Field(gt=0, lt=1)
    sets: Literal["marginal", "class_conditional"]


class TaskParams(Section):
    """An entry of `tasks` in params.yaml; `explanation` is that of the kind, null for a task that explains nothing."""

    data: str
    kind: str
    limits: Limits
    explanation: dict[str, Any] | None


def build_bundle(task: Task, entry: TaskParams, export_params: ExportParams) -> None:
    """Calibrate, export, prove on the whole validation split and on a grid of sizes, then write the bundle."""
    _Export(task, entry, export_params).run()


class _Export:
    """The winner of a task with its splits, as inputs of its own contract."""

    def __init__(self, task: Task, entry: TaskParams, export_params: ExportParams) -> None:
        self.task, self.entry, self.params = task, entry, export_params
        self.how = _explanation_params(task, entry)
        self.folder = paths.winner(task.name)
        self.description, self.network = candidates.load(self.folder)
        self.contract: InputContract = candidates.load_contract(self.folder, self.description)
        self.validation = self._open("validation")
        self.calibration_split = self._open("calibration")  # used neither to train nor to choose

    def run(self) -> None:
        """Write the bundle and the report of its parity."""
        rows_for_sets, rows_to_calibrate = split_in_halves(self.calibration_split.labels)
        calibration = self._calibrate(rows_to_calibrate)
        files = self._export_files(calibration)
        card = self._draft_card(calibration)
        model = Model(card, files, threads=2)
        print(f"{self.task.name}: comparing torch and ONNX Runtime", flush=True)
        report = self._prove(model, files)
        files["examples.json"] = atomic.to_json(self._draw_examples(model))
        card = card.model_copy(update={"sets": self._fit_sets(model, rows_for_sets)})
        bundle = paths.bundle(self.task.name)
        digest = write_bundle(bundle, card, files)
        Predictor(bundle)  # a bundle that cannot be loaded must not leave this stage
        atomic.write_json(paths.reports(self.task.name) / "parity.json", report)
        print(f"{self.task.name}: bundle {digest[:12]}, {calibration}, {card.sets}, {report}")

    def _open(self, split: paths.Split) -> Dataset:
        return candidates.open_dataset(self.task.kind, paths.split_file(self.task.data, split), self.contract)

    def _calibrate(self, rows: NDArray[np.int64]) -> Calibration:
        """After training with balanced weights the offsets restore the frequencies of the training labels."""
        offsets, data = None, self.calibration_split
        if self.description.training["learning"]["class_weights"] == "balanced":
            offsets = log_shares(self._open("train").labels, len(self.description.labels))
        return calibrate(data.labels[rows], candidates.logits(self.network, data)[rows], offsets)

    def _export_files(self, calibration: Calibration) -> dict[str, bytes]:
        """The graphs, and the files of the contract."""
        print(f"{self.task.name}: exporting {self.description.name}; an LSTM takes up to a minute", flush=True)
        device = next(self.network.parameters()).device
        example, _ = next(iter(self.validation.evaluation_batches(EXPORT_BATCH, device)))
        kind, carries_state = self.task.kind, self.contract.preprocessing.carries_state
        if self.how is not None and isinstance(self.network, PlaceNetwork):
            files = export_with_explanation(self.network, self.folder, example, kind, calibration)
        else:
            files = {"model.onnx": export(self.network, example, kind, calibration, carries_state)}
        return files | self.contract.files

    def _draft_card(self, calibration: Calibration) -> Card:
        description: Description = self.description
        splits: tuple[paths.Split, ...] = ("train", "validation", "calibration")
        return Card.model_validate(
            {
                "format_version": 2,
                "task": self.task.name,
                "labels": description.labels,
                "preprocessing": description.contract,
                "limits": self.entry.limits,
                "temperature": calibration.temperature,
                "logit_offsets": calibration.offsets,
                "calibration_n": calibration.n,
                # Until `_fit_sets` has run the exported model.
                "sets": Sets(coverage=self.params.coverage, threshold=ALL_LABELS, n=0),
                "explanation": self._describe_explanation(),
                "architecture": description.architecture,
                "candidate": description.name,
                "params": description.model_dump(mode="json"),
                "data": {split: sha256_of(paths.split_file(self.task.data, split)) for split in splits},
            }
        )

    def _describe_explanation(self) -> Any:
        if self.how is None:
            return None
        widths = self.network.widths if isinstance(self.network, PlaceNetwork) else (1,)
        return module(self.task.kind, "explanation").describe(self.how, lambda: self._open("train").arrays, widths)

    def _fit_sets(self, model: Model, rows: NDArray[np.int64]) -> Sets:
        """Thresholds from the exported model, on rows used neither to train nor to choose nor to calibrate."""
        data, coverage = self.calibration_split, self.params.coverage
        labels, probabilities = data.labels[rows], model.probabilities([data.arrays[row] for row in rows])
        if self.params.sets == "marginal":
            return Sets(coverage=coverage, threshold=fit_threshold(labels, probabilities, coverage), n=len(rows))
        thresholds = fit_thresholds(labels, probabilities, coverage)
        counts = tuple(np.bincount(labels, minlength=len(thresholds)).tolist())
        return Sets(coverage=coverage, threshold=thresholds, n=len(rows), n_per_label=counts)

    def _prove(self, model: Model, files: dict[str, bytes]) -> dict[str, Any]:
        """Raises ParityBroken where torch and ONNX Runtime, or two ways to one answer, differ by too much."""
        limit, calibration, data = self.params.max_probability_difference, model.card.calibration, self.validation
        expected = candidates.softmax(calibration.logits(candidates.logits(self.network, data)))
        sizes = compare_sizes(Probabilities(self.network, calibration), model, data.arrays)
        batches = compare_batches(model, data.arrays[:BATCH_SAMPLE])
        agreements: dict[str, Agreement] = {
            "validation": require_agreement(
                compare(expected, model.probabilities(data.arrays)), limit, "the validation split"
            ),
            "sizes": require_agreement(sizes, limit, "a grid of batch sizes and lengths"),
            "batches": require_agreement(batches, self.params.max_batch_difference, "inputs alone and in a batch"),
        }
        if model.state_size:
            texts = self._contents("validation")[: self.params.piece_texts]
            pieces = compare_pieces(model, texts)
            where = "texts at once and in pieces"
            agreements["pieces"] = require_agreement(pieces, self.params.max_piece_difference, where)
        report = {name: asdict(agreement) for name, agreement in agreements.items()}
        if EXPLANATION in files:
            limits = limit, self.params.max_contribution_difference
            report["explanation"] = prove_explanation(self.network, model, files[EXPLANATION], data.arrays, limits)
        return report

    def _contents(self, split: paths.Split) -> Any:
        return module(self.task.kind, "items.prepared").read(paths.split_file(self.task.data, split)).contents

    def _draw_examples(self, model: Model) -> list[dict[str, Any]]:
        raw = module(self.task.kind, "items.raw")
        contents = self._contents("validation")[: self.params.examples]
        inputs = [raw.to_example(item) for item in raw.as_sent(contents)]
        probabilities = model.replay(inputs)
        labels = model.card.labels
        return [
            Example(input=text, label=labels[int(row.argmax())], probabilities=tuple(map(float, row))).model_dump()
            for text, row in zip(inputs, probabilities, strict=True)
        ]


def _explanation_params(task: Task, entry: TaskParams) -> Any:
    """How the kind explains, checked. Raises ParamsInvalid."""
    if entry.explanation is None:
        return None
    return params.validate(module(task.kind, "explanation").Params, entry.explanation, f"tasks.{task.name}.explanation")
