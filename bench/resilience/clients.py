"""Clients that send too slowly, and clients that send an address in place of a file."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench.load import LOAD_CORE, SERVER_CORE, Load, pinned, program
from bench.resilience.ground import Ground, ask, claim, for_seconds
from convoy.core.children import Child

CONNECTED_S = 5  # until all slow ones are there


def hold_slow(ground: Ground) -> dict[str, Any]:
    """Hundreds that send their head, or their body, a few bytes at a time, while others ask as usual."""
    results: dict[str, Any] = {}
    for kind, option in (("heads", "-H"), ("bodies", "-B")):
        with ground.serving(core=SERVER_CORE) as load, _slow(ground, load, option):
            time.sleep(CONNECTED_S)
            statuses = ask(load, for_seconds(ground.size.slow_s - CONNECTED_S - 3))
        good = sum(status == 200 for status in statuses)
        results[f"asked_beside_slow_{kind}"] = len(statuses)
        results[f"answered_beside_slow_{kind}"] = claim(good / len(statuses), 0.999, at_most=False)
    return results


@contextmanager
def _slow(ground: Ground, load: Load, option: str) -> Iterator[None]:
    command = [program("slowhttptest"), option, "-c", str(ground.size.slow_clients), "-r", "200", "-i", "5"]
    command += ["-l", str(ground.size.slow_s), "-t", "POST", "-f", "image/png", "-u", load.url]
    with Child(pinned(command, LOAD_CORE), Path(os.devnull)):
        yield


def hold_urls(ground: Ground) -> dict[str, Any]:
    """Addresses in place of files, 32 at once: nothing may be fetched."""
    fetched: list[bytes] = []
    with ground.serving() as load, _canary(fetched) as address, httpx.Client(timeout=30) as client:

        def attempt(index: int) -> int:
            if index % 2:
                return client.post(load.url, content=address, headers={"content-type": "image/png"}).status_code
            return client.post(load.url, files={"image": (None, address.encode())}).status_code

        with ThreadPoolExecutor(32) as pool:
            statuses = list(pool.map(attempt, range(ground.size.urls)))
    return {
        "tried": len(statuses),
        "not_refused_by_4xx": claim(sum(not 400 <= status < 500 for status in statuses), 0),
        "connections_made": claim(len(fetched), 0),
    }


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
