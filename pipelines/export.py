"""The winner's weights -> a calibrated, proven bundle: ONNX and its explanation, contract, examples. Argument: task."""

import base64
import hashlib
import io
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from convoy import atomic, candidates, layout, stage
from convoy.bundle import (
    EXPLANATION,
    Card,
    Example,
    ImageExplanation,
    Limits,
    Occlusion,
    Reading,
    Sets,
    TextExplanation,
    write_bundle,
)
from convoy.calibration import fit_temperature
from convoy.conformal import ALL_LABELS, fit_threshold
from convoy.explanation.explainer import Explainer
from convoy.layout import Architecture, Split, Task
from convoy.models.places import PlaceNetwork
from convoy.onnx_export import Contributions, export, export_explanation
from convoy.params import Section, read_section
from convoy.parity import (
    compare,
    compare_batches,
    compare_explanations,
    compare_sizes,
    require_agreement,
    require_close,
)
from convoy.predictor import Model, Predictor
from convoy.prepared.image import read_images
from convoy.prepared.text import read_texts

EXPORT_BATCH = 4  # any size but 1, which the exporter takes for a constant
BATCH_SAMPLE = 320  # inputs tried alone and among others: ten batches


class Explanations(Section):
    """How the models explain what they say."""

    image: Occlusion
    text: Reading


class Params(Section):
    """The section export of params.yaml."""

    examples: int = Field(ge=1)
    max_probability_difference: float = Field(gt=0)
    max_batch_difference: float = Field(gt=0)
    max_contribution_difference: float = Field(gt=0)
    coverage: float = Field(gt=0, lt=1)
    limits: dict[Task, Limits]
    explanation: Explanations


def main(task: Task) -> None:
    """Calibrate, export, prove on the whole validation split and on a grid of sizes, then write the bundle."""
    params = read_section(Params, "export")
    architecture: Architecture = json.loads(layout.choice(task).read_bytes())["architecture"]
    description, network = candidates.load(layout.candidate(task, architecture))
    dataset = candidates.open_dataset(task, layout.prepared(task, "validation"))
    logits = candidates.logits(network, dataset)
    temperature = fit_temperature(dataset.labels, logits)
    example, _ = next(iter(dataset.evaluation_batches(EXPORT_BATCH, next(network.parameters()).device)))
    print(f"{task}: exporting {architecture}; an LSTM takes up to a minute", flush=True)
    files = _export(network, layout.candidate(task, architecture), example, task, temperature)
    card = Card(
        format_version=2,
        task=task,
        labels=description.labels,
        preprocessing=json.loads(layout.contract(task).read_bytes()),
        limits=params.limits[task],
        temperature=temperature,
        sets=Sets(coverage=params.coverage, threshold=ALL_LABELS, n=0),  # until the model that ships has said more
        explanation=_explanation(task, network, params.explanation),
        architecture=architecture,
        params=description.model_dump(mode="json"),
        data={split: _sha256(task, split) for split in ("train", "validation", "calibration")},
    )
    model = Model(card, files, threads=2)
    explainer = Explainer(model, files[EXPLANATION], threads=2)
    print(f"{task}: comparing torch and ONNX Runtime", flush=True)
    expected = candidates.softmax(logits, temperature)
    report = _prove(network, expected, model, dataset, params)
    report["explanation"] = _prove_explanation(Contributions(network, temperature), explainer, dataset, params)
    files["examples.json"] = atomic.to_json(_draw_examples(task, model, params.examples))
    card = card.model_copy(update={"sets": _fit_sets(task, model, params.coverage)})
    digest = write_bundle(layout.bundle(task), card, files)
    Predictor(layout.bundle(task))  # what cannot be loaded must not leave this stage
    atomic.write_json(layout.reports(task) / "parity.json", report)
    print(f"{task}: bundle {digest[:12]}, temperature {temperature}, {card.sets}, {report}")


def _export(network: nn.Module, folder: Path, example: Tensor, task: Task, temperature: float) -> dict[str, bytes]:
    """Both graphs, each from a process of its own, at the same time; and the tokenizer of a text model."""
    # Spawned: a fork would hang in the threads that torch has started.
    with ProcessPoolExecutor(1, get_context("spawn"), stage.end_with_parent) as pool:
        explanation = pool.submit(_export_explanation, folder, example.cpu().numpy(), task, temperature)
        files = {"model.onnx": export(network, example, task, temperature)}
        files[EXPLANATION] = explanation.result()
    if task == "text":
        files["tokenizer.json"] = layout.TOKENIZER.read_bytes()
    return files


def _export_explanation(folder: Path, example: NDArray[Any], task: Task, temperature: float) -> bytes:
    _, network = candidates.load(folder)
    return export_explanation(network, torch.from_numpy(example), task, temperature)


def _explanation(task: Task, network: nn.Module, params: Explanations) -> ImageExplanation | TextExplanation:
    if task == "image":
        mean = read_images(layout.prepared(task, "train")).images.mean(axis=(0, 1, 2))
        return ImageExplanation(kind="image", neutral=tuple(map(round, mean.tolist())), **params.image.model_dump())
    assert isinstance(network, PlaceNetwork)
    return TextExplanation(kind="text", widths=network.widths, **params.text.model_dump())


def _fit_sets(task: Task, model: Model, coverage: float) -> Sets:
    """By the model that ships, on rows that neither training nor the choice nor the temperature has seen."""
    rows = candidates.open_dataset(task, layout.prepared(task, "calibration"))
    threshold = fit_threshold(rows.labels, model.probabilities(rows.arrays), coverage)
    return Sets(coverage=coverage, threshold=threshold, n=len(rows.labels))


def _prove(
    network: nn.Module, expected: NDArray[np.float32], model: Model, dataset: candidates.Dataset, params: Params
) -> dict[str, Any]:
    limit = params.max_probability_difference
    validation = compare(expected, model.probabilities(dataset.arrays))
    sizes = compare_sizes(network, model, dataset.arrays)
    batches = compare_batches(model, dataset.arrays[:BATCH_SAMPLE])
    return {
        "validation": asdict(require_agreement(validation, limit, "the validation split")),
        "sizes": asdict(require_agreement(sizes, limit, "a grid of batch sizes and lengths")),
        "batches": asdict(require_agreement(batches, params.max_batch_difference, "inputs alone and in a batch")),
    }


def _prove_explanation(
    network: nn.Module, explainer: Explainer, dataset: candidates.Dataset, params: Params
) -> dict[str, Any]:
    sums, difference = compare_explanations(network, explainer, dataset.arrays)
    return {
        **asdict(require_agreement(sums, params.max_probability_difference, "the sums of explanation.onnx")),
        "mean_contribution_difference": require_close(difference, params.max_contribution_difference),
    }


def _draw_examples(task: Task, model: Model, count: int) -> list[dict[str, Any]]:
    path = layout.prepared(task, "validation")
    inputs = (
        [_png(image) for image in read_images(path).images[:count]]
        if task == "image"
        else read_texts(path).texts[:count]
    )
    found = model.replay(inputs)
    labels = model.card.labels
    return [
        Example(input=text, label=labels[int(row.argmax())], probabilities=tuple(map(float, row))).model_dump()
        for text, row in zip(inputs, found, strict=True)
    ]


def _png(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _sha256(task: Task, split: Split) -> str:
    with layout.prepared(task, split).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:])
