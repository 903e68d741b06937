"""A full disk under Prometheus' files costs new metrics, and nothing else: on a real tmpfs that is full."""

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import ROOT, serve

from serving.metrics import FLUSH_EVERY_S

# Makes a metric, fills the disk, makes many more, makes room again, and counts once more.
CHILD_IMPORTS = """
import os, sys
from contextlib import suppress
from pathlib import Path
from serving import adapters
from serving.metrics import errors_of
"""
CHILD = """
adapters.TRY_EVERY_S = 0
disk = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
if "full" in sys.argv:
    fill(disk)
errors_of("first", "reviews").inc()
fill(disk)
for number in range(2_000):
    errors_of(f"code {number}", "reviews").inc(2)
(disk / "filler").unlink()
for code in ("first", "code 1999"):
    errors_of(code, "reviews").inc()
"""


def fill(disk: Path) -> None:
    """Write until not one byte more fits."""
    with (disk / "filler").open("ab", buffering=0) as filler:
        for size in (4096, 1):
            with suppress(OSError):
                while filler.write(bytes(size)):
                    pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    disk = tmp_path / "home" / "prometheus_multiproc_dir"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def counted(disk: Path) -> dict[str, float]:
    from prometheus_client import CollectorRegistry, multiprocess

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(disk))  # type: ignore[no-untyped-call]
    return {
        sample.labels["code"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "convoy_faults_total"
    }


@pytest.mark.parametrize("when", ["full", "later"])
def test_a_full_disk_ends_no_process(small_disk: Path, when: str) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(small_disk)}
    command = [sys.executable, "-c", f"{CHILD_IMPORTS}{inspect.getsource(fill)}{CHILD}", when]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stderr.splitlines()
    assert all("new metrics are not written" in line and "No space left" in line for line in lines)
    assert len(lines) == len(set(lines)) > 0  # once for each file
    counts = counted(small_disk)
    assert (counts["first"], counts["code 1999"]) == (2, 3)  # nothing that had no room is lost


@pytest.mark.process
def test_the_service_answers_on_a_full_disk(small_disk: Path, deployed: Path) -> None:
    with serve(deployed, small_disk.parents[1]) as server, httpx.Client(base_url=server.url) as client:
        before = {child.pid for child in psutil.Process(server.pid).children(recursive=True)}
        fill(small_disk)
        for number in range(40):
            answer = client.post("/v1/reviews/predict", json={"texts": ["good"]})
            assert answer.status_code == 200, answer.text
            answer = client.post("/v1/fashion/predict", content=b"x", headers={"content-type": "image/png"})
            assert answer.status_code == 422, answer.text
            assert client.get(f"/{number}").status_code == 404
        time.sleep(2 * FLUSH_EVERY_S)
        assert client.post("/v1/reviews/predict", json={"texts": ["good"]}).status_code == 200
        metrics = client.get("/metrics")
        assert metrics.status_code == 200 and "convoy_answer_seconds_count" in metrics.text
        assert {child.pid for child in psutil.Process(server.pid).children(recursive=True)} == before
