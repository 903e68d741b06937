"""What it costs a training to be shown in MLflow live, where MLflow is up, down or hangs -> a report; 20 minutes."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bench import machine
from bench.contest import Contest, Ratio, hold, table
from bench.training import some_texts
from convoy import atomic, layout
from convoy.prepared.text import write_texts

REPORT = Path("reports/bench/following.json")
ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.95  # training may be slower by 5 % at most


@dataclass(frozen=True)
class Size:
    """How much is trained: about a minute, half of what the quickest candidate takes; its end waits 2 s at most."""

    reviews: int = 10_000
    validation: int = 1000
    epochs: int = 6
    rounds: int = 3


@dataclass(frozen=True)
class Following:
    """The stage that trains text-cnn, as a process in a folder of its own, told where MLflow is."""

    size: Size
    place: Path
    hanging: str  # the address of a server that takes connections and never answers
    down: str  # the address of nobody

    def contest(self) -> Contest:
        """Followed against not followed at all."""
        store = f"sqlite:///{self.place / 'mlflow.db'}"
        contestants: dict[str, Callable[[], float]] = {
            "unfollowed": lambda: self.train(CONVOY_FOLLOW="0"),
            "mlflow_up": lambda: self.train(MLFLOW_TRACKING_URI=store),
            "mlflow_down": lambda: self.train(MLFLOW_TRACKING_URI=self.down),
            "mlflow_hangs": lambda: self.train(MLFLOW_TRACKING_URI=self.hanging),
        }
        ratios = {f"{name}_over_unfollowed": Ratio(name, "unfollowed", GOAL) for name in [*contestants][1:]}
        return Contest(
            "reviews per second, start and end of the process included", self.size.rounds, contestants, ratios
        )

    def lay(self) -> None:
        """Params and some of the prepared data."""
        params = yaml.safe_load((ROOT / layout.PARAMS).read_text(encoding="utf-8"))
        params["train"]["trainer"] |= {"accelerator": "cpu", "precision": "32-true"}
        params["train"]["text"]["cnn"]["learning"] |= {"epochs": self.size.epochs, "patience": self.size.epochs}
        atomic.write_bytes(self.place / layout.PARAMS, yaml.safe_dump(params).encode())
        counts: dict[layout.Split, int] = {"train": self.size.reviews, "validation": self.size.validation}
        for split, count in counts.items():
            path = layout.prepared("text", split)
            write_texts(self.place / path, some_texts(ROOT / path, count))

    def train(self, **environment: str) -> float:
        """Reviews per second of one whole training."""
        kept = {
            name: value for name, value in os.environ.items() if name not in ("CONVOY_FOLLOW", "MLFLOW_TRACKING_URI")
        }
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        began_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.train", "text", "cnn"],
            cwd=self.place,
            env={**kept, "PYTHONPATH": paths, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"training ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return self.size.reviews * self.size.epochs / (time.perf_counter() - began_s)


def measure(size: Size) -> dict[str, Any]:
    """The comparison, in a folder that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as hanging,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        addresses = [f"http://127.0.0.1:{server.getsockname()[1]}" for server in (hanging, closed)]
        closed.close()
        following = Following(size, Path(folder), *addresses)
        following.lay()
        return hold(following.contest(), "a training that is followed")


def main(
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = Size.rounds,
) -> None:
    """Measure, write the report, and print a table."""
    content = machine.facts()
    try:
        results = measure(Size(rounds=rounds))
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**content, "results": results})
    typer.echo(f"{table(results)}\nwritten: {report}")


if __name__ == "__main__":
    typer.run(main)
