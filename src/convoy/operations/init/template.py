"""Fills the template of a kind, kinds/<kind>/entries.yaml, with what a survey found."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from convoy.core.params import ParamsInvalid
from convoy.kinds.registry import module
from convoy.operations.init import entries

COMMENT_COLUMN = 28
_PLACEHOLDER = re.compile(r"\$\{(\w+)(?:=([^}]*))?\}")  # ${name}, or ${name=what stands there without a value}


class Value(NamedTuple):
    """A value for a template, and why it is proposed; "" without a reason to tell."""

    value: Any
    reason: str = ""


def fill(kind: str, values: Mapping[str, Value]) -> dict[str, dict[str, str]]:
    """The filled entries of a kind: section -> name -> lines. Raises ParamsInvalid for an unknown placeholder."""
    path = Path(module(kind, "survey").__file__).with_name("entries.yaml")
    template = path.read_text(encoding="utf-8").splitlines()
    text = "".join(f"{_fill_line(line, values, path)}\n" for line in template)
    return {
        section: {name: entries.entry(text, section, name) for name in entries.names(text, section)}
        for section in entries.SECTIONS
    }


def to_yaml(value: Any) -> str:
    """A value on one line, for a block as for between braces; a word that YAML reads otherwise is quoted."""
    text = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True).rstrip("\n")
    if "\n" in text:  # of a word with ends of lines
        text = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), default_style='"').rstrip("\n")
    return text[1:-1]


def comment_of(block: str, key: str, value: Any) -> str:
    """The comment behind a value in the lines of an entry; "" where there is none."""
    found = re.search(rf"^ +{key}: {re.escape(to_yaml(value))} +# (.*?)\r?$", block, re.MULTILINE)
    return found[1] if found else ""


def _fill_line(line: str, values: Mapping[str, Value], path: Path) -> str:
    """A line with its values, and its comment: its own, or the reason of the value at its end."""
    if line.startswith("#"):
        return line
    content, _, comment = line.partition("  # ")
    content = content.rstrip()

    def replace(match: re.Match[str]) -> str:
        nonlocal comment
        name, default = match.groups()
        if name not in values:
            if default is None:
                raise ParamsInvalid(f"{path}: nothing is known of ${{{name}}}; correct the name, or give it a default")
            return str(default)
        if match.end() == len(content):
            comment = comment or " ".join(values[name].reason.split())
        return to_yaml(values[name].value)

    filled = _PLACEHOLDER.sub(replace, content)
    return f"{filled:<{COMMENT_COLUMN - 2}}  # {comment}" if comment else filled
