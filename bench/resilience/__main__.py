"""What the service does where things go wrong -> a report; 15 minutes, and 30 of soak."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench import machine
from bench.load import ToolMissing
from bench.resilience import clients, ends, overload, soak, swaps
from bench.resilience.ground import Ground, Size
from convoy.core import atomic

REPORT = Path("reports/bench/resilience.json")
TRIALS = {
    "overload": overload.hold,
    "slow_clients": clients.hold_slow,
    "urls": clients.hold_urls,
    "killed_worker": ends.hold_kills,
    "drain": ends.hold_drain,
    "swaps": swaps.hold,
    "soak": soak.hold,
}


def main(
    trials: Annotated[list[str] | None, typer.Argument(help=f"Which of {', '.join(TRIALS)}; all without.")] = None,
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
    soak_s: Annotated[int, typer.Option(help="How long the soak is, in seconds.")] = Size.soak_s,
) -> None:
    """Try, write the report, and print it. Trials that are not held now keep what the report says of them."""
    results = json.loads(report.read_bytes())["results"] if report.exists() else {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            ground = Ground(Path(folder), Size(soak_s=soak_s))
            for name in trials or TRIALS:
                typer.echo(f"{name} ...")
                facts, found = machine.facts(), TRIALS[name](ground)
                for key, value in found.items():
                    typer.echo(f"  {key}: {value}")
                results[name] = {**found, "at": facts}
                atomic.write_json(report, {"results": results})
    except (FileNotFoundError, ToolMissing) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"written: {report}")


if __name__ == "__main__":
    typer.run(main)
