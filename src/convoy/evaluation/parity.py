"""The proof that torch and ONNX Runtime say the same, and that an answer does not depend on the rest of the batch."""

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
from convoy.kinds.image.preprocessing import ImagePreprocessing

BATCHES = (1, 2, 3, 7, 32)
LENGTHS = (1, 2, 3, 5, 17, 64)  # and the longest that the model is given at once
LONGEST_PIECE = 40  # characters


class ParityBroken(RuntimeError):
    """Two ways to the same probabilities differ by more than is allowed."""


@dataclass(frozen=True)
class Agreement:
    """How far two sets of probabilities are apart, over n inputs."""

    max_difference: float
    class_flips: int
    n: int


def compare(one: NDArray[Any], other: NDArray[Any]) -> Agreement:
    """Compare probabilities (n, labels)."""
    return Agreement(
        max_difference=float(np.abs(one - other).max()),
        class_flips=int((one.argmax(axis=1) != other.argmax(axis=1)).sum()),
        n=len(one),
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

    `network` gives probabilities. Texts of nothing but unknown words are in it too.
    """
    return _together(
        compare(network(torch.from_numpy(batch)).numpy(), model.run(batch)) for batch in _grid(model, arrays)
    )


@torch.inference_mode()
def compare_explanations(
    network: nn.Module, explainer: Explainer, arrays: Sequence[NDArray[Any]]
) -> tuple[Agreement, float]:
    """What explanation.onnx sums up against what model.onnx says, on the same grid; and torch against it.

    `network` gives contributions and logits as that graph does. The second figure is the mean difference of their
    contributions: a single one may be far off where two places have nearly the same maximum.
    """
    agreements, differences = [], []
    for batch in _grid(explainer.model, arrays):
        contributions, logits = explainer.run(batch)
        agreements.append(compare(explainer.model.run(batch), softmax(logits)))
        ours, _ = network(torch.from_numpy(batch))
        differences.append(float(np.abs(ours.numpy() - contributions).mean()))
    return _together(agreements), float(np.max(differences))


def compare_batches(model: Model, arrays: Sequence[NDArray[Any]]) -> Agreement:
    """Each input alone against the same input among 31 others, padded to the longest of them."""
    together = [
        model.run(model.preprocessor.collate(list(arrays[start : start + 32]))) for start in range(0, len(arrays), 32)
    ]
    alone = [model.run(model.preprocessor.collate([array])) for array in arrays]
    return compare(np.concatenate(alone), np.concatenate(together))


def compare_pieces(model: Model, texts: Sequence[str], seed: int = 0) -> Agreement:
    """Each text at once against the same text cut anywhere, within words too: the probabilities after every word.

    Only of a model that carries a state. Raises ParityBroken where the pieces have other words.
    """
    drawn = random.Random(seed)
    at_once, in_pieces = [], []
    for text in texts:
        whole = read(model, begin(model), text, final=True)
        parts = list(_read_in_pieces(model, text, drawn))
        if [word for words, _ in parts for word in words] != whole.words:
            raise ParityBroken("a text in pieces has other words than the same text at once")
        at_once.append(whole.probabilities)
        in_pieces += [probabilities for _, probabilities in parts]
    return compare(np.concatenate(at_once), np.concatenate(in_pieces))


def _read_in_pieces(model: Model, text: str, drawn: random.Random) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    state, start = begin(model), 0
    while start < len(text):
        end = start + drawn.randint(1, LONGEST_PIECE)
        reading = read(model, state, text[start:end], final=end >= len(text))
        yield reading.words, reading.probabilities
        state, start = reading.state, end


def _grid(model: Model, arrays: Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    contract = model.card.preprocessing
    lengths: tuple[int | None, ...] = (None,)
    if not isinstance(contract, ImagePreprocessing):
        longest = contract.longest_run
        # With a state a longer text is read in several runs.
        lengths = (*LENGTHS, longest, *((longest + 1, 3 * longest) if model.state_size else ()))
        arrays = [*arrays, np.full(longest, contract.unknown_id)]
    for length in lengths:
        for size in BATCHES:
            yield _cut(arrays, size, length)


def _together(agreements: Iterable[Agreement]) -> Agreement:
    found = list(agreements)
    return Agreement(
        max_difference=max(agreement.max_difference for agreement in found),
        class_flips=sum(agreement.class_flips for agreement in found),
        n=sum(agreement.n for agreement in found),
    )


def _cut(arrays: Sequence[NDArray[Any]], size: int, length: int | None) -> NDArray[Any]:
    if length is None:
        return np.stack([arrays[index % len(arrays)] for index in range(size)])
    stream = np.concatenate([arrays[index % len(arrays)] for index in range(size * length)][: size * length])
    return stream[: size * length].reshape(size, length).astype(np.int64)
