"""What an ID names and the states it leads to -> lines for people, or the same as JSON for programs."""

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from convoy.core import stages
from convoy.lineage.anchors import Match
from convoy.lineage.state import PATCH, State, told_time

_WIDTH = 12


def lines(match: Match, states: list[State]) -> Iterator[str]:
    """The newest state in full, and a line for each other one."""
    yield match.what
    if match.request is not None:
        yield from _listed("request", [_told_request(match.request)])
    if not states:
        yield "nothing more is known of it: no bundle answered" if match.request else "nothing more is known of it"
        return
    yield from _state(states[0])
    if len(states) > 1:
        yield ""
        yield f"{len(states) - 1} more, from the newest; `python -m convoy trace ID` tells each in full:"
        yield from (f"  {_short(state)}" for state in states[1:])


def as_json(match: Match, states: list[State]) -> dict[str, Any]:
    """All of it, every state in full."""
    return {
        "kind": match.kind,
        "id": match.name,
        "request": match.request,
        "states": [_as_json(state) for state in states],
    }


def _state(state: State) -> Iterator[str]:
    yield from _listed("version", _told_version(state))
    yield from _listed("run", [_told_run(state.run)] if state.run else [])
    yield from _listed("build", [f"{state.build.id}, {told_time(state.build.started_ms)}"] if state.build else [])
    yield from _listed("bundle", [state.digest] if state.digest else [])
    yield from _listed("lies in", (_told_place(place) for place in state.places))
    edits = {"none": "without edits", "kept": f"with the edits in {PATCH}"}.get(state.edits, state.edits)
    yield from _listed("git", [f"{state.revision}, {edits}"] if state.revision else [])
    yield from _listed("dvc.lock", [state.lock_from] if state.lock else [])
    yield from _listed("data", (f"{md5}  {path}" for path, md5 in state.data.items()))
    yield from _listed("params", (f"{name} = {value}" for name, value in sorted(state.params.items())))
    yield from _listed("decisions", (decision.told for decision in state.decisions))
    yield from _listed("not found", state.missing)
    if brings := commands(state):
        yield "\nTo bring it back in a folder of its own, and to make there what cannot be brought:"
        yield from (f"  {command}" for command in brings)


def commands(state: State, folder: str = "FOLDER") -> list[str]:
    """What brings the state back; `dvc repro` there reruns only what cannot be brought.

    Nothing brings back what belongs to no task or to no revision.
    """
    if state.revision is None or state.task is None:
        return []
    trace = f"python -m convoy trace {shlex.quote(state.name)} --checkout {shlex.quote(folder)}"
    # The last stage of its own: what other tasks train is not part of it.
    repro = f"PYTHONPATH=src:. dvc repro {stages.evaluate(state.task)}"
    return [trace, f"cd {shlex.quote(folder)}", repro]


def _told_version(state: State) -> list[str]:
    version = state.version
    if version is None:
        return []
    aliases = f", {' and '.join(version.aliases)}" if version.aliases else ""
    return [f"{version.name}/{version.number}, registered {told_time(version.registered_ms)}{aliases}"]


def _told_run(run: Any) -> str:
    return f"{run.id}, {run.name}, {run.status.lower()}, begun {told_time(run.started_ms)}"


def _told_place(place: Any) -> str:
    return f"{place.folder}{f', serves since {place.serves_since}' if place.serves_since else ''}"


def _told_request(line: dict[str, Any]) -> str:
    shown = ", ".join(f"{name} {line[name]}" for name in ("route", "status", "code", "ms", "version") if name in line)
    predictions = line.get("predictions") or [line[name] for name in ("explanation",) if name in line]
    said = "; ".join(map(_told_prediction, predictions[:5]))
    more = f" and {len(predictions) - 5} more" if len(predictions) > 5 else ""
    return f"{line.get('at')}: {shown}{f': {said}{more}' if said else ''}"


def _told_prediction(found: dict[str, Any]) -> str:
    if "label" in found:
        return f"{found['label']} {found['probability']:.4f}"
    return f"the set {', '.join(found['labels']) or 'without labels'}"


def _short(state: State) -> str:
    run = f", run {state.run.id}" if state.run else ""
    bundle = f", bundle {state.digest[:12]}" if state.digest else ""
    return f"{state.name}{run}{bundle}{f', git {state.revision[:12]}' if state.revision else ''}"


def _listed(title: str, values: Iterable[str]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield f"  {'' if number else title:<{_WIDTH}}{value}"


def _as_json(state: State) -> dict[str, Any]:
    version, run = state.version, state.run
    return {
        "task": state.task,
        "version": version
        and {
            "name": version.name,
            "version": str(version.number),
            "registered_at": told_time(version.registered_ms),
            "aliases": list(version.aliases),
        },
        "run": run and {"id": run.id, "name": run.name, "status": run.status, "started_at": told_time(run.started_ms)},
        "build": state.build and state.build.id,
        "digest": state.digest,
        "places": [str(place.folder) for place in state.places],
        "serves_since": next((place.serves_since for place in state.places if place.serves_since), None),
        "git": {"revision": state.revision, "edits": state.edits},
        "lock": state.lock_from or None,
        "data": state.data,
        "params": state.params,
        "decisions": [decision.model_dump(mode="json", by_alias=True) for decision in state.decisions],
        "commands": commands(state),
        "missing": state.missing,
    }
