"""What a step of training makes small: the loss, and what each label counts in it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convoy.training.classifier import Classifier, LearningParams, class_weights

pytestmark = pytest.mark.torch
PARAMS = LearningParams(
    epochs=1,
    learning_rate=0.1,
    muon_learning_rate=None,
    weight_decay=0.0,
    label_smoothing=0.1,
    class_weights="balanced",
    patience=1,
)
LABELS = np.array([0] * 6 + [1] * 2)


def loss(model: Classifier, logits: Tensor, labels: Tensor) -> float:
    model.log = lambda *_, **__: None  # type: ignore[method-assign,misc] - there is no Trainer
    return float(model.training_step((logits, labels), 0))


def test_balanced_weights_let_every_label_count_as_much_as_any_other() -> None:
    weights = class_weights(LABELS, PARAMS, 2)
    assert weights is not None
    assert weights[0] * 6 == pytest.approx(weights[1] * 2)
    assert float(weights[torch.from_numpy(LABELS)].mean()) == pytest.approx(1)
    assert class_weights(LABELS, PARAMS.model_copy(update={"class_weights": "none"}), 2) is None


def learn(params: LearningParams, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A layer trained on 1,000 items of label 0 and 10 of label 1, told apart by input: what it says, labels."""
    torch.manual_seed(seed)
    labels = torch.tensor([0] * 1000 + [1] * 10)
    inputs = nn.functional.one_hot(labels, 2).float()
    model = Classifier(nn.Linear(2, 2), params, class_weights(labels.numpy(), params, 2))
    model.log = lambda *_, **__: None  # type: ignore[method-assign,misc] - there is no Trainer
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        model.training_step((inputs, labels), 0).backward()
        optimizer.step()
    return model.network(inputs).detach().argmax(dim=1), labels


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_a_hundred_to_one_is_learnt_whole(weights: str, smoothing: float) -> None:
    said, labels = learn(PARAMS.model_copy(update={"class_weights": weights, "label_smoothing": smoothing}))
    assert torch.equal(said, labels)


def test_weights_and_smoothing_keep_the_least_loss_at_the_label() -> None:
    """The least loss of an item gives its own label 1 - e + e / C, whatever that label weighs."""
    labels, weights = torch.tensor([0, 1, 2]), torch.tensor([0.01, 1.0, 100.0])
    best = torch.full((3, 3), 0.1 / 3).fill_diagonal_(1 - 0.1 + 0.1 / 3).log().requires_grad_()
    model = Classifier(nn.Identity(), PARAMS, weights)
    model.log = lambda *_, **__: None  # type: ignore[method-assign,misc] - there is no Trainer
    model.training_step((best, labels), 0).backward()
    assert best.grad is not None and best.grad.abs().max() < 1e-5


@pytest.mark.parametrize("classes", [3, 5])
def test_a_label_without_an_item_has_a_weight_too(classes: int) -> None:
    weights = class_weights(LABELS, PARAMS, classes)
    assert weights is not None and len(weights) == classes
    assert float(weights[torch.from_numpy(LABELS)].mean()) == pytest.approx(1)
    assert np.isfinite(loss(Classifier(nn.Identity(), PARAMS, weights), torch.zeros(8, classes), torch.tensor(LABELS)))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_parts(weighted: bool) -> None:
    """So that processes which take a part each learn what one would."""
    model = Classifier(nn.Identity(), PARAMS, class_weights(LABELS, PARAMS, 2) if weighted else None)
    logits, labels = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.from_numpy(LABELS)
    parts = [loss(model, logits[part], labels[part]) for part in (slice(4), slice(4, 8))]
    assert loss(model, logits, labels) == pytest.approx(sum(parts) / 2, abs=1e-6)
