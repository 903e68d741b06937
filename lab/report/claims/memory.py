"""What is said of networks and memory -> verdicts, by the task whose label one token far back decides."""

import math
from collections.abc import Iterator

import numpy as np

from lab.layout import Reader
from lab.learning.estimates import Estimate, estimate
from lab.memory import MemoryParams
from lab.report.results import LEAST_GRADIENT, NAMES, Results
from lab.report.verdicts import Verdict, above, all_of

MEMORY = (
    "Memory: the LSTM begins with a forget bias of 1, which keeps 73 % of a cell per token, so that it forgets within "
    "some tokens until it learns otherwise; and the first distance that is not solved ends the count, whatever lies "
    "beyond it."
)


def of_reach(results: Results, params: MemoryParams) -> list[Verdict]:
    """Who still solves the task, and how far away."""
    reach = {reader: found["reach"] for reader, found in results.memory.items()}
    within, beyond = (_solved(results, params, inside) for inside in (True, False))
    return [
        *(
            Verdict(
                f"The {NAMES[gated]} remembers longer than the {NAMES['rnn']}",
                above(_doublings(reach[gated], reach["rnn"]), 0.0),
                f"up to {_spread(reach[gated])} tokens, the {NAMES['rnn']} up to {_spread(reach['rnn'])}",
                MEMORY,
            )
            for gated in ("lstm", "gru")
        ),
        *(
            Verdict(
                f"A CNN that answers from its last place {claim}",
                all_of(cases),
                ", ".join(
                    f"one of {results.memory[reader]['receptive_field']} tokens solves up to {_spread(reach[reader])}"
                    for reader in _causal(params)
                ),
            )
            for claim, cases in (
                ("remembers nothing beyond its receptive field", (not each for each in beyond)),
                ("remembers all of its receptive field", within),
            )
        ),
        Verdict(
            "A maximum over all places finds a token at any distance",
            all_of(far == max(params.distances) for far in reach["cnn-max"]),
            f"solved up to {_spread(reach['cnn-max'])} tokens",
        ),
    ]


def of_gradients(results: Results, params: MemoryParams, margin: float) -> list[Verdict]:
    """Whose gradient reaches back."""
    back = params.judged_gradient
    verdicts = []
    for when, name in (("before training", "gradient_at_start"), ("once trained", "gradient_trained")):
        rows = zip(results.memory["lstm"][name], results.memory["rnn"][name], strict=True)
        logs = [[math.log10(max(row[back], LEAST_GRADIENT)) for row in pair] for pair in rows if None not in pair]
        if not logs:
            continue
        factor = estimate(np.array([[lstm - rnn] for lstm, rnn in logs]))
        of_lstm, of_rnn = np.mean(logs, axis=0)
        verdicts.append(
            Verdict(
                f"The gradient of an Elman network fades faster than an LSTM's, {when}",
                above(factor, math.log10(margin)),
                f"{back} tokens back it is 10^{of_lstm:.1f} of the last token's for the LSTM and "
                f"10^{of_rnn:.1f} for the {NAMES['rnn']}",
            )
        )
    return verdicts


def _doublings(reach: list[int], other: list[int]) -> Estimate:
    """How many times twice as far, seed by seed; a task that is not solved at all counts as a distance of 1."""
    logs = [[math.log2(max(one, 1)) - math.log2(max(two, 1))] for one, two in zip(reach, other, strict=True)]
    return estimate(np.array(logs))


def _causal(params: MemoryParams) -> list[Reader]:
    return [reader for reader in ("cnn-near", "cnn-far") if reader in params.dilations]


def _solved(results: Results, params: MemoryParams, inside: bool) -> Iterator[bool]:
    """Of each distance whose deciding token can be seen (`inside`) or not, and each seed: whether it is solved."""
    for reader in _causal(params):
        found = results.memory[reader]
        for row in found["per_seed"]:
            for distance, accuracy in zip(found["distances"], row, strict=True):
                if (distance < found["receptive_field"]) == inside:
                    yield accuracy >= params.solved


def _spread(reach: list[int]) -> str:
    low, high = min(reach), max(reach)
    return f"{low}" if low == high else f"{low} to {high}"
