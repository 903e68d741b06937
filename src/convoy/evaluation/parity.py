"""Proof that torch and ONNX Runtime give the same probabilities, whatever the batch and however a text is cut."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convoy.bundles.explanation import Explainer, softmax
from convoy.bundles.predictor import Model
from convoy.bundles.streaming import begin, read
from convoy.kinds.registry import module

BATCH_SIZES = (1, 2, 3, 7, 32)
LENGTHS = (1, 2, 3, 5, 17, 64)  # and the longest that the model takes in one run
LONGEST_PIECE = 40  # characters


class ParityBroken(RuntimeError):
    """Two ways to the same probabilities differ by more than is allowed."""


@dataclass(frozen=True)
class Agreement:
    """How far two sets of probabilities are apart, over n inputs."""

    max_difference: float
    class_flips: int
    n: int


def compare(first: NDArray[Any], second: NDArray[Any]) -> Agreement:
    """Compare probabilities (n, labels)."""
    return Agreement(
        max_difference=float(np.abs(first - second).max()),
        class_flips=int((first.argmax(axis=1) != second.argmax(axis=1)).sum()),
        n=len(first),
    )


def require_agreement(agreement: Agreement, limit: float, where: str) -> Agreement:
    """Raise ParityBroken unless all probabilities agree within `limit` and no class flips."""
    if not agreement.max_difference <= limit or agreement.class_flips:  # `not <=` is also true for NaN
        raise ParityBroken(
            f"the answers disagree on {where}: probabilities differ by up to {agreement.max_difference:.2g} "
            f"(at most {limit} allowed), {agreement.class_flips} of {agreement.n} classes flip"
        )
    return agreement


def require_close(difference: float, limit: float) -> float:
    """Raise ParityBroken unless contributions differ by no more than `limit`, in the mean."""
    if not difference <= limit:  # also true for NaN
        raise ParityBroken(f"contributions differ by {difference:.2g} in the mean, at most {limit} is allowed")
    return difference


@torch.inference_mode()
def compare_sizes(network: nn.Module, model: Model, arrays: Sequence[NDArray[Any]]) -> Agreement:
    """torch against ONNX Runtime on a grid of batch sizes and, for texts, lengths, cut from real inputs.

    `network` gives probabilities. A text of nothing but unknown words is in it too.
    """
    return _combine(
        compare(network(torch.from_numpy(batch)).numpy(), model.run(batch)) for batch in _size_grid(model, arrays)
    )


@torch.inference_mode()
def compare_explanations(
    network: nn.Module, explainer: Explainer, arrays: Sequence[NDArray[Any]]
) -> tuple[Agreement, float]:
    """The probabilities of explanation.onnx against those of model.onnx, on the same grid; its contributions
    against torch's.

    `network` gives contributions and logits as that graph does. The second figure is the mean difference of
    contributions: a single one may be far off where two places have nearly the same maximum.
    """
    agreements, differences = [], []
    for batch in _size_grid(explainer.model, arrays):
        contributions, logits = explainer.run(batch)
        agreements.append(compare(explainer.model.run(batch), softmax(logits)))
        expected, _ = network(torch.from_numpy(batch))
        differences.append(float(np.abs(expected.numpy() - contributions).mean()))
    return _combine(agreements), float(np.max(differences))


def compare_batches(model: Model, arrays: Sequence[NDArray[Any]]) -> Agreement:
    """Each input alone against the same input among 31 others, padded to the longest of them."""
    together = [
        model.run(model.preprocessor.collate(list(arrays[start : start + 32]))) for start in range(0, len(arrays), 32)
    ]
    alone = [model.run(model.preprocessor.collate([array])) for array in arrays]
    return compare(np.concatenate(alone), np.concatenate(together))


def compare_pieces(model: Model, texts: Sequence[str], seed: int = 0) -> Agreement:
    """Each text at once against the same text in random pieces, cut within words too: probabilities after every word.

    Only for a model that carries a state. Raises ParityBroken where the pieces have other words.
    """
    generator = random.Random(seed)
    at_once, in_pieces = [], []
    for text in texts:
        whole = read(model, begin(model), text, final=True)
        parts = list(_read_in_pieces(model, text, generator))
        if [word for words, _ in parts for word in words] != whole.words:
            raise ParityBroken("a text in pieces has other words than the same text at once")
        at_once.append(whole.probabilities)
        in_pieces += [probabilities for _, probabilities in parts]
    return compare(np.concatenate(at_once), np.concatenate(in_pieces))


def _read_in_pieces(
    model: Model, text: str, generator: random.Random
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    state, start = begin(model), 0
    while start < len(text):
        end = start + generator.randint(1, LONGEST_PIECE)
        reading = read(model, state, text[start:end], final=end >= len(text))
        yield reading.words, reading.probabilities
        state, start = reading.state, end


def _size_grid(model: Model, arrays: Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    preprocessing = module(model.card.kind, "items.preprocessing")
    lengths: tuple[int | None, ...] = (None,)
    if 1 in preprocessing.DYNAMIC:  # inputs differ in length
        (blank,) = preprocessing.blank_batch(model.card.preprocessing)
        longest = len(blank)
        # With a state a longer text is read in several runs.
        lengths = (*LENGTHS, longest, *((longest + 1, 3 * longest) if model.state_size else ()))
        arrays = [*arrays, blank]
    for length in lengths:
        for size in BATCH_SIZES:
            yield _cut_batch(arrays, size, length)


def _combine(agreements: Iterable[Agreement]) -> Agreement:
    parts = list(agreements)
    return Agreement(
        max_difference=max(part.max_difference for part in parts),
        class_flips=sum(part.class_flips for part in parts),
        n=sum(part.n for part in parts),
    )


def _cut_batch(arrays: Sequence[NDArray[Any]], size: int, length: int | None) -> NDArray[Any]:
    if length is None:
        return np.stack([arrays[index % len(arrays)] for index in range(size)])
    stream = np.concatenate([arrays[index % len(arrays)] for index in range(size * length)][: size * length])
    return stream[: size * length].reshape(size, length).astype(np.int64)
