"""Ways to kill a stage or its DVC, or to fill its disk, and what the next plain `dvc repro` makes of what is left."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from bench.interruptions.ground import BUILD_S, Ground

Target = Literal["stage", "dvc", "both"]
Fault = Literal["stage", "dvc", "full"]  # who is killed, or what the stage finds


@dataclass(frozen=True)
class Outcome:
    """What came of one kill, or of one full disk."""

    stage: str
    kind: str
    at: str  # seconds after the start, or the write
    plain: bool  # the next `dvc repro` worked, without hands
    verified: bool  # it worked after `python -m convoy verify --mend`, as `make repro` runs it
    same: bool  # with the hashes of an undisturbed run, and without leftovers
    said: str = ""  # the last words where something of this is not so
    told: bool = True  # a full disk: by a line that says so, without a traceback


def at_random(ground: Ground, stage: str, target: Target, rng: random.Random) -> Outcome | None:
    """Kill at a moment of the time that the stage takes; None where it was done before."""
    ground.forget(stage)
    running = ground.start("dvc", "repro", "-s", stage)
    victim: psutil.Process | None = psutil.Process(running.pid)
    if target == "stage":
        victim = _stage_of(running)
    lasts_s = _LASTS_S.get(stage.partition("@")[0], 4.0)
    after_s = rng.uniform(0, lasts_s - 1.2 if target == "stage" else lasts_s)
    time.sleep(after_s)
    alive = running.poll() is None
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if victim and target == "both":
            os.killpg(running.pid, signal.SIGKILL)
        elif victim:
            victim.kill()
    code = running.wait(BUILD_S)
    assert running.stdout is not None
    running.stdout.close()  # an orphan may still write: it must not be waited for
    killed = code != 0 if target == "stage" else alive and code == -signal.SIGKILL
    return recover(ground, stage, f"{target}, any time", f"{after_s:.2f} s") if killed else None


def at_each_write(ground: Ground, stage: str, target: Target, every: int = 1) -> Iterator[Outcome]:
    """Kill at the first write, at the second, and so on, or at each `every`-th, until it gets to its end."""
    word = _module_of(stage) if target == "stage" else "dvc"
    for at, _ in _strike(ground, stage, "kill", word, every):
        yield recover(ground, stage, f"{target}, each write", at)


def with_full_disk(ground: Ground, stage: str, every: int = 1) -> Iterator[Outcome]:
    """The disk is full for the stage from its first write on, from its second, and so on; then it has room again."""
    for at, said in _strike(ground, stage, "full", _module_of(stage), every):
        outcome = recover(ground, stage, "stage, full disk from each write on", at)
        told = "No space left on device" in said and "Traceback" not in said
        yield outcome if told else replace(outcome, told=False, said=f"{said[-600:]}{outcome.said}")


def _strike(ground: Ground, stage: str, how: str, word: str, every: int) -> Iterator[tuple[str, str]]:
    """The step at which it struck, and all that was said, until a run gets to its end."""
    log = Path(f"{ground.folder}.fault")
    step = 1
    while True:
        ground.forget(stage)
        log.unlink(missing_ok=True)
        armed = {"CONVOY_FAULT": how, "CONVOY_FAULT_AT": str(step), "CONVOY_FAULT_IN": word}
        running = ground.start("dvc", "repro", "-s", stage, **armed, CONVOY_FAULT_LOG=str(log))
        said, _ = running.communicate(timeout=BUILD_S)
        if not log.exists():
            return
        yield f"{step}: {log.read_text().splitlines()[0]}", said
        step += every


def recover(ground: Ground, stage: str, kind: str, at: str) -> Outcome:
    """What the next `dvc repro` does; where it fails, what it does after Convoy's own look at DVC's files."""
    done = ground.dvc("-s", stage)
    plain = done.returncode == 0
    said = "" if plain else done.stderr.strip()[-300:]
    verified = plain
    if not plain:
        ground.start("convoy", "verify", "--mend").communicate(timeout=BUILD_S)
        verified = ground.dvc("-s", stage).returncode == 0
    same = verified and ground.same(stage) and not ground.leftovers()
    return Outcome(stage, kind, at, plain, verified, same, said)


def table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """A row per stage and kind."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for each in outcomes:
        row = rows.setdefault((each.stage, each.kind), {"stage": each.stage, "kind": each.kind, "faults": 0})
        row["faults"] += 1
        for key, value in asdict(each).items():
            if isinstance(value, bool):
                row[key] = row.get(key, 0) + value
    return list(rows.values())


def _module_of(stage: str) -> str:
    """The module that a stage runs."""
    return f"pipelines.{stage.partition('@')[0]}"


def _stage_of(running: "subprocess.Popen[str]") -> psutil.Process | None:
    """The stage's process, as soon as there is one."""
    while running.poll() is None:
        with suppress(psutil.Error):
            for child in psutil.Process(running.pid).children(recursive=True):
                if any(word.startswith("pipelines.") for word in child.cmdline()):
                    return child
        time.sleep(0.01)
    return None


# From the start of `dvc repro -s` to its end, where it is far from 4 s.
_LASTS_S = {"choose": 1.5, "export": 13.0, "baselines": 7.0}
