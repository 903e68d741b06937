"""Raw texts -> the tokenizer, the encoded splits, rejections, and the census of the texts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
from fontTools import unicodedata
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm

from convoy.data.census import Census, TextFacts
from convoy.data.raw import RawItems
from convoy.data.splits import Division, digest
from convoy.kinds.kind import InputRejected
from convoy.kinds.text.near_duplicates import near_pairs
from convoy.kinds.text.prepared import TextSplit
from convoy.kinds.text.preprocessing import TextPreprocessing, TextPreprocessor, check
from convoy.sources.items import Rejection

PAD, UNKNOWN = "[PAD]", "[UNK]"
BLOCK_TEXTS = 250  # texts encoded at once; the tokenizer takes up to 90 kB for each while it does


def count_scripts(text: str) -> dict[str, int]:
    """Letters per Unicode script, by its name, as `Latin`, the most frequent first; digits, signs and spaces have none.

    Of a text's language only the script is certain.
    """
    scripts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            scripts[_script_of(character)] += count
    return dict(sorted(scripts.items(), key=lambda item: (-item[1], item[0])))


@lru_cache(1 << 16)
def _script_of(character: str) -> str:
    return str(unicodedata.script_name(unicodedata.script(character))).replace("_", " ")


def build_tokenizer(texts: Iterable[str], vocabulary_size: int) -> str:
    """A word-level tokenizer: `<br />` out, lower case, words with their apostrophe, single punctuation marks.

    [PAD] is 0 and [UNK] is 1; the most frequent words follow, so that the same texts give the same file.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"<br\s*/?>"), " "), normalizers.NFKC(), normalizers.Lowercase()]
    )
    word = Regex(r"\w+(?:['\u2019]\w+)*|[^\w\s]")  # U+2019 is the typographic apostrophe
    tokenizer.pre_tokenizer = pre_tokenizers.Split(word, behavior="removed", invert=True)
    trainer = trainers.WordLevelTrainer(vocab_size=vocabulary_size - 2, special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # Not as special tokens: those would be found in a user's text, and a text that says "[PAD]" would hold padding.
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    vocabulary = {PAD: 0, UNKNOWN: 1} | {word: index + 2 for word, index in words}
    tokenizer.model = models.WordLevel(vocabulary, unk_token=UNKNOWN)
    return str(tokenizer.to_str(pretty=True))


@dataclass(frozen=True)
class UsableTexts:
    """The result of `check_texts`: `rows` (n,) int64 are the raw texts that can be used."""

    rows: NDArray[np.int64]
    keys: list[bytes]  # digests of the texts
    characters: NDArray[np.int64]
    rejections: list[Rejection]


def check_texts(raw: RawItems, contract: TextPreprocessing) -> UsableTexts:
    """Reject the texts that the server would reject."""
    rows: list[int] = []
    keys: list[bytes] = []
    characters: list[int] = []
    rejections: list[Rejection] = []
    progress = tqdm(desc="text: looking", total=len(raw), unit="", mininterval=1)
    row = 0
    for contents in raw.contents():
        for text in contents:
            assert isinstance(text, str)
            try:
                check(text, contract)
                rows.append(row)
                keys.append(digest(text.encode()))
                characters.append(len(text))
            except InputRejected as rejection:
                rejections.append(Rejection(raw.name(row), rejection.code, rejection.message))
            row += 1
        progress.update(len(contents))
    progress.close()
    return UsableTexts(np.array(rows, dtype=np.int64), keys, np.array(characters, dtype=np.int64), rejections)


class LazyTexts(Sequence[str]):
    """The texts of these rows (n,) of the raw items, each read at its access."""

    def __init__(self, raw: RawItems, rows: NDArray[np.int64]) -> None:
        self._raw, self._rows = raw, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [str(self._raw.content(row)) for row in self._rows[index].tolist()]
        return str(self._raw.content(int(self._rows[index])))


class Encoder:
    """Encodes splits, and keeps of each text how many tokens it has, whether it was cut, how many are unknown."""

    def __init__(self, raw: RawItems, preprocessor: TextPreprocessor) -> None:
        self._raw, self._preprocessor = raw, preprocessor
        self.vocabulary = preprocessor.tokenizer.get_vocab_size()
        self.tokens: NDArray[np.int64] = np.zeros(len(raw), dtype=np.int64)  # by the row of the raw item
        self.unknown: NDArray[np.int64] = np.zeros(len(raw), dtype=np.int64)
        self.truncated: NDArray[np.bool_] = np.zeros(len(raw), dtype=np.bool_)

    def encode(self, rows: NDArray[np.int64], name: str) -> Iterator[TextSplit]:
        """The texts of these rows as parts of one split."""
        contract = self._preprocessor.contract
        for start in tqdm(
            range(0, len(rows), BLOCK_TEXTS), f"text {name}: encoding", unit=f" x {BLOCK_TEXTS}", mininterval=1
        ):
            block = rows[start : start + BLOCK_TEXTS]
            texts = LazyTexts(self._raw, block)[:]
            prepared = self._preprocessor.prepare_all(texts)
            tokens = [text.array.astype(np.int32) for text in prepared]
            self.tokens[block] = [len(ids) for ids in tokens]
            self.unknown[block] = [np.count_nonzero(ids == contract.unknown_id) for ids in tokens]
            self.truncated[block] = [text.truncated for text in prepared]
            labels = self._raw.label_of[block]
            yield TextSplit(texts, tokens, labels, self._raw.labels, self.vocabulary, contract.pad_id)


def take_census(raw: RawItems, usable: UsableTexts, division: Division, encoder: Encoder) -> Census:
    """The census of the usable texts, near-duplicates included, and the rejections; after `encoder` did all splits."""
    texts = LazyTexts(raw, usable.rows)
    print("text: comparing all texts", flush=True)
    return Census(
        names=[raw.name(row) for row in usable.rows.tolist()],
        labels=raw.label_of[usable.rows],
        label_names=raw.labels,
        keys=usable.keys,
        splits=dict(division.rows.items()),
        dropped=division.dropped,
        copies=division.copies,
        rejections=[*raw.rejections, *usable.rejections],
        near=near_pairs(texts, division.split_of(len(texts))),
        facts=TextFacts(
            characters=usable.characters,
            tokens=encoder.tokens[usable.rows],
            unknown=encoder.unknown[usable.rows],
            truncated=encoder.truncated[usable.rows],
            scripts=[count_scripts(text) for text in texts],
        ),
    )
