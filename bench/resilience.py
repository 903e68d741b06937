"""What the service does where things go wrong: too many, too slow, killed, lied to -> a report; about 10 minutes."""

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer

from bench import arrivals, machine, servers, standin, swaps
from bench.arrivals import Arrival
from bench.bodies import deploy, write_bodies
from bench.load import Load, ToolMissing, pinned, program
from convoy import atomic, layout

REPORT = Path("reports/bench/resilience.json")
SERVER_CORE, LOAD_CORE = 0, 1
STANDIN_S = 0.02
DEADLINE_MS = 1000
RECOVERY_S = 5.0
WORKERS = 2
SWAP_EVERY_S = 2.0
SWAP_LOAD = 0.7


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
    swaps: int = 100
    soak_s: int = 1800


def claim(measured: float, goal: float, at_most: bool = True) -> dict[str, Any]:
    """One figure, its goal, and whether it is reached."""
    met = measured <= goal if at_most else measured >= goal
    return {"measured": round(measured, 4), "goal": f"{'<=' if at_most else '>='}{goal:g}", "met": met}


class Resilience:
    """The trials; each starts its own servers and gives its claims by name."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        self.images = write_bodies(folder, 20).images
        self.real, self.slow = folder / "deployed", folder / "standin"
        deploy(self.real)
        self.standin_s = standin.write(folder / "bundle", layout.bundle("image"), STANDIN_S)
        deploy(self.slow, image=folder / "bundle")

    def overload(self) -> dict[str, Any]:
        """Ten times the peak load of a model of 20 ms, on one core, by an open loop on the other."""
        with self._serving(self.slow, SERVER_CORE) as load:
            peak = load.run(16, self.size.peak_s, LOAD_CORE)
            peak_rate = peak["requests"] / peak["seconds"]
            environment = {
                "URL": load.url,
                "LIVEZ": load.url.replace("/v1/images/predict", "/livez"),
                "BODY": str(load.bodies[0].absolute()),
                "RATE": str(round(10 * peak_rate)),
                "SECONDS": str(self.size.overload_s),
                "AFTER_RATE": str(max(1, round(peak_rate / 2))),
                "AFTER_SECONDS": str(self.size.after_s),
                "DEADLINE_MS": str(DEADLINE_MS),
            }
            found = arrivals.press(environment, self.folder, LOAD_CORE)
        return {
            "model_ms": round(self.standin_s * 1000, 2),
            "peak_per_s": round(peak_rate, 1),
            **self._judge(found, peak_rate),
        }

    def _judge(self, found: list[Arrival], peak_rate: float) -> dict[str, Any]:
        over = [one for one in found if one.scenario == "overload"]
        good = [one for one in over if one.status == 200 and one.took_ms <= DEADLINE_MS]
        refused = [one.took_ms for one in over if one.status in (429, 503)]
        probes = [one for one in found if one.scenario == "probe"]
        ended_s = max(one.ended_s for one in over)
        late = [one.ended_s for one in found if one.scenario == "after" and one.status != 200]
        return {
            "offered_per_s": round(len(over) / self.size.overload_s, 1),
            "statuses": {
                str(status): sum(one.status == status for one in over) for status in {one.status for one in over}
            },
            "goodput_share_of_peak": claim(len(good) / self.size.overload_s / peak_rate, 0.9, at_most=False),
            "rejection_p99_ms": claim(float(np.percentile(refused, 99)), 50),
            "probe_p99_ms": claim(float(np.percentile([one.took_ms for one in probes], 99)), 250),
            "probes_not_answered": claim(sum(one.status != 200 for one in probes), 0),
            "seconds_until_normal": claim(max([0.0, *(at_s - ended_s for at_s in late)]), RECOVERY_S),
        }

    def slow_clients(self) -> dict[str, Any]:
        """Hundreds that send their head, or their body, a few bytes at a time, while others ask as usual."""
        results: dict[str, Any] = {}
        for kind, option in (("heads", "-H"), ("bodies", "-B")):
            with self._serving(self.real, SERVER_CORE) as load:
                count, seconds = str(self.size.slow_clients), str(self.size.slow_s)
                slow = [program("slowhttptest"), option, "-c", count, "-r", "200", "-i", "5", "-l", seconds]
                slow += ["-t", "POST", "-f", "image/png", "-u", load.url]
                with self._beside(pinned(slow, LOAD_CORE)):
                    time.sleep(5)  # until all are connected
                    answers = self._ask(load, self.size.slow_s - 8)
            results[f"answered_beside_slow_{kind}"] = claim(_share_good(answers), 0.999, at_most=False)
            results[f"asked_beside_slow_{kind}"] = len(answers)
        return results

    def killed_worker(self) -> dict[str, Any]:
        """One of two workers is killed under load: who else fails, and when both work again."""
        failed, back_s, asked = [], [], 0
        for _ in range(self.size.kills):
            with self._serving(self.real, None, workers=WORKERS) as load:
                workers = _workers(load)
                with ThreadPoolExecutor(1) as pool:
                    asking = pool.submit(self._ask, load, 12, connections=8)
                    time.sleep(3)
                    workers[0].kill()
                    back_s.append(_seconds_until(partial(_all_work, load)))
                    answers = asking.result()
                failed.append(sum(status != 200 for status in answers))
                asked += len(answers)
        return {
            "asked": asked,
            # Eight connections: at most all of them were in flight in the worker that died.
            "failed_per_kill": claim(max(failed), 8),
            "seconds_until_back": claim(max(back_s), RECOVERY_S),
        }

    def urls(self) -> dict[str, Any]:
        """Addresses in place of files, by 32 at once: nothing may be fetched."""
        fetched: list[bytes] = []
        with self._serving(self.real, None) as load, _canary(fetched) as address, httpx.Client(timeout=30) as client:

            def attempt(index: int) -> int:
                if index % 2:
                    return client.post(load.url, content=address, headers={"content-type": "image/png"}).status_code
                return client.post(load.url, files={"image": (None, address.encode())}).status_code

            with ThreadPoolExecutor(32) as pool:
                statuses = list(pool.map(attempt, range(self.size.urls)))
        return {
            "tried": len(statuses),
            "not_refused_by_4xx": claim(sum(not 400 <= status < 500 for status in statuses), 0),
            "connections_made": claim(len(fetched), 0),
        }

    def swaps(self) -> dict[str, Any]:
        """Two models take turns every 2 s under 70 % of the load that the client can make."""
        images = [path.read_bytes() for path in self.images]
        digests = [os.readlink(self.real / "image" / "current"), swaps.deploy_another(self.real)]
        expected = swaps.references(self.real, digests, images)
        with self._serving(self.real, None, workers=WORKERS) as load:
            peak = self._answers(load, images, 0, 5)
            rate = SWAP_LOAD * len(peak) / 5
            normal = self._answers(load, images, rate, 20)
            memory_mb: list[float] = []

            def take_turns() -> None:
                for number in range(self.size.swaps):
                    swaps.switch(self.real, digests[number % 2])
                    time.sleep(SWAP_EVERY_S)
                    memory_mb.append(swaps.memory_mb(_workers(load)))

            found = self._answers(load, images, rate, take_turns)
        swaps.switch(self.real, digests[0])
        p99_ms, normal_ms = (float(np.percentile([one.took_ms for one in each], 99)) for each in (found, normal))
        settled = self.size.swaps // 5
        return {
            "swaps": self.size.swaps,
            "answers": len(found),
            "per_digest": dict(Counter(one.digest[:12] for one in found)),
            "failed": claim(sum(one.status != 200 for one in found), 0),
            "answers_of_another_version": claim(
                sum(one.content != expected[one.digest][one.image] for one in found if one.status == 200), 0
            ),
            "p99_ms": {"normal": round(normal_ms, 2), "while_swapped": round(p99_ms, 2)},
            "p99_over_normal": claim(p99_ms / normal_ms, 2),
            "memory_growth": claim(median(memory_mb[-settled:]) / median(memory_mb[settled : 2 * settled]), 1.1),
        }

    def _answers(
        self, load: Load, images: list[bytes], rate: float, until: float | Callable[[], None]
    ) -> list[swaps.Answered]:
        """Ask for so many seconds, or until something has been done."""
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(swaps.ask, load, images, rate, ended)
            try:
                until() if callable(until) else time.sleep(until)
            finally:
                ended.set()
            return asking.result()

    def soak(self) -> dict[str, Any]:
        """Good, bad and broken-off requests for long: memory and descriptors stay where they were."""
        with self._serving(self.real, None) as load:
            samples: list[tuple[float, float, int]] = []
            began_s = time.monotonic()
            statuses: list[int] = []
            while time.monotonic() < began_s + self.size.soak_s:
                statuses += self._ask(load, 10, mixed=True)
                worker = _workers(load)[0]
                memory_mb = worker.memory_info().rss / 1e6
                samples.append((time.monotonic() - began_s, memory_mb, worker.num_fds()))
        warm = samples[len(samples) // 5 :]
        slope = np.polyfit([at_s / 60 for at_s, _, _ in warm], [memory for _, memory, _ in warm], 1)[0]
        return {
            "seconds": round(samples[-1][0]),
            "asked": len(statuses),
            "answers_of_5xx": claim(sum(status >= 500 for status in statuses), 0),
            "memory_mb_per_minute": claim(float(slope), 1.0),
            "descriptors_more": claim(warm[-1][2] - median(fds for _, _, fds in warm), 5),
            "memory_mb": [round(memory, 1) for _, memory, _ in samples[:: max(1, len(samples) // 30)]],
        }

    @contextmanager
    def _serving(self, deployed: Path, core: int | None, workers: int = 1) -> Iterator[Load]:
        log = self.folder / "service.log"
        with servers.ours(deployed, log, core, workers) as port:
            load = Load(f"http://127.0.0.1:{port}/v1/images/predict", "image/png", self.images)
            servers.wait_for(load, log)
            yield load

    @contextmanager
    def _beside(self, command: list[str]) -> Iterator[None]:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def _ask(self, load: Load, seconds: float, connections: int = 4, mixed: bool = False) -> list[int]:
        """Ask all the time by some connections; the statuses, 0 where the connection broke."""
        until_s = time.monotonic() + seconds
        bodies = [path.read_bytes() for path in load.bodies]

        def keep_asking(number: int) -> list[int]:
            found: list[int] = []
            with httpx.Client(timeout=10) as client:
                while time.monotonic() < until_s:
                    body = bodies[(number + len(found)) % len(bodies)]
                    if mixed and len(found) % 5 == 4:
                        body = body[: len(body) // 2]
                    if mixed and len(found) % 50 == 49:
                        _break_off(load)
                    try:
                        answer = client.post(load.url, content=body, headers={"content-type": load.content_type})
                        found.append(answer.status_code)
                    except httpx.TransportError:
                        found.append(0)
            return found

        with ThreadPoolExecutor(connections) as pool:
            return [status for part in pool.map(keep_asking, range(connections)) for status in part]


def _share_good(statuses: list[int]) -> float:
    return sum(status == 200 for status in statuses) / len(statuses)


def _break_off(load: Load) -> None:
    """Announce a body, send some of it and leave."""
    host, _, port = load.url.removeprefix("http://").partition("/")[0].partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/images/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            b"Content-Length: 100000\r\n\r\n" + bytes(5000)
        )


def _workers(load: Load) -> list[psutil.Process]:
    """The processes that accept connections at this address, the supervisor left out."""
    port = int(load.url.split(":")[2].partition("/")[0])
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any("service_loader" in word or "worker" in word for word in words) and _inherits(process, port):
            found.append(process)
    return found


def _all_work(load: Load) -> bool:
    return len(_workers(load)) >= WORKERS


def _inherits(process: psutil.Process, port: int) -> bool:
    try:
        parents = process.parents()
    except psutil.Error:
        return False
    return any(str(port) in (parent.cmdline() or []) for parent in parents)


def _seconds_until(reached: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    while not reached() and time.monotonic() < began_s + 30:
        time.sleep(0.05)
    return time.monotonic() - began_s


@contextmanager
def _canary(fetched: list[bytes]) -> Iterator[str]:
    """An address that notes whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        ended = threading.Event()

        def note() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    fetched.append(connection.recv(100))

        noting = threading.Thread(target=note)
        noting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/image.png"
        finally:
            ended.set()
            noting.join()


def main(
    trials: Annotated[list[str] | None, typer.Argument(help="Which ones; all without.")] = None,
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
    soak_s: Annotated[int, typer.Option(help="How long the soak is, in seconds.")] = Size.soak_s,
) -> None:
    """Try, write the report, and print it."""
    content = machine.facts()
    names = ("overload", "slow_clients", "killed_worker", "urls", "swaps", "soak")
    try:
        with tempfile.TemporaryDirectory() as folder:
            resilience = Resilience(Path(folder), Size(soak_s=soak_s))
            results = {}
            for name in trials or names:
                typer.echo(f"{name} ...")
                results[name] = getattr(resilience, name)()
                for key, value in results[name].items():
                    typer.echo(f"  {key}: {value}")
    except (FileNotFoundError, ToolMissing) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**content, "results": results})
    typer.echo(f"written: {report}")


if __name__ == "__main__":
    typer.run(main)
