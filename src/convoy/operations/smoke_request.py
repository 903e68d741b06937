"""Sends a running service one real request per task, printed as a curl line with its answer."""

import json
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from convoy.bundles.bundle import BundleInvalid, read_bundle
from convoy.core import tasks
from convoy.core.paths import DEPLOYED
from convoy.core.process import Say
from convoy.kinds.registry import module


def wait_until_ready(urls: list[str], within_s: float, given_up: Callable[[], bool]) -> bool:
    """Poll until all answer 200; False where that takes longer than `within_s`, or `given_up` says so."""
    deadline = time.monotonic() + within_s
    waiting = list(urls)
    while waiting and time.monotonic() < deadline and not given_up():
        waiting = [url for url in waiting if not _is_ready(url)]
        if waiting:
            time.sleep(0.3)
    return not waiting


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def print_predictions(service: str, ui: str, say: Say) -> None:
    """Print the addresses and, for each task that is deployed, a request with its answer."""
    addresses = f"MLflow UI    {ui}\npredictions  {service} (its page describes every route)"
    answers = [_format_answer(task, service) for task in tasks.deployed()]
    if not answers:
        answers = ["nothing is deployed yet; `make repro` builds and publishes"]
    say("\n\n".join(["", addresses, *answers, "Ctrl-C ends both.\n"]))  # at once, so that no log line comes between


def _format_answer(task: str, service: str) -> str:
    try:
        words = request(task, service)
        return f"$ {shlex.join(words)}\n{_send(words)}"
    except (BundleInvalid, OSError) as error:
        return f"{task}: no answer: {error}"


def request(task: str, service: str) -> list[str]:
    """The words of a curl command that asks for one prediction; the input is an example of the deployed bundle."""
    bundle = read_bundle(DEPLOYED / task / tasks.CURRENT)
    if bundle.card.preprocessing.carries_state:
        body = json.dumps({"text": bundle.shown_input, "final": True})
        words = ["-H", "Content-Type: application/json", "--data-raw", body]
        return ["curl", "-s", f"{service}/v1/{task}/stream", *words]
    words = module(bundle.card.kind, "requests").curl(bundle.shown_input)
    return ["curl", "-s", f"{service}/v1/{task}/predict", *words]


def _send(words: list[str]) -> str:
    """The answer to the bytes that the command would send; there may be no curl."""
    url, header, body = words[2], words[4], words[6]
    content = Path(body[1:]).read_bytes() if body.startswith("@") else body.encode()
    http_request = urllib.request.Request(url, content, dict([header.split(": ", 1)]))
    try:
        with urllib.request.urlopen(http_request, timeout=60) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
