"""`python -m convoy trace`: resolve an ID, print its state, and on request check it out or reproduce it."""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convoy.core import locks, stages
from convoy.core.process import Say
from convoy.lineage import checkout as worktree
from convoy.lineage import reproduce
from convoy.lineage.checkout import CheckoutRefused
from convoy.lineage.index import Index
from convoy.lineage.resolve import resolve_id
from convoy.lineage.state import PATCH, Match, State, format_time, state_of

_WIDTH = 12

Confirm = Callable[[str], bool]
GROUND = Path(".run/trace")


def format_lines(match: Match, states: list[State]) -> Iterator[str]:
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


def to_json(match: Match, states: list[State]) -> dict[str, Any]:
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
    yield from _listed("build", [f"{state.build.id}, {format_time(state.build.started_ms)}"] if state.build else [])
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
    return [f"{version.name}/{version.number}, registered {format_time(version.registered_ms)}{aliases}"]


def _told_run(run: Any) -> str:
    return f"{run.id}, {run.name}, {run.status.lower()}, begun {format_time(run.started_ms)}"


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
            "registered_at": format_time(version.registered_ms),
            "aliases": list(version.aliases),
        },
        "run": run
        and {"id": run.id, "name": run.name, "status": run.status, "started_at": format_time(run.started_ms)},
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


def trace(
    asked: str,
    world: Index,
    checkout: Path | None,
    verify: bool,
    as_json: bool,
    tell: Say,
    progress: Say,
    confirm: Confirm,
) -> int:
    """Print what `asked` names, and do what is asked with it; gives the exit status.

    Raises IdUnresolved, CheckoutRefused.

    `tell` is for the answer, `progress` for what happens on the way to it, `confirm` before a patch is applied.
    """
    match = resolve_id(asked, world)
    states = [state_of(point, world) for point in match.points]
    answer = to_json(match, states)
    if not as_json:
        for line in format_lines(match, states):
            tell(_printable(line))
    compared: list[reproduce.Comparison] = []
    if checkout is not None or verify:
        state = _the_one(states, match.name)
        _show_patch(state, world, progress, confirm)
        compared = _bring_back(state, world, checkout, verify, progress)
        answer |= {"checkout": checkout and str(checkout), "verified": [_plain(each) for each in compared]}
    if as_json:
        tell(json.dumps(answer, indent=2, ensure_ascii=False))
    elif compared:
        for line in reproduce.table(compared):
            tell(line)
    return 1 if any(not each.same for each in compared) else 0


def _plain(found: reproduce.Comparison) -> dict[str, Any]:
    return {**asdict(found), "same": found.same}


def _the_one(states: list[State], name: str) -> State:
    if not states:
        raise CheckoutRefused(f"{name}: there is nothing to bring back, since no state of it is known")
    if len(states) > 1:
        listed = ", ".join(state.name for state in states[:5])
        raise CheckoutRefused(f"{name} leads to {len(states)} states; name one of them: {listed}")
    return states[0]


def _show_patch(state: State, world: Index, say: Say, confirm: Confirm) -> None:
    """The patch is code of whoever can write to MLflow: it is shown, and applied only with consent."""
    if state.patch is None:
        return
    for line in _printable(state.patch.decode("utf-8", "backslashreplace")).splitlines():
        say(f"  {line}")
    say(f"These edits of {state.name} come from MLflow ({world.known.where}), not from git. They are code, which")
    say("runs as soon as anything is run in that folder. Whoever can write to that MLflow can have written them.")
    if not confirm("Apply them?"):
        raise CheckoutRefused(f"{state.name}: nothing was applied; read the patch above, then add --yes")


def _printable(text: str) -> str:
    """Text of MLflow's in which no control character can hide a line from whoever reads it in a terminal."""
    text = text.replace("\r\n", "\n")
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )


def _bring_back(
    state: State, world: Index, checkout: Path | None, verify: bool, say: Say
) -> list[reproduce.Comparison]:
    if checkout is not None:
        worktree.check_out(state, checkout, world, say)
        return reproduce.rebuild(state, checkout, world, say) if verify else []
    with _for_a_while(state, world, say) as folder:
        return reproduce.rebuild(state, folder, world, say)


@contextmanager
def _for_a_while(state: State, world: Index, say: Say) -> Iterator[Path]:
    """A worktree that goes when it is done with; what a kill left of an earlier one goes first."""
    name = state.name.replace("/", "-")
    if not re.fullmatch(r"[\w-]+", name):
        raise CheckoutRefused(
            f"{state.name!r} is no name of a version, run, bundle or revision; MLflow's record is odd"
        )
    GROUND.mkdir(parents=True, exist_ok=True)
    folder = GROUND / name
    with locks.hold(GROUND / f".{name}.lock") as is_alone:
        if not is_alone:
            raise CheckoutRefused(f"{state.name} is being rebuilt in {folder} by another process already")
        if folder.exists():
            worktree.remove(folder, world.git)
        with worktree.new_worktree(state, folder, world, say):
            yield folder
        worktree.remove(folder, world.git)
