"""Entries of params.yaml as text: each a block of lines below its section; whatever else the file holds stays."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from convoy.core import params, paths
from convoy.core.params import ParamsInvalid

SECTIONS = ("data", "tasks", "candidates")
INDENT = 2  # of an entry in a kind's template


@dataclass(frozen=True)
class Block:
    """An entry: its first line, the line after its last, and how far it is indented."""

    name: str
    start: int
    end: int
    column: int


def read_text(path: Path = paths.PARAMS) -> str:
    """The file as it is, with its own ends of lines. Raises ParamsInvalid where it is missing, or no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ParamsInvalid(f"{path} is missing; run this in the folder of Convoy that has it") from None
    except UnicodeDecodeError as error:
        raise ParamsInvalid(f"{path} is not UTF-8: {error}") from None


def entry(text: str, section: str, name: str) -> str:
    """The lines of an entry; '' where there is none. Raises ParamsInvalid where the text has no such section."""
    lines = _lines(text)
    found = [block for block in _locate(text, section)[1] if block.name == name]
    return "".join(lines[found[-1].start : found[-1].end]) if found else ""


def names(text: str, section: str) -> list[str]:
    """The names of a section's entries, in their order. Raises ParamsInvalid."""
    return [block.name for block in _locate(text, section)[1]]


def put(text: str, section: str, name: str, content: str) -> str:
    """The text with this entry: in the place of the one of its name, else at the end of its section.

    `content` has its lines as a kind's template has them, indented by INDENT. Raises ParamsInvalid.
    """
    lines, (_, blocks) = _lines(text), _locate(text, section)
    ending = "\r\n" if "\r\n" in text else "\n"
    margin = " " * blocks[0].column
    new = [f"{margin}{line[INDENT:]}{ending}" for line in content.splitlines()]
    for block in blocks:
        if block.name == name:
            lines[block.start : block.end] = new
            return "".join(lines)
    end = blocks[-1].end
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += ending
    gaps = [lines[first.end : second.start] for first, second in pairwise(blocks)]
    separator = [ending] if any(_is_blank(line) for gap in gaps for line in gap) else []
    lines[end:end] = [*separator, *new]
    return "".join(lines)


def take_out(text: str, section: str, name: str) -> str:
    """The text without this entry, and without the blank lines that only it had. Raises ParamsInvalid."""
    lines, (header, blocks) = _lines(text), _locate(text, section)
    for block in blocks:
        if block.name == name:
            end = block.end
            if block.start - 1 == header or _is_blank(lines[block.start - 1]):
                while end < len(lines) and _is_blank(lines[end]):
                    end += 1
            del lines[block.start : end]
            break
    return "".join(lines)


def _locate(text: str, section: str) -> tuple[int, list[Block]]:
    """The line that names a section, and its entries. Raises ParamsInvalid where it has none on lines of their own."""
    text = text.removeprefix("\ufeff")  # the quick loader does not count it
    root = params.compose(text)
    children = root.value if isinstance(root, yaml.MappingNode) else []
    starts = [*(_line_of(text, key) for key, _ in children), len(_lines(text))]
    for place, (key, value) in enumerate(children):
        if key.value != section:
            continue
        if not isinstance(value, yaml.MappingNode) or value.flow_style or not value.value:
            break
        return starts[place], list(_blocks(text, value, starts[place + 1]))
    raise ParamsInvalid(
        f"{paths.PARAMS}: the section {section} is missing, or has no entries on lines of their own; "
        "write `NAME:` and what it holds below it"
    )


def _blocks(text: str, section: yaml.MappingNode, until: int) -> Iterator[Block]:
    """The entries of a section that ends before the line `until`.

    Comments after an entry are its own where they are indented further than its name.
    """
    lines = _lines(text)
    starts = [*(_line_of(text, key) for key, _ in section.value), until]
    for place, (key, _) in enumerate(section.value):
        column, end = key.start_mark.column, starts[place + 1]
        while _is_blank(lines[end - 1]) or _is_comment(lines[end - 1], column):
            end -= 1
        yield Block(str(key.value), starts[place], end, column)


def _line_of(text: str, node: yaml.Node) -> int:
    return text.count("\n", 0, node.start_mark.index)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_blank(line: str) -> bool:
    return not line.strip()


def _is_comment(line: str, column: int) -> bool:
    return line.lstrip().startswith("#") and len(line) - len(line.lstrip()) <= column
