"""Elman, GRU, feed-forward and n-gram networks: shapes, independence of neighbours, exact sums, counts by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from export_networks import network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convoy.kinds.image.networks import mlp
from convoy.kinds.learning.class_activation import PlaceNetwork
from convoy.kinds.learning.recurrence import ElmanLayer
from convoy.kinds.text.networks import ngrams

pytestmark = pytest.mark.torch
NEW = [("image", "gru"), ("image", "rnn"), ("image", "mlp"), ("text", "gru"), ("text", "rnn"), ("text", "ngrams")]
TEXTS = [name for kind, name in NEW if kind == "text"]
BUILT = {names: network(*names).eval() for names in NEW}
EACH = pytest.mark.parametrize("names", NEW, ids="-".join)
token_lists = st.lists(st.integers(1, 49), min_size=1, max_size=30)


def draw(kind: str, count: int, length: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    if kind == "image":
        return torch.randint(0, 256, (count, 28, 28, 1), dtype=torch.uint8, generator=generator)
    return torch.randint(1, 50, (count, length), generator=generator)


@EACH
@torch.inference_mode()
def test_each_answers_a_number_for_each_label(names: tuple[str, str]) -> None:
    labels = 3 if names[0] == "image" else 2
    for count in (1, 2, 7):
        found = BUILT[names](draw(names[0], count))
        assert found.shape == (count, labels) and found.dtype == torch.float32 and found.isfinite().all()


@EACH
@torch.inference_mode()
def test_an_input_alone_and_in_a_batch_gets_the_same_answer(names: tuple[str, str]) -> None:
    inputs = draw(names[0], 8)
    together = BUILT[names](inputs)
    for one, row in zip(inputs, together, strict=True):
        assert torch.allclose(BUILT[names](one[None])[0], row, atol=1e-5)


@pytest.mark.parametrize("name", TEXTS)
@given(texts=st.lists(token_lists, min_size=1, max_size=5), padding=st.integers(0, 20))
@settings(deadline=None, max_examples=30)
@torch.inference_mode()
def test_padding_changes_no_answer(name: str, texts: list[list[int]], padding: int) -> None:
    longest = max(map(len, texts)) + padding
    together = BUILT["text", name](torch.tensor([text + [0] * (longest - len(text)) for text in texts]))
    for text, row in zip(texts, together, strict=True):
        assert torch.allclose(BUILT["text", name](torch.tensor([text]))[0], row, atol=1e-5)


@EACH
def test_dropout_hides_something_in_training_only(names: tuple[str, str]) -> None:
    built, inputs = copy.deepcopy(BUILT[names]), draw(names[0], 4)
    assert torch.equal(built(inputs), built(inputs))
    built.train()
    assert not torch.equal(built(inputs), built(inputs))
    built.eval()
    assert torch.equal(built(inputs), built(inputs))


@pytest.mark.parametrize("names", [names for names in NEW if names[1] != "mlp"], ids="-".join)
@torch.inference_mode()
def test_bias_and_contributions_are_the_logits(names: tuple[str, str]) -> None:
    built, inputs = BUILT[names], draw(names[0], 5)
    assert isinstance(built, PlaceNetwork)
    found = built.contributions(inputs)
    rows, columns = {"image": (28, 1), "text": (len(built.widths), 12)}[names[0]]
    assert found.shape == (5, len(built.bias()), rows, columns)
    assert torch.allclose(found.sum(dim=(2, 3)) + built.bias(), built(inputs), atol=1e-4)


def test_a_feed_forward_network_is_no_sum_over_places() -> None:
    assert not isinstance(BUILT["image", "mlp"], PlaceNetwork)


# --- an Elman layer


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
@torch.inference_mode()
def test_in_eval_mode_it_is_torchs_own_recurrent_layer(bidirectional: bool, with_state: bool) -> None:
    torch.manual_seed(0)
    ours = ElmanLayer(7, 5, batch_first=True, bidirectional=bidirectional)
    theirs = nn.RNN(7, 5, batch_first=True, bidirectional=bidirectional)
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(4, 60, 7) * 3
    initial = torch.randn(2 if bidirectional else 1, 4, 5) if with_state else None
    states, last = ours.eval()(inputs, initial)
    expected, expected_last = theirs.eval()(inputs, initial)
    torch.testing.assert_close(states, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(last, expected_last, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_in_training_it_is_the_same_layer() -> None:
    torch.manual_seed(1)
    layer, inputs = ElmanLayer(3, 4, batch_first=True, bidirectional=True), torch.randn(2, 9, 3)
    states, last = layer.train()(inputs)
    again, last_again = layer.eval()(inputs)
    torch.testing.assert_close(states, again, atol=1e-6, rtol=0)
    torch.testing.assert_close(last, last_again, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_it_is_its_formula() -> None:
    torch.manual_seed(2)
    layer, inputs = ElmanLayer(3, 4, batch_first=True).eval(), torch.randn(1, 5, 3)
    weights = dict(layer.named_parameters())
    state = torch.zeros(4)
    for step, found in zip(inputs[0], layer(inputs)[0][0], strict=True):
        added = weights["weight_ih_l0"] @ step + weights["bias_ih_l0"]
        state = torch.tanh(added + weights["weight_hh_l0"] @ state + weights["bias_hh_l0"])
        torch.testing.assert_close(found, state, atol=1e-6, rtol=0)


def test_its_weights_learn() -> None:
    layer = ElmanLayer(3, 4, batch_first=True).train()
    layer(torch.randn(2, 6, 3))[0].sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in layer.parameters())


# --- a feed-forward network


@torch.inference_mode()
def test_it_knows_nothing_of_space() -> None:
    """The same pixels in another order are learnt as well: permuted weights give the same answers."""
    torch.manual_seed(3)
    built = mlp.Network(mlp.NetworkParams(hidden=(6,), dropout=0.0), channels=1, size_px=5, labels=2).eval()
    order, images = torch.randperm(25), torch.randint(0, 256, (3, 5, 5, 1), dtype=torch.uint8)
    shuffled, first = copy.deepcopy(built), built.hidden[0]
    assert isinstance(first, nn.Linear) and isinstance(shuffled.hidden[0], nn.Linear)
    shuffled.hidden[0].weight.copy_(first.weight[:, order])
    moved = images.reshape(3, 25)[:, order].reshape(3, 5, 5, 1)
    torch.testing.assert_close(shuffled(moved), built(images), atol=1e-5, rtol=0)


def test_without_hidden_layers_it_is_linear() -> None:
    linear = mlp.Network(mlp.NetworkParams(hidden=(), dropout=0.0), channels=3, size_px=4, labels=5)
    assert [weight.shape for weight in linear.parameters()] == [(5, 48), (5,)]


# --- n-grams


def n_grams(places: int = 11, dropout: float = 0.0, labels: int = 2, vocabulary: int = 6) -> ngrams.Network:
    params = ngrams.NetworkParams(places=places, smoothing=1.0, dropout=dropout)
    return ngrams.Network(params, vocabulary=vocabulary, pad_id=0, labels=labels)


def test_words_and_pairs_are_counted_as_by_hand() -> None:
    """Label 0 has the text `2 3 2`, label 1 the text `3 4`; of 6 words a pair (a, b) has the place (6 a + b) % 11."""
    built = n_grams()
    built.pretrain([np.array([2, 3, 2], np.int32), np.array([3, 4], np.int32)], np.array([0, 1]), 0)
    counts = np.zeros((18, 2))
    counts[2] = 2, 0
    counts[3] = 1, 1
    counts[4] = 0, 1
    counts[6 + (6 * 2 + 3) % 11, 0] += 1
    counts[6 + (6 * 3 + 2) % 11, 0] += 1
    counts[6 + (6 * 3 + 4) % 11, 1] += 1
    own, other = counts + 1, counts[:, ::-1] + 1
    expected = np.log(own / own.sum(axis=0)) - np.log(other / other.sum(axis=0))
    expected[17] = 0  # the row of padding; the 17 others count for the sums, and so does it
    np.testing.assert_allclose(built.ratio.numpy(), expected, atol=1e-6)
    assert np.allclose(built.weight.detach().numpy(), (8 / 2) ** -0.5), "2 texts have 8 n-grams"
    assert not built.offset.any()


def test_before_any_training_it_is_naive_bayes_and_right() -> None:
    texts = [np.array(words, np.int32) for words in ([2, 3], [2, 4], [5, 3], [5, 4])]
    built = n_grams()
    built.pretrain(texts, np.array([0, 0, 1, 1]), 0)
    logits = built.eval()(torch.from_numpy(np.stack(texts)).long())
    assert logits.argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert torch.allclose(logits.sum(dim=1), torch.zeros(4), atol=1e-5), "two labels are each other's opposite"


def test_a_pair_tells_what_its_words_alone_do_not() -> None:
    """`2 3` and `3 2` have the same words."""
    texts = [np.array([2, 3], np.int32), np.array([3, 2], np.int32)]
    built = n_grams()
    built.pretrain(texts, np.array([0, 1]), 0)
    assert built.eval()(torch.tensor([[2, 3], [3, 2]])).argmax(dim=1).tolist() == [0, 1]


def trained(dropout: float = 0.0) -> ngrams.Network:
    torch.manual_seed(4)
    built = n_grams(97, dropout, labels=3, vocabulary=50)
    generator = np.random.default_rng(0)
    texts = [generator.integers(1, 50, 20).astype(np.int32) for _ in range(30)]
    built.pretrain(texts, np.arange(30) % 3, 0)
    nn.init.normal_(built.weight)
    nn.init.normal_(built.offset)
    return built


@torch.no_grad()
def test_the_table_of_eval_mode_is_the_formula_of_training() -> None:
    built, tokens = trained(), draw("text", 6)
    learning = built.train()(tokens)
    torch.testing.assert_close(built.eval()(tokens), learning, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_table_follows_the_weights_at_each_change_to_eval_mode() -> None:
    built, tokens = trained(), draw("text", 6)
    before = built.eval()(tokens)
    built.train()
    built.weight.mul_(2)
    after = built.eval()(tokens)
    torch.testing.assert_close(after - built.offset, 2 * (before - built.offset), atol=1e-4, rtol=1e-5)
    other = n_grams(97, labels=3, vocabulary=50)
    other.load_state_dict(built.state_dict())
    torch.testing.assert_close(other.eval()(tokens), after, atol=1e-6, rtol=0)


@torch.no_grad()
def test_dropout_keeps_the_mean() -> None:
    built, tokens = trained(dropout=0.5), draw("text", 1)
    expected = built.eval()(tokens) - built.offset
    built.train()
    found = torch.stack([built(tokens) for _ in range(3000)]).mean(dim=0) - built.offset
    assert (found - expected).abs().max() < 0.1 * float(expected.abs().max()) + 0.3


@torch.inference_mode()
def test_a_place_adds_where_it_stands() -> None:
    built, text = trained().eval(), torch.tensor([[7, 8, 9, 0]])
    found = built.contributions(text)[0]
    assert found.shape == (3, 2, 4) and built.widths == (1, 2)
    torch.testing.assert_close(found[:, 0, :3], built.table[[7, 8, 9]].T)
    pairs = [50 + (7 * 50 + 8) % 97, 50 + (8 * 50 + 9) % 97]
    torch.testing.assert_close(found[:, 1, :2], built.table[pairs].T)
    assert not found[:, 0, 3].any() and not found[:, 1, 2:].any(), "the last word begins no pair"


def test_padding_learns_nothing() -> None:
    built, tokens = trained(dropout=0.3), torch.tensor([[5, 6, 0, 0], [7, 0, 0, 0]])
    nn.functional.cross_entropy(built.train()(tokens), torch.tensor([0, 1])).backward()
    gradient: Any = built.weight.grad
    assert not gradient[-1].any() and gradient[7].any()
