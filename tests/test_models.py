"""What each network must do by its construction: ignore padding, find patterns anywhere, read in order."""

import copy
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convoy.kinds.image.networks import cnn as image_cnn
from convoy.kinds.image.networks import lstm as image_lstm
from convoy.kinds.text.networks import cnn as text_cnn
from convoy.kinds.text.networks import lstm as text_lstm
from convoy.kinds.text.networks.layers.vectors import PairParams, PairVectors, WordVectors, learn_word_vectors

pytestmark = pytest.mark.torch

torch.manual_seed(0)
PAIRS = PairParams(places=97, min_count=1, dropout=0.5)
TEXT = {
    "cnn": text_cnn.Network(
        text_cnn.NetworkParams(embedding=12, filters=8, widths=(1, 2, 3), dropout=0.5, context_window=2),
        vocabulary=50,
        pad_id=0,
        labels=2,
    ).eval(),
    "lstm": text_lstm.Network(
        text_lstm.NetworkParams(
            embedding=12,
            units=8,
            dropout=0.5,
            adversarial=0.1,
            context_windows=(2, 3),
            pairs=PAIRS,
        ),
        vocabulary=50,
        pad_id=0,
        labels=2,
    ).eval(),
}
# Pairs that are known and have vectors, as after training.
for reader in TEXT["lstm"].members:
    reader.pairs.learn([np.arange(1, 50), np.arange(1, 50)[::-1]])
    nn.init.normal_(reader.pairs.embed.weight)
IMAGE = {
    "cnn": image_cnn.Network(
        image_cnn.NetworkParams(channels=(4, 8, 8), blocks=1, dropout=0.1, flip_averaging=False),
        channels=1,
        size_px=28,
        labels=10,
    ).eval(),
    "lstm": image_lstm.Network(
        image_lstm.NetworkParams(units=8, dropout=0.1), channels=1, size_px=28, labels=10
    ).eval(),
}
tokens = st.lists(st.integers(1, 49), min_size=1, max_size=30)


@pytest.mark.parametrize("architecture", ["cnn", "lstm"])
@given(texts=st.lists(tokens, min_size=1, max_size=6), padding=st.integers(0, 20))
@settings(deadline=None)
@torch.inference_mode()
def test_a_text_alone_and_padded_in_a_batch_gets_the_same_answer(
    architecture: str, texts: list[list[int]], padding: int
) -> None:
    network = TEXT[architecture]
    longest = max(map(len, texts)) + padding
    batch = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    together = network(batch).softmax(1)
    for text, row in zip(texts, together, strict=True):
        alone = network(torch.tensor([text])).softmax(1)[0]
        assert (alone - row).abs().max() <= 1e-5


@torch.inference_mode()
def test_a_plain_bidirectional_lstm_would_not_pass_that() -> None:
    plain = nn.LSTM(12, 8, bidirectional=True, batch_first=True)
    vectors = torch.randn(1, 5, 12)
    padded = torch.cat([vectors, torch.zeros(1, 20, 12)], dim=1)
    assert (plain(vectors)[0] - plain(padded)[0][:, :5]).abs().max() > 1e-3


def small_lstm(*context_windows: int, adversarial: float = 0.0) -> text_lstm.Network:
    params = text_lstm.NetworkParams(
        embedding=12,
        units=8,
        dropout=0.5,
        adversarial=adversarial,
        context_windows=context_windows,
        pairs=None,
    )
    return text_lstm.Network(params, vocabulary=50, pad_id=0, labels=2).eval()


@torch.inference_mode()
def test_the_backward_lstm_reads_the_text_reversed() -> None:
    network, swapped = small_lstm(2), small_lstm(2)
    swapped.load_state_dict(network.state_dict())
    (reader,), (mirrored,) = network.members, swapped.members
    mirrored.forwards, mirrored.backwards = reader.backwards, reader.forwards
    text = torch.tensor([[5, 6, 7, 8, 9]])
    halves = [weight.roll(8, 1) for weight in reader.classify.weight.split(16, dim=1)]
    mirrored.classify.weight = nn.Parameter(torch.cat(halves, dim=1))
    assert torch.allclose(network(text), swapped(text.flip(1)), atol=1e-6)
    assert not torch.allclose(network(text), network(text.flip(1)), atol=1e-4)


@given(texts=st.integers(1, 9), members=st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_members_learn_from_texts_of_their_own_and_answer_with_their_mean(texts: int, members: int) -> None:
    network = small_lstm(*[2] * members)
    words = torch.randint(1, 50, (texts, 7))
    apart = torch.stack([member(words) for member in network.members])
    assert torch.allclose(network(words), apart.mean(dim=0), atol=1e-6)
    for layer in network.modules():
        layer.p = 0.0  # what training adds of chance
    network.train()
    learnt = network(words)
    for text, row in enumerate(learnt):
        assert torch.allclose(row, apart[text % members, text], atol=1e-5)
    (readers,) = network.children()
    learnt[0].sum().backward()  # the first text is the first member's
    moved = [any(weight.grad is not None and weight.grad.any() for weight in reader.parameters()) for reader in readers]
    assert moved == [True] + [False] * (members - 1)


WORDS, LABELS = torch.tensor([[5, 6, 7, 8, 9, 0], [9, 8, 7, 6, 5, 4], [4, 4, 0, 0, 0, 0]]), torch.tensor([0, 1, 0])


def test_the_second_time_a_batch_is_moved_to_where_its_loss_is_greater() -> None:
    network = small_lstm(2, adversarial=0.2)
    for layer in network.modules():
        layer.p = 0.0
    network.train()
    losses = []
    for _ in range(4):  # nothing is learnt between them
        loss = nn.functional.cross_entropy(network(WORDS), LABELS)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[2] < losses[1] == losses[3]


def test_what_is_added_has_its_share_of_each_texts_norm_the_gradients_direction_and_nothing_on_padding() -> None:
    adversary, vectors = text_lstm.Adversary(0.1), torch.randn(3, 6, 12) * (WORDS != 0).unsqueeze(2)
    gradient = torch.randn(3, 6, 12) * (WORDS != 0).unsqueeze(2)
    first = adversary(WORDS, vectors)
    (first * gradient).sum().backward()
    second = adversary(WORDS, vectors)
    assert not first.any()
    assert torch.allclose(second.flatten(1).norm(dim=1), 0.1 * vectors.flatten(1).norm(dim=1))
    assert torch.allclose(nn.functional.cosine_similarity(second.flatten(1), gradient.flatten(1)), torch.ones(3))
    assert not second[WORDS == 0].any()


def test_another_batch_is_not_moved_by_what_the_last_one_told_nor_is_one_whose_loss_stands_still() -> None:
    adversary, vectors = text_lstm.Adversary(0.1), torch.randn(3, 6, 12)
    (adversary(WORDS, vectors) * 0).sum().backward()
    assert not adversary(WORDS, vectors).any()  # no direction, and no number that is not finite
    adversary(WORDS, vectors).sum().backward()
    assert not adversary(WORDS.flip(0), vectors).any()


def test_nobody_is_moved_who_only_answers() -> None:
    network = small_lstm(2, 3, adversarial=0.5)
    assert network.replays == 2 and small_lstm(2).replays == 1
    assert torch.equal(network(WORDS), network(WORDS))


def test_each_member_begins_with_what_its_own_window_tells() -> None:
    network = small_lstm(1, 3, 3)
    network.pretrain(planted_texts(), NO_LABELS, seed=0)
    narrow, wide, again = (member.vectors.embed.weight[2:] for member in network.members)
    assert torch.equal(wide, again)
    assert not torch.allclose(narrow, wide)


@torch.inference_mode()
def test_the_text_cnn_finds_a_phrase_wherever_it_stands_and_the_lstm_knows_where_it_stood() -> None:
    early, late = (torch.tensor([[4] * before + [7, 8, 9] + [4] * (20 - before)]) for before in (6, 12))
    assert torch.allclose(TEXT["cnn"](early), TEXT["cnn"](late), atol=1e-6)
    assert not torch.allclose(TEXT["lstm"](early), TEXT["lstm"](late), atol=1e-4)


@torch.inference_mode()
def test_the_image_cnn_takes_images_of_any_size_with_the_same_weights() -> None:
    for size in (28, 40, 64):
        assert IMAGE["cnn"](torch.randint(0, 256, (2, size, size, 1), dtype=torch.uint8)).shape == (2, 10)


@pytest.mark.parametrize("flip_averaging", [True, False])
@torch.inference_mode()
def test_an_image_and_its_mirror_image_get_one_answer_where_flips_are_averaged(flip_averaging: bool) -> None:
    network = copy.deepcopy(IMAGE["cnn"])
    network.flip_averaging = flip_averaging
    images = torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8)
    assert torch.allclose(network(images), network(images.flip(2)), atol=1e-6) == flip_averaging
    network.train()
    assert not torch.allclose(network(images), network(images.flip(2)), atol=1e-3)


@pytest.mark.parametrize("architecture", ["cnn", "lstm"])
@torch.inference_mode()
def test_an_image_alone_and_in_a_batch_gets_the_same_answer(architecture: str) -> None:
    images = torch.randint(0, 256, (8, 28, 28, 1), dtype=torch.uint8)
    together = IMAGE[architecture](images)
    for image, row in zip(images, together, strict=True):
        assert torch.allclose(IMAGE[architecture](image[None])[0], row, atol=1e-5)


@pytest.mark.parametrize("architecture", ["cnn", "lstm"])
def test_words_are_hidden_in_training_only(architecture: str) -> None:
    network, text = TEXT[architecture], torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(network(text), network(text))
    network.train()
    assert not torch.equal(network(text), network(text))
    network.eval()


NO_LABELS = np.zeros(200, dtype=np.int64)  # of `planted_texts`: word vectors are learnt without


def planted_texts() -> list[np.ndarray]:
    """Words 10 to 13 stand among 20 to 23, words 30 to 33 among 40 to 43; the two groups never meet."""
    generator = np.random.default_rng(0)
    return [
        generator.permutation([*generator.integers(low, low + 4, 6), *generator.integers(low + 10, low + 14, 6)])
        for low in [10, 30] * 100
    ]


def test_words_of_like_company_begin_with_like_vectors() -> None:
    vectors = learn_word_vectors(planted_texts(), 50, 8, 3, 2, 0)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    within = unit[10:14] @ unit[10:14].T
    across = unit[10:14] @ unit[30:34].T
    assert within.min() > 0.5 > 0.1 > np.abs(across).max()
    assert not vectors[:10].any()


def test_word_vectors_are_the_same_for_the_same_seed_and_unseen_words_keep_still() -> None:
    texts = planted_texts()
    assert np.array_equal(learn_word_vectors(texts, 50, 8, 3, 2, 0), learn_word_vectors(texts, 50, 8, 3, 2, 0))
    assert not learn_word_vectors([np.array([5]), np.array([6])], 50, 8, 3, 2, 0).any()  # no word beside another
    assert learn_word_vectors(texts, 50, 96, 3, 2, 0).shape == (50, 96)  # more numbers than words


@pytest.mark.parametrize("architecture", ["cnn", "lstm"])
def test_pretraining_leaves_padding_and_the_unknown_word_as_they_were(architecture: str) -> None:
    network = copy.deepcopy(TEXT[architecture])
    layers = [layer for layer in network.modules() if isinstance(layer, WordVectors)]
    before = [layer.embed.weight.detach().clone() for layer in layers]
    network.pretrain(planted_texts(), NO_LABELS, seed=0)
    for layer, old in zip(layers, before, strict=True):
        assert torch.equal(old[:2], layer.embed.weight[:2])
        assert not torch.equal(old[10], layer.embed.weight[10])


def pair_vectors(places: int, texts: list[list[int]], min_count: int = 1, dropout: float = 0.0) -> PairVectors:
    """Learnt from these texts; each place has a vector of its own, the last one, of no pair, zeros."""
    pairs = PairVectors(PairParams(places=places, min_count=min_count, dropout=dropout), 50, 1, 0)
    pairs.learn([np.array(text, dtype=np.int32) for text in texts])
    with torch.no_grad():
        pairs.embed.weight[:, 0] = torch.arange(1, places + 2)
        pairs.embed.weight[-1] = 0
    return pairs.eval()


@given(texts=st.lists(tokens, min_size=1, max_size=5), asked=tokens, places=st.integers(1, 200))
@settings(deadline=None)
@torch.inference_mode()
def test_a_pair_has_a_place_for_itself_or_none(texts: list[list[int]], asked: list[int], places: int) -> None:
    pairs = pair_vectors(places, texts)
    counts = Counter(pair for text in texts for pair in pairwise(text))
    found = pairs(torch.tensor([asked])).squeeze(2)[0].tolist()
    for pair, vector in zip(pairwise(asked), found, strict=False):
        place = (pair[0] * 50 + pair[1]) % places
        rivals = [count for (a, b), count in counts.items() if (a * 50 + b) % places == place]
        assert vector in (0, place + 1)
        if vector:
            assert counts[pair] == max(rivals)
        elif pair in counts:
            assert counts[pair] <= max(rivals) and len(rivals) > 1
    assert found[-1] == 0  # nothing follows the last word


@torch.inference_mode()
def test_pairs_that_are_rare_or_span_two_texts_have_no_vector() -> None:
    pairs = pair_vectors(2011, [[4, 5, 6], [5, 6, 7, 4]], min_count=2)
    assert (pairs(torch.tensor([[4, 5, 6, 5, 0]])) != 0).flatten().tolist() == [False, True, False, False, False]
    assert not pair_vectors(2011, [[4]])(torch.tensor([[4]])).any()


def test_pairs_are_hidden_in_training_only() -> None:
    pairs = pair_vectors(2011, [[4, 5] * 500], dropout=0.5)
    text = torch.tensor([[4, 5] * 500])
    assert (pairs(text) != 0).sum() == 999
    hidden = (pairs.train()(text) == 0).sum()
    assert 400 < hidden < 600


def test_a_window_of_no_words_leaves_the_vectors_random() -> None:
    network = small_lstm(0)
    before = copy.deepcopy(network.state_dict())
    network.pretrain(planted_texts(), NO_LABELS, seed=1)
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
