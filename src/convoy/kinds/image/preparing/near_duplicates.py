"""Prepared images -> near-duplicates over splits: close by perceptual hash, then by their thumbnails."""

from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convoy.kinds.preparing.content import Indices
from convoy.kinds.preparing.kind import PAIRS_PER_ITEM, NearPairs, collect_pairs, split_pairs

# Chosen on Fashion-MNIST, its 15,000 held-out images against the 55,000 of train, by eye and on 5,000 planted copies.
# The hash alone, at 8 bits, calls 653,033 pairs of test and train equal. Of the 24 pairs within 0.06 about 20 are the
# same product and the rest plain trousers; of 49 more within 0.08 few are, and from 0.1 on labels differ. Copies found:
# JPEG at quality 75 99.5 %, scaled to 56 px and back 99.4 %, noise of sd 3 99.9 %, brightness +-5 % all.
HASH_BITS_APART = 8
CONTRAST_APART = 0.06
MEAN_APART = 16  # grey levels of a channel: the same coat in black and in white is two; +-5 % are up to 13
THUMBNAIL_PX = 16
# Of one split; Fashion-MNIST has up to 1,211. Without a limit, equal hashes everywhere would give all pairs.
CANDIDATES_PER_ITEM = 3000
METHOD = (
    f"perceptual hashes at most {HASH_BITS_APART} of 64 bits apart, and thumbnails of {THUMBNAIL_PX} x {THUMBNAIL_PX} "
    f"pixels, brought to one contrast, at most {CONTRAST_APART} apart (root mean square; distance 0 is equal)"
)
_BLOCK_SHAPE = (64, 2048)  # queries and references compared at once, within a core's cache
_CONFIRM_BATCH = 4096  # candidates; 8 MB of thumbnails as floats
_LEAST_DEVIATION = 8.0  # grey levels: an image with less contrast is not stretched to full contrast


class ImageSignatures:
    """The signatures that images are compared by: 264 bytes and one per channel of each, in the order of `add`."""

    def __init__(self) -> None:
        self._hashes, self._thumbnails, self._means = bytearray(), bytearray(), bytearray()

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add images, (n, size, size, channels) uint8, as the model reads them; channels: 1 or 3, always the same."""
        for image in images:
            grey = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("L")
            self._hashes += np.packbits(imagehash.phash(grey).hash).tobytes()
            # Bilinear with antialiasing hides noise: by a box filter four times as many shirts were as near as a copy.
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
    """Pairs of images in different splits, `split_of` (n,) with train as 0, that may come from one picture.

    It finds equal, recompressed, rescaled, slightly noisy and brighter images, and equal ones always. It misses
    mirrored, cropped and shifted ones: at 28 px a shift by one pixel changes more than another shirt does. It misses
    noise on a blank image too, whose hash is chance. Every hash is compared with every other, exactly: 70,000 images
    take 2 s, 1,000,000 with a fifth held out 5 minutes, or 8 where all hashes are equal and no thumbnails are.
    """
    pictures = _measure_pictures(signatures)
    pairs: list[tuple[int, int, float]] = []
    with_more: set[int] = set()
    cut_short: set[int] = set()
    for queries, references in split_pairs(split_of):
        for start in range(0, len(queries), _BLOCK_SHAPE[0]):
            search = _BlockSearch(pictures, queries[start : start + _BLOCK_SHAPE[0]])
            for first in range(0, len(references), _BLOCK_SHAPE[1]):
                search.compare(references[first : first + _BLOCK_SHAPE[1]])
            pairs += search.pairs
            with_more |= search.with_more
            cut_short |= search.cut_short
    return collect_pairs(pairs, METHOD, len(with_more), len(cut_short))


@dataclass(frozen=True)
class _Pictures:
    """The arrays of all signatures, with the mean and the contrast of each thumbnail (n,)."""

    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    means: NDArray[np.uint8]
    grey_means: NDArray[np.float64]
    deviations: NDArray[np.float64]

    def distances(self, first: Indices, second: Indices) -> NDArray[np.float64]:
        """Root mean square differences (n,) of pairs of thumbnails, each scaled to mean 0 and deviation 1.

        Infinite where the means of a channel differ too much. Computed from sums of products, which are exact.
        """
        products = _mean_product(self.thumbnails[first], self.thumbnails[second])
        covariance = products - self.grey_means[first] * self.grey_means[second]
        scales = np.maximum(self.deviations, _LEAST_DEVIATION)
        scaled_first, scaled_second = self.deviations[first] / scales[first], self.deviations[second] / scales[second]
        squares = scaled_first**2 + scaled_second**2 - 2 * covariance / (scales[first] * scales[second])
        unlike_means = np.abs(self.means[first].astype(np.int16) - self.means[second]).max(1, initial=0) > MEAN_APART
        return np.where(unlike_means, np.inf, np.sqrt(np.maximum(squares, 0)))


def _measure_pictures(signatures: ImageSignatures) -> _Pictures:
    thumbnails = signatures.thumbnails
    parts = np.array_split(thumbnails, len(thumbnails) // _CONFIRM_BATCH + 1)
    means = np.concatenate([part.mean(1, dtype=np.float64) for part in parts])
    squares = np.concatenate([_mean_product(part, part) for part in parts])
    deviations = np.sqrt(np.maximum(squares - means**2, 0))
    return _Pictures(signatures.hashes, thumbnails, signatures.means, means, deviations)


def _mean_product(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    # 256 products of at most 255 * 255: below 2**24, so that float32 holds each sum exactly.
    sums = np.einsum("ij,ij->i", first.astype(np.float32), second.astype(np.float32))
    means: NDArray[np.float64] = sums.astype(np.float64) / first.shape[1]
    return means


class _BlockSearch:
    """Some queries, compared with the other split block by block; a query with enough neighbours is closed."""

    def __init__(self, pictures: _Pictures, queries: Indices) -> None:
        self._pictures, self._queries = pictures, queries
        self._candidates = np.zeros(len(queries), dtype=np.int64)
        self._confirmed = np.zeros(len(queries), dtype=np.int64)
        self.pairs: list[tuple[int, int, float]] = []

    def compare(self, references: Indices) -> None:
        """Compare all open queries with these items."""
        still_open, hashes = np.flatnonzero(self._is_open()), self._pictures.hashes
        bits = np.bitwise_count(hashes[self._queries[still_open], None] ^ hashes[None, references])
        # One index and a division: twice as fast as np.nonzero's two indices where hits are rare.
        row, column = np.divmod(np.flatnonzero(bits <= HASH_BITS_APART), len(references))
        # In the order of the references, so that where all are alike every query has enough after a few of them.
        order = np.argsort(column, kind="stable")
        row, reference = still_open[row[order]], references[column[order]]
        for start in range(0, len(row), _CONFIRM_BATCH):
            part = slice(start, start + _CONFIRM_BATCH)
            is_open = self._is_open()[row[part]]
            self._confirm(row[part][is_open], reference[part][is_open])

    @property
    def with_more(self) -> set[int]:
        """Queries that have more neighbours than are listed."""
        return set(self._queries[self._confirmed > PAIRS_PER_ITEM].tolist())

    @property
    def cut_short(self) -> set[int]:
        """Queries that had more candidates than are compared, and not enough neighbours among those."""
        is_cut = (self._candidates > CANDIDATES_PER_ITEM) & (self._confirmed <= PAIRS_PER_ITEM)
        return set(self._queries[is_cut].tolist())

    def _is_open(self) -> NDArray[np.bool_]:
        return (self._confirmed <= PAIRS_PER_ITEM) & (self._candidates <= CANDIDATES_PER_ITEM)

    def _confirm(self, row: Indices, reference: Indices) -> None:
        distances = self._pictures.distances(self._queries[row], reference)
        self._candidates += np.bincount(row, minlength=len(self._queries))
        for hit in np.flatnonzero(distances <= CONTRAST_APART):
            self._confirmed[row[hit]] += 1
            if self._confirmed[row[hit]] <= PAIRS_PER_ITEM:
                self.pairs.append((int(self._queries[row[hit]]), int(reference[hit]), float(distances[hit])))
