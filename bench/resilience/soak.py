"""Good, bad and broken-off requests for long: memory and descriptors stay where they were."""

import socket
import time
from statistics import median
from typing import Any

import httpx
import numpy as np

from bench.load import Load
from bench.resilience.ground import PATH, Ground, claim, workers_of

SAMPLE_EVERY_S = 10.0


def hold(ground: Ground) -> dict[str, Any]:
    """One connection at a time asks as fast as it can; every fifth body is cut, every fiftieth client leaves early."""
    bodies = [path.read_bytes() for path in ground.images]
    samples: list[tuple[float, float, int]] = []
    statuses: list[int] = []
    with ground.serving() as load, httpx.Client(timeout=10) as client:
        (worker,) = workers_of(load)
        began_s = sampled_s = time.monotonic()
        while sampled_s < began_s + ground.size.soak_s:
            number = len(statuses)
            body = bodies[number % len(bodies)]
            if number % 5 == 4:
                body = body[: len(body) // 2]
            if number % 50 == 49:
                _break_off(load)
            statuses.append(client.post(load.url, content=body, headers={"content-type": "image/png"}).status_code)
            if time.monotonic() > sampled_s + SAMPLE_EVERY_S:
                sampled_s = time.monotonic()
                samples.append(((sampled_s - began_s) / 60, worker.memory_info().rss / 1e6, worker.num_fds()))
    warm = samples[len(samples) // 5 :]
    slope = np.polyfit([minute for minute, _, _ in warm], [memory for _, memory, _ in warm], 1)[0]
    return {
        "seconds": ground.size.soak_s,
        "asked": len(statuses),
        "answers_of_5xx": claim(sum(status >= 500 for status in statuses), 0),
        "memory_mb_per_minute": claim(float(slope), 1.0),
        "descriptors_more": claim(warm[-1][2] - median(descriptors for _, _, descriptors in warm), 5),
        "memory_mb": [round(memory, 1) for _, memory, _ in samples[:: max(1, len(samples) // 30)]],
    }


def _break_off(load: Load) -> None:
    """Announce a body, send some of it and leave."""
    with socket.create_connection(("127.0.0.1", int(load.port))) as connection:
        connection.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            "Content-Length: 100000\r\n\r\n".encode()
            + bytes(5000)
        )
