"""Entries of params.yaml as text: each a block of lines below its section; whatever else the file holds stays."""

import re
from itertools import pairwise
from typing import NamedTuple

import yaml

from convoy.core import params, paths
from convoy.core.params import ParamsInvalid

SECTIONS = ("data", "tasks", "candidates")
INDENT = 2  # of an entry in a kind's template


class Block(NamedTuple):
    """The lines of an entry: its first, the one after its last, and how far it is indented."""

    start: int
    end: int
    column: int


def entry(text: str, section: str, name: str) -> str:
    """The lines of an entry; '' where there is none. Raises ParamsInvalid where the text has no such section."""
    block = _locate(text, section)[1].get(name)
    return "".join(_lines(text)[block.start : block.end]) if block else ""


def names(text: str, section: str) -> list[str]:
    """The names of a section's entries, in their order. Raises ParamsInvalid."""
    return list(_locate(text, section)[1])


def put(text: str, section: str, name: str, content: str) -> str:
    """The text with this entry: in the place of the one of its name, else at the end of its section.

    `content` has its lines as a kind's template has them, indented by INDENT. Raises ParamsInvalid.
    """
    lines, blocks = _lines(text), _locate(text, section)[1]
    *_, last = blocks.values()
    ending = "\r\n" if "\r\n" in text else "\n"
    new = [f"{' ' * last.column}{line[INDENT:]}{ending}" for line in content.splitlines()]
    if name in blocks:
        lines[blocks[name].start : blocks[name].end] = new
        return "".join(lines)
    if not lines[last.end - 1].endswith("\n"):
        lines[last.end - 1] += ending
    gaps = [lines[first.end : second.start] for first, second in pairwise(blocks.values())]
    separator = [ending] if any(_is_blank(line) for gap in gaps for line in gap) else []
    lines[last.end : last.end] = [*separator, *new]
    return "".join(lines)


def take_out(text: str, section: str, name: str) -> str:
    """The text without this entry, and without the blank lines that only it had. Raises ParamsInvalid."""
    lines, (header, blocks) = _lines(text), _locate(text, section)
    if name not in blocks:
        return text
    start, end, _ = blocks[name]
    if start - 1 == header or _is_blank(lines[start - 1]):
        while end < len(lines) and _is_blank(lines[end]):
            end += 1
    return "".join([*lines[:start], *lines[end:]])


def _locate(text: str, section: str) -> tuple[int, dict[str, Block]]:
    """The line that names a section, and its entries. Raises ParamsInvalid where it has none on lines of their own.

    Comments after an entry are its own where they are indented further than its name.
    """
    text = text.removeprefix("\ufeff")  # the quick loader does not count it
    lines, root = _lines(text), params.compose(text)
    children = root.value if isinstance(root, yaml.MappingNode) else []
    for (key, value), until in zip(children, [*_starts(text, children)[1:], len(lines)], strict=True):
        if key.value != section or not isinstance(value, yaml.MappingNode) or value.flow_style or not value.value:
            continue
        starts, blocks = _starts(text, value.value), {}
        for (name, _), start, end in zip(value.value, starts, [*starts[1:], until], strict=True):
            column = name.start_mark.column
            while _is_blank(lines[end - 1]) or _is_comment(lines[end - 1], column):
                end -= 1
            blocks[str(name.value)] = Block(start, end, column)
        return _starts(text, [(key, value)])[0], blocks
    raise ParamsInvalid(
        f"{paths.PARAMS}: the section {section} is missing, or has no entries on lines of their own; "
        "write `NAME:` and what it holds below it"
    )


def _starts(text: str, children: list[tuple[yaml.Node, yaml.Node]]) -> list[int]:
    """The lines on which the keys of a mapping stand."""
    return [text.count("\n", 0, key.start_mark.index) for key, _ in children]


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_blank(line: str) -> bool:
    return not line.strip()


def _is_comment(line: str, column: int) -> bool:
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) <= column
