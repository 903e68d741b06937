"""Changes of params.yaml, written beside its other comments: a number keeps its reason, and gets a new one."""

import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from convoy import atomic
from convoy.onboarding.proposal import Change
from convoy.params import ParamsInvalid

COMMENT_COLUMN = 28


def changed(path: Path, changes: Sequence[Change]) -> str:
    """The file's text with the changes in it. Raises ParamsInvalid where it lacks a key."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # or long lines would be broken
    yaml.representer.add_representer(type(None), _null)
    content = yaml.load(path.read_text(encoding="utf-8"))
    for change in changes:
        section: Any = content
        for key in change.keys[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if section is None or change.keys[-1] not in section:
            raise ParamsInvalid(f"{path}: {'.'.join(change.keys)} is missing")
        if section[change.keys[-1]] != change.value:
            section[change.keys[-1]] = change.value
            section.yaml_add_eol_comment(f"# {change.reason}", change.keys[-1], column=COMMENT_COLUMN)
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def difference(path: Path, text: str) -> str:
    """What `text` would change, as a patch."""
    lines = (path.read_text(encoding="utf-8").splitlines(keepends=True), text.splitlines(keepends=True))
    return "".join(difflib.unified_diff(*lines, fromfile=str(path), tofile=f"{path}, proposed", n=0))


def write(path: Path, text: str) -> None:
    """Replace the file in one step."""
    atomic.write_bytes(path, text.encode("utf-8"))


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
