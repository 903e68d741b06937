"""Planted near-duplicates of images are found over splits, unrelated ones are not, and the search has no favourites."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode
from numpy.typing import NDArray
from PIL import Image

from convoy.kinds.image.preparing import near_duplicates
from convoy.kinds.image.preparing.near_duplicates import ImageSignatures, near_pairs
from convoy.kinds.preparing.kind import PAIRS_PER_ITEM, NearPair

Pixels = NDArray[np.uint8]
GENERATOR = np.random.default_rng(0)


def pictures(count: int, seed: int, size_px: int = 28, channels: int = 1) -> Pixels:
    """Unrelated pictures: smooth random fields, each with a few random rectangles."""
    generator = np.random.default_rng(seed)
    images = np.empty((count, size_px, size_px, channels), dtype=np.uint8)
    for image in images:
        coarse = generator.integers(0, 200, (5, 5, channels), dtype=np.uint8)
        for channel in range(channels):
            field = Image.fromarray(coarse[..., channel]).resize((size_px, size_px), Image.Resampling.BICUBIC)
            image[..., channel] = np.asarray(field)
        for _ in range(3):
            top, left, height, width = generator.integers(2, size_px // 2, 4)
            image[top : top + height, left : left + width] = generator.integers(0, 255, channels)
    return images


def scaled(image: Pixels, size_px: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((size_px, size_px), Image.Resampling.LANCZOS))


def recompressed(image: Pixels) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(encode(Image.fromarray(image), "JPEG", quality=75))))


def brightened(factor: float) -> Callable[[Pixels], Pixels]:
    return lambda image: np.clip(image * factor, 0, 255).round().astype(np.uint8)


def noisy(image: Pixels) -> Pixels:
    return np.clip(image + GENERATOR.normal(0, 3, image.shape), 0, 255).round().astype(np.uint8)


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG at quality 75": recompressed,
    "5 % brighter": brightened(1.05),
    "5 % darker": brightened(0.95),
    "noise of sd 3": noisy,
    "scaled to 56 px and back": lambda image: scaled(scaled(image, 56), 28),
}


def search(images: Pixels, split_of: list[int] | NDArray[np.int64]) -> set[NearPair]:
    signatures = ImageSignatures()
    signatures.add(images)
    return set(near_pairs(signatures, np.asarray(split_of, dtype=np.int64)).pairs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("copy", COPIES)
def test_at_least_95_of_100_planted_copies_are_found_and_nothing_else(copy: str, channels: int) -> None:
    train, held_out = pictures(400, 1, channels=channels), pictures(300, 2, channels=channels)
    copies = [COPIES[copy](image[..., 0] if channels == 1 else image) for image in train[:100]]
    held_out[:100] = np.stack(copies).reshape(100, 28, 28, channels)
    found = search(np.concatenate([train, held_out]), [0] * 400 + [1] * 300)
    planted = {(index, 400 + index) for index in range(100)}
    assert len({(pair.first, pair.second) for pair in found} & planted) >= 95
    assert not {(pair.first, pair.second) for pair in found} - planted  # of 120,000 unrelated pairs
    assert all(pair.distance <= near_duplicates.CONTRAST_APART for pair in found)


def test_the_same_shape_in_another_colour_or_grey_is_no_copy() -> None:
    image = pictures(1, 1, channels=3)
    dark = (image * 0.5).astype(np.uint8)
    assert len(search(np.concatenate([image, image]), [0, 1])) == 1
    assert not search(np.concatenate([image, dark]), [0, 1])
    assert not search(np.concatenate([image, image[..., ::-1]]), [0, 1])


POOL = np.concatenate([pictures(4, 1), np.zeros((1, 28, 28, 1), np.uint8), np.full((1, 28, 28, 1), 255, np.uint8)])
POOL = np.concatenate([POOL, np.stack([brightened(1.03)(image) for image in POOL])])
items = st.lists(st.tuples(st.integers(0, len(POOL) - 1), st.integers(-1, 3)), max_size=12)


@settings(deadline=None, max_examples=60)
@given(items, st.randoms(use_true_random=False))
def test_pairs_stand_in_two_splits_whatever_the_order_and_equal_images_are_always_among_them(
    chosen: list[tuple[int, int]], random: object
) -> None:
    contents, splits = [content for content, _ in chosen], [split for _, split in chosen]
    found = search(POOL[contents], splits)
    assert all(0 <= splits[pair.first] != splits[pair.second] >= 0 and pair.first < pair.second for pair in found)
    pairs = {(pair.first, pair.second) for pair in found}
    for second, one in enumerate(chosen):
        for first, other in enumerate(chosen[:second]):
            if one[0] == other[0] and one[1] != other[1] and min(one[1], other[1]) >= 0:
                assert (first, second) in pairs
    order = list(range(len(chosen)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = search(POOL[[contents[index] for index in order]], [splits[index] for index in order])
    renamed = {(*sorted((order[pair.first], order[pair.second])), pair.distance) for pair in again}
    assert renamed == {tuple(pair) for pair in found}


def test_images_one_by_one_have_the_signatures_of_a_chunk() -> None:
    images = pictures(5, 3, channels=3)
    whole, single = ImageSignatures(), ImageSignatures()
    whole.add(images)
    for image in images:
        single.add(image[np.newaxis])
    assert len(whole) == len(single) == 5
    for name in ("hashes", "thumbnails", "means"):
        assert np.array_equal(getattr(whole, name), getattr(single, name))


def test_where_all_are_alike_each_lists_a_few_neighbours_and_says_so() -> None:
    signatures = ImageSignatures()
    signatures.add(np.zeros((600, 28, 28, 1), np.uint8))
    found = near_pairs(signatures, np.repeat([0, 1, 2], 200))
    assert (found.with_more, found.cut_short) == (400, 0)
    assert len(found.pairs) == 3 * 200 * PAIRS_PER_ITEM
    assert {pair.second for pair in found.pairs} == set(range(200, 600))


def test_a_search_among_too_many_equal_hashes_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "CANDIDATES_PER_ITEM", 50)
    monkeypatch.setattr(
        near_duplicates.imagehash, "phash", lambda _: near_duplicates.imagehash.ImageHash(np.zeros((8, 8), bool))
    )
    signatures = ImageSignatures()
    signatures.add(pictures(3000, 4))
    found = near_pairs(signatures, np.repeat([0, 1], [2990, 10]))
    assert (found.pairs, found.cut_short) == ((), 10)


@pytest.mark.process
def test_a_copy_is_found_among_many_blocks_of_others() -> None:
    train, held_out = pictures(5000, 5), pictures(150, 6)
    held_out[140] = train[4990]
    assert search(np.concatenate([held_out, train]), [2] * 150 + [0] * 5000) == {NearPair(140, 5140, 0.0)}
