"""Kills at each write and at any time, a full disk, two at once -> what the next `dvc repro` makes of it: hours."""

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from bench import machine
from bench.interruptions import kills, races
from bench.interruptions.ground import Ground, Lost
from bench.interruptions.kills import Outcome
from convoy.core import atomic

REPORT = Path("reports/bench/interruptions.json")
TARGETS: tuple[kills.Target, ...] = ("stage", "dvc", "both")


def hold(ground: Ground, stage: str, at_random: int, every: dict[kills.Fault, int], seed: int) -> Iterator[Outcome]:
    """All faults of one stage. Raises Lost where the whole pipeline is not settled afterwards."""
    rng = random.Random(f"{seed} {stage}")
    for fault, step in every.items():
        if fault == "full":
            yield from kills.with_full_disk(ground, stage, step)
        else:
            yield from kills.at_each_write(ground, stage, fault, step)
    for target in TARGETS:
        for _ in range(at_random):
            outcome = kills.at_random(ground, stage, target, rng)
            if outcome:
                yield outcome
    ground.restore(stage)
    done = ground.dvc()
    if done.returncode or "Running stage" in done.stdout:
        raise Lost(f"after the kills of {stage} `dvc repro` still had something to do: {done.stdout[-2000:]}")
    ground.keep_times()


def main(
    stages: Annotated[list[str] | None, typer.Argument(help="Stages as DVC calls them; all without.")] = None,
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
    at_random: Annotated[int, typer.Option(help="Kills at any time, of each of stage, dvc, and both.")] = 3,
    every: Annotated[int, typer.Option(help="1 is each write of the stage, 3 each third.")] = 1,
    every_of_dvc: Annotated[int, typer.Option(help="The same of DVC's own.")] = 1,
    every_full: Annotated[int, typer.Option(help="1: the disk is full from each of the stage's writes on.")] = 1,
    race: Annotated[int, typer.Option("--races", help="So many times two at once, and no kills.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Disturb, write the report after each stage or race, and print it. Stages not named keep what it says."""
    steps: dict[kills.Fault, int] = {"stage": every, "dvc": every_of_dvc, "full": every_full}
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder, "convoy"))
        typer.echo("laying and building a small workspace, undisturbed ...")
        ground.lay()
        if race:
            held, facts = [], machine.facts()
            for one in tqdm(races.hold(ground, race, seed), total=race, unit="race"):
                held.append(one)
                table = races.table(held)
                _write(report, {"races": {**table, "at": facts}})
            typer.echo(json.dumps(table, indent=1))
            return
        for stage in stages or ground.stages:
            facts, outcomes = machine.facts(), []
            trials = hold(ground, stage, at_random, steps, seed)
            for outcome in (progress := tqdm(trials, desc=stage, unit="kill")):
                outcomes.append(outcome)
                progress.set_postfix(plain=sum(each.plain for each in outcomes), same=sum(e.same for e in outcomes))
            result = _result(outcomes)
            _write(report, {"results": {stage: {**result, "every": steps, "at": facts}}})
            typer.echo(json.dumps({stage: result}, indent=1))
    typer.echo(f"written: {report}")


def _result(outcomes: list[Outcome]) -> dict[str, Any]:
    failed = [asdict(each) for each in outcomes if not (each.plain and each.same and each.told)]
    return {"faults": len(outcomes), "kinds": kills.table(outcomes), "not_by_plain_repro": failed}


def _write(report: Path, found: dict[str, Any]) -> None:
    """Add to what the report says of other stages."""
    known = json.loads(report.read_bytes()) if report.exists() else {}
    results = known.get("results", {}) | found.get("results", {})
    totals: dict[str, int] = {}
    for row in (row for each in results.values() for row in each["kinds"]):
        for key in ("faults", "plain", "verified", "same"):
            totals[key] = totals.get(key, 0) + row[key]
    atomic.write_json(report, {**known, **found, "totals": totals, "results": results})


if __name__ == "__main__":
    typer.run(main)
