"""How fast the service is, against the same ONNX files served as people usually do -> a report; about 15 minutes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from bench import machine, servers
from bench.bodies import FORM, JSON, deploy, of_peers, write_bodies
from bench.contest import Contest, Figures, Ratio, hold, table
from bench.load import LOAD_CORE, SERVER_CORE, Load, ToolMissing, pinned
from bench.samples import IMAGES, TEXTS
from convoy.core import atomic, paths

REPORT = Path("reports/bench/serving.json")
START_GOAL_S = 5.0
PINNED = "requests per second, 16 connections, 1 worker on a core of its own"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Many short turns: a shared processor may change its speed by a factor of two within seconds (a fixed loop of 15 ms
    took 15 to 30 here), and a ratio is true where both were slowed alike. In 7 rounds of 6 s the ratios of one and the
    same code spread from 0.5 to 3.2.
    """

    seconds: float = 2
    rounds: int = 21
    starts: int = 3
    bodies: int = 100
    connections: int = 16
    calls: int = 3000  # of the bare predictor


class Bench:
    """Servers that are up while a contest is held, each answering before it begins."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.bodies = write_bodies(folder, size.bodies)
        self.model = of_peers()
        self.deployed = folder / "deployed"
        deploy(self.deployed)

    def contests(self) -> dict[str, Any]:
        """All comparisons, one after the other; gives the report of each by its name."""
        results: dict[str, Any] = {}
        for title, prepare in (
            ("images", self._images),
            ("texts", self._texts),
            ("what a server adds", self._overhead),
            ("two workers", self._workers),
        ):
            with ExitStack() as stack:
                results |= hold(prepare(stack), title)
        return results

    def starts(self) -> dict[str, Any]:
        """Seconds from `bentoml serve` to the first prediction."""
        took_s = []
        for _ in range(self.size.starts):
            with ExitStack() as stack:
                began_s = time.monotonic()
                self._ours(stack, None)
                took_s.append(round(time.monotonic() - began_s, 2))
        middle_s = median(took_s)
        return {"seconds": middle_s, "goal": START_GOAL_S, "met": middle_s <= START_GOAL_S, "rounds": took_s}

    def _images(self, stack: ExitStack) -> Contest:
        loads = {
            "ours": self._ours(stack, SERVER_CORE),
            "fastapi": self._fastapi(stack, "/image"),
            "stock_bentoml": self._peer(stack, "bentoml", servers.STOCK_BENTOML, ("/predict", FORM, self.bodies.forms)),
            "litserve": self._peer(stack, "litserve", servers.LITSERVE, ("/predict", FORM, self.bodies.forms)),
            "mlflow": self._peer(stack, "mlflow", servers.MLFLOW, ("/invocations", JSON, self.bodies.tensors)),
        }
        ratios = {
            "images_over_stock_bentoml": Ratio("ours", "stock_bentoml", 3),
            "images_over_fastapi": Ratio("ours", "fastapi", 1),
            "images_over_litserve": Ratio("ours", "litserve", 2),
            "images_over_mlflow": Ratio("ours", "mlflow", 2),
            "p99_over_fastapi": Ratio("ours_p99_ms", "fastapi_p99_ms", 1.2, at_most=True),
        }
        return self._contest(PINNED, loads, ratios)

    def _texts(self, stack: ExitStack) -> Contest:
        texts = replace(self._ours(stack, SERVER_CORE), content_type=JSON, bodies=self.bodies.our_texts)
        loads = {
            "ours": replace(texts, url=texts.url.replace(IMAGES, TEXTS)),
            "fastapi": self._fastapi(stack, "/text"),
        }
        ratios = {
            "texts_over_fastapi": Ratio("ours", "fastapi", 1.2),
            "texts_p99_over_fastapi": Ratio("ours_p99_ms", "fastapi_p99_ms", None, at_most=True),
        }
        return self._contest(PINNED, loads, ratios)

    def _workers(self, stack: ExitStack) -> Contest:
        loads = {
            "one_worker": self._ours(stack, None),
            "two_workers": self._ours(stack, None, workers=2),
            "fastapi_two_workers": self._fastapi(stack, "/image", core=None, workers=2),
        }
        ratios = {
            "two_workers_over_one": Ratio("two_workers", "one_worker", 1.5),
            "images_over_fastapi_two_workers": Ratio("two_workers", "fastapi_two_workers", None),
        }
        return self._contest("requests per second, 16 connections, load and workers share all cores", loads, ratios)

    def _overhead(self, stack: ExitStack) -> Contest:
        ours, theirs = self._ours(stack, SERVER_CORE), self._fastapi(stack, "/image")
        contestants: dict[str, Callable[[], Figures]] = {
            "ours": lambda: self._alone_ms(ours) - self._bare_ms(sys.executable, "-m", "bench.bare", str(_bundle())),
            "fastapi": lambda: self._alone_ms(theirs) - self._bare_ms(*self._bare_fastapi()),
        }
        ratios = {"overhead_over_fastapi": Ratio("ours", "fastapi", 1.2, at_most=True)}
        unit = "ms of the median request beyond the bare predictor's, 1 connection"
        return Contest(unit, self.size.rounds, contestants, ratios)

    def _contest(self, unit: str, loads: dict[str, Load], ratios: dict[str, Ratio]) -> Contest:
        core = None if "share" in unit else LOAD_CORE
        contestants = {name: self._pressed(name, load, core) for name, load in loads.items()}
        return Contest(f"{unit}; p99 in ms", self.size.rounds, contestants, ratios)

    def _pressed(self, name: str, load: Load, core: int | None) -> Callable[[], Figures]:
        def press() -> Figures:
            found = load.run(self.size.connections, self.size.seconds, core)
            return {name: found["requests"] / found["seconds"], f"{name}_p99_ms": found["p99_ms"]}

        return press

    def _alone_ms(self, load: Load) -> float:
        return load.run(1, self.size.seconds / 2, LOAD_CORE)["p50_ms"]

    def _bare_ms(self, *command: str) -> float:
        words = pinned([*command, str(self.bodies.images[0].absolute()), str(self.size.calls)], SERVER_CORE)
        done = subprocess.run(words, env={**servers.surroundings(), **self.model}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")
        return float(done.stdout)

    def _bare_fastapi(self) -> tuple[str, str]:
        python = servers.BARE_FASTAPI.environment("fastapi").absolute() / "bin/python"
        return str(python), str(servers.PEERS / "bare_fastapi.py")

    def _ours(self, stack: ExitStack, core: int | None, workers: int = 1) -> Load:
        log = self.folder / f"ours-{workers}.log"
        port = stack.enter_context(servers.ours(self.deployed, log, core, workers))
        load = Load(f"http://127.0.0.1:{port}/v1/{IMAGES}/predict", "image/png", self.bodies.images)
        servers.wait_for(load, log)
        return load

    def _fastapi(self, stack: ExitStack, path: str, core: int | None = SERVER_CORE, workers: int = 1) -> Load:
        what = replace(servers.BARE_FASTAPI, command=(*servers.BARE_FASTAPI.command, "--workers", str(workers)))
        taken = ("image/png", self.bodies.images) if path == "/image" else (JSON, self.bodies.texts)
        return self._peer(stack, "fastapi", what, (path, *taken), core)

    def _peer(
        self,
        stack: ExitStack,
        name: str,
        what: servers.Peer,
        taken: tuple[str, str, list[Path]],
        core: int | None = SERVER_CORE,
    ) -> Load:
        path, content_type, bodies = taken
        log = self.folder / f"{name}.log"
        port = stack.enter_context(servers.peer(name, what, self.model, self.folder, log, core))
        load = Load(f"http://127.0.0.1:{port}{path}", content_type, bodies)
        servers.wait_for(load, log)
        return load


def _bundle() -> Path:
    return paths.bundle(IMAGES).absolute()


def measure(size: Size) -> dict[str, Any]:
    """All comparisons, and how long a start takes."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), size)
        return {"results": bench.contests(), "start": bench.starts()}


def main(
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
    rounds: Annotated[int, typer.Option(help="Rounds that count.")] = Size.rounds,
    seconds: Annotated[float, typer.Option(help="Of load at a time.")] = Size.seconds,
) -> None:
    """Measure, write the report, and print a table."""
    content = machine.facts()
    try:
        found = measure(Size(rounds=rounds, seconds=seconds))
    except (FileNotFoundError, ToolMissing) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**content, **found})
    start = found["start"]
    typer.echo(f"{table(found['results'])}\nfirst 200 after {start['seconds']} s, goal <={start['goal']} s")
    typer.echo(f"written: {report}")


if __name__ == "__main__":
    typer.run(main)
