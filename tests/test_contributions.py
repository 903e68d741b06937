"""What each place of an input adds to each logit: with the bias, over all places, exactly the logit."""

from typing import Any

import pytest
import torch
from export_networks import EXPLAINED, calibration, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convoy.export.to_onnx import Contributions, Probabilities
from convoy.kinds.learning.class_activation import PlaceNetwork, contribute, spread_greatest

pytestmark = pytest.mark.torch
BUILT = {names: network(*names).eval() for names in EXPLAINED}
EACH = pytest.mark.parametrize("names", EXPLAINED, ids="-".join)
SIZES = st.integers(1, 5), st.integers(1, 30), st.integers(0, 9)


def draw(names: tuple[str, str], count: int, size: int, padding: int) -> Tensor:
    """Images with a plain half, as photographs have them, or padded texts of lengths up to `size`."""
    torch.manual_seed(count * 1000 + size)
    if names[0] == "image":
        side = 8 + size if names[1] == "cnn" else 28
        images = torch.randint(0, 256, (count, side, side, 1), dtype=torch.uint8)
        images[:, : side // 2] = 0
        return images
    words = torch.randint(1, 50, (count, size + padding))
    lengths = torch.randint(1, size + 1, (count, 1))
    return words * (torch.arange(size + padding) < lengths)


@EACH
@given(*SIZES)
@settings(deadline=None, max_examples=40)
@torch.inference_mode()
def test_bias_and_contributions_of_all_places_are_the_logits(
    names: tuple[str, str], count: int, size: int, padding: int
) -> None:
    built, inputs = BUILT[names], draw(names, count, size, padding)
    assert isinstance(built, PlaceNetwork)
    found = built.contributions(inputs)
    assert found.shape[:2] == (count, len(built.bias())) and found.ndim == 4
    assert torch.allclose(found.sum(dim=(2, 3)) + built.bias(), built(inputs), atol=1e-4)


@EACH
@torch.inference_mode()
def test_what_is_exported_sums_up_to_the_same_probabilities_and_nothing_to_all_labels(names: tuple[str, str]) -> None:
    inputs = draw(names, 5, 20, 3)
    contributions, logits = Contributions(BUILT[names], calibration(names[0]))(inputs)
    assert torch.allclose(logits.softmax(dim=1), Probabilities(BUILT[names], calibration(names[0]))(inputs), atol=1e-6)
    assert contributions.sum(dim=1).abs().max() < 1e-5 and logits.sum(dim=1).abs().max() < 1e-4


@pytest.mark.parametrize("architecture", [name for kind, name in EXPLAINED if kind == "text"])
@torch.inference_mode()
def test_padding_adds_nothing_and_words_the_same_as_without_it(architecture: str) -> None:
    built = BUILT["text", architecture]
    alone = built.contributions(torch.tensor([[7, 8, 9]]))
    padded = built.contributions(torch.tensor([[7, 8, 9, 0, 0], [3, 4, 5, 6, 7]]))[:1]
    assert torch.allclose(padded[..., :3], alone, atol=1e-6) and not padded[..., 3:].any()


@torch.inference_mode()
def test_a_word_that_the_backward_lstm_alone_reads_is_found_where_it_stands() -> None:
    """Its states come reversed; with weights for nothing else the last word adds what the first state says."""
    reader = BUILT["text", "lstm"].members[0]
    text = torch.tensor([[5, 6, 7, 8, 0]])
    _, back, _ = reader._read(text, text != 0)
    weights = reader.classify.weight.clone()
    try:
        reader.classify.weight.zero_()[:, 3 * 5 :] = weights[:, 3 * 5 :]  # the means of the backward states
        found = reader.contributions(text)
        expected = back[0, :4].flip(0) @ weights[:, 3 * 5 :].T / 4
        assert torch.allclose(found[0, :, 0, :4], expected.T, atol=1e-6)
    finally:
        reader.classify.weight.copy_(weights)


@torch.inference_mode()
def test_an_image_and_its_mirror_image_get_mirrored_maps_where_flips_are_averaged() -> None:
    built, images = BUILT["image", "cnn"], draw(("image", "cnn"), 3, 20, 0)
    assert torch.allclose(built.contributions(images.flip(2)), built.contributions(images).flip(3), atol=1e-6)


@torch.inference_mode()
def test_equal_places_share_a_maximum_and_rounding_does_not_decide_between_them() -> None:
    features = torch.tensor([[[3.0, 1.0, 3.0 - 1e-6, -torch.inf], [-2.0, -2.0, -2.0, -torch.inf]]])
    spread = spread_greatest(features)
    assert spread[0].tolist() == [[1.5, 0, 1.5, 0], pytest.approx([-2 / 3] * 3 + [0])]


@torch.inference_mode()
def test_rounding_never_moves_a_share_of_the_maximum_by_much() -> None:
    """A hard end of the shares moved whole ones, where a place lay at that very distance: 0.0034 of a logit."""
    below = torch.linspace(0, 2e-3, 2_001)
    features = torch.stack([torch.ones_like(below), 1 - below], dim=1).unsqueeze(1)  # (batch, 1, 2)
    for rounding in (-1e-6, -1e-7, 1e-7, 1e-6):
        nudged = features + torch.tensor([0.0, rounding])
        assert (spread_greatest(nudged) - spread_greatest(features)).abs().max() < 600 * abs(rounding) + 1e-7


@torch.inference_mode()
def test_a_map_points_at_the_place_that_decides() -> None:
    classify: Any = nn.Linear(2, 2, bias=False)
    classify.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    features = torch.tensor([[[0.0, 0.0, 5.0]]])
    found = contribute(classify, spread_greatest(features), features / 3)
    assert found[0, 0].tolist() == [0, 0, 5] and not found[0, 1].any()
