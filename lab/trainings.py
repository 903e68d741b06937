"""A family and the items of a task -> a trained network for each seed, all with the same budget."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from convoy.datasets import image, text
from convoy.models.text_input import learn_word_vectors
from lab.layout import Family
from lab.learning import LearningParams, Optimizing, spend
from lab.measuring import Trained
from lab.models import (
    FeedForwardParams,
    ImageCnnParams,
    RecurrentParams,
    TextCnnParams,
    WordParams,
    image_network,
    text_network,
)
from lab.order import FIRST_WORD

CPU = torch.device("cpu")  # where the figures of costs are comparable; the networks are small


def train_images(
    family: Family,
    params: ImageCnnParams | RecurrentParams | FeedForwardParams,
    learning: LearningParams,
    dataset: image.ImageDataset,
    title: str,
    epochs: float | None = None,
) -> list[Trained]:
    """A network per seed; with `epochs` for so many of them instead of the budget."""
    plain = image.BatchParams(size=learning.image.batch_size, flip=False, shift_px=0, erase_px=0)

    def train(seed: int) -> Trained:
        network = image_network(family, params, dataset.dimensions, len(dataset.names))
        budget = learning.image if epochs is None else learning.image.for_epochs(epochs)
        how = _how(learning, params.learning_rate)

        def draw(epoch: int) -> image.TrainingBatches:
            return dataset.training_batches(plain, seed, epoch, CPU)

        return Trained(network, spend(network, draw, budget, how, f"{title}, seed {seed}"))

    return _per_seed(learning, train)


def train_texts(
    family: Family,
    params: TextCnnParams | RecurrentParams | FeedForwardParams,
    words: WordParams,
    learning: LearningParams,
    dataset: text.TextDataset,
    title: str,
) -> list[Trained]:
    """A network per seed; their word vectors all begin with the same, learnt from the texts without their labels."""
    batches = text.BatchParams(size=learning.text.batch_size, bucket=learning.text_bucket)
    dimensions = {**dataset.dimensions, "positions": int(dataset.lengths.max())}
    vocabulary, size = dimensions["vocabulary"], words.embedding
    vectors = torch.empty(0)
    if family != "linear":
        learnt = learn_word_vectors(dataset.arrays, vocabulary, size, words.context_window, FIRST_WORD, seed=0)
        vectors = torch.from_numpy(learnt)

    def train(seed: int) -> Trained:
        network = text_network(family, params, words, dimensions, len(dataset.names))
        if family != "linear":
            _begin_with(network, vectors)
        how = _how(learning, params.learning_rate)

        def draw(epoch: int) -> text.TrainingBatches:
            return dataset.training_batches(batches, seed, epoch, CPU)

        return Trained(network, spend(network, draw, learning.text, how, f"{title}, seed {seed}"))

    return _per_seed(learning, train)


def _per_seed(learning: LearningParams, train: Callable[[int], Trained]) -> list[Trained]:
    found = []
    for seed in learning.seeds:
        torch.manual_seed(seed)
        found.append(train(seed))
    return found


def _how(learning: LearningParams, learning_rate: float) -> Optimizing:
    return Optimizing(learning_rate, learning.weight_decay, learning.gradient_norm)


@torch.no_grad()
def _begin_with(network: nn.Module, vectors: Tensor) -> None:
    embed = network.get_submodule("vectors.embed")
    assert isinstance(embed, nn.Embedding)
    embed.weight[FIRST_WORD:] = vectors[FIRST_WORD:]
