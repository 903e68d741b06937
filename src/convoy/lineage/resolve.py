"""An ID as a user types it -> what it names: a version, a run, the digest of a bundle, or a logged request."""

import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convoy.core import request_log_files, tasks
from convoy.lineage.index import Index
from convoy.lineage.state import RECIPE, State, task_named
from convoy.tracking.build_runs import LOCK_DIGEST
from convoy.tracking.store import RunRecord, VersionRecord

MIN_PREFIX = 8  # hexadecimal digits of an ID that is not written out
_HEX = re.compile(r"[0-9a-f]+")
_VERSION = re.compile(rf"(?:convoy-)?({tasks.NAME.pattern})[/:]v?([0-9]+)")
_REQUEST = re.compile(r"[A-Za-z0-9._-]{1,64}")  # as the service accepts them


class IdUnresolved(LookupError):
    """An ID that names nothing, or more than one thing; says where it was searched, and the nearest IDs."""


@dataclass(frozen=True)
class Match:
    """What an ID names, and the states that it leads to, the newest first."""

    kind: str
    name: str  # in full
    what: str
    states: list[State] = field(default_factory=list)
    request: dict[str, Any] | None = None


def resolve_id(name: str, index: Index) -> Match:
    """The match of an ID; a prefix such as `run:` or `request:` restricts the kind. Raises IdUnresolved."""
    text, finders = name.strip(), FINDERS
    kind, colon, remainder = text.partition(":")
    if colon and kind in FINDERS:
        text, finders = remainder, {kind: FINDERS[kind]}
    matches = [match for find in finders.values() for match in find(text, index)]
    if len(matches) > 1:
        listed = "\n".join(f"  {match.kind}:{match.name}  {match.what}" for match in matches)
        raise IdUnresolved(f"{text} names {len(matches)} things; say which:\n{listed}")
    if not matches:
        raise IdUnresolved(_describe_unknown(text, list(finders), index))
    return matches[0]


def _describe_unknown(text: str, kinds: list[str], index: Index) -> str:
    lines = [f"{text or 'nothing'} is no {' or '.join(kinds)} that is known here"]
    if _HEX.fullmatch(text) and len(text) < MIN_PREFIX:
        lines[0] += f"; at least {MIN_PREFIX} digits of a hash are needed"
    lines += ["looked at:", *(f"  {line}" for line in index.searched)]
    versions = [f"{task_named(version.name)}/{version.number}" for version in _newest_first(index.mlflow.versions)]
    names = {*versions, *index.mlflow.runs, *_known_digests(index)}
    nearest = difflib.get_close_matches(text, sorted(names), n=3, cutoff=0.5)
    if nearest or versions:
        lines.append(f"nearest: {', '.join(nearest)}" if nearest else f"versions: {', '.join(versions[:5])}")
    if not _VERSION.fullmatch(text.lower()):
        lines.append(f"if it is a hash of dvc.lock, a path or a git revision: {RECIPE}")
    return "\n".join(lines)


def _newest_first(versions: list[VersionRecord]) -> list[VersionRecord]:
    return sorted(versions, key=lambda version: version.registered_ms, reverse=True)


def _state_of_version(version: VersionRecord) -> State:
    return State(task_named(version.name), version, digest=version.digest or None)


def _state_of_digest(digest: str, task: str | None, index: Index) -> State:
    """The version that holds a bundle, or the bundle alone."""
    version = index.version_with(digest)
    return _state_of_version(version) if version else State(task, digest=digest)


def _find_versions(text: str, index: Index) -> list[Match]:
    parsed = _VERSION.fullmatch(text.lower())
    named = parsed and (f"convoy-{parsed[1]}", int(parsed[2]))
    return [
        Match(
            "version",
            f"{version.name}/{version.number}",
            f"registered version {version.number} of {version.name}",
            [_state_of_version(version)],
        )
        for version in index.mlflow.versions
        if (version.name, version.number) == named
    ]


def _known_digests(index: Index) -> dict[str, str]:
    """Digest -> task of the bundles that MLflow knows or that lie here."""
    runs = [run.tags for run in index.mlflow.runs.values() if "convoy.bundle_digest" in run.tags]
    digests = {tags["convoy.bundle_digest"]: tags.get("convoy.task", "") for tags in runs}
    digests |= {version.digest: version.name for version in index.mlflow.versions if version.digest}
    return digests | {place.digest: place.task for place in index.places}


def _find_digests(text: str, index: Index) -> list[Match]:
    known = _known_digests(index).items()
    digests = {digest: task_named(name) for digest, name in known if _is_prefix(digest, text)}
    return [
        Match("digest", digest, f"bundle of the task {task}, digest {digest}", [_state_of_digest(digest, task, index)])
        for digest, task in digests.items()
    ]


def _find_runs(text: str, index: Index) -> list[Match]:
    runs = [run for run in index.mlflow.runs.values() if _is_prefix(run.id, text)]
    return [Match("run", run.id, f"MLflow run {run.name}, {run.id}", _states_of_run(run, index)) for run in runs]


def _states_of_run(run: RunRecord, index: Index) -> list[State]:
    """The versions of a run or of its build, the newest first; the run alone where it has none."""
    versions = [version for version in index.mlflow.versions if version.run_id == run.id]
    if LOCK_DIGEST in run.tags and (version := index.version_with(run.tags.get("convoy.bundle_digest", ""))):
        versions = [version]
    states = [_state_of_version(version) for version in _newest_first(versions)]
    return states or [State(task_named(run.tags.get("convoy.task", "")), run=run)]


def _find_requests(text: str, index: Index) -> list[Match]:
    """The newest line of each bundle that answered under this id: a client may send an id twice."""
    lines = _request_lines(index.request_log, text) if index.request_log and _REQUEST.fullmatch(text) else []
    newest = {line.get("digest"): line for line in reversed(lines)}
    matches = []
    for digest, line in newest.items():
        states = [_state_of_digest(digest, task_named(str(line.get("task"))), index)] if digest else []
        matches.append(Match("request", text, f"request answered at {line.get('at')}", states, line))
    return matches


def _request_lines(request_log: str, request_id: str) -> list[dict[str, Any]]:
    """The lines with this id, the newest first: a client may send an id twice."""
    files = request_log_files.existing(request_log)  # each worker of the service has its own
    lines = [line for path in files for line in reversed(_lines_with(path, request_id.encode()))]
    lines.sort(key=lambda line: str(line.get("at")), reverse=True)
    return [line for line in lines if line.get("id") == request_id]


def _lines_with(path: Path, text: bytes) -> list[dict[str, Any]]:
    """The lines of a file that hold these bytes; a line that is no JSON, as a kill leaves one, is skipped."""
    lines = []
    with path.open("rb") as stream:
        for line in stream:
            if text in line:
                try:
                    content = json.loads(line)
                except ValueError:
                    continue
                if isinstance(content, dict):
                    lines.append(content)
    return lines


def _is_prefix(whole: str, text: str) -> bool:
    return len(text) >= MIN_PREFIX and _HEX.fullmatch(text) is not None and whole.startswith(text)


# Searched in this order; each finds full IDs, and hashes by their first digits.
FINDERS: dict[str, Callable[[str, Index], list[Match]]] = {
    "version": _find_versions,
    "digest": _find_digests,
    "run": _find_runs,
    "request": _find_requests,
}
