"""Prepared images -> near-duplicates over splits: close by perceptual hash, then by what can be seen of them."""

from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoy.kinds.kind import PAIRS_PER_ITEM, Indices, NearPairs, gather, opposite_sides

# Chosen on Fashion-MNIST, its 15,000 held-out images against the 55,000 of train, by eye and on 5,000 planted copies.
# The hash alone, at 8 bits, calls 653,033 pairs of test and train equal. Of the 24 pairs within 0.06 about 20 are the
# same product and the rest plain trousers; of 49 more within 0.08 few are, and from 0.1 on labels differ. Copies found:
# JPEG at quality 75 99.5 %, scaled to 56 px and back 99.4 %, noise of sd 3 99.9 %, brightness +-5 % all.
HASH_BITS_APART = 8
CONTRAST_APART = 0.06
MEAN_APART = 16  # grey levels of a channel: the same coat in black and in white is two; +-5 % are up to 13
THUMBNAIL_PX = 16
CANDIDATES_PER_ITEM = (
    3000  # of one split; Fashion-MNIST has up to 1,211. Where all hashes are equal it would be all pairs
)
METHOD = (
    f"perceptual hashes at most {HASH_BITS_APART} of 64 bits apart, and thumbnails of {THUMBNAIL_PX} x {THUMBNAIL_PX} "
    f"pixels, brought to one contrast, at most {CONTRAST_APART} apart (root mean square; distance 0 is equal)"
)
_BLOCK = (64, 2048)  # seekers and others compared at once, within a core's cache
_CONFIRMED_AT_ONCE = 4096  # candidates; 8 MB of thumbnails as floats
_FLAT = 8.0  # grey levels: an image with less contrast than this is not stretched to look like others


class ImageSignatures:
    """What is kept of each image to compare it: 264 bytes and one per channel, in the order in which they came."""

    def __init__(self) -> None:
        self._hashes, self._thumbnails, self._means = bytearray(), bytearray(), bytearray()

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add images, (n, size, size, channels) uint8, as the model sees them; channels are 1 or 3, always the same."""
        for image in images:
            grey = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("L")
            self._hashes += np.packbits(imagehash.phash(grey).hash).tobytes()
            # Bilinear with antialiasing, which hides noise: by box four times as many shirts were as near as a copy.
            self._thumbnails += grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR).tobytes()
            self._means += image.mean((0, 1)).round().astype(np.uint8).tobytes()

    def __len__(self) -> int:
        return len(self._hashes) // 8

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Perceptual hashes (n,) uint64: imagehash's `phash`, the 64 lowest frequencies against their median."""
        return np.frombuffer(bytes(self._hashes), ">u8").astype(np.uint64)

    @property
    def thumbnails(self) -> NDArray[np.uint8]:
        """Grey thumbnails (n, THUMBNAIL_PX * THUMBNAIL_PX) uint8."""
        return np.frombuffer(bytes(self._thumbnails), np.uint8).reshape(-1, THUMBNAIL_PX**2)

    @property
    def means(self) -> NDArray[np.uint8]:
        """Mean of each channel (n, channels) uint8."""
        return np.frombuffer(bytes(self._means), np.uint8).reshape(len(self), len(self._means) // max(len(self), 1))


def near_pairs(signatures: ImageSignatures, split_of: Indices) -> NearPairs:
    """Pairs of images in different splits, `split_of` (n,) with train as 0, that one picture may have given.

    Equal ones, recompressed, rescaled, slightly noisy or brighter ones are found; mirrored, cropped or shifted ones are
    not: at 28 px a shift by one pixel changes more than another shirt does. Nor is noise on a blank image, whose hash
    is chance; what is equal is found always. Every hash is compared with every other, exactly: 70,000 images take 2 s,
    1,000,000 with a fifth held out 5 minutes, 8 where all hashes are equal and no thumbnails are.
    """
    pictures = _pictures(signatures)
    found: list[tuple[int, int, float]] = []
    with_more: set[int] = set()
    cut_short: set[int] = set()
    for seekers, others in opposite_sides(split_of):
        for start in range(0, len(seekers), _BLOCK[0]):
            search = _Search(pictures, seekers[start : start + _BLOCK[0]])
            for left in range(0, len(others), _BLOCK[1]):
                search.look_at(others[left : left + _BLOCK[1]])
            found += search.found
            with_more |= search.with_more
            cut_short |= search.cut_short
    return gather(found, METHOD, len(with_more), len(cut_short))


@dataclass(frozen=True)
class _Pictures:
    """The arrays of all signatures, with the mean and the contrast of each thumbnail (n,)."""

    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    means: NDArray[np.uint8]
    grey_means: NDArray[np.float64]
    deviations: NDArray[np.float64]

    def apart(self, one: Indices, other: Indices) -> NDArray[np.float64]:
        """Root mean square (n,) of the differences of thumbnails that are each brought to mean 0 and deviation 1.

        Infinite where the means of a channel differ too much. From sums of products, which are exact.
        """
        products = _mean_product(self.thumbnails[one], self.thumbnails[other])
        covariance = products - self.grey_means[one] * self.grey_means[other]
        scales = np.maximum(self.deviations, _FLAT)
        own, theirs = self.deviations[one] / scales[one], self.deviations[other] / scales[other]
        squares = own**2 + theirs**2 - 2 * covariance / (scales[one] * scales[other])
        unlike = np.abs(self.means[one].astype(np.int16) - self.means[other]).max(1, initial=0) > MEAN_APART
        return np.where(unlike, np.inf, np.sqrt(np.maximum(squares, 0)))


def _pictures(signatures: ImageSignatures) -> _Pictures:
    thumbnails = signatures.thumbnails
    parts = np.array_split(thumbnails, len(thumbnails) // _CONFIRMED_AT_ONCE + 1)
    means = np.concatenate([part.mean(1, dtype=np.float64) for part in parts])
    squares = np.concatenate([_mean_product(part, part) for part in parts])
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return _Pictures(signatures.hashes, thumbnails, signatures.means, means, deviations)


def _mean_product(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    # 256 products of at most 255 * 255: below 2**24, so that float32 holds each sum exactly.
    sums = np.einsum("ij,ij->i", one.astype(np.float32), other.astype(np.float32))
    means: NDArray[np.float64] = sums.astype(np.float64) / one.shape[1]
    return means


class _Search:
    """A few seekers that go through the other split block by block; one that has found enough leaves."""

    def __init__(self, pictures: _Pictures, seekers: Indices) -> None:
        self._pictures, self._seekers = pictures, seekers
        self._candidates = np.zeros(len(seekers), dtype=np.int64)
        self._confirmed = np.zeros(len(seekers), dtype=np.int64)
        self.found: list[tuple[int, int, float]] = []

    def look_at(self, others: Indices) -> None:
        """Compare all that still seek with these."""
        seeking, hashes = np.flatnonzero(self._is_seeking()), self._pictures.hashes
        bits = np.bitwise_count(hashes[self._seekers[seeking], None] ^ hashes[None, others])
        # One index and a division: twice as fast as the two of np.nonzero where hits are rare.
        row, column = np.divmod(np.flatnonzero(bits <= HASH_BITS_APART), len(others))
        # One other after the other, so that where all are alike every seeker has enough after a few of them.
        order = np.argsort(column, kind="stable")
        row, other = seeking[row[order]], others[column[order]]
        for part in range(0, len(row), _CONFIRMED_AT_ONCE):
            some, theirs = row[part : part + _CONFIRMED_AT_ONCE], other[part : part + _CONFIRMED_AT_ONCE]
            left = self._is_seeking()[some]
            self._confirm(some[left], theirs[left])

    @property
    def with_more(self) -> set[int]:
        """Seekers that have more neighbours than are listed."""
        return set(self._seekers[self._confirmed > PAIRS_PER_ITEM].tolist())

    @property
    def cut_short(self) -> set[int]:
        """Seekers that had more candidates than are compared, and not enough neighbours among those."""
        is_cut = (self._candidates > CANDIDATES_PER_ITEM) & (self._confirmed <= PAIRS_PER_ITEM)
        return set(self._seekers[is_cut].tolist())

    def _is_seeking(self) -> NDArray[np.bool_]:
        return (self._confirmed <= PAIRS_PER_ITEM) & (self._candidates <= CANDIDATES_PER_ITEM)

    def _confirm(self, row: Indices, other: Indices) -> None:
        apart = self._pictures.apart(self._seekers[row], other)
        self._candidates += np.bincount(row, minlength=len(self._seekers))
        for hit in np.flatnonzero(apart <= CONTRAST_APART):
            self._confirmed[row[hit]] += 1
            if self._confirmed[row[hit]] <= PAIRS_PER_ITEM:
                self.found.append((int(self._seekers[row[hit]]), int(other[hit]), float(apart[hit])))
