"""An ID as a user types it -> what it names: a request, a version, a run, a bundle, data or a git revision."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from convoy.core import request_log_files, tasks
from convoy.lineage.index import Index
from convoy.lineage.state import (
    Match,
    Origin,
    dvc_hashes,
    newest_distinct,
    origin_of_digest,
    origin_of_version,
    origins_of_run,
    task_named,
)
from convoy.tracking.provenance import Lock

Hash = tuple[str, str, Origin]  # md5 without .dir, path, and the state it belongs to
MIN_PREFIX = 8  # hexadecimal digits of a hash that is not written out
_HEX = re.compile(r"[0-9a-f]+")
_VERSION = re.compile(rf"(?:convoy-)?({tasks.NAME.pattern})[/:]v?([0-9]+)")
_REQUEST = re.compile(r"[A-Za-z0-9._-]{1,64}")  # as the service accepts them


class IdUnresolved(LookupError):
    """An ID that names nothing, or more than one thing; says where it was searched, and the nearest IDs."""


def resolve_id(name: str, index: Index) -> Match:
    """The match of an ID; a prefix such as `run:` or `data:` restricts the kind. Raises IdUnresolved."""
    kind, colon, remainder = name.strip().partition(":")
    chosen = {kind: FINDERS[kind]} if colon and kind in FINDERS else FINDERS
    text = remainder if colon and kind in FINDERS else name.strip()
    matches = [match for search in chosen.values() for match in search(text, index)]
    if len(matches) > 1:
        listed = "\n".join(f"  {match.kind}:{match.name}  {match.what}" for match in matches)
        raise IdUnresolved(f"{text} names {len(matches)} things; say which:\n{listed}")
    if not matches:
        raise IdUnresolved(_describe_unknown(text, list(chosen), index))
    return matches[0]


def _describe_unknown(text: str, kinds: list[str], index: Index) -> str:
    lines = [f"{text or 'nothing'} is no {' or '.join(kinds)} that is known here"]
    if _HEX.fullmatch(text) and len(text) < MIN_PREFIX:
        lines[0] += f"; at least {MIN_PREFIX} digits of a hash are needed"
    lines += ["looked at:", *(f"  {line}" for line in index.searched)]
    newest = newest_distinct(map(origin_of_version, index.mlflow.versions))
    versions = [f"{origin.task}/{origin.version.number}" for origin in newest if origin.version]
    names = {*versions, *index.mlflow.runs, *(place.digest for place in index.places)}
    names |= {version.digest for version in index.mlflow.versions} | {md5 for md5, _, _ in _all_hashes(index)}
    names |= set(index.git.recent() if index.git.is_there else ())
    nearest = difflib.get_close_matches(text, sorted(name for name in names if name), n=3, cutoff=0.5)
    if nearest or versions:
        lines.append(f"nearest: {', '.join(nearest)}" if nearest else f"versions: {', '.join(versions[:5])}")
    return "\n".join(lines)


def _find_versions(text: str, index: Index) -> list[Match]:
    if (parsed := _VERSION.fullmatch(text.lower())) is None:
        return []
    name, number = f"convoy-{parsed[1]}", int(parsed[2])
    versions = [version for version in index.mlflow.versions if (version.name, version.number) == (name, number)]
    return [
        Match("version", f"{name}/{number}", f"registered version {number} of {name}", [origin_of_version(version)])
        for version in versions
    ]


def _find_digests(text: str, index: Index) -> list[Match]:
    """The bundles that MLflow knows or that lie here."""
    tasks = {
        run.tags.get("convoy.bundle_digest", ""): run.tags.get("convoy.task", "") for run in index.mlflow.runs.values()
    }
    tasks |= {version.digest: version.name for version in index.mlflow.versions}
    tasks |= {place.digest: place.task for place in index.places}
    digests = {digest: task_named(name) for digest, name in tasks.items() if _is_prefix(digest, text)}
    return [
        Match("digest", digest, f"bundle of the task {task}, digest {digest}", [origin_of_digest(digest, task, index)])
        for digest, task in digests.items()
    ]


def _find_runs(text: str, index: Index) -> list[Match]:
    runs = [run for run in index.mlflow.runs.values() if _is_prefix(run.id, text)]
    return [
        Match("run", run.id, f"MLflow run {run.name}, {run.id}", newest_distinct(origins_of_run(run, index)))
        for run in runs
    ]


def _find_data(text: str, index: Index) -> list[Match]:
    prefix = text.removesuffix(".dir")
    return _matches_of_hash(prefix, index) if _is_prefix(prefix, prefix) and len(prefix) <= 32 else []


def _matches_of_hash(prefix: str, index: Index) -> list[Match]:
    """A match for each md5 with this prefix: raw and prepared data, weights, bundles, reports, code."""
    hashes = [entry for entry in _all_hashes(index) if entry[0].startswith(prefix)]
    if not hashes and index.git.is_there:
        for revision in index.git.revisions_with(prefix):
            of_revision = _hashes_of_lock(index.git.lock_at(revision) or Lock({}), revision)
            hashes += [entry for entry in of_revision if entry[0].startswith(prefix)]
    matches = []
    for md5 in dict.fromkeys(md5 for md5, _, _ in hashes):
        paths = sorted({path for path_md5, path, _ in hashes if path_md5 == md5})
        origins = newest_distinct(origin for path_md5, _, origin in hashes if path_md5 == md5)
        matches.append(Match("data", md5, f"{', '.join(paths)} as DVC has it, md5 {md5}", origins))
    return matches


def _all_hashes(index: Index) -> Iterator[Hash]:
    """Every hash in MLflow's tags and in the dvc.lock here."""
    for version in index.mlflow.versions:
        for path, md5 in dvc_hashes(version.tags).items():
            yield md5, path, origin_of_version(version)
    for run in index.mlflow.runs.values():
        for path, md5 in dvc_hashes(run.tags).items():
            for origin in origins_of_run(run, index):
                yield md5, path, origin
    yield from _hashes_of_lock(index.lock, None)


def _hashes_of_lock(lock: Lock, revision: str | None) -> Iterator[Hash]:
    behind = {task: set(lock.to_reports(task)) for task in lock.tasks}
    for stage in lock.stages:
        of_stage = [task for task, stages in behind.items() if stage in stages]
        origin = Origin(of_stage[0] if len(of_stage) == 1 else None, revision=revision, lock=lock)
        for path, md5 in {**lock.deps(stage), **lock.outs(stage)}.items():
            yield md5.removesuffix(".dir"), path, origin


def _find_revisions(text: str, index: Index) -> list[Match]:
    revision = index.git.resolve(text) if text and index.git.is_there else None
    return [_match_of_revision(revision, index)] if revision else []


def _match_of_revision(revision: str, index: Index) -> Match:
    """The versions and runs of a git revision: those published from it, and those whose dvc.lock it holds."""
    lock = index.git.lock_at(revision)
    md5s = {md5.removesuffix(".dir") for stage in (lock.stages if lock else ()) for md5 in _model_hashes(lock, stage)}
    origins: list[Origin] = []
    for version in index.mlflow.versions:
        run = index.run(version.run_id)
        tags = {**(run.tags if run else {}), **version.tags}
        bundles = [md5 for path, md5 in dvc_hashes(tags).items() if path.startswith("bundles/")]
        weights = [md5 for path, md5 in dvc_hashes(tags).items() if path.startswith("candidates/")]
        if tags.get("convoy.git_revision") == revision or md5s & set(bundles or weights):
            origins.append(origin_of_version(version))
    runs = [run for run in index.mlflow.runs.values() if run.tags.get("convoy.git_revision") == revision]
    origins += [origin for run in runs for origin in origins_of_run(run, index)]
    of_lock = [Origin(task, revision=revision, lock=lock) for task in lock.tasks] if lock else []
    return Match("revision", revision, f"git revision {revision}", newest_distinct(origins or of_lock))


def _model_hashes(lock: Lock | None, stage: str) -> Iterable[str]:
    outs = lock.outs(stage) if lock else {}
    return [md5 for path, md5 in outs.items() if path.startswith(("bundles/", "candidates/"))]


def _find_requests(text: str, index: Index) -> list[Match]:
    """The newest line of each bundle that answered under this id: a client may send an id twice."""
    lines = _request_lines(index.request_log, text) if index.request_log and _REQUEST.fullmatch(text) else []
    newest = {line.get("digest"): line for line in reversed(lines)}
    matches = []
    for digest, line in newest.items():
        origins = [origin_of_digest(digest, task_named(str(line.get("task"))), index)] if digest else list[Origin]()
        matches.append(Match("request", text, f"request answered at {line.get('at')}", origins, line))
    return matches


def _request_lines(request_log: str, request_id: str) -> list[dict[str, Any]]:
    """The lines with this id, the newest first: a client may send an id twice."""
    lines = [
        line
        for path in request_log_files.existing(request_log)
        for line in reversed(_lines_with(path, request_id.encode()))
    ]
    # Each worker of the service has a file of its own.
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
    "data": _find_data,
    "revision": _find_revisions,
    "request": _find_requests,
}
