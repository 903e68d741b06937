"""The one LightningModule: any network that maps inputs to logits, trained by one cycle of the learning rate."""

from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from convoy.core.params import Section
from convoy.evaluation.metrics import classification_metrics
from convoy.training.optimizers import MuonWithAdamW, adamw


class LearningParams(Section):
    """How a candidate learns."""

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    muon_learning_rate: float | None = Field(gt=0)
    weight_decay: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]
    patience: int = Field(ge=1)

    @property
    def monitor(self) -> str:
        """The validation figure that epochs are chosen by, the lower the better.

        With weighted labels it is the trained loss: log loss counts items, so it favours frequent labels.
        """
        return "validation_log_loss" if self.class_weights == "none" else "validation_loss"


def class_weights(labels: NDArray[np.int64], params: LearningParams, classes: int) -> Tensor | None:
    """The weight of each label (classes,), 1 in the mean over items; with `balanced` all labels count the same."""
    if params.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).float()


class Classifier(pl.LightningModule):
    """Trains a network by cross entropy; logs the figures of each epoch once, not of each step."""

    def __init__(self, network: nn.Module, params: LearningParams, weights: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        self.params = params
        self._weights = weights
        self._outcomes: list[tuple[Tensor, Tensor]] = []
        self._losses: list[Tensor] = []  # of each validation item; with weights only

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Loss of one batch."""
        inputs, labels = batch
        loss = self._loss(self.network(inputs), labels)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), prog_bar=True, sync_dist=True
        )
        return loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._weights is None:
            return nn.functional.cross_entropy(logits, labels, label_smoothing=self.params.label_smoothing)
        # The mean over items, not over weights as torch takes it: so the mean over the parts of a batch, one part per
        # process, is the loss of the whole batch.
        return self._weighted_losses(self._weights, logits, labels).mean()

    def _weighted_losses(self, weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each item (n,), times the weight of its label.

        torch's own `weight` also weighs each label's share of the smoothing: with smoothing e and C labels, beyond
        1 + C (1 - e) / e items to one, predicting the rare label for every item has the least loss.
        """
        smoothing = self.params.label_smoothing
        losses = nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return weights.to(labels.device)[labels] * losses

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Keep the probabilities, to evaluate the whole split at once."""
        inputs, labels = batch
        logits = self.network(inputs).float()
        self._outcomes.append((logits.softmax(dim=1).cpu(), labels.cpu()))
        if self._weights is not None:
            self._losses.append(self._weighted_losses(self._weights, logits, labels).cpu())

    def on_validation_epoch_end(self) -> None:
        """The figures of the whole validation split."""
        probabilities, labels = (torch.cat(parts).numpy() for parts in zip(*self._outcomes, strict=True))
        self._outcomes.clear()
        for name, value in classification_metrics(labels, probabilities).items():
            self.log(f"validation_{name}", float(value), prog_bar=name in ("accuracy", "log_loss"))
        if self._losses:
            self.log("validation_loss", torch.cat(self._losses).double().mean().item())
            self._losses.clear()

    def configure_optimizers(self) -> Any:
        """AdamW, with Muon for kernels where its rate is set; one cycle of their rates (arXiv:1708.07120)."""
        params, decay = self.params, self.params.weight_decay
        optimizer: torch.optim.Optimizer
        if params.muon_learning_rate is None:
            optimizer = adamw(self.network.parameters(), params.learning_rate, decay)
        else:
            optimizer = MuonWithAdamW(self.network, params.muon_learning_rate, params.learning_rate, decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            cycle_momentum=params.muon_learning_rate is None,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
