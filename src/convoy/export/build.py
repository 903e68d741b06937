"""A trained candidate and its preprocessing -> a calibrated, proven bundle: ONNX files, card, examples."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.bundles.bundle import EXPLANATION, Calibration, Card, Example, Limits, Sets, write_bundle
from convoy.bundles.conformal import ALL_LABELS, fit_threshold, fit_thresholds
from convoy.bundles.predictor import Model, Predictor
from convoy.core import atomic, paths
from convoy.core.atomic import sha256_of
from convoy.core.params import Section
from convoy.core.paths import Architecture, Task
from convoy.evaluation.calibration import calibrate, log_shares, split_in_halves
from convoy.evaluation.parity import Agreement, compare, compare_batches, compare_sizes, require_agreement
from convoy.export.to_onnx import Explaining, Probabilities, export, export_with_explanation
from convoy.kinds import candidates
from convoy.kinds.candidates import Description
from convoy.kinds.registry import module

EXPORT_BATCH = 4  # any size but 1, which the exporter takes for a constant
BATCH_SAMPLE = 320  # inputs compared alone and in a batch: ten batches

Proof = Callable[[Model], dict[str, Agreement]]


class BundleParams(Section):
    """The keys that every section of an export holds."""

    examples: int = Field(ge=1)
    max_probability_difference: float = Field(gt=0)
    max_batch_difference: float = Field(gt=0)
    coverage: float = Field(gt=0, lt=1)
    sets: Literal["marginal", "class_conditional"]


def build_bundle(
    task: Task,
    architecture: Architecture,
    preprocessing: dict[str, Any],
    limits: Limits,
    params: BundleParams,
    prove_more: Proof = lambda _: {},
    explaining: Explaining | None = None,
) -> None:
    """Calibrate, export, prove on the whole validation split and on a grid of sizes, then write the bundle.

    `prove_more` gives further comparisons for the report, by name; it raises where one does not agree. Without
    `explaining` the bundle explains nothing.
    """
    folder = paths.candidate(task, architecture)
    description, network = candidates.load(folder)
    dataset = candidates.open_dataset(task, paths.prepared(task, "validation"))
    unseen = candidates.open_dataset(task, paths.prepared(task, "calibration"))  # used neither to train nor to choose
    rows_for_sets, rows_to_calibrate = split_in_halves(unseen.labels)
    calibration = _calibrate(task, description, network, unseen, rows_to_calibrate)
    example, _ = next(iter(dataset.evaluation_batches(EXPORT_BATCH, next(network.parameters()).device)))
    print(f"{task}: exporting {architecture}; an LSTM takes up to a minute", flush=True)
    files = _export_files(network, folder, example, task, calibration, explaining is not None)
    card = _draft_card(task, description, preprocessing, limits, calibration, params.coverage)
    if explaining is not None:
        card = card.model_copy(update={"explanation": explaining.describe(task, network)})
    model = Model(card, files, threads=2)
    print(f"{task}: comparing torch and ONNX Runtime", flush=True)
    report = {**_prove(network, model, dataset, params), **_as_dicts(prove_more(model))}
    if explaining is not None:
        limit = params.max_probability_difference
        report["explanation"] = explaining.prove(network, model, files[EXPLANATION], dataset.arrays, limit)
    files["examples.json"] = atomic.to_json(_draw_examples(task, model, params.examples))
    card = card.model_copy(update={"sets": _fit_sets(model, unseen, rows_for_sets, params)})
    digest = write_bundle(paths.bundle(task), card, files)
    Predictor(paths.bundle(task))  # a bundle that cannot be loaded must not leave this stage
    atomic.write_json(paths.reports(task) / "parity.json", report)
    print(f"{task}: bundle {digest[:12]}, {calibration}, {card.sets}, {report}")


def _export_files(
    network: nn.Module, folder: Path, example: Tensor, task: Task, calibration: Calibration, explains: bool
) -> dict[str, bytes]:
    kind = paths.kind_of(task)
    if explains:
        files = export_with_explanation(network, folder, example, kind, calibration)
    else:
        files = {"model.onnx": export(network, example, kind, calibration)}
    contract = paths.contract(task).parent
    return files | {name: (contract / name).read_bytes() for name in module(kind, "preprocessing").FILES}


def _draft_card(
    task: Task,
    description: Description,
    preprocessing: dict[str, Any],
    limits: Limits,
    calibration: Calibration,
    coverage: float,
) -> Card:
    return Card.model_validate(
        {
            "format_version": 2,
            "task": task,
            "labels": description.labels,
            "preprocessing": preprocessing,
            "limits": limits,
            "temperature": calibration.temperature,
            "logit_offsets": calibration.offsets,
            "calibration_n": calibration.n,
            # Until `_fit_sets` has run the exported model.
            "sets": Sets(coverage=coverage, threshold=ALL_LABELS, n=0),
            "architecture": description.architecture,
            "params": description.model_dump(mode="json"),
            "data": {split: sha256_of(paths.prepared(task, split)) for split in ("train", "validation", "calibration")},
        }
    )


def _calibrate(
    task: Task, description: Description, network: nn.Module, data: candidates.Dataset, rows: NDArray[np.int64]
) -> Calibration:
    """After training with balanced weights the offsets restore the frequencies of the training labels."""
    offsets = None
    if description.training["learning"]["class_weights"] == "balanced":
        training = module(paths.kind_of(task), "prepared").read(paths.prepared(task, "train"))
        offsets = log_shares(training.labels, len(description.labels))
    return calibrate(data.labels[rows], candidates.logits(network, data)[rows], offsets)


def _fit_sets(model: Model, data: candidates.Dataset, rows: NDArray[np.int64], params: BundleParams) -> Sets:
    """Thresholds from the exported model, on rows used neither to train nor to choose nor to calibrate."""
    labels, probabilities = data.labels[rows], model.probabilities([data.arrays[row] for row in rows])
    if params.sets == "marginal":
        threshold = fit_threshold(labels, probabilities, params.coverage)
        return Sets(coverage=params.coverage, threshold=threshold, n=len(rows))
    thresholds = fit_thresholds(labels, probabilities, params.coverage)
    counts = tuple(np.bincount(labels, minlength=len(thresholds)).tolist())
    return Sets(coverage=params.coverage, threshold=thresholds, n=len(rows), n_per_label=counts)


def _prove(network: nn.Module, model: Model, dataset: candidates.Dataset, params: BundleParams) -> dict[str, Any]:
    limit, calibration = params.max_probability_difference, model.card.calibration
    expected = candidates.softmax(calibration.logits(candidates.logits(network, dataset)))
    validation = compare(expected, model.probabilities(dataset.arrays))
    sizes = compare_sizes(Probabilities(network, calibration), model, dataset.arrays)
    batches = compare_batches(model, dataset.arrays[:BATCH_SAMPLE])
    return _as_dicts(
        {
            "validation": require_agreement(validation, limit, "the validation split"),
            "sizes": require_agreement(sizes, limit, "a grid of batch sizes and lengths"),
            "batches": require_agreement(batches, params.max_batch_difference, "inputs alone and in a batch"),
        }
    )


def _as_dicts(agreements: dict[str, Agreement]) -> dict[str, Any]:
    return {name: asdict(agreement) for name, agreement in agreements.items()}


def _draw_examples(task: Task, model: Model, count: int) -> list[dict[str, Any]]:
    kind = paths.kind_of(task)
    contents = module(kind, "prepared").read(paths.prepared(task, "validation")).contents[:count]
    raw = module(kind, "raw")
    inputs = [raw.to_example(item) for item in raw.as_sent(contents)]
    probabilities = model.replay(inputs)
    labels = model.card.labels
    return [
        Example(input=text, label=labels[int(row.argmax())], probabilities=tuple(map(float, row))).model_dump()
        for text, row in zip(inputs, probabilities, strict=True)
    ]
