"""Plans which bundles, versions, runs and unfinished trainings go by the retention, prints the plan, removes them."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient

from convoy.core import atomic, locks, tasks
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.operations.cleanup import retention, run_cleanup
from convoy.operations.cleanup.retention import KeepParams, Removable, Verdict, check_clock, judge
from convoy.release import journal
from convoy.tracking import build_state, mlflow_runs, registry, settings
from convoy.tracking.provenance import Lock

TRAININGS = Path(".run/training")  # convoy.training.checkpoints.HOME; importing that needs torch
_ELSEWHERE = "its files lie outside the artifact root, where nothing is removed"
_SETTLING = f"what serves changed less than {retention.GRACE_S} s ago, a service may still read it"


@dataclass
class Plan:
    """A verdict on everything that was found; `revisions` and `hashes` are what the kept runs were made from."""

    judged: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    revisions: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)

    @property
    def going(self) -> list[Removable]:
        """What goes."""
        return [verdict.thing for verdict in self.judged if verdict.goes]


def plan(client: MlflowClient, params: KeepParams, now: datetime, clock_is_right: bool = False) -> Plan:
    """Judge everything, change nothing. The caller holds locks.hold_deployed().

    Raises ClockSuspicious unless `clock_is_right`, and journal.DecisionsBroken.
    """
    result = Plan()
    local = settings.is_local(client.tracking_uri)
    if not local:
        result.notes.append(
            f"MLflow's own ({client.tracking_uri}) is left alone: its runs and versions may be of other folders too; "
            "on its machine `mlflow gc` removes what is in its bin"
        )
    lock = Lock.read()
    for task in tasks.known():
        kept = retention.kept_digests(client, task, params.days, now)
        result.judged += judge(_removable_bundles(task, kept), params.bundles, params.days, now)
        if local:
            result.judged += _judge_versions_and_runs(client, task, lock, kept, params, now, result)
    result.judged += judge(list(_removable_trainings()), 0, params.training_days, now)
    if not clock_is_right:
        check_clock(_newest_time(result.judged), params.days, now)
    return result


def _newest_time(judged: Sequence[Verdict]) -> datetime | None:
    """The time of the newest record: of a thing or of a decision."""
    decisions = [decision for task in tasks.known() for decision in journal.read(task)[-1:]]
    decided_at = [retention.in_utc(datetime.fromisoformat(decision.at)) for decision in decisions]
    return max([*(verdict.thing.at for verdict in judged), *decided_at], default=None)


def print_plan(cleanup_plan: Plan, say: Say) -> None:
    """A table of what goes and what stays, with sizes and reasons; runs that stay for the same reason are one line."""
    rows = [_table_row(verdict) for verdict in cleanup_plan.judged if verdict.goes or verdict.thing.kind != "run"]
    staying = [verdict for verdict in cleanup_plan.judged if not verdict.goes and verdict.thing.kind == "run"]
    for why, count in Counter(verdict.why for verdict in staying).items():
        size_of_runs = sum(verdict.thing.size for verdict in staying if verdict.why == why)
        rows.append(("stays", f"{count} run{'s' * (count > 1)}", _format_mb(size_of_runs), "", why))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for goes, name, size, at, why in rows:
        say(f"{goes:<{widths[0]}}  {name:<{widths[1]}}  {size:>{widths[2]}}  {at:<{widths[3]}}  {why}")
    for note in cleanup_plan.notes:
        say(note)
    freed = sum(thing.size for thing in cleanup_plan.going)
    say(
        f"{len(cleanup_plan.going)} of {len(cleanup_plan.judged)} go, {_format_mb(freed)}"
        if cleanup_plan.going
        else "nothing goes"
    )


def carry_out(client: MlflowClient, going: Sequence[Removable], say: Say) -> None:
    """Remove what goes. A kill leaves each thing whole or gone; the next gc continues.

    The caller holds locks.hold_deployed(). Raises run_cleanup.RetiringFailed.
    """
    for task in tasks.known():
        if settings.is_local(client.tracking_uri) and (count := run_cleanup.finish(client, task)):
            say(f"{task}: {count} runs that a gc before was killed at are done with")
        for folder in (DEPLOYED / task).glob(".gone-*"):
            shutil.rmtree(folder)
    for thing in going:
        if thing.kind == "bundle":
            _remove_folder(Path(thing.key))
        elif thing.kind == "training":
            _remove_training(Path(thing.key))
        elif thing.kind == "version":
            task, _, number = thing.key.rpartition("/")
            run_cleanup.retire_version(client, task, registry.get_version(client, task, number))
    run_cleanup.retire_runs(client, [thing.key for thing in going if thing.kind == "run"])
    if going:
        say(f"{len(going)} are gone, {_format_mb(sum(thing.size for thing in going))}")


def _removable_bundles(task: str, kept: dict[str, str]) -> list[Removable]:
    settling = _SETTLING if retention.is_settling(task) else ""
    return [
        Removable(
            "bundle",
            f"bundle {task} {folder.name[:12]}",
            str(folder),
            run_cleanup.size_of(folder),
            at,
            kept.get(folder.name, "") or settling,
        )
        for folder, at in retention.deployed_bundles(task)
    ]


def _judge_versions_and_runs(
    client: MlflowClient, task: str, lock: Lock, kept: dict[str, str], params: KeepParams, now: datetime, result: Plan
) -> list[Verdict]:
    """Versions first: a run stays as long as its version; a version's bundle does not count in its run's size."""
    runs = run_cleanup.runs(client, task)
    sizes = {stored.run_id: stored.model_sizes for stored in runs}
    elsewhere = {stored.run_id for stored in runs if stored.folder is None}
    things = [
        Removable(
            "version",
            f"{registry.model_name(task)} {version.version}",
            f"{task}/{version.version}",
            sizes.get(str(version.run_id), {}).get(registry.model_folder(version), 0),
            run_cleanup.made_at(version),
            kept.get(version.tags.get(registry.DIGEST, ""), "")
            or (_ELSEWHERE if str(version.run_id) in elsewhere else ""),
        )
        for version in registry.versions(client, task)
    ]
    versions = judge(things, params.versions, params.days, now)
    staying = {verdict.thing.key for verdict in versions if not verdict.goes}
    used = {
        str(version.run_id): f"version {version.version} is of it"
        for version in registry.versions(client, task)
        if f"{task}/{version.version}" in staying
    }
    judged = judge(list(_removable_runs(task, lock, runs, used)), params.runs, params.days, now)
    going = {verdict.thing.key for verdict in judged if verdict.goes}
    for stored in runs:
        if stored.run_id not in going:
            result.revisions |= {stored.run.data.tags.get("convoy.git_revision", "")} - {""}
            result.hashes |= {md5 for tag, md5 in stored.run.data.tags.items() if tag.startswith("convoy.dvc.")}
    return [*versions, *judged]


def _removable_runs(
    task: str, lock: Lock, runs: Sequence[run_cleanup.StoredRun], used: dict[str, str]
) -> Iterator[Removable]:
    """The ended runs that `publish` made; other runs are left alone."""
    current = build_state.keys_of_lock(task, lock)
    for stored in runs:
        if stored.is_ours:
            is_current = stored.run.data.tags[mlflow_runs.RUN_KEY] in current
            protected = used.get(stored.run_id) or ("dvc.lock names it" if is_current else "")
            protected = protected or ("" if stored.folder else _ELSEWHERE)
            name = f"run {stored.run.info.run_name} {stored.run_id[:12]}"
            yield Removable(
                "run", name, stored.run_id, stored.size - sum(stored.model_sizes.values()), stored.at, protected
            )


def _removable_trainings() -> Iterator[Removable]:
    """Checkpoints of trainings that did not end; the newest file has the time of the last step."""
    for folder in sorted(path for path in TRAININGS.glob("*") if path.is_dir()):
        times = [path.stat().st_mtime for path in [folder, *folder.rglob("*")]]
        with _training_lock(folder) as is_free:
            protected = "" if is_free else "it is being trained"
        at = datetime.fromtimestamp(max(times), UTC)
        yield Removable("training", f"training {folder.name}", str(folder), run_cleanup.size_of(folder), at, protected)


def _remove_folder(folder: Path) -> None:
    """Rename it first, in one step, so that nobody reads half a bundle."""
    gone = folder.with_name(f".gone-{folder.name}")
    folder.rename(gone)
    atomic.sync(folder.parent)  # before any of its files goes, so that no power cut leaves half a bundle
    shutil.rmtree(gone)


def _remove_training(folder: Path) -> None:
    with _training_lock(folder) as is_free:
        if is_free:
            shutil.rmtree(folder)


def _training_lock(folder: Path) -> AbstractContextManager[bool]:
    """The lock that a training holds on its folder; False while it runs."""
    path = folder / "lock"
    return locks.hold(path) if path.exists() else nullcontext(True)  # reading makes no file


def _table_row(verdict: Verdict) -> tuple[str, str, str, str, str]:
    thing = verdict.thing
    return "goes" if verdict.goes else "stays", thing.name, _format_mb(thing.size), f"{thing.at:%Y-%m-%d}", verdict.why


def _format_mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
