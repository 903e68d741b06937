"""A copy of the working tree in which the whole pipeline runs and serves for real, with small params."""

import hashlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convoy.core.children import Child
from convoy.lineage import workspace
from convoy.operations import smoke_request

BUILD_S = 900
START_S = 60
SMALL = Path(__file__).with_name("small.yaml")
ROOT = Path(__file__).parents[1]
LIBRARIES = hashlib.md5((ROOT / "requirements.lock").read_bytes() + sys.version.encode()).hexdigest()
CACHE = ROOT / ".run" / "tests" / f"dvc-cache-{LIBRARIES[:12]}"  # dvc.yaml does not name the libraries
MAX_CACHE_BYTES = 1_000_000_000  # then it begins again


def command(folder: Path, *words: str, timeout_s: float = 120, **variables: str) -> str:
    """Run a Python module in the copy, with the copy's code and with these variables, and give its output."""
    environment = workspace.environment(folder) | variables
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the service, started in the copy as a user starts it, and ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["bentoml", "serve", "serving.service:service", "--port", str(port)]
    log = folder / "serve.log"
    with Child([sys.executable, "-m", *words], log, cwd=folder, env=workspace.environment(folder)) as server:
        address = f"http://127.0.0.1:{port}"
        ready = smoke_request.wait_until_ready([f"{address}/readyz"], START_S, lambda: not server.is_running())
        assert ready, log.read_text()[-3000:]
        yield address


def build(folder: Path, overrides: Path = SMALL, cache: Path | None = None, **variables: str) -> Path:
    """Raw data to a published bundle per task, as a user would do it; DVC's cache is a copy of `cache`."""
    workspace.create(folder, overrides)
    if cache is not None:
        shutil.copytree(cache, folder / ".dvc" / "cache", dirs_exist_ok=True)
    command(folder, "dvc", "repro", timeout_s=BUILD_S, **variables)
    command(folder, "convoy", "publish", timeout_s=300)
    return folder


def build_again(folder: Path) -> Path:
    """The same, where DVC's cache brings back each stage whose code, params and data an earlier build had, too."""
    cache = CACHE if CACHE.exists() and _size_bytes(CACHE) < MAX_CACHE_BYTES else None
    # `publish` brings each run to MLflow; tests/test_live.py follows a training.
    build(folder, cache=cache, CONVOY_FOLLOW="0")
    fresh = CACHE.with_name(f"{CACHE.name}.fresh")
    for old in (fresh, CACHE):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(folder / ".dvc" / "cache", fresh)
    fresh.rename(CACHE)
    return folder


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
