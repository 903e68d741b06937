"""Two `dvc repro` at once -> who got to the end, what the other said, and what the next one makes of what is left."""

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench.interruptions.ground import BUILD_S, Ground

BUSY = ("is busy, it is being blocked by", "Unable to acquire lock", "another run of it is going on")
LASTS_S = 2.5  # from the start of a `dvc repro` of one small stage to its end: the second begins at any moment of that
STAGES = ("choose@fashion", "choose@reviews", "fetch@reviews")  # the quickest


@dataclass(frozen=True)
class Race:
    """What came of one."""

    stage: str
    after_s: float  # the second's start after the first's
    ended: str
    plain: bool  # the next `dvc repro` worked, without hands, and the one after that had nothing to do
    same: bool  # with the hashes of an undisturbed run, and without leftovers
    said: str = ""  # the last words of who failed otherwise than by saying that it is busy


def hold(ground: Ground, count: int, seed: int) -> Iterator[Race]:
    """So many, the stages in turn."""
    rng = random.Random(f"{seed} races")
    for number in range(count):
        yield run(ground, STAGES[number % len(STAGES)], rng.choice([0.0, rng.uniform(0, LASTS_S)]))


def run(ground: Ground, stage: str, after_s: float) -> Race:
    """Two at once where one stage has not run, then two more after each other."""
    ground.forget(stage)
    first = ground.start("dvc", "repro")
    time.sleep(after_s)
    both = [first, ground.start("dvc", "repro")]
    words = [running.communicate(timeout=BUILD_S)[0] for running in both]
    failed = [said for running, said in zip(both, words, strict=True) if running.returncode]
    strange = [said for said in failed if "Traceback" in said or not any(word in said for word in BUSY)]
    ended = ("both to the end", "one, the other said that it is busy", "neither, both said busy")[len(failed)]
    plain = ground.dvc().returncode == 0 and _is_settled(ground.dvc())
    same = ground.same(stage) and not ground.leftovers()
    return Race(stage, after_s, "strange" if strange else ended, plain, same, "".join(strange)[-600:])


def _is_settled(done: "subprocess.CompletedProcess[str]") -> bool:
    return done.returncode == 0 and "up to date" in done.stdout


def table(races: list[Race]) -> dict[str, Any]:
    """Counts, and those that did not end as they should."""
    good = sum(race.plain and race.same for race in races)
    bad = [asdict(race) for race in races if race.ended == "strange" or not (race.plain and race.same)]
    return {"races": len(races), "then_settled_and_same": good, **Counter(race.ended for race in races), "bad": bad}
