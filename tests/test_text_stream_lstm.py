"""The network that carries its state: whole texts, words one by one, and any runs between give the same."""

import numpy as np
import pytest
import torch
from export_networks import network
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.kinds.text.items.preprocessing import LONGEST_RUN

pytestmark = pytest.mark.torch
NETWORK = network("text", "stream_lstm").eval()
tokens = st.lists(st.integers(1, 49), min_size=1, max_size=40).map(lambda ids: torch.tensor([ids]))


@settings(deadline=None)
@given(tokens)
@torch.inference_mode()
def test_after_each_word_it_says_what_the_text_up_to_it_gives(ids: torch.Tensor) -> None:
    logits, _ = NETWORK.step(ids, NETWORK.begin(1))
    expected = torch.cat([NETWORK(ids[:, : end + 1]) for end in range(ids.shape[1])])
    torch.testing.assert_close(logits[0], expected, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(tokens, st.data())
@torch.inference_mode()
def test_any_division_gives_the_same_logits_and_the_same_state(ids: torch.Tensor, data: st.DataObject) -> None:
    whole, end_state = NETWORK.step(ids, NETWORK.begin(1))
    carried, found = NETWORK.begin(1), []
    while ids.shape[1]:
        length = data.draw(st.integers(1, ids.shape[1]))
        logits, carried = NETWORK.step(ids[:, :length], carried)
        found.append(logits)
        ids = ids[:, length:]
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(carried, end_state, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_the_longest_run_still_knows_its_first_word() -> None:
    ids = torch.randint(1, 50, (2, LONGEST_RUN), generator=torch.Generator().manual_seed(0))
    logits, _ = NETWORK.step(ids, NETWORK.begin(2))
    torch.testing.assert_close(logits[:, -1], NETWORK(ids), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_padding_changes_no_answer() -> None:
    ids = torch.randint(1, 50, (1, 9), generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(ids, (0, 5), value=0)
    torch.testing.assert_close(NETWORK(padded), NETWORK(ids), atol=1e-6, rtol=0)
    logits, _ = NETWORK.step(padded, NETWORK.begin(1))
    torch.testing.assert_close(logits[:, 8:], NETWORK(ids).expand(1, 6, 2), atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5))
def test_what_is_carried_begins_with_nothing_and_counts_the_words(streams: int) -> None:
    assert not NETWORK.begin(streams).any()
    _, carried = NETWORK.step(torch.ones(streams, 7, dtype=torch.int64), NETWORK.begin(streams))
    np.testing.assert_array_equal(carried[:, -1].detach().numpy(), np.full(streams, 7.0))


def test_it_learns_from_whole_texts() -> None:
    torch.manual_seed(0)
    learner = network("text", "stream_lstm").eval()  # without dropout, which hides half of so small a network
    optimizer = torch.optim.Adam(learner.parameters(), 0.02)
    ids = torch.randint(1, 50, (64, 12))
    labels = (ids == 7).any(dim=1).long()
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(learner(ids), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
