"""A bundle -> the probabilities that a real service gives for raw inputs; it is started and ended here."""

import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convoy.bundles.bundle import RELEASE, Card, Release
from convoy.core.children import Child
from convoy.core.tasks import CURRENT
from convoy.kinds.registry import module
from convoy.tracking.checked_bundle import CheckedBundle

HOST = "127.0.0.1"
JSON = "application/json"
READY_WITHIN_S = 300.0  # about 6 s on two free cores; with ten other processes on them 120 were too few
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy


class ServiceUnavailable(RuntimeError):
    """The service could not be started here, which says nothing of the bundle."""


class AnswerRefused(RuntimeError):
    """The service has not taken the bundle, or has not answered an input."""


@contextmanager
def run_service(bundle: CheckedBundle) -> Iterator[str]:
    """The address of a `bentoml serve` that answers by this bundle alone, on a free port of this machine.

    Raises ServiceUnavailable, with the last line of its log, or AnswerRefused where it does not take the bundle.
    """
    spec = find_spec("serving")
    if spec is None or spec.origin is None:
        raise ServiceUnavailable("the package serving is not here; run this in the repository's root")
    with tempfile.TemporaryDirectory() as folder_name:
        root = Path(folder_name)
        _deploy(root / "deployed", bundle)
        port = _free_port()
        command = [sys.executable, "-m", "bentoml", "serve", "serving.service:service"]
        command += ["--host", HOST, "--port", str(port)]
        where = {"cwd": Path(spec.origin).parents[1], "env": _environment(root)}
        with Child(command, root / "log", **where) as process:
            _wait_until_ready(f"http://{HOST}:{port}", bundle.card.task, process)
            yield f"http://{HOST}:{port}"


def predict(url: str, card: Card, inputs: Sequence[bytes | str]) -> NDArray[np.float64]:
    """The probabilities (inputs, labels) that the service at `url` gives, in the order of the card's labels.

    Images are sent one at a time, texts as many as a request may hold, and the text of a stream in two pieces, so that
    its state is compared too. Raises AnswerRefused.
    """
    predictions: list[dict[str, Any]] = []
    routes = f"{url}/v1/{card.task}"  # the task under whose name _deploy has put it
    if card.preprocessing.carries_state:
        predictions = [_predict_in_pieces(f"{routes}/stream", str(raw)) for raw in inputs]
    else:
        for content_type, body in module(card.kind, "requests").bodies(inputs, card.limits.max_items):
            predictions += _post(f"{routes}/predict", content_type, body)["predictions"]
    return np.array([[prediction["probabilities"][label] for label in card.labels] for prediction in predictions])


def _predict_in_pieces(url: str, text: str) -> dict[str, Any]:
    """The answer to the second half of a text, sent with the state that came with the first."""
    middle = len(text) // 2
    state = _post(url, JSON, json.dumps({"text": text[:middle]}).encode())["state"]
    return _post(url, JSON, json.dumps({"text": text[middle:], "final": True, "state": state}).encode())


def _post(url: str, content_type: str, body: Any) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with _OPENER.open(request, timeout=60) as answer:
            content: dict[str, Any] = json.loads(answer.read())
            return content
    except urllib.error.HTTPError as error:
        with error:
            raise AnswerRefused(
                f"the service answers {error.code}: {error.read(500).decode(errors='replace')}"
            ) from None
    except OSError as error:
        raise AnswerRefused(f"the service does not answer: {error}") from None


def _deploy(root: Path, bundle: CheckedBundle) -> None:
    """Create deployed/ as a promotion does, in a folder that no other service uses."""
    task, digest = bundle.card.task, bundle.digest
    bundle_folder = root / task / digest
    shutil.copytree(bundle.folder, bundle_folder, ignore=shutil.ignore_patterns(RELEASE))
    release = Release(name=f"convoy-{task}", version="0", run_id="gate", digest=digest, promoted_at="")
    (bundle_folder / RELEASE).write_text(release.model_dump_json(), encoding="utf-8")
    (root / task / CURRENT).symlink_to(digest)


def _environment(root: Path) -> dict[str, str]:
    """This process's environment, without the user's settings of the real service: key, workers, configuration."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CONVOY_", "BENTOML_"))}
    own = {"CONVOY_DEPLOYED": str(root / "deployed"), "BENTOML_HOME": str(root / "home")}
    return {**inherited, **own, "BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, task: str, process: Child) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.is_running():
        with suppress(OSError, ValueError), _OPENER.open(f"{url}/v1/models", timeout=5) as answer:
            model = json.loads(answer.read())["tasks"].get(task)
            if model is not None and model["state"] == "ready":
                return
            if model is not None:
                raise AnswerRefused(f"the service does not take the bundle: {model['reason']}")
        time.sleep(0.1)
    ended = f"was not ready after {READY_WITHIN_S:.0f} s" if process.is_running() else "ended at once"
    raise ServiceUnavailable(f"the service {ended}: {process.last_line() or 'its log is empty'}")
