"""Texts -> near-duplicates over splits: MinHash proposes pairs that share many word triples, the exact sets decide."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from convoy.kinds.preparing.content import Indices
from convoy.kinds.preparing.kind import PAIRS_PER_ITEM, NearPairs, collect_pairs, split_pairs

WORDS_PER_SHINGLE = 3
LEAST_JACCARD = 0.5
# 42 bands of 3 values: a pair at 0.5 shares a band with a probability of 99.6 %, one at 0.6 with 99.998 %. Few of the
# 100 million pairs of 25,000 reviews over their splits share one.
_BANDS, _VALUES_PER_BAND = 42, 3
_HASHES = _BANDS * _VALUES_PER_BAND
_ESTIMATE_SLACK = 0.15  # 3.4 standard deviations of an estimate at 0.5 by 126 values
CANDIDATES_PER_BAND = 500  # of one item in one split; without a limit, texts of one template would give all pairs
METHOD = (
    f"at least {LEAST_JACCARD:.0%} of the sequences of {WORDS_PER_SHINGLE} words that two texts have are in both "
    "(Jaccard; the distance is 1 minus that, so that 0 is equal)"
)
# Scripts that put no spaces between words: each character counts as one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Shingles = NDArray[np.uint64]


def shingles(text: str) -> Shingles:
    """Hashes (n,) of the distinct sequences of three words, sorted; of all words where there are fewer than three.

    Case, spaces and punctuation do not count, unless the text has nothing else.
    """
    words = _WORD.findall(text.lower()) or text.split()
    hashed = np.array([_hash_word(word) for word in words], dtype=np.uint64)
    length = min(WORDS_PER_SHINGLE, len(words))
    mixed = np.zeros(max(len(words) - length + 1, 0), dtype=np.uint64)
    for place in range(length):
        mixed = (mixed ^ (mixed >> np.uint64(29)) ^ hashed[place : place + len(mixed)]) * _HASH_MULTIPLIER
    return np.unique(mixed)


def near_pairs(texts: Sequence[str], split_of: Indices) -> NearPairs:
    """Pairs of texts in different splits, `split_of` (n,) with train as 0, that share at least half of their shingles.

    It finds equal texts, and those where one word of 20 was changed, inserted or left out (about 0.75) or a sentence
    added to a few others. It misses a text of ten words with one changed in its middle (0.45). Blank texts are left
    out. It keeps 252 bytes per text for MinHash (Broder 1997), and 336 for the bands of one pair of splits.
    25,000 reviews take 6 s on one core.
    """
    values = _min_hashes(texts)
    pairs: list[tuple[int, int, float]] = []
    with_more: set[int] = set()
    cut_short: set[int] = set()
    split_or_none = np.where([bool(text.strip()) for text in texts], split_of, -1)
    for queries, references in split_pairs(split_or_none):
        for query, candidates, is_cut in _candidates(values, queries, references):
            near = list(_confirm(texts, query, candidates))
            pairs += near[:PAIRS_PER_ITEM]
            if len(near) > PAIRS_PER_ITEM:
                with_more.add(query)
            elif is_cut:
                cut_short.add(query)
    return collect_pairs(pairs, METHOD, len(with_more), len(cut_short))


@lru_cache(1 << 18)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _min_hashes(texts: Sequence[str]) -> NDArray[np.uint16]:
    """MinHash values (n, _HASHES), the lower 16 bits of each: different values agree in them once in 65,536 times."""
    values = np.empty((len(texts), _HASHES), dtype=np.uint16)
    template = MinHash(_HASHES)
    for row, text in zip(values, texts, strict=True):
        # The shingles are hashes already; to draw the permutations again would take longer than all other steps.
        min_hash = MinHash(_HASHES, hashfunc=int, permutations=template.permutations, scheme=template.scheme)
        min_hash.update_batch((shingles(text) >> np.uint64(32)).tolist())
        row[:] = min_hash.hashvalues & 0xFFFF  # the upper bits of a minimum are mostly 0
    return values


def _candidates(
    values: NDArray[np.uint16], queries: Indices, references: Indices
) -> Iterator[tuple[int, list[int], bool]]:
    """Each query that shares a band, the references that share it, and whether there are more than are compared.

    By sorted arrays, not datasketch's MinHashLSH: that keeps a Python list per bucket (gigabytes for a million texts)
    and gives whole buckets, which hold everything where all texts are alike.
    """
    sorted_bands = []
    for band in _bands(values[references]):
        order = np.argsort(band, kind="stable").astype(np.int32)
        sorted_bands.append((order, band[order]))
    starts_ends = np.empty((len(queries), _BANDS, 2), dtype=np.int32)
    for band_number, (band, (_, keys)) in enumerate(zip(_bands(values[queries]), sorted_bands, strict=True)):
        starts_ends[:, band_number, 0] = np.searchsorted(keys, band, "left")
        starts_ends[:, band_number, 1] = np.searchsorted(keys, band, "right")
    sizes = starts_ends[..., 1] - starts_ends[..., 0]
    for row in np.flatnonzero(sizes.any(1)):
        in_shared_bands = [
            sorted_bands[band_number][0][start : min(end, start + CANDIDATES_PER_BAND)]
            for band_number, (start, end) in enumerate(starts_ends[row])
            if end > start
        ]
        candidates = references[np.unique(np.concatenate(in_shared_bands))]
        estimate = (values[candidates] == values[queries[row]]).mean(1)
        likely = candidates[estimate >= LEAST_JACCARD - _ESTIMATE_SLACK]
        yield int(queries[row]), likely.tolist(), bool((sizes[row] > CANDIDATES_PER_BAND).any())


def _bands(values: NDArray[np.uint16]) -> Iterator[NDArray[np.uint32]]:
    """The keys (n,) of one band after the other: equal where all values of the band are.

    32 bits: one of 4 billion pairs is proposed by chance, and the estimate then drops it.
    """
    for start in range(0, _HASHES, _VALUES_PER_BAND):
        key = np.zeros(len(values), dtype=np.uint64)
        for value in values[:, start : start + _VALUES_PER_BAND].T:
            key = (key ^ (key >> np.uint64(29)) ^ value.astype(np.uint64)) * _HASH_MULTIPLIER
        yield (key >> np.uint64(32)).astype(np.uint32)


def _confirm(texts: Sequence[str], query: int, candidates: list[int]) -> Iterator[tuple[int, int, float]]:
    """The candidates that share enough shingles, at most one more than are listed."""
    query_shingles = shingles(texts[query])
    confirmed = 0
    for candidate in candidates:
        candidate_shingles = shingles(texts[candidate])
        shared = len(np.intersect1d(query_shingles, candidate_shingles, assume_unique=True))
        jaccard = shared / (len(query_shingles) + len(candidate_shingles) - shared)
        if jaccard >= LEAST_JACCARD:
            confirmed += 1
            yield query, candidate, 1 - jaccard
        if confirmed > PAIRS_PER_ITEM:
            return
