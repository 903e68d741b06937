"""Images are shifted, hidden and permuted as is said of them."""

import numpy as np
from numpy.typing import NDArray

from lab.images.space import hide, permute, shift
from lab.learning.items import Share, divide


def images(count: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 256, (count, 10, 12, 2), dtype=np.uint8)


def test_a_shift_goes_right_left_down_up_in_turn_and_brings_in_nothing() -> None:
    before = images()
    after = shift(before, 3)
    assert np.array_equal(after[0, :, 3:], before[0, :, :-3]) and not after[0, :, :3].any()
    assert np.array_equal(after[1, :, :-3], before[1, :, 3:]) and not after[1, :, -3:].any()
    assert np.array_equal(after[2, 3:], before[2, :-3]) and not after[2, :3].any()
    assert np.array_equal(after[7, :-3], before[7, 3:]) and not after[7, -3:].any()
    assert np.array_equal(shift(before, 0), before)


def test_a_patch_hides_its_square_and_nothing_else() -> None:
    before = images()
    after = hide(before, 4, seed=0)
    assert ((after == 0).sum(axis=(1, 2)) == 16).all()
    assert np.array_equal(after[after > 0], before[after > 0])
    assert np.array_equal(hide(before, 0, seed=0), before)
    assert ((hide(before, 99, seed=0) == 0).sum(axis=(1, 2)) == 100).all()


def test_all_images_are_permuted_alike_and_keep_their_pixels() -> None:
    before = images()
    after = permute(before, seed=0)
    places = np.arange(120, dtype=np.uint8).reshape(1, 10, 12, 1)
    order = permute(places, seed=0).ravel()
    assert sorted(order) == list(range(120)) and list(order) != list(range(120))
    assert np.array_equal(after.reshape(8, 120, 2), before.reshape(8, 120, 2)[:, order])


def test_no_item_is_both_learnt_from_and_asked() -> None:
    learn, ask = divide(100, Share(prepared="fashion", learn=60, ask=20), seed=0)
    assert (len(learn), len(ask)) == (60, 20) and not set(learn) & set(ask)
    few, asked = divide(40, Share(prepared="fashion", learn=60, ask=20), seed=0)
    assert (len(few), len(asked)) == (30, 10) and not set(few) & set(asked)
