"""Text that comes in pieces -> how much of it is settled, and how much the next piece may still change."""

import re
import unicodedata
from functools import lru_cache

# Unicode's White_Space: what separates words for the tokenizer. Python counts four control characters more.
_WHITE_SPACE = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_APOSTROPHES = "'\u2019"  # within a word they belong to it
# The tokenizer drops a whole line break of HTML and takes a part of one for words; this finds those that are whole and
# one that may still become so. More white space counts here than there, so that none is missed.
_BREAK = re.compile(r"<br\s*(?:/?>|/?\Z)")


def settled(text: str) -> int:
    """How many characters have the same words whatever follows them: the tokenizer may be given these alone.

    They end before white space or a punctuation mark. Neither can become one character with what stands before it,
    nor continue its word; what stands behind it, such as an accent, stays together with it. For the tokenizers of
    convoy.kinds.text.vocabulary, to which every punctuation mark is a word of its own.
    """
    # Only the last break matters: the search goes no further back than the "<" that it begins with.
    start = max(text.rfind("<br"), 0)
    found = _BREAK.match(text, start)
    end = found.end() if found else 0
    for place in range(len(text) - 1, 0, -1):
        if _separates(text[place]) and not start < place < end:
            return place
    return 0


@lru_cache(maxsize=4096)
def _separates(character: str) -> bool:
    if character in _WHITE_SPACE or character == "<":
        return True
    plain = unicodedata.normalize("NFKC", character)  # a full-width apostrophe becomes one, and some marks letters
    return all(_is_mark(each) for each in plain)


def _is_mark(character: str) -> bool:
    category = unicodedata.category(character)
    return category.startswith("P") and category != "Pc" and character not in _APOSTROPHES  # Pc joins, as "_" does
