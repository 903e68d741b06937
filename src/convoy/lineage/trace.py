"""`python -m convoy trace`: find, tell, and where asked bring back in a folder of its own, or rebuild and compare."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from convoy.core import locks
from convoy.core.progress import Say
from convoy.lineage import checkout as worktree
from convoy.lineage import report, reproduce
from convoy.lineage.checkout import CheckoutRefused
from convoy.lineage.index import World
from convoy.lineage.resolve import find
from convoy.lineage.state import State, state_of

Confirm = Callable[[str], bool]
GROUND = Path(".run/trace")


def trace(
    asked: str,
    world: World,
    checkout: Path | None,
    verify: bool,
    as_json: bool,
    tell: Say,
    progress: Say,
    confirm: Confirm,
) -> int:
    """Say what `asked` names, and do what is asked with it; gives the exit status. Raises TraceFailed, CheckoutRefused.

    `tell` is for the answer, `progress` for what happens on the way to it, `confirm` before a patch is applied.
    """
    match = find(asked, world)
    states = [state_of(point, world) for point in match.points]
    answer = report.as_json(match, states)
    if not as_json:
        for line in report.lines(match, states):
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


def _show_patch(state: State, world: World, say: Say, confirm: Confirm) -> None:
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
    state: State, world: World, checkout: Path | None, verify: bool, say: Say
) -> list[reproduce.Comparison]:
    if checkout is not None:
        worktree.check_out(state, checkout, world, say)
        return reproduce.rebuild(state, checkout, world, say) if verify else []
    with _for_a_while(state, world, say) as folder:
        return reproduce.rebuild(state, folder, world, say)


@contextmanager
def _for_a_while(state: State, world: World, say: Say) -> Iterator[Path]:
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
