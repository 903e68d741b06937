"""What it costs a training to be shown in MLflow live, where MLflow is up, down or hangs -> a report; 20 minutes."""

import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import machine
from bench.contest import Contest, Ratio, hold, table
from bench.place import ROOT, Place, params_on_cpu
from bench.samples import TEXTS
from convoy.core import atomic

REPORT = Path("reports/bench/following.json")
CANDIDATE = "reviews-cnn"
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
    """The stage that trains a candidate, as a process in a folder of its own, told where MLflow is."""

    size: Size
    place: Place
    hanging: str  # the address of a server that takes connections and never answers
    down: str  # the address of nobody

    def contest(self) -> Contest:
        """Followed against not followed at all."""
        contestants: dict[str, Callable[[], float]] = {
            "unfollowed": lambda: self.train(CONVOY_FOLLOW="0"),
            "mlflow_up": lambda: self.train(MLFLOW_TRACKING_URI=self.place.store),
            "mlflow_down": lambda: self.train(MLFLOW_TRACKING_URI=self.down),
            "mlflow_hangs": lambda: self.train(MLFLOW_TRACKING_URI=self.hanging),
        }
        ratios = {f"{name}_over_unfollowed": Ratio(name, "unfollowed", GOAL) for name in [*contestants][1:]}
        return Contest(
            "reviews per second, start and end of the process included", self.size.rounds, contestants, ratios
        )

    def lay(self) -> None:
        """Params and some of the prepared data."""
        params = params_on_cpu()
        params["candidates"][CANDIDATE]["learning"] |= {"epochs": self.size.epochs, "patience": self.size.epochs}
        self.place.lay(params, TEXTS, {"train": self.size.reviews, "validation": self.size.validation})

    def train(self, **environment: str) -> float:
        """Reviews per second of one whole training."""
        began_s = time.perf_counter()
        self.place.run("pipelines.train", CANDIDATE, **environment)
        return self.size.reviews * self.size.epochs / (time.perf_counter() - began_s)


def measure(size: Size, source: Path = ROOT) -> dict[str, Any]:
    """The comparison, on data prepared in `source`, in a folder that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as hanging,
        socket.create_server(("127.0.0.1", 0)) as closed,
    ):
        addresses = [f"http://127.0.0.1:{server.getsockname()[1]}" for server in (hanging, closed)]
        closed.close()
        following = Following(size, Place(Path(folder), source), *addresses)
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
