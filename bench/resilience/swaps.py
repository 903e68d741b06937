"""Two models that take turns while requests come in: who fails, whose answers they are, what it costs."""

import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from bench.load import Load
from bench.resilience.ground import Ground, beside, claim, workers_of
from bench.samples import IMAGES
from convoy.bundles.bundle import RELEASE, Release, read_bundle, write_bundle
from convoy.core import paths
from convoy.core.atomic import to_json
from serving.deployed import Deployed, load_task
from serving.kinds.image import predict

CLIENTS = 8
WORKERS = 2
SWAP_EVERY_S = 2.0
SHARE = 0.7  # of what the client can make
PEAK_S, NORMAL_S = 5.0, 20.0


@dataclass(frozen=True)
class Answered:
    """One answer: what it says without its request id, whose it says it is, and how long it took."""

    image: int
    content: bytes
    digest: str
    status: int
    took_ms: float


def deploy_another(folder: Path) -> str:
    """Beside what is deployed in `folder` a bundle with the labels the other way round; gives its digest."""
    bundle = read_bundle(paths.bundle(IMAGES))
    labels = tuple(reversed(bundle.card.labels))
    examples = [
        {**example.model_dump(), "label": labels[max(range(len(labels)), key=lambda i: example.probabilities[i])]}
        for example in bundle.examples
    ]
    files = {"model.onnx": bundle.files["model.onnx"], "examples.json": to_json(examples)}
    fresh = folder / "fresh"
    digest = write_bundle(fresh, bundle.card.model_copy(update={"labels": labels}), files)
    place = fresh.rename(folder / IMAGES / digest)
    release = Release(name=f"convoy-{IMAGES}", version="2", run_id="bench", digest=digest, promoted_at="")
    (place / RELEASE).write_text(release.model_dump_json())
    return digest


def switch(folder: Path, digest: str) -> None:
    """Let `digest` serve, in one step."""
    link = folder / IMAGES / ".current"
    link.symlink_to(digest)
    link.replace(folder / IMAGES / "current")


def references(folder: Path, digests: list[str], images: list[bytes]) -> dict[str, list[bytes]]:
    """What each bundle answers for each image, asked without any HTTP."""
    found = {}
    for digest in digests:
        switch(folder, digest)
        model = load_task(folder, IMAGES)
        assert isinstance(model, Deployed)
        found[digest] = [predict(model, [image], name="") for image in images]
    return found


def ask(load: Load, images: list[bytes], rate: float, ended: threading.Event) -> list[Answered]:
    """So many requests per second until it is ended; with a rate of 0 as many as go."""
    pause_s = CLIENTS / rate if rate else 0.0

    def keep_asking(client_number: int) -> list[Answered]:
        found: list[Answered] = []
        due_s = time.monotonic() + pause_s * client_number / CLIENTS
        with httpx.Client(timeout=10) as client:
            while not ended.is_set():
                time.sleep(max(0.0, due_s - time.monotonic()))
                due_s += pause_s
                found.append(_ask_once(client, load, images, (client_number + len(found)) % len(images)))
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [one for part in pool.map(keep_asking, range(CLIENTS)) for one in part]


def _ask_once(client: httpx.Client, load: Load, images: list[bytes], image: int) -> Answered:
    began_s = time.monotonic()
    try:
        response = client.post(load.url, content=images[image], headers={"content-type": load.content_type})
    except httpx.TransportError:
        return Answered(image, b"", "", 0, 0.0)
    took_ms = (time.monotonic() - began_s) * 1000
    if response.status_code != 200:
        return Answered(image, b"", "", response.status_code, took_ms)
    body = response.content
    content = body[: body.rindex(b',"request_id":')] + b"}"
    return Answered(image, content, json.loads(body)["model"]["digest"], 200, took_ms)


def hold(ground: Ground) -> dict[str, Any]:
    """Two models take turns every 2 s under 70 % of the load that this client can make."""
    images = [path.read_bytes() for path in ground.images]
    digests = [os.readlink(ground.deployed / IMAGES / "current"), deploy_another(ground.deployed)]
    expected = references(ground.deployed, digests, images)
    memory_mb: list[float] = []
    with ground.serving(workers=WORKERS) as load:
        with beside(lambda ended: ask(load, images, 0, ended)) as peak:
            time.sleep(PEAK_S)
        rate = SHARE * len(peak[0]) / PEAK_S
        with beside(lambda ended: ask(load, images, rate, ended)) as normal:
            time.sleep(NORMAL_S)
        with beside(lambda ended: ask(load, images, rate, ended)) as found:
            for number in range(ground.size.swaps):
                switch(ground.deployed, digests[number % 2])
                time.sleep(SWAP_EVERY_S)
                memory_mb.append(sum(worker.memory_info().rss for worker in workers_of(load)) / 1e6)
    switch(ground.deployed, digests[0])
    return _judge(found[0], normal[0], memory_mb, expected)


def _judge(
    found: list[Answered], normal: list[Answered], memory_mb: list[float], expected: dict[str, list[bytes]]
) -> dict[str, Any]:
    p99_ms, normal_ms = (float(np.percentile([one.took_ms for one in each], 99)) for each in (found, normal))
    good = [one for one in found if one.status == 200]
    settled = max(1, len(memory_mb) // 5)
    return {
        "swaps": len(memory_mb),
        "answers": len(found),
        "per_digest": {digest[:12]: count for digest, count in Counter(one.digest for one in good).items()},
        "failed": claim(len(found) - len(good), 0),
        "answers_of_another_version": claim(sum(one.content != expected[one.digest][one.image] for one in good), 0),
        "p99_ms": {"normal": round(normal_ms, 2), "while_swapped": round(p99_ms, 2)},
        "p99_over_normal": claim(p99_ms / normal_ms, 2),
        "memory_growth": claim(median(memory_mb[-settled:]) / median(memory_mb[settled : 2 * settled + 1]), 1.1),
    }
