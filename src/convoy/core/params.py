"""Sections of params.yaml, and of other files of params, as frozen models; errors name key, value and expectation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from convoy.core import paths

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # not every build of PyYAML has the quick one


class Section(BaseModel):
    """A section of such a file: frozen, no unknown keys, no defaults (params.yaml holds them all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ParamsInvalid(ValueError):
    """params.yaml lacks a key, has one too many, or a value is out of range."""


SectionType = TypeVar("SectionType", bound=Section)


def read_text(path: Path = paths.PARAMS) -> str:
    """Such a file with its own ends of lines. Raises ParamsInvalid where it is missing, or no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ParamsInvalid(f"{path} is missing; run this in the folder of Convoy that has it") from None
    except UnicodeDecodeError as error:
        raise ParamsInvalid(f"{path} is not UTF-8: {error}") from None


def load(text: str, path: Path = paths.PARAMS) -> Any:
    """What the text of such a file holds. Raises ParamsInvalid, which names `path`, the key and the line."""
    return _with_loader(text, path, lambda loader, root: None if root is None else loader.construct_document(root))


def compose(text: str, path: Path = paths.PARAMS) -> yaml.Node | None:
    """The same as nodes, which know their lines. Raises ParamsInvalid."""
    root: yaml.Node | None = _with_loader(text, path, lambda _, root: root)
    return root


def read_section(model: type[SectionType], *keys: str, path: Path = paths.PARAMS) -> SectionType:
    """Read the section under `keys` as `model`.

    Raises ParamsInvalid, which names the file, the key, the value and what was expected.
    """
    section = load(read_text(path), path)
    for depth, key in enumerate(keys):
        if not isinstance(section, dict) or key not in section:
            raise ParamsInvalid(f"{path}: the section {'.'.join(keys[: depth + 1])} is missing")
        section = section[key]
    return validate(model, section, ".".join(keys), path)


def validate(model: type[SectionType], section: Any, key: str, path: Path = paths.PARAMS) -> SectionType:
    """A section that was read already, as `model`; `key` is its place in the file. Raises ParamsInvalid."""
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise ParamsInvalid("\n".join(_describe(path, key, detail) for detail in error.errors())) from None


def _with_loader(text: str, path: Path, take: Callable[[Any, yaml.Node | None], Any]) -> Any:
    try:
        loader = _LOADER(text)
        try:
            root = loader.get_single_node()
            _require_distinct_keys(root, path)
            return take(loader, root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ParamsInvalid(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _require_distinct_keys(root: yaml.Node | None, path: Path) -> None:
    """Raise ParamsInvalid where a key stands twice in one mapping: PyYAML would take the last, without a word."""
    nodes: list[Any] = [root]
    seen = set()  # an alias leads to a node again
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.CollectionNode) and id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _require_distinct([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)], path)
                nodes += [value for _, value in node.value]
            else:
                nodes += node.value


def _require_distinct(keys: list[yaml.ScalarNode], path: Path) -> None:
    known: dict[tuple[str, str], yaml.ScalarNode] = {}
    for key in keys:
        first = known.setdefault((key.tag, key.value), key)
        if first is not key:
            raise ParamsInvalid(
                f"{path}: the key {key.value} stands in line {first.start_mark.line + 1} and again in line "
                f"{key.start_mark.line + 1}; remove or rename one of them"
            )


def _describe(path: Path, key: str, error: Any) -> str:
    name = ".".join([*([key] if key else []), *map(str, error["loc"])])
    if error["type"] == "missing":
        return f"{path}: {name} is missing"
    if error["type"] == "extra_forbidden":
        return f"{path}: {name} is not a known key; remove it or correct its spelling"
    return f"{path}: {name} is {error['input']!r}: {error['msg']}"
