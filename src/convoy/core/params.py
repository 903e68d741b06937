"""One section of params.yaml -> a frozen pydantic model; errors name the key, the value and the expectation."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from convoy.core import paths


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys, no defaults (params.yaml holds them all)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ParamsInvalid(ValueError):
    """params.yaml lacks a key, has one too many, or a value is out of range."""


SectionType = TypeVar("SectionType", bound=Section)


def read_section(model: type[SectionType], *keys: str, path: Path = paths.PARAMS) -> SectionType:
    """Read the section under `keys` as `model`.

    Raises ParamsInvalid, which names the file, the key, the value and what was expected.
    """
    try:
        section: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsInvalid(f"{path} is missing; run this in the folder of Convoy that has it") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsInvalid(f"{path} is not valid YAML: {error}") from None
    for depth, key in enumerate(keys):
        if not isinstance(section, dict) or key not in section:
            raise ParamsInvalid(f"{path}: the section {'.'.join(keys[: depth + 1])} is missing")
        section = section[key]
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise ParamsInvalid("\n".join(_describe(path, keys, detail) for detail in error.errors())) from None


def _describe(path: Path, keys: tuple[str, ...], error: Any) -> str:
    name = ".".join([*keys, *map(str, error["loc"])])
    if error["type"] == "missing":
        return f"{path}: {name} is missing"
    if error["type"] == "extra_forbidden":
        return f"{path}: {name} is not a known key; remove it or correct its spelling"
    return f"{path}: {name} is {error['input']!r}: {error['msg']}"
