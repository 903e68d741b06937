"""A text -> how many of its letters belong to which of Unicode's scripts: what can be told of its language for sure."""

from collections import Counter
from functools import lru_cache

from fontTools import unicodedata


def count_scripts(text: str) -> dict[str, int]:
    """Letters per script, by its name, as `Latin`, the most frequent first; digits, signs and spaces have none."""
    scripts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            scripts[_script(character)] += count
    return dict(sorted(scripts.items(), key=lambda item: (-item[1], item[0])))


@lru_cache(1 << 16)
def _script(character: str) -> str:
    return str(unicodedata.script_name(unicodedata.script(character))).replace("_", " ")
