"""Prepared texts -> the laboratory's part of them, changed or as they are, and networks that were trained on it."""

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from convoy.core import paths
from convoy.kinds.text.items import inputs
from convoy.kinds.text.items.dataset import BatchParams, Dataset, TrainingBatches
from convoy.kinds.text.items.preprocessing import open_preprocessor
from convoy.kinds.text.networks.layers.vectors import learn_word_vectors
from lab.layout import Family
from lab.learning.items import DataParams, divide
from lab.learning.training import CPU, LearningParams, Trained, per_seed, spend
from lab.texts.networks import TextParams, WordParams, text_network
from lab.texts.order import FIRST_WORD


@dataclass(frozen=True)
class Texts:
    """What is learnt from, what is asked, and what made their token ids."""

    learn: Dataset
    ask: Dataset
    tokenizer: Tokenizer


def read_text_subset(params: DataParams) -> Texts:
    """Texts of the train split, as token ids."""
    name = params.text.prepared
    contract = inputs.make(paths.prepared(name), {}, "data.text")
    dataset = Dataset(paths.split_file(name, "train"), contract)
    learn, ask = (
        with_texts(dataset, [dataset.arrays[row] for row in rows], dataset.labels[rows])
        for rows in divide(len(dataset.labels), params.text, params.seed)
    )
    return Texts(learn, ask, open_preprocessor(contract.preprocessing, contract.files).tokenizer)


def with_texts(dataset: Dataset, texts: list[NDArray[np.int32]], labels: NDArray[np.int64]) -> Dataset:
    """A data set like this one, of other token ids, (tokens,) each, and labels (n,)."""
    other = copy(dataset)
    other.arrays, other.labels = texts, labels
    other.lengths = np.array([len(text) for text in texts])
    other.evaluation_order = np.argsort(other.lengths, kind="stable")
    return other


def train_texts(
    family: Family,
    params: TextParams,
    words: WordParams,
    learning: LearningParams,
    dataset: Dataset,
    title: str,
) -> list[Trained]:
    """A network per seed; their word vectors all begin with the same, learnt from the texts without their labels."""
    batches = BatchParams(size=learning.text.batch_size, bucket=learning.text_bucket)
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
        how = learning.with_rate(params.learning_rate)

        def draw(epoch: int) -> TrainingBatches:
            return dataset.training_batches(batches, seed, epoch, CPU)

        return Trained(network, spend(network, draw, learning.text, how, f"{title}, seed {seed}"))

    return per_seed(learning, train)


@torch.no_grad()
def _begin_with(network: nn.Module, vectors: Tensor) -> None:
    embed = network.get_submodule("vectors.embed")
    assert isinstance(embed, nn.Embedding)
    embed.weight[FIRST_WORD:] = vectors[FIRST_WORD:]
