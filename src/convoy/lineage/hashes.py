"""A hash of DVC's, or a git revision -> the states whose tags or dvc.lock name it."""

from collections.abc import Iterable, Iterator

from convoy.core import stages
from convoy.core.paths import TASKS
from convoy.lineage.anchors import Match, Point, distinct, dvc_hashes, point_of_version, points_of_run
from convoy.lineage.index import World
from convoy.tracking.dvc_lock import Lock

Hash = tuple[str, str, Point]  # md5 without .dir, path, and the state it belongs to


def all_hashes(world: World) -> Iterator[Hash]:
    """All that MLflow's tags and the dvc.lock here name."""
    for version in world.known.versions:
        for path, md5 in dvc_hashes(version.tags).items():
            yield md5, path, point_of_version(version)
    for run in world.known.runs.values():
        for path, md5 in dvc_hashes(run.tags).items():
            for point in points_of_run(run, world):
                yield md5, path, point
    yield from _of_lock(world.lock, None)


def find_data(beginning: str, world: World) -> list[Match]:
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


def find_revision(revision: str, world: World) -> Match:
    """The versions and runs of a git revision: those published from it, and those whose dvc.lock it holds."""
    lock = world.git.lock_at(revision)
    made = {md5.removesuffix(".dir") for stage in (lock.stages if lock else ()) for md5 in _models(lock, stage)}
    points: list[Point] = []
    for version in world.known.versions:
        run = world.run(version.run_id)
        tags = {**(run.tags if run else {}), **version.tags}
        bundles = [md5 for path, md5 in dvc_hashes(tags).items() if path.startswith("bundles/")]
        weights = [md5 for path, md5 in dvc_hashes(tags).items() if path.startswith("candidates/")]
        if tags.get("convoy.git_revision") == revision or made & set(bundles or weights):
            points.append(point_of_version(version))
    runs = [run for run in world.known.runs.values() if run.tags.get("convoy.git_revision") == revision]
    points += [point for run in runs for point in points_of_run(run, world)]
    alone = [Point(task, revision=revision, lock=lock) for task in TASKS if lock]
    return Match("revision", revision, f"git revision {revision}", distinct(points or alone))


def _models(lock: Lock | None, stage: str) -> Iterable[str]:
    outs = lock.outs(stage) if lock else {}
    return [md5 for path, md5 in outs.items() if path.startswith(("bundles/", "candidates/"))]


def _of_lock(lock: Lock, revision: str | None) -> Iterator[Hash]:
    for stage in lock.stages:
        point = Point(stages.task_of(stage), revision=revision, lock=lock)
        for path, md5 in {**lock.deps(stage), **lock.outs(stage)}.items():
            yield md5.removesuffix(".dir"), path, point
