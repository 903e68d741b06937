"""What was pushed to a remote of DVC's is all that another machine needs: pulled, published, it answers as before."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from built_copy import command, served

from convoy.bundles.bundle import read_bundle
from convoy.core.children import Child

pytestmark = pytest.mark.pipeline
TASKS = ("fashion", "reviews")
BUILT = ("data", "candidates", "winner", "bundles", ".dvc/cache", "deployed", "mlflow-store", "mlruns")


# DVC's S3 remote wants an older python-dateutil than BentoML: it gets an environment of its own, and the same folder.
S3 = Path(".run/s3").absolute()
REQUIRED = (f"dvc[s3]=={version('dvc')}", "moto[server]==5.1.*", "flask-cors")
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}

Dvc = Callable[..., str]


@pytest.fixture(scope="session")
def environment() -> Path:
    """The bin folder of an environment with DVC's S3 remote and moto, a server of S3's API."""
    mark = S3 / "required"
    if not mark.exists() or mark.read_text() != repr(REQUIRED):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(S3)], check=True)
        # uv takes seconds where pip looks for minutes at versions that fit.
        install = ["uv", "pip", "install", "--quiet", "--python", str(S3 / "bin" / "python"), *REQUIRED]
        subprocess.run([sys.executable, "-m", *install], check=True)
        mark.write_text(repr(REQUIRED))
    return S3 / "bin"


@pytest.fixture
def endpoint(environment: Path, tmp_path: Path) -> Iterator[str]:
    """A running S3 that has the bucket `convoy`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = [str(environment / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with Child(words, tmp_path / "moto.log", env={**os.environ, **KEYS}):
        for _ in range(300):
            try:
                if httpx.put(f"{address}/convoy").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            pytest.fail((tmp_path / "moto.log").read_text())
        yield address


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.proof)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str], Dvc]:
    """URL and settings of a remote, and the DVC that can reach it."""
    if request.param == "folder":
        return str(tmp_path / "store"), {}, lambda here, *words: command(here, "dvc", *words, timeout_s=300)
    dvc = str(request.getfixturevalue("environment") / "dvc")

    def of_s3(here: Path, *words: str) -> str:
        done = subprocess.run([dvc, *words], cwd=here, env={**os.environ, **KEYS}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return "s3://convoy/store", {"endpointurl": request.getfixturevalue("endpoint")}, of_s3


def test_what_was_pushed_is_pulled_published_and_answers(
    copy: Path, tmp_path: Path, store: tuple[str, dict[str, str], Dvc]
) -> None:
    url, settings, dvc = store
    here = tmp_path / "convoy"
    shutil.copytree(copy, here, symlinks=True)
    digests = {task: read_bundle(here / "bundles" / task).digest for task in TASKS}
    dvc(here, "remote", "add", "--default", "store", url)
    for name, value in settings.items():
        dvc(here, "remote", "modify", "store", name, value)
    dvc(here, "push")
    for name in BUILT:
        path = here / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    dvc(here, "pull")
    command(here, "convoy", "verify")
    assert "Running stage" not in command(here, "dvc", "repro")
    command(here, "convoy", "publish", timeout_s=300)
    with served(here) as address:
        models = httpx.get(f"{address}/v1/models").json()["tasks"]
        answer = httpx.post(f"{address}/v1/reviews/predict", json={"texts": ["A wonderful film."]}, timeout=30)
    assert {task: models[task]["release"]["digest"] for task in TASKS} == digests
    assert answer.status_code == 200 and answer.json()["model"]["digest"] == digests["reviews"]
