"""An ID as a user types it -> what it names: a request, a version, a run, a bundle, data or a git revision."""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from convoy.core import request_files, stages
from convoy.core.paths import TASKS, Task
from convoy.lineage.index import Index
from convoy.lineage.state import (
    Match,
    Origin,
    distinct,
    dvc_hashes,
    origin_of_digest,
    origin_of_version,
    origins_of_run,
    task_named,
)
from convoy.tracking.provenance import Lock

Hash = tuple[str, str, Origin]  # md5 without .dir, path, and the state it belongs to

MIN_PREFIX = 8  # hexadecimal digits of a hash that is not written out
_HEX = re.compile(r"[0-9a-f]+")
_VERSION = re.compile(rf"(?:convoy-)?({'|'.join(get_args(Task))})[/:]v?([0-9]+)")
_REQUEST = re.compile(r"[A-Za-z0-9._-]{1,64}")  # as the service takes them


def find_requests(named: str, request_id: str) -> list[dict[str, Any]]:
    """The lines with this id, the newest first: who sends an id may send it twice."""
    found = [line for path in request_files.existing(named) for line in reversed(_lines(path, request_id.encode()))]
    return [line for line in found if line.get("id") == request_id]


def _lines(path: Path, wanted: bytes) -> list[dict[str, Any]]:
    """The lines of a file that hold these bytes; what is no JSON, such as the half line of a kill, is passed over."""
    lines = []
    with path.open("rb") as stream:
        for line in stream:
            if wanted in line:
                try:
                    content = json.loads(line)
                except ValueError:
                    continue
                if isinstance(content, dict):
                    lines.append(content)
    return lines


def all_hashes(world: Index) -> Iterator[Hash]:
    """All that MLflow's tags and the dvc.lock here name."""
    for version in world.known.versions:
        for path, md5 in dvc_hashes(version.tags).items():
            yield md5, path, origin_of_version(version)
    for run in world.known.runs.values():
        for path, md5 in dvc_hashes(run.tags).items():
            for point in origins_of_run(run, world):
                yield md5, path, point
    yield from _of_lock(world.lock, None)


def find_data(beginning: str, world: Index) -> list[Match]:
    """Whatever dvc.lock names: raw and prepared data, weights, bundles, reports, code; a match for each md5."""
    found = [hashed for hashed in all_hashes(world) if hashed[0].startswith(beginning)]
    if not found and world.git.is_there:
        for revision in world.git.revisions_with(beginning):
            of_revision = _of_lock(world.git.lock_at(revision) or Lock({}), revision)
            found += [hashed for hashed in of_revision if hashed[0].startswith(beginning)]
    matches = []
    for md5 in dict.fromkeys(md5 for md5, _, _ in found):
        paths = sorted({path for each, path, _ in found if each == md5})
        points = distinct(point for each, _, point in found if each == md5)
        matches.append(Match("data", md5, f"{', '.join(paths)} as DVC has it, md5 {md5}", points))
    return matches


def find_revision(revision: str, world: Index) -> Match:
    """The versions and runs of a git revision: those published from it, and those whose dvc.lock it holds."""
    lock = world.git.lock_at(revision)
    made = {md5.removesuffix(".dir") for stage in (lock.stages if lock else ()) for md5 in _models(lock, stage)}
    points: list[Origin] = []
    for version in world.known.versions:
        run = world.run(version.run_id)
        tags = {**(run.tags if run else {}), **version.tags}
        bundles = [md5 for path, md5 in dvc_hashes(tags).items() if path.startswith("bundles/")]
        weights = [md5 for path, md5 in dvc_hashes(tags).items() if path.startswith("candidates/")]
        if tags.get("convoy.git_revision") == revision or made & set(bundles or weights):
            points.append(origin_of_version(version))
    runs = [run for run in world.known.runs.values() if run.tags.get("convoy.git_revision") == revision]
    points += [point for run in runs for point in origins_of_run(run, world)]
    alone = [Origin(task, revision=revision, lock=lock) for task in TASKS if lock]
    return Match("revision", revision, f"git revision {revision}", distinct(points or alone))


def _models(lock: Lock | None, stage: str) -> Iterable[str]:
    outs = lock.outs(stage) if lock else {}
    return [md5 for path, md5 in outs.items() if path.startswith(("bundles/", "candidates/"))]


def _of_lock(lock: Lock, revision: str | None) -> Iterator[Hash]:
    for stage in lock.stages:
        point = Origin(stages.task_of(stage), revision=revision, lock=lock)
        for path, md5 in {**lock.deps(stage), **lock.outs(stage)}.items():
            yield md5.removesuffix(".dir"), path, point


class IdUnresolved(LookupError):
    """An ID that names nothing, or more than one thing; says where it was looked for, and what is nearest."""


def resolve_id(asked: str, world: Index) -> Match:
    """What `asked` names; `run:`, `data:` and so on before it say which kind is meant. Raises IdUnresolved."""
    kind, colon, rest = asked.strip().partition(":")
    chosen = {kind: KINDS[kind]} if colon and kind in KINDS else KINDS
    text = rest if colon and kind in KINDS else asked.strip()
    matches = [match for search in chosen.values() for match in search(text, world)]
    if len(matches) > 1:
        listed = "\n".join(f"  {match.kind}:{match.name}  {match.what}" for match in matches)
        raise IdUnresolved(f"{text} names {len(matches)} things; say which:\n{listed}")
    if not matches:
        raise IdUnresolved(_unknown(text, list(chosen), world))
    return matches[0]


def _versions(text: str, world: Index) -> list[Match]:
    if (named := _VERSION.fullmatch(text.lower())) is None:
        return []
    name, number = f"convoy-{named[1]}", int(named[2])
    found = [version for version in world.known.versions if (version.name, version.number) == (name, number)]
    return [
        Match("version", f"{name}/{number}", f"registered version {number} of {name}", [origin_of_version(version)])
        for version in found
    ]


def _digests(text: str, world: Index) -> list[Match]:
    """The bundles that MLflow knows or that lie here."""
    tasks = {
        run.tags.get("convoy.bundle_digest", ""): run.tags.get("convoy.task", "") for run in world.known.runs.values()
    }
    tasks |= {version.digest: version.name for version in world.known.versions}
    tasks |= {place.digest: place.task for place in world.places}
    found = {digest: task_named(name) for digest, name in tasks.items() if _begins(digest, text)}
    return [
        Match("digest", digest, f"bundle of the task {task}, digest {digest}", [origin_of_digest(digest, task, world)])
        for digest, task in found.items()
    ]


def _runs(text: str, world: Index) -> list[Match]:
    found = [run for run in world.known.runs.values() if _begins(run.id, text)]
    return [
        Match("run", run.id, f"MLflow run {run.name}, {run.id}", distinct(origins_of_run(run, world))) for run in found
    ]


def _data(text: str, world: Index) -> list[Match]:
    beginning = text.removesuffix(".dir")
    return find_data(beginning, world) if _begins(beginning, beginning) and len(beginning) <= 32 else []


def _revisions(text: str, world: Index) -> list[Match]:
    revision = world.git.resolve(text) if text and world.git.is_there else None
    return [find_revision(revision, world)] if revision else []


def _requests(text: str, world: Index) -> list[Match]:
    """The newest line of each bundle that answered under this id: who sends an id may send it twice."""
    lines = find_requests(world.request_log, text) if world.request_log and _REQUEST.fullmatch(text) else []
    newest = {line.get("digest"): line for line in reversed(lines)}
    matches = []
    for digest, line in newest.items():
        points = [origin_of_digest(digest, task_named(str(line.get("task"))), world)] if digest else list[Origin]()
        matches.append(Match("request", text, f"request answered at {line.get('at')}", points, line))
    return matches


# In this order an ID is looked for; each finds what it begins, or is in full.
KINDS: dict[str, Callable[[str, Index], list[Match]]] = {
    "version": _versions,
    "digest": _digests,
    "run": _runs,
    "data": _data,
    "revision": _revisions,
    "request": _requests,
}


def _begins(whole: str, text: str) -> bool:
    return len(text) >= MIN_PREFIX and _HEX.fullmatch(text) is not None and whole.startswith(text)


def _unknown(text: str, kinds: list[str], world: Index) -> str:
    lines = [f"{text or 'nothing'} is no {' or '.join(kinds)} that is known here"]
    if _HEX.fullmatch(text) and len(text) < MIN_PREFIX:
        lines[0] += f"; at least {MIN_PREFIX} digits of a hash are needed"
    lines += ["looked at:", *(f"  {line}" for line in world.looked_at)]
    newest = distinct(map(origin_of_version, world.known.versions))
    versions = [f"{point.task}/{point.version.number}" for point in newest if point.version]
    names = {*versions, *world.known.runs, *(place.digest for place in world.places)}
    names |= {version.digest for version in world.known.versions} | {md5 for md5, _, _ in all_hashes(world)}
    names |= set(world.git.recent() if world.git.is_there else ())
    near = difflib.get_close_matches(text, sorted(name for name in names if name), n=3, cutoff=0.5)
    if near or versions:
        lines.append(f"nearest: {', '.join(near)}" if near else f"versions: {', '.join(versions[:5])}")
    return "\n".join(lines)
