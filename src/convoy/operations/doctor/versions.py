"""Python and its packages -> findings: what is installed, beside what pyproject.toml and requirements.lock name."""

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
OPTIONAL = ("dev", "pull")  # what no stage and no service needs
SHOWN = 5


class Unreadable(ValueError):
    """Neither pyproject.toml nor the metadata of an installed Convoy say what is needed."""


def check_python() -> Iterator[Check]:
    """Whether Python is one of those that are supported."""
    wanted = SpecifierSet(str(_project()["requires-python"]))
    version = platform.python_version()
    if wanted.contains(version, prereleases=True):
        yield ok("Python", version)
    else:
        yield broken("Python", f"{version}, {PROJECT} asks for {wanted}", "name another: `make PYTHON=... set-up`")


def check_packages() -> Iterator[Check]:
    """For each extra: what is missing, and what is older than its floor, which often is a known hole."""
    project = _project()
    extras = {BASE: project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in extras.items():
        wanted = [requirement for requirement in map(Requirement, lines) if _applies(requirement)]
        installed = {requirement.name: _installed(requirement.name) for requirement in wanted}
        install = f"`uv pip install -c {LOCK} '{'.' if extra == BASE else f'.[{extra}]'}'`"
        about = f"packages of {extra}"
        old = [
            f"{requirement.name} {found} ({requirement.specifier} is needed)"
            for requirement in wanted
            if (found := installed[requirement.name]) and not requirement.specifier.contains(found, prereleases=True)
        ]
        missing = [name for name, found in installed.items() if not found]
        if old:
            yield broken(about, f"not of a version that {PROJECT} allows: {', '.join(old)}", install)
        if missing and extra == BASE:
            yield broken(about, f"missing: {', '.join(missing)}", install)
        elif len(missing) == len(wanted) or (missing and extra in OPTIONAL):
            yield ok(about, f"not all installed ({len(missing)} of {len(wanted)} are missing); {install} would")
        elif missing:
            yield warning(about, f"missing: {', '.join(missing)}", install)
        elif not old:
            yield ok(about, f"all {len(wanted)} are there, none below its floor")


def check_lock() -> Iterator[Check]:
    """Whether what is installed is what the figures were measured with."""
    if not LOCK.exists():
        yield warning("requirements.lock", "is not here", "run this in Convoy's folder")
        return
    differing = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith(("#", " ")):  # a line that is set in holds a hash
            continue
        requirement = Requirement(line.removesuffix("\\"))
        found = _installed(requirement.name) if _applies(requirement) else None
        if found and not requirement.specifier.contains(found, prereleases=True):
            differing.append(f"{requirement.name} {found} ({requirement.specifier})")
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        says = f"not installed as named: {', '.join(differing[:SHOWN])}{more}"
        yield warning("requirements.lock", says, "`make set-up` installs the exact versions")
    else:
        yield ok("requirements.lock", "what is installed is what it names")


def _project() -> dict[str, Any]:
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


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
