"""An explainer on the rows of a split -> how much what it points at matters: deleted, against as much at random."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import t

from convoy.bundles.bundle import ImageExplanation
from convoy.bundles.explanation import Explained, Explainer, enlarge, word_contributions
from convoy.core.params import Section


class DeletionParams(Section):
    """Which share of an input is deleted, of how many rows, and the seed of both draws: of rows, and what is random."""

    share: float = Field(gt=0, lt=1)
    rows: int = Field(ge=2)
    seed: int


def measure_deletion(
    explainer: Explainer, arrays: list[NDArray[Any]], params: DeletionParams
) -> dict[str, float | int]:
    """Prepared inputs -> how far the probability of the predicted label falls (Samek et al. 2015, arXiv:1509.06321).

    Of an image pixels get the neutral colour, of a text words are taken out: the `share` that contributions point at
    most, and as many at random. Of an image those have the same shape, somewhere else: single pixels all over it, told
    as `fall_of_scattered`, are noise, which a network minds wherever it is. `difference` is the mean of pointed less
    random over rows, with its paired 95 % interval (Student's t). Texts of one word are left out; with fewer than 2
    rows there is nothing but `n`.
    """
    generator = np.random.default_rng(params.seed)
    usable = [index for index, array in enumerate(arrays) if len(array) > 1]
    rows = sorted(generator.permutation(usable)[: params.rows].tolist())
    if len(rows) < 2:
        return {"n": len(rows), "share": params.share}
    labels, before = [], []
    deleted: dict[str, list[NDArray[Any]]] = {}
    for row in rows:
        explained = explainer.explain(arrays[row])
        labels.append(int(explained.probabilities.argmax()))
        before.append(float(explained.probabilities[labels[-1]]))
        scores = _score(explainer, explained, labels[-1], arrays[row])
        count = min(max(1, round(params.share * len(scores))), len(scores) - 1)  # a text keeps a word
        most = np.argsort(-scores, kind="stable")[:count]
        for name, places in {"pointed": most, **_draw(most, arrays[row], generator)}.items():
            deleted.setdefault(name, []).append(_delete(explainer, arrays[row], places))
    chosen = np.arange(len(rows)), labels
    falls = {
        name: np.array(before) - explainer.model.probabilities(each)[chosen].astype(np.float64)
        for name, each in deleted.items()
    }
    return {
        "n": len(rows),
        "share": params.share,
        "probability": round(float(np.mean(before)), 6),
        **{f"fall_of_{name}": round(float(fall.mean()), 6) for name, fall in falls.items()},
        **_interval(falls["pointed"] - falls["random"]),
    }


def _score(explainer: Explainer, explained: Explained, label: int, array: NDArray[Any]) -> NDArray[Any]:
    """How much each pixel, or each word, speaks for the label."""
    contract = explainer.model.card.explanation
    assert contract is not None
    found = explained.contributions[label]
    if isinstance(contract, ImageExplanation):
        return enlarge(found, len(array)).ravel()
    return word_contributions(found, contract.widths)


def _draw(most: NDArray[np.int64], array: NDArray[Any], generator: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """As many places as `most`, at random."""
    if array.ndim == 1:
        return {"random": generator.choice(len(array), len(most), replace=False)}
    size = len(array)
    down, right = generator.integers(size, size=2)
    rows, columns = np.divmod(most, size)
    return {
        "random": (rows + down) % size * size + (columns + right) % size,
        "scattered": generator.choice(size * size, len(most), replace=False),
    }


def _delete(explainer: Explainer, array: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    contract = explainer.model.card.explanation
    if not isinstance(contract, ImageExplanation):
        return np.delete(array, places)
    deleted = array.copy()
    deleted.reshape(-1, deleted.shape[-1])[places] = contract.neutral
    return deleted


def _interval(differences: NDArray[np.float64]) -> dict[str, float]:
    mean, n = float(differences.mean()), len(differences)
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return {"difference": round(mean, 6), "low": round(mean - half, 6), "high": round(mean + half, 6)}
