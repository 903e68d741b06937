"""Texts of the training split -> the tokenizer with its vocabulary, one JSON file that travels in the bundle."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

PAD, UNKNOWN = "[PAD]", "[UNK]"


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
