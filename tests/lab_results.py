"""Made-up results of the laboratory, whose verdicts are known before."""

from typing import Any

import numpy as np

from lab.layout import FAMILIES, READERS, SIZED, Family
from lab.learning import measuring
from lab.learning.training import Spent, Trained
from lab.report.results import Results

SEEDS, ITEMS = 3, 2000
DISTANCES = [5, 50, 500]
SPACE = {"shift": [0, 3], "hide": [0, 8]}
ORDER = {"shuffle": [1, 5, 0], "front": [10, 50], "back": [10, 50]}
EFFECTS = {"phrase": [0.0, 0.5, 1.0], "negation": [0, 10], "contrast": [0, 10], "length": [40, 300]}


def right(accuracy: float) -> measuring.Right:
    """(seeds, items), so many of them right, the same ones wherever accuracies are compared."""
    rows = np.zeros((SEEDS, ITEMS), dtype=bool)
    for seed, row in enumerate(rows):
        row[: round(ITEMS * accuracy) + seed - 1] = True
    return rows


def learnt(accuracy: float, probes: dict[str, list[float]]) -> dict[str, Any]:
    """A family's file: its accuracy, and of each probe the accuracies, or the effects, at each of its points."""
    intact = right(accuracy)
    found = {
        "seeds": list(range(SEEDS)),
        "asked": ITEMS,
        "learnt_from": 12000,
        "chance": 0.1,
        "accuracy": measuring.accuracy(intact),
        "cost": {
            "weights": 20_000,
            "multiply_adds": 1_000_000,
            "multiply_adds_of_training": 2e11,
            "epochs": 3.5,
            "training_s": [10.0, 11.0, 12.0],
            "alone_ms": 0.5,
            "batched_ms": 0.05,
        },
        "loss": {"x": [0.5, 1.0], "per_seed": [[1.0, 1.1, 0.9], [0.5, 0.6, 0.4]]},
    }
    for name, values in probes.items():
        x = {**SPACE, **ORDER, **EFFECTS}[name]
        if name in EFFECTS:
            noise = np.random.default_rng(0).normal(0, 0.01, (SEEDS, ITEMS))
            found[name] = measuring.effects(zip(x, (value + noise for value in values), strict=True))
        else:
            found[name] = measuring.curve(intact, zip(x, map(right, values), strict=True))
    return found


def results(
    image: dict[Family, float],
    permuted: dict[Family, float],
    text: dict[Family, float],
    probes: dict[str, dict[str, list[float]]],
    reach: dict[str, int],
    gradients: dict[str, float],
    sizes: dict[str, list[float]],
) -> Results:
    """All of it; `probes` are by name and family, with `else` for those that are not named."""

    def of(names: dict[str, list[Any]], family: Family) -> dict[str, list[float]]:
        return {name: probes[name].get(family, probes[name]["else"]) for name in names}

    return Results(
        image={family: learnt(image[family], of(SPACE, family)) for family in FAMILIES},
        text={family: learnt(text[family], of({**ORDER, **EFFECTS}, family)) for family in FAMILIES},
        permuted={family: {"accuracy": measuring.accuracy(right(permuted[family]))} for family in FAMILIES},
        sizes={
            family: {
                "sizes": [
                    {"weights": 10 ** (2 + place), "per_seed": [accuracy] * SEEDS}
                    for place, accuracy in enumerate(sizes[family])
                ]
            }
            for family in SIZED
        },
        memory={
            reader: {
                "seeds": list(range(SEEDS)),
                "weights": 5000,
                "multiply_adds_per_token": 5200,
                "distances": DISTANCES,
                "per_seed": [[1.0 if distance <= reach[reader] else 0.5 for distance in DISTANCES]] * SEEDS,
                "steps": [[100] * len(DISTANCES)] * SEEDS,
                "reach": [reach[reader]] * SEEDS,
                "gradient_at_start": [[gradients.get(reader, 0.9) ** back for back in range(201)]] * SEEDS,
                "gradient_trained": [[gradients.get(reader, 0.9) ** back for back in range(201)]] * SEEDS,
                "receptive_field": {"cnn-near": 31, "cnn-far": 511}.get(reader, 1),
            }
            for reader in READERS
        },
    )


def as_people_say() -> Results:
    """Everything that is claimed is so."""
    return results(
        image={"cnn": 0.9, "lstm": 0.85, "gru": 0.84, "rnn": 0.8, "mlp": 0.84, "linear": 0.8},
        permuted={"cnn": 0.7, "lstm": 0.83, "gru": 0.82, "rnn": 0.78, "mlp": 0.84, "linear": 0.8},
        text={"cnn": 0.86, "lstm": 0.92, "gru": 0.9, "rnn": 0.7, "mlp": 0.8, "linear": 0.87},
        probes={
            "shift": {"cnn": [0.9, 0.895], "else": [0.84, 0.5]},
            "hide": {"cnn": [0.9, 0.8], "else": [0.84, 0.6]},
            "shuffle": {
                "lstm": [0.92, 0.86, 0.75],
                "cnn": [0.86, 0.8, 0.8],
                "linear": [0.87, 0.87, 0.87],
                "else": [0.8, 0.7, 0.7],
            },
            "front": {"linear": [0.6, 0.7], "else": [0.5, 0.6]},
            "back": {"linear": [0.65, 0.75], "else": [0.7, 0.85]},
            "phrase": {"cnn": [0.3, 0.3, 0.3], "else": [0.05, 0.1, 0.4]},
            "negation": {"else": [1.0, 1.0]},
            "contrast": {"else": [1.0, 1.0]},
            "length": {"cnn": [0.86, 0.86], "else": [0.9, 0.7]},
        },
        reach={"lstm": 500, "gru": 500, "rnn": 5, "cnn-near": 5, "cnn-far": 500, "cnn-max": 500},
        gradients={"lstm": 0.99, "rnn": 0.8},
        sizes={"cnn": [0.6, 0.85], "mlp": [0.5, 0.6]},
    )


def the_other_way_round() -> Results:
    """Nothing that is claimed is so."""
    return results(
        image={"cnn": 0.7, "lstm": 0.85, "gru": 0.84, "rnn": 0.8, "mlp": 0.84, "linear": 0.8},
        permuted={"cnn": 0.7, "lstm": 0.5, "gru": 0.82, "rnn": 0.78, "mlp": 0.6, "linear": 0.8},
        text={"cnn": 0.92, "lstm": 0.7, "gru": 0.68, "rnn": 0.6, "mlp": 0.9, "linear": 0.9},
        probes={
            "shift": {"cnn": [0.7, 0.3], "else": [0.84, 0.8]},
            "hide": {"cnn": [0.7, 0.3], "else": [0.84, 0.8]},
            "shuffle": {
                "lstm": [0.7, 0.7, 0.7],
                "cnn": [0.92, 0.92, 0.92],
                "linear": [0.9, 0.8, 0.6],
                "else": [0.8, 0.7, 0.7],
            },
            "front": {"linear": [0.7, 0.8], "else": [0.6, 0.69]},
            "back": {"linear": [0.6, 0.7], "else": [0.4, 0.5]},
            "phrase": {"cnn": [0.1, 0.3, 0.5], "else": [0.4, 0.2, 0.1]},
            "negation": {"else": [0.0, 0.0]},
            "contrast": {"else": [0.0, 0.0]},
            "length": {"cnn": [0.9, 0.6], "else": [0.7, 0.7]},
        },
        reach={"lstm": 5, "gru": 5, "rnn": 500, "cnn-near": 500, "cnn-far": 5, "cnn-max": 50},
        gradients={"lstm": 0.8, "rnn": 0.99},
        sizes={"cnn": [0.3, 0.35], "mlp": [0.83, 0.84]},
    )


def trained(losses: list[list[float]]) -> list[Trained]:
    """Trainings of which nothing but the losses is real."""
    from torch import nn

    return [Trained(nn.Linear(1, 1), Spent(len(row), 1.0, 1.0, 1.0, row)) for row in losses]
