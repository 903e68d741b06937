"""What deployed/, MLflow and unfinished trainings hold -> what of it goes by the retention: told first, then done."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient

from convoy.core import atomic, locks
from convoy.core.paths import DEPLOYED, TASKS, Task
from convoy.core.process import Say
from convoy.operations.cleanup import retention, run_cleanup
from convoy.operations.cleanup.retention import KeepParams, Removable, Verdict, check_clock, judge
from convoy.release import journal
from convoy.tracking import build_state, mlflow_runs, registry, settings
from convoy.tracking.provenance import Lock

TRAININGS = Path(".run/training")  # convoy.training.checkpoints.HOME, which needs torch to be imported
_ELSEWHERE = "its files lie outside the artifact root, where nothing is removed"
_SETTLING = f"what serves changed less than {retention.GRACE_S} s ago, a service may still read it"


@dataclass
class Plan:
    """What was found, judged; `revisions` and `hashes` are what the runs that stay were made from."""

    judged: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    revisions: set[str] = field(default_factory=set)
    hashes: set[str] = field(default_factory=set)

    @property
    def going(self) -> list[Removable]:
        """What goes."""
        return [each.thing for each in self.judged if each.goes]


def plan(client: MlflowClient, params: KeepParams, now: datetime, clock_is_right: bool = False) -> Plan:
    """Look at everything and judge it; changes nothing. The caller holds locks.hold_deployed().

    Raises ClockSuspicious unless `clock_is_right`, and decisions.DecisionsBroken.
    """
    made = Plan()
    local = settings.is_local(client.tracking_uri)
    if not local:
        made.notes.append(
            f"MLflow's own ({client.tracking_uri}) is left alone: its runs and versions may be of other folders too; "
            "on its machine `mlflow gc` removes what is in its bin"
        )
    lock = Lock.read()
    for task in TASKS:
        kept = retention.kept_digests(client, task, params.days, now)
        made.judged += judge(_bundles(task, kept), params.bundles, params.days, now)
        if local:
            made.judged += _judge_store(client, task, lock, kept, params, now, made)
    made.judged += judge(list(_trainings()), 0, params.training_days, now)
    if not clock_is_right:
        check_clock(_newest(made.judged), params.days, now)
    return made


def _newest(judged: Sequence[Verdict]) -> datetime | None:
    """The time of the newest record of all: of a thing, or of a decision."""
    last = [decision for task in TASKS for decision in journal.read(task)[-1:]]
    decided = [retention.in_utc(datetime.fromisoformat(decision.at)) for decision in last]
    return max([*(each.thing.at for each in judged), *decided], default=None)


def print_plan(made: Plan, say: Say) -> None:
    """A table of all that goes and all that stays, with sizes and reasons; runs that stay for one reason are a line."""
    rows = [_row(each) for each in made.judged if each.goes or each.thing.kind != "run"]
    staying = [each for each in made.judged if not each.goes and each.thing.kind == "run"]
    for why, count in Counter(each.why for each in staying).items():
        together = sum(each.thing.size for each in staying if each.why == why)
        rows.append(("stays", f"{count} run{'s' * (count > 1)}", _mb(together), "", why))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for goes, name, size, at, why in rows:
        say(f"{goes:<{widths[0]}}  {name:<{widths[1]}}  {size:>{widths[2]}}  {at:<{widths[3]}}  {why}")
    for note in made.notes:
        say(note)
    freed = sum(thing.size for thing in made.going)
    say(f"{len(made.going)} of {len(made.judged)} go, {_mb(freed)}" if made.going else "nothing goes")


def carry_out(client: MlflowClient, going: Sequence[Removable], say: Say) -> None:
    """Remove what goes. Each thing is there or it is not, whenever this is killed; the next gc goes on.

    The caller holds locks.hold_deployed(). Raises retired.RetiringFailed.
    """
    for task in TASKS:
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
            name, _, number = thing.key.rpartition("/")
            run_cleanup.retire_version(client, client.get_model_version(name, number))
    run_cleanup.retire_runs(client, [thing.key for thing in going if thing.kind == "run"])
    if going:
        say(f"{len(going)} are gone, {_mb(sum(thing.size for thing in going))}")


def _bundles(task: Task, kept: dict[str, str]) -> list[Removable]:
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


def _judge_store(
    client: MlflowClient, task: Task, lock: Lock, kept: dict[str, str], params: KeepParams, now: datetime, made: Plan
) -> list[Verdict]:
    """Versions first: a run stays as long as its version does; a version's bundle is not counted with its run again."""
    runs = run_cleanup.runs(client, task)
    sizes = {each.run_id: each.model_sizes for each in runs}
    elsewhere = {each.run_id for each in runs if each.folder is None}
    things = [
        Removable(
            "version",
            f"{registry.model_name(task)} {version.version}",
            f"{version.name}/{version.version}",
            sizes.get(str(version.run_id), {}).get(registry.model_folder(version), 0),
            run_cleanup.made_at(version),
            kept.get(version.tags.get(registry.DIGEST, ""), "")
            or (_ELSEWHERE if str(version.run_id) in elsewhere else ""),
        )
        for version in run_cleanup.versions(client, task)
    ]
    versions = judge(things, params.versions, params.days, now)
    staying = {each.thing.key for each in versions if not each.goes}
    holds = {
        str(version.run_id): f"version {version.version} is of it"
        for version in run_cleanup.versions(client, task)
        if f"{version.name}/{version.version}" in staying
    }
    judged = judge(list(_runs(task, lock, runs, holds)), params.runs, params.days, now)
    going = {each.thing.key for each in judged if each.goes}
    for each in runs:
        if each.run_id not in going:
            made.revisions |= {each.run.data.tags.get("convoy.git_revision", "")} - {""}
            made.hashes |= {md5 for tag, md5 in each.run.data.tags.items() if tag.startswith("convoy.dvc.")}
    return [*versions, *judged]


def _runs(task: Task, lock: Lock, runs: Sequence[run_cleanup.StoredRun], holds: dict[str, str]) -> Iterator[Removable]:
    """The runs that `publish` made and that nobody writes to; others are not ours to judge."""
    current = build_state.keys_of_lock(task, lock)
    for each in runs:
        if each.is_ours:
            is_current = each.run.data.tags[mlflow_runs.RUN_KEY] in current
            protected = holds.get(each.run_id) or ("dvc.lock names it" if is_current else "")
            protected = protected or ("" if each.folder else _ELSEWHERE)
            name = f"run {each.run.info.run_name} {each.run_id[:12]}"
            yield Removable("run", name, each.run_id, each.size - sum(each.model_sizes.values()), each.at, protected)


def _trainings() -> Iterator[Removable]:
    """Checkpoints of trainings that did not end; the newest file says when one was last gone on with."""
    for folder in sorted(path for path in TRAININGS.glob("*") if path.is_dir()):
        times = [path.stat().st_mtime for path in [folder, *folder.rglob("*")]]
        with _lock_of(folder) as free:
            protected = "" if free else "it is being trained"
        at = datetime.fromtimestamp(max(times), UTC)
        yield Removable("training", f"training {folder.name}", str(folder), run_cleanup.size_of(folder), at, protected)


def _remove_folder(folder: Path) -> None:
    """It is out of the way in one step, so that nobody takes half a bundle for a bundle."""
    gone = folder.with_name(f".gone-{folder.name}")
    folder.rename(gone)
    atomic.sync(folder.parent)  # before any of its files goes, so that no power cut leaves half a bundle
    shutil.rmtree(gone)


def _remove_training(folder: Path) -> None:
    with _lock_of(folder) as free:
        if free:
            shutil.rmtree(folder)


def _lock_of(folder: Path) -> AbstractContextManager[bool]:
    """The lock that a training holds on its folder; False where one runs."""
    path = folder / "lock"
    return locks.hold(path) if path.exists() else nullcontext(True)  # looking makes no file


def _row(each: Verdict) -> tuple[str, str, str, str, str]:
    thing = each.thing
    return "goes" if each.goes else "stays", thing.name, _mb(thing.size), f"{thing.at:%Y-%m-%d}", each.why


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
