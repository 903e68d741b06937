"""Decisions -> lines of deployed/<task>/decisions.jsonl: appended, chained by sha256, never rewritten; then applied."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from convoy.bundles.bundle import RELEASE, Anchor, BundleInvalid, Release, read_release
from convoy.core import atomic
from convoy.core.paths import DEPLOYED, Task
from convoy.core.process import Say
from convoy.release import deployment
from convoy.release.decision import Decision, Grounds, History, Mark, Model, current_user, utc_now

FILE = "decisions.jsonl"


class DecisionsBroken(ValueError):
    """A line of the history was changed or removed, or its last lines are missing."""


def path_of(task: Task) -> Path:
    """Where the history of a task stands."""
    return DEPLOYED / task / FILE


def read(task: Task) -> list[Decision]:
    """All decisions on a task, oldest first. Raises DecisionsBroken."""
    return list(read_history(task).decisions)


def digests_named(task: Task, since: datetime | None = None) -> set[str]:
    """The digests that decisions name, those of the last while alone where `since` says so."""
    recent = [each for each in read(task) if since is None or datetime.fromisoformat(each.at) >= since]
    return {model.digest for each in recent for model in (each.before, each.after) if model is not None}


def read_history(task: Task) -> History:
    """The history with chain and end checked. Raises DecisionsBroken, which names file and line, and OSError."""
    anchor = deployment.read_history_anchor(
        task
    )  # read first: a decision in between makes the history longer, which is fine
    history = read_chain(task)
    if anchor is not None and not reaches(history, anchor):
        release = DEPLOYED / task / deployment.CURRENT / RELEASE
        raise DecisionsBroken(
            f"{path_of(task)} has {len(history.lines)} whole lines, and {release} names a line {anchor.lines} that is "
            "not among them: the last lines were removed or changed. Move the file away and run `python -m convoy "
            "publish`: MLflow's copy comes back, where it has one; else put back the file of a backup. Where the lines "
            f"are lost for good, take `history` out of {release}"
        )
    return history


def read_chain(task: Task) -> History:
    """The history with its chain checked, though its last lines may be missing. Raises as `read_history`."""
    path = path_of(task)
    return parse(path.read_bytes(), path) if path.exists() else History()


def reaches(history: History, anchor: Anchor) -> bool:
    """Whether a history has the line that an anchor names."""
    return len(history.lines) >= anchor.lines and link(history.lines[: anchor.lines]) == anchor.sha256


def anchor_of(history: History) -> Anchor:
    """How far a history with one line at least has come."""
    return Anchor(lines=len(history.lines), sha256=link(history.lines))


def parse(content: bytes, path: Path) -> History:
    """The history in the bytes of a file; `path` is what an error names."""
    records: list[Decision | Mark] = []
    lines: list[bytes] = []
    torn = 0
    for place, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        record = record_of(line)
        if record is None:
            torn += 1
            continue
        if record.previous != link(lines):
            raise DecisionsBroken(
                f"{path}, line {place}: this was not appended to the line before it, so one of the two was changed or "
                f"removed. Move the file away and run `python -m convoy publish`: MLflow's copy comes back, where it "
                "has one"
            )
        records.append(record)
        lines.append(line)
    decisions = tuple(record for record in records if isinstance(record, Decision))
    return History(decisions, tuple(record for record in records if isinstance(record, Mark)), tuple(lines), torn)


def parse_apart(lines: Iterable[bytes]) -> list[Decision]:
    """The decisions in lines of several histories, whose chains are not one."""
    return [record for line in lines if isinstance(record := record_of(line), Decision)]


def record_of(line: bytes) -> Decision | Mark | None:
    """The record in a line; None for one that a kill has cut off."""
    try:
        content = json.loads(line)
        return (Mark if "of" in content else Decision).model_validate(content)
    except (ValueError, TypeError, ValidationError):
        return None


def link(lines: Sequence[bytes]) -> str:
    """What the line after these names as `previous`: the sha256 of the last; empty where there is none."""
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def append(task: Task, before: Model | None, after: Model, grounds: Grounds, at: str | None = None) -> Decision:
    """Append a decision; from then on it stands. The caller holds locks.hold_deployed()."""
    content = {"task": task, "from": _plain(before), "to": _plain(after), "gate_report": grounds.gate_report}
    figures = json.loads(json.dumps(grounds.figures), parse_constant=lambda _: None)  # JSON knows no NaN
    rest = {"kind": grounds.kind, **content, "figures": figures, "revision": grounds.revision}
    return Decision.model_validate(_append(task, rest, grounds.why, at))


def mark(task: Task, decision: Decision, kind: Literal["done", "undone"], why: str = "") -> None:
    """Append what became of a decision. The caller holds locks.hold_deployed()."""
    _append(task, {"kind": kind, "of": decision.number}, why)


def _plain(model: Model | None) -> dict[str, Any] | None:
    return model.model_dump() if model else None


def _append(task: Task, rest: dict[str, Any], why: str, at: str | None = None) -> dict[str, Any]:
    known = read_history(task).lines
    first = {
        "previous": link(known),
        "number": len(known) + 1,
        "at": at or utc_now(),
        "who": current_user(),
        "why": why,
    }
    content = {**first, **rest}
    write_lines(task, [json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")])
    return content


def write_lines(task: Task, lines: list[bytes]) -> None:
    """Append whole lines, which are on the disk when this returns; a line that a kill has cut off stays apart.

    Then the release of the deployed model names the last of them. An anchor that the history
    does not reach stays as it is.
    """
    _append_lines(path_of(task), lines)
    history, anchor = read_chain(task), deployment.read_history_anchor(task)
    if anchor is None or reaches(history, anchor):
        deployment.write_history_anchor(task, anchor_of(history))


def _append_lines(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        is_ended = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        content = memoryview(b"".join([b"" if is_ended else b"\n", *(line + b"\n" for line in lines)]))
        while content:  # a nearly full disk takes a part first, and says so at the rest
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
    atomic.sync(path.parent)


def decide(task: Task, release: Release, grounds: Grounds) -> Decision:
    """Decide that what `put` has brought to deployed/ serves.

    The appended line is the moment of the decision. Whoever is killed before it has changed nothing that answers; what
    comes after it is the same however often it is done, and `settle` does it where a kill has kept it from being done.
    """
    after = Model(version=release.version, digest=release.digest)
    decision = append(task, deployed_model(task), after, grounds, release.promoted_at)
    deployment.switch(task, release.digest)
    mark(task, decision, "done")
    return decision


def finish_interrupted(task: Task, say: Say) -> bool:
    """Complete or undo what a kill has cut off, and take note of what changed deployed/ without a decision.

    Says whether that was needed. The caller holds locks.hold_deployed(). Raises decisions.DecisionsBroken.
    """
    history = read_history(task)
    decision, now_serving = history.unfinished, deployed_model(task)
    if decision is None:
        known = history.champion
        if now_serving is not None and (known is None or known.digest != now_serving.digest):
            why = "deployed/ was changed by something that decides nothing" if known else "it serves; no history before"
            append(task, known, now_serving, Grounds("found", why))
        return False
    if now_serving is None or now_serving.digest != decision.after.digest:
        if not deployment.is_whole(task, decision.after.digest):
            mark(task, decision, "undone", "it was cut off, and its bundle is no longer whole in deployed/")
            say(f"a {decision.kind} was cut off and is undone, its bundle is no longer whole: {decision.told}")
            return True
        deployment.switch(task, decision.after.digest)
    mark(task, decision, "done", "it had been cut off; the next command completed it")
    say(f"a {decision.kind} was cut off and is completed now: {decision.told}")
    return True


def deployed_model(task: Task) -> Model | None:
    """What serves now, by deployed/; None where nothing does."""
    digest = deployment.current_digest(task)
    if digest is None:
        return None
    known = release_of_bundle(task, digest)
    return Model(version=known.version if known else None, digest=digest)


def release_of_bundle(task: Task, digest: str) -> Release | None:
    """The release beside a deployed bundle; None where there is none that can be read."""
    try:
        return read_release(deployment.folder_of(task, digest))
    except BundleInvalid:
        return None
