"""The memory task is what it is said to be, and a causal CNN sees its receptive field and nothing else."""

import numpy as np
import pytest
import torch

from convoy.core.params import read_section
from lab import memory
from lab.layout import PARAMS, READERS, Reader
from lab.memory import MemoryParams

pytestmark = pytest.mark.torch


def params(**changes: object) -> MemoryParams:
    return read_section(MemoryParams, "memory", path=PARAMS).model_copy(update=changes)


def test_the_first_token_is_the_label_and_no_other_one_is_of_its_kind() -> None:
    tokens, labels = memory.draw(200, 7, noise_tokens=3, generator=np.random.default_rng(0))
    assert tokens.shape == (200, 8) and torch.equal(tokens[:, 0], labels)
    assert set(labels.tolist()) == {0, 1} and set(tokens[:, 1:].flatten().tolist()) == {2, 3, 4}


@pytest.mark.parametrize("width, dilations, field", [(3, [1, 2, 4, 8], 31), (2, [1], 2), (3, [], 1)])
def test_receptive_fields_add_up(width: int, dilations: list[int], field: int) -> None:
    assert memory.receptive_field(width, dilations) == field


def test_a_causal_cnn_sees_its_field_and_nothing_before_it() -> None:
    torch.manual_seed(0)
    network = memory.build("cnn-near", params()).eval()
    field = memory.receptive_field(params().width, params().dilations["cnn-near"])
    tokens, _ = memory.draw(1, 40, 8, np.random.default_rng(0))
    answer = network(tokens)
    seen = []
    for place in range(41):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 10
        if not torch.equal(network(other), answer):
            seen.append(place)
    assert seen == list(range(41 - field, 41))


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_answers(reader: Reader) -> None:
    network = memory.build(reader, params())
    tokens, _ = memory.draw(4, 6, params().noise_tokens, np.random.default_rng(0))
    assert network(tokens).shape == (4, 2)


def test_the_readers_with_a_state_cost_the_same() -> None:
    from lab.learning import costs

    tokens, _ = memory.draw(1, 99, params().noise_tokens, np.random.default_rng(0))
    found = [costs.count_answer(memory.build(reader, params()), tokens) for reader in ("lstm", "gru", "rnn")]
    assert max(found) < 1.05 * min(found)


def test_a_reach_ends_before_the_first_distance_that_is_not_solved() -> None:
    assert memory.reach([5, 10, 20], [1.0, 0.96, 0.5], 0.95) == 10
    assert memory.reach([5, 10, 20], [1.0, 0.5, 1.0], 0.95) == 5
    assert memory.reach([5, 10], [0.5, 1.0], 0.95) == 0


def test_the_gradient_of_a_causal_cnn_ends_with_its_field() -> None:
    torch.manual_seed(0)
    norms = memory.gradient_norms(memory.build("cnn-near", params()), params(gradient_steps=60), seed=0)
    assert norms[0] == 1 and (norms[1:31] > 0).all() and not norms[31:].any()


def test_who_looks_for_the_token_everywhere_learns_it_quickly_and_stops() -> None:
    torch.manual_seed(0)
    quick = params(learning_rate=0.02, ask=100)
    network = memory.build("cnn-max", quick)
    steps = memory.train(network, quick, 50, seed=0)
    assert steps < quick.steps and memory.ask(network, quick, 50, seed=0).all()
