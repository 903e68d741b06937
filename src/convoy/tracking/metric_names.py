"""Nested figures -> metrics with names that MLflow takes, whatever the labels in them; two labels never share one."""

import hashlib
import re
from typing import Any

# MLflow allows word characters and `-./ :`, no colon on Windows, and refuses a name that changes as a path does:
# with `/` at an end, `//`, or a part `.` or `..`. `_x` begins an escape, so it is escaped itself.
_ESCAPED = re.compile(r"[^\w./ -]|_(?=[xX])|\A/|/(?=/|\Z)|(?<![^/])\.(?=\.?(?:/|\Z))")
# Of the 250 characters that a name may have; the rest is left to the keys around a label.
_LONGEST = 150
_HASH_DIGITS = 32


def name_part(label: str) -> str:
    """The part of a name that stands for a label: itself where MLflow takes it, else escaped, as `C_x2b__x2b_`.

    Escapes are those of .NET's XmlConvert.EncodeName: the code point in hexadecimal digits between `_x` and `_`.
    A part that would be too long is cut, and ends with a hash of the label. Only labels that differ in case alone,
    which convoy.data.raw refuses, have parts that differ in case alone: some stores compare names without regard to it.
    """
    part = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):x}_", label) or "_x_"
    if len(part) < _LONGEST:
        return part
    # All cut parts have the same length, which no other has.
    digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{part[: _LONGEST - _HASH_DIGITS - 1]}_{digest}"


def numbers(content: Any, prefix: str) -> dict[str, float]:
    """The numeric leaves of a report, named after the keys that lead to them, with `/` between."""
    if isinstance(content, dict):
        found: dict[str, float] = {}
        for key, value in content.items():
            found |= numbers(value, f"{prefix}/{name_part(str(key))}".removeprefix("/"))
        return found
    is_number = isinstance(content, int | float) and not isinstance(content, bool)
    return {prefix: float(content)} if is_number else {}
