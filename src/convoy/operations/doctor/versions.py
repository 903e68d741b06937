"""Checks of Python and its packages against pyproject.toml and requirements.lock."""

import importlib.metadata
import platform
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from convoy.operations.doctor.doctor import Check, broken, ok, warning

PROJECT, LOCK = Path("pyproject.toml"), Path("requirements.lock")
BASE = "base"
OPTIONAL = ("dev", "pull")  # no stage and no service needs them
SHOWN = 5


class Unreadable(ValueError):
    """Neither pyproject.toml nor the metadata of an installed Convoy say what is needed."""


def check_python() -> Iterator[Check]:
    """Whether Python is one of those that are supported."""
    supported = SpecifierSet(str(_read_project()["requires-python"]))
    version = platform.python_version()
    if supported.contains(version, prereleases=True):
        yield ok("Python", version)
    else:
        yield broken("Python", f"{version}, {PROJECT} asks for {supported}", "name another: `make PYTHON=... set-up`")


def check_packages() -> Iterator[Check]:
    """For each extra: missing packages, and those below their floor, which often closes a known vulnerability."""
    project = _read_project()
    extras = {BASE: project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in extras.items():
        requirements = [requirement for requirement in map(Requirement, lines) if _applies(requirement)]
        installed = {requirement.name: _installed_version(requirement.name) for requirement in requirements}
        install = f"`uv pip install -c {LOCK} '{'.' if extra == BASE else f'.[{extra}]'}'`"
        about = f"packages of {extra}"
        old = [
            f"{requirement.name} {version} ({requirement.specifier} is needed)"
            for requirement in requirements
            if (version := installed[requirement.name])
            and not requirement.specifier.contains(version, prereleases=True)
        ]
        missing = [name for name, version in installed.items() if not version]
        if old:
            yield broken(about, f"not of a version that {PROJECT} allows: {', '.join(old)}", install)
        if missing and extra == BASE:
            yield broken(about, f"missing: {', '.join(missing)}", install)
        elif len(missing) == len(requirements) or (missing and extra in OPTIONAL):
            yield ok(about, f"not all installed ({len(missing)} of {len(requirements)} are missing); {install} would")
        elif missing:
            yield warning(about, f"missing: {', '.join(missing)}", install)
        elif not old:
            yield ok(about, f"all {len(requirements)} are there, none below its floor")


def check_lock() -> Iterator[Check]:
    """Whether what is installed is what the figures were measured with."""
    if not LOCK.exists():
        yield warning("requirements.lock", "is not here", "run this in Convoy's folder")
        return
    differing = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith(("#", " ")):  # an indented line holds a hash
            continue
        requirement = Requirement(line.removesuffix("\\"))
        version = _installed_version(requirement.name) if _applies(requirement) else None
        if version and not requirement.specifier.contains(version, prereleases=True):
            differing.append(f"{requirement.name} {version} ({requirement.specifier})")
    if differing:
        remaining = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        says = f"not installed as named: {', '.join(differing[:SHOWN])}{remaining}"
        yield warning("requirements.lock", says, "`make set-up` installs the exact versions")
    else:
        yield ok("requirements.lock", "what is installed is what it names")


def _read_project() -> dict[str, Any]:
    """What pyproject.toml says of the project: of this folder or, elsewhere, of the installed Convoy."""
    if PROJECT.exists():
        content = tomllib.loads(PROJECT.read_text(encoding="utf-8")).get("project", {})
        if content.get("name") == "convoy":
            return dict(content)
    try:
        metadata = importlib.metadata.metadata("convoy")
    except importlib.metadata.PackageNotFoundError:
        raise Unreadable(f"{PROJECT.absolute()} is not Convoy's, and Convoy is not installed") from None
    extras: dict[str, list[str]] = {name: [] for name in metadata.get_all("Provides-Extra") or []}
    base: list[str] = []
    for line in metadata.get_all("Requires-Dist") or []:
        name = next((name for name in extras if f"extra == '{name}'" in line or f'extra == "{name}"' in line), None)
        (extras[name] if name else base).append(line.split(";")[0] if name else line)
    return {"requires-python": metadata["Requires-Python"], "dependencies": base, "optional-dependencies": extras}


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate()


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
