"""An explainer and rows of a split -> how far probabilities fall as its places are deleted, against random places."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import t

from convoy.bundles.explanation import Explainer
from convoy.core.params import Section
from convoy.kinds.registry import module


class DeletionParams(Section):
    """Which share of an input is deleted, of how many rows, and the seed of both draws: of rows, of random places."""

    share: float = Field(gt=0, lt=1)
    rows: int = Field(ge=2)
    seed: int


def measure_deletion(
    explainer: Explainer, arrays: list[NDArray[Any]], params: DeletionParams
) -> dict[str, float | int]:
    """Prepared inputs -> how far the probability of the predicted label falls (Samek et al. 2015, arXiv:1509.06321).

    Pixels of an image get the neutral colour, words of a text are removed: the `share` with the highest contributions,
    and as many at random. The random pixels of an image have the same shape, shifted. Single pixels all over it,
    reported as `fall_of_scattered`, are noise, which lowers a network's probability wherever it is. `difference` is
    the mean of pointed less random over rows, with its paired 95 % interval (Student's t). Texts of one word are left
    out; with fewer than 2 rows there is only `n` and `share`.
    """
    generator = np.random.default_rng(params.seed)
    usable = [index for index, array in enumerate(arrays) if len(array) > 1]
    rows = sorted(generator.permutation(usable)[: params.rows].tolist())
    if len(rows) < 2:
        return {"n": len(rows), "share": params.share}
    card = explainer.model.card
    contract, explanation = card.explanation, module(card.kind, "explanation")
    labels, before = [], []
    deleted: dict[str, list[NDArray[Any]]] = {}
    for row in rows:
        explained = explainer.explain(arrays[row])
        labels.append(int(explained.probabilities.argmax()))
        before.append(float(explained.probabilities[labels[-1]]))
        scores = explanation.place_scores(contract, explained.contributions[labels[-1]], arrays[row])
        count = min(max(1, round(params.share * len(scores))), len(scores) - 1)  # a text keeps a word
        pointed = np.argsort(-scores, kind="stable")[:count]
        for name, places in {"pointed": pointed, **explanation.random_places(pointed, arrays[row], generator)}.items():
            deleted.setdefault(name, []).append(explanation.delete_places(contract, arrays[row], places))
    predicted = np.arange(len(rows)), labels
    falls = {
        name: np.array(before) - explainer.model.probabilities(inputs)[predicted].astype(np.float64)
        for name, inputs in deleted.items()
    }
    return {
        "n": len(rows),
        "share": params.share,
        "probability": round(float(np.mean(before)), 6),
        **{f"fall_of_{name}": round(float(fall.mean()), 6) for name, fall in falls.items()},
        **_mean_with_interval(falls["pointed"] - falls["random"]),
    }


def _mean_with_interval(differences: NDArray[np.float64]) -> dict[str, float]:
    mean, n = float(differences.mean()), len(differences)
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    return {"difference": round(mean, 6), "low": round(mean - half, 6), "high": round(mean + half, 6)}
