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
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.release import deployment
from convoy.release.decision import ApprovalRefused, Decision, Grounds, History, Mark, Model, current_user, utc_now
from convoy.tracking import provenance

FILE = "decisions.jsonl"
_REMEDY = (
    "Put back the file of a backup (docs/operate.md, Backup). Where there is none, MLflow's experiment "
    "convoy-decisions keeps the lines to read; for a new history move the file away"
)


class DecisionsBroken(ValueError):
    """A line of the history was changed or removed, or its last lines are missing."""


def path_of(task: str) -> Path:
    """The file of a task's history."""
    return DEPLOYED / task / FILE


def read(task: str) -> list[Decision]:
    """All decisions on a task, oldest first. Raises DecisionsBroken."""
    return list(read_history(task).decisions)


def digests_named(task: str, since: datetime | None = None) -> set[str]:
    """The digests that decisions name, with `since` only those of later decisions."""
    recent = [decision for decision in read(task) if since is None or datetime.fromisoformat(decision.at) >= since]
    return {model.digest for decision in recent for model in (decision.before, decision.after) if model is not None}


def read_history(task: str) -> History:
    """The history with chain and end checked. Raises DecisionsBroken, which names file and line, and OSError."""
    # Read the anchor first: a decision in between makes the history longer, which is fine.
    anchor = deployment.read_history_anchor(task)
    path = path_of(task)
    history = parse(path.read_bytes(), path) if path.exists() else History()
    if anchor is not None and not _contains(history, anchor):
        release = DEPLOYED / task / deployment.CURRENT / RELEASE
        raise DecisionsBroken(
            f"{path} has {len(history.lines)} whole lines, and {release} names a line {anchor.lines} that is "
            f"not among them: the last lines were removed or changed. {_REMEDY} and take `history` out of {release}"
        )
    return history


def _contains(history: History, anchor: Anchor) -> bool:
    return len(history.lines) >= anchor.lines and hash_of_last(history.lines[: anchor.lines]) == anchor.sha256


def parse(content: bytes, path: Path) -> History:
    """The history in the bytes of a file; `path` is what an error names."""
    records: list[Decision | Mark] = []
    lines: list[bytes] = []
    torn = 0
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        record = record_of(line)
        if record is None:
            torn += 1
            continue
        if record.previous != hash_of_last(lines):
            raise DecisionsBroken(
                f"{path}, line {number}: this was not appended to the line before it, so one of the two was changed or "
                f"removed. {_REMEDY}"
            )
        records.append(record)
        lines.append(line)
    decisions = tuple(record for record in records if isinstance(record, Decision))
    return History(decisions, tuple(record for record in records if isinstance(record, Mark)), tuple(lines), torn)


def decisions_in_lines(lines: Iterable[bytes]) -> list[Decision]:
    """The decisions in lines of several histories, whose chains are separate."""
    return [record for line in lines if isinstance(record := record_of(line), Decision)]


def record_of(line: bytes) -> Decision | Mark | None:
    """The record in a line; None for one that a kill has cut off."""
    try:
        content = json.loads(line)
        return (Mark if "of" in content else Decision).model_validate(content)
    except (ValueError, TypeError, ValidationError, RecursionError):
        return None


def hash_of_last(lines: Sequence[bytes]) -> str:
    """The sha256 of the last line, which the next one names as `previous`; empty where there is none."""
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""


def append(task: str, before: Model | None, after: Model, grounds: Grounds, at: str | None = None) -> Decision:
    """Append a decision, which is then final. The caller holds locks.hold_deployed()."""
    content = {"task": task, "from": _model_json(before), "to": _model_json(after), "gate_report": grounds.gate_report}
    figures = json.loads(json.dumps(grounds.figures), parse_constant=lambda _: None)  # JSON knows no NaN
    fields = {"kind": grounds.kind, **content, "figures": figures, "revision": grounds.revision}
    return Decision.model_validate(_append_record(task, fields, grounds.why, at))


def mark(task: str, decision: Decision, kind: Literal["done", "undone"], why: str = "") -> None:
    """Append the outcome of a decision. The caller holds locks.hold_deployed()."""
    _append_record(task, {"kind": kind, "of": decision.number}, why)


def _model_json(model: Model | None) -> dict[str, Any] | None:
    return model.model_dump() if model else None


def _append_record(task: str, fields: dict[str, Any], why: str, at: str | None = None) -> dict[str, Any]:
    lines = read_history(task).lines
    common = {
        "previous": hash_of_last(lines),
        "number": len(lines) + 1,
        "at": at or utc_now(),
        "who": current_user(),
        "why": why,
    }
    content = {**common, **fields}
    line = json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
    _append_line(path_of(task), line)
    deployment.write_history_anchor(task, Anchor(lines=len(lines) + 1, sha256=hash_of_last([line])))
    return content


def _append_line(path: Path, line: bytes) -> None:
    """Append a whole line, which is on the disk when this returns; a line that a kill has cut off stays apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        is_ended = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        content = memoryview((b"" if is_ended else b"\n") + line + b"\n")
        while content:  # a nearly full disk takes a part first, and fails at the next write
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
    atomic.sync(path.parent)


def decide(task: str, release: Release, grounds: Grounds) -> Decision:
    """Decide to deploy the bundle that `deployment.put` has copied.

    The appended line is the moment of the decision. A kill before it leaves the deployed model as it was; the steps
    after it can be repeated, and `finish_interrupted` completes them after a kill.
    """
    after = Model(version=release.version, digest=release.digest)
    decision = append(task, deployed_model(task), after, grounds, release.promoted_at)
    deployment.point_current_to(task, release.digest)
    mark(task, decision, "done")
    return decision


def refuse_if_deployed_changed(task: str, model: Model, seen_digest: str | None) -> None:
    """Of two simultaneous decisions the first wins; the second, made when `seen_digest` was deployed, is recorded.

    Raises ApprovalRefused, except where the first decision has deployed the same model.
    """
    deployed = deployed_model(task)
    if seen_digest == (deployed.digest if deployed else None):
        return
    last_change = read_history(task).changes[-1:]
    why = "while this was asked for, another was decided" + (f": {last_change[0].told}" if last_change else "")
    append(task, deployed, model, Grounds("superseded", why, revision=provenance.revision()))
    if deployed is None or deployed.digest != model.digest:
        raise ApprovalRefused(f"{model} was not let serve: {why}. Ask again, if that is still what you want")


def finish_interrupted(task: str, say: Say) -> bool:
    """Complete or undo what a kill has cut off, and record a change of deployed/ that no decision made.

    Returns whether that was needed. The caller holds locks.hold_deployed(). Raises DecisionsBroken.
    """
    history = read_history(task)
    decision, deployed = history.unfinished, deployed_model(task)
    if decision is None:
        champion = history.champion
        if deployed is not None and (champion is None or champion.digest != deployed.digest):
            why = (
                "deployed/ was changed by something that decides nothing"
                if champion
                else "it serves; no history before"
            )
            append(task, champion, deployed, Grounds("found", why))
        return False
    if decision.kind == "withdrawn":
        deployment.remove_current(task)
    elif deployed is None or deployed.digest != decision.after.digest:
        if not deployment.is_whole(task, decision.after.digest):
            mark(task, decision, "undone", "it was cut off, and its bundle is no longer whole in deployed/")
            say(f"a {decision.kind} was cut off and is undone, its bundle is no longer whole: {decision.told}")
            return True
        deployment.point_current_to(task, decision.after.digest)
    mark(task, decision, "done", "it had been cut off; the next command completed it")
    say(f"a {decision.kind} was cut off and is completed now: {decision.told}")
    return True


def deployed_model(task: str) -> Model | None:
    """The deployed model, by deployed/; None where there is none."""
    digest = deployment.current_digest(task)
    if digest is None:
        return None
    release = release_of_bundle(task, digest)
    return Model(version=release.version if release else None, digest=digest)


def release_of_bundle(task: str, digest: str) -> Release | None:
    """The release of a bundle in deployed/; None where there is none that can be read."""
    try:
        return read_release(deployment.folder_of(task, digest))
    except BundleInvalid:
        return None
