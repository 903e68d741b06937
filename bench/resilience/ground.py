"""Where a trial is held: deployed bundles, a service to start, clients that ask, claims about what came of it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import servers
from bench.bodies import deploy, write_bodies
from bench.load import Load
from bench.samples import IMAGES

PATH = f"/v1/{IMAGES}/predict"


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    overload_s: int = 30
    after_s: int = 10
    peak_s: float = 8
    slow_clients: int = 500
    slow_s: int = 30
    urls: int = 2000
    kills: int = 3
    drained: int = 5000
    swaps: int = 100
    soak_s: int = 1800


def claim(measured: float, goal: float, at_most: bool = True) -> dict[str, Any]:
    """One figure, its goal, and whether it is reached."""
    met = measured <= goal if at_most else measured >= goal
    return {"measured": round(measured, 4), "goal": f"{'<=' if at_most else '>='}{goal:g}", "met": bool(met)}


class Ground:
    """A folder with the bundles that were built last, deployed, and images to ask about."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.images = write_bodies(folder, 20).images
        self.deployed = folder / "deployed"
        deploy(self.deployed)

    @contextmanager
    def serving(self, deployed: Path | None = None, core: int | None = None, workers: int = 1) -> Iterator[Load]:
        """Our service, answering."""
        log = self.folder / "service.log"
        with servers.ours(deployed or self.deployed, log, core, workers) as port:
            load = self.load(port)
            servers.wait_for(load, log)
            yield load

    def load(self, port: int) -> Load:
        """The images, posted to a port."""
        return Load(f"http://127.0.0.1:{port}{PATH}", "image/png", self.images)


def ask(load: Load, stop: Callable[[int], bool], connections: int = 4) -> list[int]:
    """Ask all the time by some connections; the statuses, 0 where the connection broke.

    `stop` is told how many answers a connection has had.
    """
    bodies = [path.read_bytes() for path in load.bodies]

    def keep_asking(number: int) -> list[int]:
        found: list[int] = []
        with httpx.Client(timeout=10) as client:
            while not stop(len(found)):
                body = bodies[(number + len(found)) % len(bodies)]
                try:
                    answer = client.post(load.url, content=body, headers={"content-type": load.content_type})
                    found.append(answer.status_code)
                except httpx.TransportError:
                    found.append(0)
        return found

    with ThreadPoolExecutor(connections) as pool:
        return [status for part in pool.map(keep_asking, range(connections)) for status in part]


def for_seconds(seconds: float) -> Callable[[int], bool]:
    """Stops after so long."""
    until_s = time.monotonic() + seconds
    return lambda _: time.monotonic() >= until_s


def workers_of(load: Load) -> list[psutil.Process]:
    """The processes of a service that hold models: the large ones among its supervisor's children."""
    found = []
    for process in psutil.process_iter():
        try:
            if load.port in process.cmdline() and "serve" in process.cmdline():
                children = process.children(recursive=True)
                found += [child for child in children if child.memory_info().rss > 60e6 and child.is_running()]
        except psutil.Error:
            continue
    return list({process.pid: process for process in found if process.pid != os.getpid()}.values())


def seconds_until(reached: Callable[[], bool], within_s: float = 30) -> float:
    """How long it took."""
    began_s = time.monotonic()
    while not reached() and time.monotonic() < began_s + within_s:
        time.sleep(0.05)
    return time.monotonic() - began_s


@contextmanager
def beside(work: Callable[[threading.Event], Any]) -> Iterator[list[Any]]:
    """Run `work` in a thread until the block has ended; its result is in the list then."""
    ended = threading.Event()
    result: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work, ended)
        try:
            yield result
        finally:
            ended.set()
        result.append(running.result())
