"""What each network must do by its construction: ignore padding, find patterns anywhere, read in order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convoy.models import image_cnn, image_lstm, text_cnn, text_lstm

torch.manual_seed(0)
TEXT = {
    "cnn": text_cnn.Network(
        text_cnn.NetworkParams(embedding=12, filters=8, widths=(1, 2, 3), dropout=0.5, word_dropout=0.2),
        vocabulary=50,
        pad_id=0,
        labels=2,
    ).eval(),
    "lstm": text_lstm.Network(
        text_lstm.NetworkParams(embedding=12, units=8, dropout=0.5, word_dropout=0.2), vocabulary=50, pad_id=0, labels=2
    ).eval(),
}
IMAGE = {
    "cnn": image_cnn.Network(
        image_cnn.NetworkParams(channels=(4, 8, 8), dropout=0.1), channels=1, size_px=28, labels=10
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


@torch.inference_mode()
def test_the_backward_lstm_reads_the_text_reversed() -> None:
    network = TEXT["lstm"]
    swapped = text_lstm.Network(
        text_lstm.NetworkParams(embedding=12, units=8, dropout=0.5, word_dropout=0.2), vocabulary=50, pad_id=0, labels=2
    ).eval()
    swapped.load_state_dict(network.state_dict())
    swapped.forwards, swapped.backwards = network.backwards, network.forwards
    text = torch.tensor([[5, 6, 7, 8, 9]])
    halves = [weight.roll(8, 1) for weight in network.classify.weight.split(16, dim=1)]
    swapped.classify.weight = nn.Parameter(torch.cat(halves, dim=1))
    assert torch.allclose(network(text), swapped(text.flip(1)), atol=1e-6)
    assert not torch.allclose(network(text), network(text.flip(1)), atol=1e-4)


@torch.inference_mode()
def test_the_text_cnn_finds_a_phrase_wherever_it_stands_and_the_lstm_knows_where_it_stood() -> None:
    early, late = (torch.tensor([[4] * before + [7, 8, 9] + [4] * (20 - before)]) for before in (6, 12))
    assert torch.allclose(TEXT["cnn"](early), TEXT["cnn"](late), atol=1e-6)
    assert not torch.allclose(TEXT["lstm"](early), TEXT["lstm"](late), atol=1e-4)


@torch.inference_mode()
def test_the_image_cnn_takes_images_of_any_size_with_the_same_weights() -> None:
    for size in (28, 40, 64):
        assert IMAGE["cnn"](torch.randint(0, 256, (2, size, size, 1), dtype=torch.uint8)).shape == (2, 10)


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
