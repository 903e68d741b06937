"""Our service and its peers, each as a process of its own in its own environment, answering before it is measured."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.load import Load, pinned
from bench.place import ROOT
from convoy.core.children import Child

ENVIRONMENTS = Path(".run/peers")  # made once; a folder per peer
PEERS = Path(__file__).parent / "peers"
START_S = 120.0


@dataclass(frozen=True)
class Peer:
    """What is installed for a peer, and how it is started; `{port}` and `{scratch}` are filled in."""

    packages: tuple[str, ...]
    command: tuple[str, ...]
    before: tuple[str, ...] = ()  # run once, before the start

    def environment(self, name: str) -> Path:
        """Its virtual environment, made where it is not there."""
        folder = ENVIRONMENTS / name
        if not (folder / "ready").exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
            subprocess.run(
                [*uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), *self.packages], check=True
            )
            (folder / "ready").touch()
        return folder


def same(*names: str) -> tuple[str, ...]:
    """Packages in the versions that Convoy runs with."""
    return tuple(f"{name}=={version(name)}" for name in names)


_BASE = same("onnxruntime", "pillow", "numpy")
# bentoml alone installs neither httptools nor uvloop; uvicorn[standard] and LitServe do.
STOCK_BENTOML = Peer(
    (*_BASE, *same("bentoml")),
    ("bin/bentoml", "serve", "stock_bentoml:Peer", "--host", "127.0.0.1", "--port", "{port}"),
)
BARE_FASTAPI = Peer(
    (*_BASE, *same("tokenizers"), "fastapi", "uvicorn[standard]"),
    ("bin/uvicorn", "bare_fastapi:app", "--port", "{port}", "--log-level", "warning", "--no-access-log"),
)
LITSERVE = Peer((*_BASE, "litserve", "python-multipart"), ("bin/python", "plain_litserve.py", "{port}"))
MLFLOW = Peer(
    (*_BASE, *same("mlflow", "onnx")),
    ("bin/mlflow", "models", "serve", "-m", "{scratch}/mlflow", "--env-manager", "local", "--port", "{port}"),
    before=("bin/python", "mlflow_model.py", "{IMAGE_ONNX}", "{scratch}/mlflow"),
)


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    core: int | None = None,
    port: int | None = None,
) -> Iterator[int]:
    """A server that was told its port by `{port}`; gives the port, and ends the server afterwards."""
    port = port or free_port()
    words = pinned([word.replace("{port}", str(port)) for word in command], core)
    variables = {name: value.replace("{port}", str(port)) for name, value in environment.items()}
    with Child(words, log, cwd=folder, env=variables):
        yield port


def ours(
    deployed: Path, log: Path, core: int | None = None, workers: int = 1, port: int | None = None
) -> contextlib.AbstractContextManager[int]:
    """`bentoml serve` of this repository, with what stands in `deployed`."""
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:service", "--port", "{port}"]
    environment = {"CONVOY_DEPLOYED": str(deployed), "CONVOY_WORKERS": str(workers)}
    return started(command, ROOT, {**os.environ, **surroundings(), **environment}, log, core, port)


def gateway(ports: Sequence[int], scratch: Path, log: Path) -> contextlib.AbstractContextManager[int]:
    """nginx with the project's configuration in front of services at these ports."""
    environment = {"SERVING": " ".join(f"127.0.0.1:{port}" for port in ports), "SCRATCH": str(scratch)}
    command = ["sh", str(ROOT / "serving" / "gateway.sh")]
    return started(command, ROOT, {**surroundings(), **environment, "LISTEN": "127.0.0.1:{port}"}, log)


def peer(
    name: str, what: Peer, model: Mapping[str, str], scratch: Path, log: Path, core: int | None = None
) -> contextlib.AbstractContextManager[int]:
    """A peer, told of the ONNX files by its environment; `scratch` is a folder for what it makes of them."""
    folder = what.environment(name).absolute()
    words = [word.replace("{scratch}", str(scratch)) for word in what.command]
    environment = {
        **surroundings(),
        **model,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "BENTOML_HOME": str(scratch / "bentoml"),
    }
    if what.before:
        before = [str(folder / what.before[0]), *what.before[1:]]
        before = [word.replace("{scratch}", str(scratch)).format(**model) for word in before]
        done = subprocess.run(before, cwd=PEERS, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(before)} failed: {done.stderr[-2000:]}")
    return started([str(folder / words[0]), *words[1:]], PEERS, environment, log, core)


def surroundings() -> dict[str, str]:
    """The environment of every server; nothing of ours on the path of the peers' modules, no report to anybody."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "BENTOML_DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def wait_for(load: Load, log: Path) -> float:
    """Post until the first 200; gives the seconds it took. Raises RuntimeError with the log after two minutes."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + START_S:
        request = urllib.request.Request(load.url, load.bodies[0].read_bytes(), {"Content-Type": load.content_type})
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            if answer.status == 200:
                return time.monotonic() - began_s
        time.sleep(0.02)
    raise RuntimeError(f"{load.url} does not answer: {log.read_text()[-3000:]}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
