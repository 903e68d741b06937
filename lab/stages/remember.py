"""Nothing but params -> over which distances a reader remembers, and how its gradient fades. Argument: reader."""

import sys
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from convoy.core import atomic, stage
from convoy.core.params import read_section
from lab import memory
from lab.layout import PARAMS, Reader, remembered
from lab.learning import costs, measuring
from lab.memory import MemoryParams


def main(reader: Reader) -> None:
    """A training per distance and seed; the gradient of an untrained network, and of one that has learnt all it can."""
    params = read_section(MemoryParams, "memory", path=PARAMS)
    measured = {seed: _measure(reader, params, seed) for seed in params.seeds}
    accuracies = np.array([measured[seed]["accuracy"] for seed in params.seeds])
    reaches = {
        seed: memory.reach(params.distances, row, params.solved)
        for seed, row in zip(params.seeds, accuracies.tolist(), strict=True)
    }
    network = memory.build(reader, params)
    tokens, _ = memory.draw(1, max(params.distances), params.noise_tokens, np.random.default_rng(0))
    report: dict[str, Any] = {
        "seeds": params.seeds,
        "weights": costs.count_weights(network),
        "multiply_adds_per_token": round(costs.count_answer(network, tokens) / tokens.shape[1]),
        "distances": params.distances,
        "per_seed": [measuring.rounded(row) for row in accuracies],
        "steps": [measured[seed]["steps"] for seed in params.seeds],
        "reach": list(reaches.values()),
        "gradient_at_start": [measuring.rounded(measured[seed]["at_start"]) for seed in params.seeds],
        "gradient_trained": [
            measuring.rounded(found["trained"]) if "trained" in found else None for found in measured.values()
        ],
    }
    if reader in params.dilations:
        report["receptive_field"] = memory.receptive_field(params.width, params.dilations[reader])
    atomic.write_json(remembered(reader), report)
    print(f"memory, {reader}: solved up to {report['reach']} tokens", flush=True)


def _measure(reader: Reader, params: MemoryParams, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    found: dict[str, Any] = {"accuracy": [], "steps": []}
    found["at_start"] = memory.gradient_norms(memory.build(reader, params), params, seed)
    shown = tqdm(params.distances, f"memory, {reader}, seed {seed}", unit="distance")
    for distance in shown:
        network = memory.build(reader, params)
        found["steps"].append(memory.train(network, params, distance, seed))
        found["accuracy"].append(float(memory.ask(network, params, distance, seed).mean()))
        if memory.reach(params.distances[: len(found["steps"])], found["accuracy"], params.solved) == distance:
            found["trained"] = memory.gradient_norms(network, params, seed)
    return found


if __name__ == "__main__":
    torch.set_flush_denormal(True)
    stage.run(main, *sys.argv[1:])
