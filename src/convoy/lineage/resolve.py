"""An ID as a user types it -> what it names: a request, a version, a run, a bundle, data or a git revision."""

import difflib
import re
from collections.abc import Callable
from typing import get_args

from convoy.core.paths import Task
from convoy.lineage.anchors import Match, Point, distinct, point_of_digest, point_of_version, points_of_run, task_named
from convoy.lineage.hashes import all_hashes, find_data, find_revision
from convoy.lineage.index import World
from convoy.lineage.requests import find_requests

MIN_PREFIX = 8  # hexadecimal digits of a hash that is not written out
_HEX = re.compile(r"[0-9a-f]+")
_VERSION = re.compile(rf"(?:convoy-)?({'|'.join(get_args(Task))})[/:]v?([0-9]+)")
_REQUEST = re.compile(r"[A-Za-z0-9._-]{1,64}")  # as the service takes them


class TraceFailed(LookupError):
    """An ID that names nothing, or more than one thing; says where it was looked for, and what is nearest."""


def find(asked: str, world: World) -> Match:
    """What `asked` names; `run:`, `data:` and so on before it say which kind is meant. Raises TraceFailed."""
    kind, colon, rest = asked.strip().partition(":")
    chosen = {kind: KINDS[kind]} if colon and kind in KINDS else KINDS
    text = rest if colon and kind in KINDS else asked.strip()
    matches = [match for search in chosen.values() for match in search(text, world)]
    if len(matches) > 1:
        listed = "\n".join(f"  {match.kind}:{match.name}  {match.what}" for match in matches)
        raise TraceFailed(f"{text} names {len(matches)} things; say which:\n{listed}")
    if not matches:
        raise TraceFailed(_unknown(text, list(chosen), world))
    return matches[0]


def _versions(text: str, world: World) -> list[Match]:
    if (named := _VERSION.fullmatch(text.lower())) is None:
        return []
    name, number = f"convoy-{named[1]}", int(named[2])
    found = [version for version in world.known.versions if (version.name, version.number) == (name, number)]
    return [
        Match("version", f"{name}/{number}", f"registered version {number} of {name}", [point_of_version(version)])
        for version in found
    ]


def _digests(text: str, world: World) -> list[Match]:
    """The bundles that MLflow knows or that lie here."""
    tasks = {
        run.tags.get("convoy.bundle_digest", ""): run.tags.get("convoy.task", "") for run in world.known.runs.values()
    }
    tasks |= {version.digest: version.name for version in world.known.versions}
    tasks |= {place.digest: place.task for place in world.places}
    found = {digest: task_named(name) for digest, name in tasks.items() if _begins(digest, text)}
    return [
        Match("digest", digest, f"bundle of the task {task}, digest {digest}", [point_of_digest(digest, task, world)])
        for digest, task in found.items()
    ]


def _runs(text: str, world: World) -> list[Match]:
    found = [run for run in world.known.runs.values() if _begins(run.id, text)]
    return [
        Match("run", run.id, f"MLflow run {run.name}, {run.id}", distinct(points_of_run(run, world))) for run in found
    ]


def _data(text: str, world: World) -> list[Match]:
    beginning = text.removesuffix(".dir")
    return find_data(beginning, world) if _begins(beginning, beginning) and len(beginning) <= 32 else []


def _revisions(text: str, world: World) -> list[Match]:
    revision = world.git.resolve(text) if text and world.git.is_there else None
    return [find_revision(revision, world)] if revision else []


def _requests(text: str, world: World) -> list[Match]:
    """The newest line of each bundle that answered under this id: who sends an id may send it twice."""
    lines = find_requests(world.request_log, text) if world.request_log and _REQUEST.fullmatch(text) else []
    newest = {line.get("digest"): line for line in reversed(lines)}
    matches = []
    for digest, line in newest.items():
        points = [point_of_digest(digest, task_named(str(line.get("task"))), world)] if digest else list[Point]()
        matches.append(Match("request", text, f"request answered at {line.get('at')}", points, line))
    return matches


# In this order an ID is looked for; each finds what it begins, or is in full.
KINDS: dict[str, Callable[[str, World], list[Match]]] = {
    "version": _versions,
    "digest": _digests,
    "run": _runs,
    "data": _data,
    "revision": _revisions,
    "request": _requests,
}


def _begins(whole: str, text: str) -> bool:
    return len(text) >= MIN_PREFIX and _HEX.fullmatch(text) is not None and whole.startswith(text)


def _unknown(text: str, kinds: list[str], world: World) -> str:
    lines = [f"{text or 'nothing'} is no {' or '.join(kinds)} that is known here"]
    if _HEX.fullmatch(text) and len(text) < MIN_PREFIX:
        lines[0] += f"; at least {MIN_PREFIX} digits of a hash are needed"
    lines += ["looked at:", *(f"  {line}" for line in world.looked_at)]
    newest = distinct(map(point_of_version, world.known.versions))
    versions = [f"{point.task}/{point.version.number}" for point in newest if point.version]
    names = {*versions, *world.known.runs, *(place.digest for place in world.places)}
    names |= {version.digest for version in world.known.versions} | {md5 for md5, _, _ in all_hashes(world)}
    names |= set(world.git.recent() if world.git.is_there else ())
    near = difflib.get_close_matches(text, sorted(name for name in names if name), n=3, cutoff=0.5)
    if near or versions:
        lines.append(f"nearest: {', '.join(near)}" if near else f"versions: {', '.join(versions[:5])}")
    return "\n".join(lines)
