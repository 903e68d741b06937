"""`python -m convoy trace`: resolve an ID, print its state, and on request check it out or rebuild it."""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from convoy.core.process import Say
from convoy.lineage import reproduce
from convoy.lineage.checkout import CheckoutRefused, check_out, temporary_worktree
from convoy.lineage.index import BundleFolder, Index
from convoy.lineage.resolve import Match, resolve_id
from convoy.lineage.state import PATCH, State, complete
from convoy.tracking.store import VersionRecord

_WIDTH = 12
Confirm = Callable[[str], bool]


def trace(
    name: str,
    index: Index,
    checkout: Path | None,
    verify: bool,
    as_json: bool,
    print_answer: Say,
    progress: Say,
    confirm: Confirm,
) -> int:
    """Print what an ID names, and check it out or rebuild it on request; gives the exit status.

    `print_answer` takes the answer, `progress` the steps before it; `confirm` is asked before a patch is applied.
    Raises IdUnresolved, CheckoutRefused.
    """
    match = resolve_id(name, index)
    states = [complete(state, index) for state in match.states]
    if not as_json:
        for line in format_lines(match, states):
            print_answer(_printable(line))
    comparisons: list[reproduce.Comparison] = []
    if checkout is not None or verify:
        state = _only_state(states, match.name)
        _confirm_patch(state, index, progress, confirm)
        comparisons = _check_out_or_rebuild(state, index, checkout, verify, progress)
    if as_json:
        verified = [{**asdict(comparison), "same": comparison.same} for comparison in comparisons]
        answer = {**to_json(match, states), "checkout": checkout and str(checkout), "verified": verified}
        print_answer(json.dumps(answer, indent=2, ensure_ascii=False))
    elif comparisons:
        for line in reproduce.format_table(comparisons):
            print_answer(line)
    return 1 if any(not comparison.same for comparison in comparisons) else 0


def _only_state(states: list[State], name: str) -> State:
    if not states:
        raise CheckoutRefused(f"{name}: there is nothing to bring back, since no state of it is known")
    if len(states) > 1:
        listed = ", ".join(state.name for state in states[:5])
        raise CheckoutRefused(f"{name} leads to {len(states)} states; name one of them: {listed}")
    return states[0]


def _confirm_patch(state: State, index: Index, say: Say, confirm: Confirm) -> None:
    """Anyone who can write to MLflow may have written the patch: it is shown, and applied only with consent."""
    if state.patch is None:
        return
    for line in _printable(state.patch.decode("utf-8", "backslashreplace")).splitlines():
        say(f"  {line}")
    say(f"These edits of {state.name} come from MLflow ({index.mlflow.where}), not from git. They are code, which")
    say("runs as soon as anything is run in that folder. Whoever can write to that MLflow can have written them.")
    if not confirm("Apply them?"):
        raise CheckoutRefused(f"{state.name}: nothing was applied; read the patch above, then add --yes")


def _check_out_or_rebuild(
    state: State, index: Index, checkout: Path | None, verify: bool, say: Say
) -> list[reproduce.Comparison]:
    if checkout is not None:
        check_out(state, checkout, index, say)
        return reproduce.rebuild(state, checkout, index, say) if verify else []
    with temporary_worktree(state, index) as folder:
        return reproduce.rebuild(state, folder, index, say)


def format_lines(match: Match, states: list[State]) -> Iterator[str]:
    """The newest state in full, and a line for each of the others."""
    yield match.what
    if match.request is not None:
        yield from _format_field("request", [_format_request(match.request)])
    if not states:
        yield "nothing more is known of it: no bundle answered" if match.request else "nothing more is known of it"
        return
    yield from _format_state(states[0])
    if len(states) > 1:
        yield ""
        yield f"{len(states) - 1} more, from the newest; `python -m convoy trace ID` tells each in full:"
        yield from (f"  {_format_short(state)}" for state in states[1:])


def _format_state(state: State) -> Iterator[str]:
    version, run, build = state.version, state.run, state.build
    edits = {"none": "without edits", "kept": f"with the edits in {PATCH}"}.get(state.edits, state.edits)
    fields: dict[str, Iterable[str]] = {
        "version": [_format_version(version)] if version else [],
        "run": [f"{run.id}, {run.name}, {run.status.lower()}, begun {_format_time(run.started_ms)}"] if run else [],
        "build": [f"{build.id}, {_format_time(build.started_ms)}"] if build else [],
        "bundle": [state.digest] if state.digest else [],
        "lies in": [_format_place(place) for place in state.places],
        "git": [f"{state.revision}, {edits}"] if state.revision else [],
        "dvc.lock": [state.lock_from] if state.lock else [],
        "data": [f"{md5}  {path}" for path, md5 in state.data.items()],
        "params": [f"{name} = {value}" for name, value in sorted(state.params.items())],
        "decisions": [decision.told for decision in state.decisions],
        "not found": state.missing,
    }
    for title, values in fields.items():
        yield from _format_field(title, values)
    if lines := commands(state):
        yield "\nTo bring it back in a folder of its own, and to make there what cannot be brought:"
        yield from (f"  {command}" for command in lines)


def commands(state: State, folder: str = "FOLDER") -> list[str]:
    """The commands that check the state out; `dvc repro` there reruns only what cannot be checked out.

    Empty for a state without a task or a revision.
    """
    if state.revision is None or state.task is None:
        return []
    trace = f"python -m convoy trace {shlex.quote(state.name)} --checkout {shlex.quote(folder)}"
    # The task's own last stage: other tasks' trainings are not part of it.
    last = next((name for name in state.stages if name.startswith("evaluate")), f"evaluate@{state.task}")
    repro = f"PYTHONPATH=src:. dvc repro {last}"
    return [trace, f"cd {shlex.quote(folder)}", repro]


def _format_version(version: VersionRecord) -> str:
    aliases = f", {' and '.join(version.aliases)}" if version.aliases else ""
    return f"{version.name}/{version.number}, registered {_format_time(version.registered_ms)}{aliases}"


def _format_place(place: BundleFolder) -> str:
    return f"{place.folder}{f', serves since {place.serves_since}' if place.serves_since else ''}"


def _format_time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _format_request(line: dict[str, Any]) -> str:
    fields = ", ".join(f"{name} {line[name]}" for name in ("route", "status", "code", "ms", "version") if name in line)
    predictions = line.get("predictions") or [line[name] for name in ("explanation",) if name in line]
    results = "; ".join(map(_format_prediction, predictions[:5]))
    remaining = f" and {len(predictions) - 5} more" if len(predictions) > 5 else ""
    return f"{line.get('at')}: {fields}{f': {results}{remaining}' if results else ''}"


def _format_prediction(prediction: dict[str, Any]) -> str:
    if "label" in prediction:
        return f"{prediction['label']} {prediction['probability']:.4f}"
    return f"the set {', '.join(prediction['labels']) or 'without labels'}"


def _format_short(state: State) -> str:
    run = f", run {state.run.id}" if state.run else ""
    bundle = f", bundle {state.digest[:12]}" if state.digest else ""
    return f"{state.name}{run}{bundle}{f', git {state.revision[:12]}' if state.revision else ''}"


def _format_field(title: str, values: Iterable[str]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield f"  {'' if number else title:<{_WIDTH}}{value}"


def _printable(text: str) -> str:
    """Text of MLflow with its control characters escaped: none can hide a line in a terminal."""
    text = text.replace("\r\n", "\n")
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )


def to_json(match: Match, states: list[State]) -> dict[str, Any]:
    """All of it, every state in full."""
    return {
        "kind": match.kind,
        "id": match.name,
        "request": match.request,
        "states": [_state_to_json(state) for state in states],
    }


def _state_to_json(state: State) -> dict[str, Any]:
    version, run = state.version, state.run
    return {
        "task": state.task,
        "version": version
        and {
            "name": version.name,
            "version": str(version.number),
            "registered_at": _format_time(version.registered_ms),
            "aliases": list(version.aliases),
        },
        "run": run
        and {"id": run.id, "name": run.name, "status": run.status, "started_at": _format_time(run.started_ms)},
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
