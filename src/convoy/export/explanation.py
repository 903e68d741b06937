"""A trained candidate -> explanation.onnx beside its model.onnx, what the card says of it, and the proof of both."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convoy.bundles.bundle import EXPLANATION, Calibration, ImageExplanation, Occlusion, Reading, TextExplanation
from convoy.bundles.explainer import Explainer
from convoy.bundles.predictor import Model
from convoy.core import paths, stage
from convoy.core.paths import Task
from convoy.evaluation.parity import compare_explanations, require_agreement, require_close
from convoy.export.to_onnx import Contributions, export, export_explanation
from convoy.kinds import candidates
from convoy.kinds.class_activation import PlaceNetwork
from convoy.kinds.image.prepared import read_images


@dataclass(frozen=True)
class Explaining:
    """How a model explains what it says, and how far its contributions may be from torch's, in the mean."""

    how: Occlusion | Reading
    max_contribution_difference: float

    def describe(self, task: Task, network: nn.Module) -> ImageExplanation | TextExplanation:
        """For the card."""
        if isinstance(self.how, Occlusion):
            mean = read_images(paths.prepared(task, "train")).images.mean(axis=(0, 1, 2))
            neutral = tuple(map(round, mean.tolist()))
            return ImageExplanation(kind="image", neutral=neutral, **self.how.model_dump())
        assert isinstance(network, PlaceNetwork)
        return TextExplanation(kind="text", widths=network.widths, **self.how.model_dump())

    def prove(
        self, network: nn.Module, model: Model, content: bytes, arrays: Sequence[NDArray[Any]], max_difference: float
    ) -> dict[str, Any]:
        """What explanation.onnx, `content`, sums up against what model.onnx says; its contributions against torch's."""
        contributions, explainer = Contributions(network, model.card.calibration), Explainer(model, content, threads=2)
        sums, difference = compare_explanations(contributions, explainer, arrays)
        return {
            **asdict(require_agreement(sums, max_difference, "the sums of explanation.onnx")),
            "mean_contribution_difference": require_close(difference, self.max_contribution_difference),
        }


def export_both(
    network: nn.Module, folder: Path, example: Tensor, task: Task, calibration: Calibration
) -> dict[str, bytes]:
    """What predicts and what explains, each from a process of its own, at the same time; `folder` has the candidate."""
    # Spawned: a fork would hang in the threads that torch has started.
    with ProcessPoolExecutor(1, get_context("spawn"), stage.end_with_parent, (os.getpid(),)) as pool:
        explanation = pool.submit(_export_explanation, folder, example.cpu().numpy(), task, calibration)
        return {"model.onnx": export(network, example, task, calibration), EXPLANATION: explanation.result()}


def _export_explanation(folder: Path, example: NDArray[Any], task: Task, calibration: Calibration) -> bytes:
    _, network = candidates.load(folder)
    return export_explanation(network, torch.from_numpy(example), task, calibration)
