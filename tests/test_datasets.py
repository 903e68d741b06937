"""Batches hold every item once, are drawn from (seed, epoch) alone, and waste little on padding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prepared_splits import CONTRACTS, write_split

from convoy.kinds.image.items.dataset import BatchParams, augment
from convoy.kinds.learning import candidates

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
PARAMS = {"image": {"size": 16, "flip": True, "shift_px": 2}, "text": {"size": 16, "bucket": 3}}


@pytest.fixture(params=["image", "text"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def dataset(kind: str, tmp_path: Path) -> candidates.Dataset:
    return candidates.open_dataset(kind, write_split(kind, tmp_path / "train.arrow"), CONTRACTS[kind])


def draw(kind: str, dataset: candidates.Dataset, seed: int, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(dataset.training_batches(candidates.batch_model(kind).model_validate(PARAMS[kind]), seed, epoch, CPU))


def test_the_same_seed_and_epoch_draw_the_same_batches(kind: str, dataset: candidates.Dataset) -> None:
    for (inputs, labels), (again, labels_again) in zip(
        draw(kind, dataset, 1, 4), draw(kind, dataset, 1, 4), strict=True
    ):
        assert torch.equal(inputs, again)
        assert torch.equal(labels, labels_again)


@pytest.mark.parametrize(("seed", "epoch"), [(2, 4), (1, 5)])
def test_another_seed_or_epoch_draws_others(kind: str, dataset: candidates.Dataset, seed: int, epoch: int) -> None:
    first = torch.cat([labels for _, labels in draw(kind, dataset, 1, 4)])
    second = torch.cat([labels for _, labels in draw(kind, dataset, seed, epoch)])
    assert not torch.equal(first, second)


def test_an_epoch_has_full_batches_only_and_says_how_many(kind: str, dataset: candidates.Dataset) -> None:
    batches = dataset.training_batches(candidates.batch_model(kind).model_validate(PARAMS[kind]), 0, 0, CPU)
    sizes = [len(labels) for _, labels in batches]
    assert sizes == [16] * len(batches) == [16] * 5


def test_evaluation_sees_every_item_once_in_its_stated_order(dataset: candidates.Dataset) -> None:
    labels = torch.cat([labels for _, labels in dataset.evaluation_batches(16, CPU)]).numpy()
    assert sorted(dataset.evaluation_order) == list(range(90))
    assert np.array_equal(labels, dataset.labels[dataset.evaluation_order])


def test_texts_of_a_batch_have_similar_lengths(tmp_path: Path) -> None:
    dataset = candidates.open_dataset("text", write_split("text", tmp_path / "train.arrow", 480), CONTRACTS["text"])
    lengths = [(tokens != 0).sum(dim=1) for tokens, _ in draw("text", dataset, 0, 0)]
    shuffled = np.random.default_rng(0).permutation(np.concatenate(lengths)).reshape(-1, 16)
    bucketed_spread = np.mean([(length.max() - length.min()).item() for length in lengths])
    assert bucketed_spread < 0.6 * np.mean(shuffled.max(axis=1) - shuffled.min(axis=1))


@given(st.integers(0, 3), st.booleans(), st.integers(0, 100))
def test_augmentation_only_moves_pixels(shift_px: int, flip: bool, seed: int) -> None:
    images = torch.zeros(5, 12, 12, 1, dtype=torch.uint8)
    images[:, 4:8, 4:8] = torch.arange(1, 17, dtype=torch.uint8).reshape(4, 4, 1)
    params = BatchParams(size=5, flip=flip, shift_px=shift_px)
    moved = augment(images, params, np.random.default_rng(seed))
    assert moved.shape == images.shape
    for before, after in zip(images, moved, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)


def test_no_augmentation_changes_nothing() -> None:
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(augment(images, BatchParams(size=4, flip=False, shift_px=0), np.random.default_rng(0)), images)
