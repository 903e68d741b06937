"""Networks of several seeds and changed inputs -> what is written down: accuracies per seed, drops with intervals."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from lab.learning import costs
from lab.learning.estimates import estimate
from lab.learning.training import Items, Trained, right

Right = NDArray[np.bool_]  # (seeds, items)
BATCHED = 32  # inputs of a batch whose seconds are measured


def answers(trained: Sequence[Trained], dataset: Items) -> Right:
    """Whether the network of each seed has each item right."""
    return np.stack([right(each.network, dataset) for each in trained])


def accuracy(found: Right) -> dict[str, Any]:
    """The mean over seeds and items with its interval, the accuracy of each seed, and every answer as a bit."""
    return {
        **estimate(found).to_json(),
        "per_seed": rounded(found.mean(axis=1)),
        "right": [np.packbits(row).tobytes().hex() for row in found],
        "items": found.shape[1],
    }


def unpack(content: dict[str, Any]) -> Right:
    """The answers that `accuracy` wrote down."""
    rows = [np.frombuffer(bytes.fromhex(row), np.uint8) for row in content["right"]]
    return np.stack([np.unpackbits(row, count=content["items"]).astype(bool) for row in rows])


def curve(intact: Right, points: Iterable[tuple[float, Right]], name: str = "drop") -> dict[str, list[Any]]:
    """Of each point its x, the accuracy of each seed, and how much of the intact one is lost."""
    found: dict[str, list[Any]] = {"x": [], "per_seed": [], name: []}
    for x, rights in points:
        found["x"].append(x)
        found["per_seed"].append(rounded(rights.mean(axis=1)))
        found[name].append(estimate(intact.astype(float) - rights).to_json())
    return found


def effects(points: Iterable[tuple[float, NDArray[np.float64]]]) -> dict[str, list[Any]]:
    """Of each point its x, the mean of each seed, and the estimate, of values (seeds, items)."""
    found: dict[str, list[Any]] = {"x": [], "per_seed": [], "effect": []}
    for x, values in points:
        found["x"].append(x)
        found["per_seed"].append(rounded(values.mean(axis=1)))
        found["effect"].append(estimate(values).to_json())
    return found


def cost(trained: Sequence[Trained], one: Tensor, training: Tensor) -> dict[str, Any]:
    """What a family costs: `one` input alone, and a `training` batch of such inputs."""
    network = trained[0].network
    batch = one.expand(BATCHED, *one.shape[1:]).contiguous()
    return {
        "weights": costs.count_weights(network),
        "multiply_adds": costs.count_answer(network, one),
        "multiply_adds_of_step": costs.count_step(network, training),
        "multiply_adds_of_training": trained[0].spent.multiply_adds,
        "steps": trained[0].spent.steps,
        "epochs": round(trained[0].spent.epochs, 2),
        "training_s": [round(each.spent.seconds, 1) for each in trained],
        "alone_ms": round(1000 * costs.measure_seconds(network, one), 4),
        "batched_ms": round(1000 * costs.measure_seconds(network, batch) / BATCHED, 4),
    }


def losses(trained: Sequence[Trained], points: int = 50) -> dict[str, list[Any]]:
    """The loss over the training, from 0 to 1, of each seed: means of equal stretches."""
    count = min(points, *(each.spent.steps for each in trained))
    stretches = [np.array_split(np.array(each.spent.losses), count) for each in trained]
    means = np.array([[part.mean() for part in parts] for parts in stretches])
    return {"x": rounded(np.arange(1, count + 1) / count), "per_seed": [rounded(row) for row in means.T]}


def rounded(values: NDArray[Any]) -> list[float]:
    """Six digits, which is more than any figure here means."""
    return [float(f"{value:.6g}") for value in values]


def per_network(trained: Sequence[Trained], ask: Callable[[nn.Module], NDArray[np.float64]]) -> NDArray[np.float64]:
    """(seeds, items) of what each network is asked."""
    return np.stack([ask(each.network) for each in trained])
