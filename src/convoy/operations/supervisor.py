"""The MLflow UI and the prediction service as processes that start together and end together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from convoy.core import tasks
from convoy.core.children import Child, end_all
from convoy.core.process import Say
from convoy.operations import ports
from convoy.operations.ports import HOST
from convoy.tracking import settings

ENDED_WITHIN_S = 5.0  # then SIGKILL
WATCHED_EVERY_S = 0.3
READY_WITHIN_S = 180  # a cold disk and a busy machine; both are ready in about 15 s otherwise


def up(port: int, mlflow_port: int, say: Say) -> int:
    """Run both until Ctrl-C, SIGTERM or the end of one; gives the exit status.

    MLflow's UI is started for a local store only.
    """
    local = settings.is_local(settings.tracking_uri())
    required = {"PORT": port, **({"MLFLOW_PORT": mlflow_port} if local else {})}
    try:
        ports.check(required)
    except ports.PortTaken as error:
        say(str(error))
        return 1
    if not tasks.deployed():
        say("nothing is deployed; `make run` builds it, or `dvc repro` and `python -m convoy publish`")
        return 1
    if status := _create_store(say):
        return status
    service = f"http://{HOST}:{port}"
    ui = f"http://{HOST}:{mlflow_port}" if local else settings.tracking_uri()
    checks = [f"{service}/readyz", *([f"{ui}/health"] if local else [])]

    servers = Servers()

    def announce() -> None:
        from convoy.operations import smoke_request  # it needs numpy, which the verb itself does not

        if smoke_request.wait_until_ready(checks, READY_WITHIN_S, lambda: servers.ending):
            smoke_request.print_predictions(service, ui, say)
        elif not servers.ending:
            say(f"not ready after {READY_WITHIN_S} s: {' or '.join(checks)}; the lines above say why")
            servers.end(128 + signal.SIGTERM)

    commands = {"serving": command("serve", port), **({"mlflow": command("mlflow", mlflow_port)} if local else {})}
    return servers.run(commands, announce)


def _create_store(say: Say) -> int:
    """Publish where the local store is missing: a server would show an empty one, or half of one if it is killed."""
    database = settings.database()
    if database is None or database.exists():
        return 0
    say(f"{database} is missing: publishing what there is")
    sys.stdout.flush()
    status = subprocess.run([sys.executable, "-m", "convoy", "publish"], env=environment(), check=False).returncode
    return 0 if database.exists() else status  # one task that could not be published must not stop the others


def exec_server(name: str, port: int, say: Say) -> int:
    """Become one of the two processes; gives an exit status only where the port is taken."""
    try:
        ports.check({"PORT" if name == "serve" else "MLFLOW_PORT": port})
    except ports.PortTaken as error:
        say(str(error))
        return 1
    if name == "mlflow" and (status := _create_store(say)):
        return status
    say(f"http://{HOST}:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    words = command(name, port)
    os.execve(words[0], words, environment())


def command(name: str, port: int) -> list[str]:
    """The command line of `serve` or `mlflow`; both listen on this machine alone."""
    address = ["--host", HOST, "--port", str(port)]
    if name == "serve":
        return [sys.executable, "-m", "bentoml", "serve", "serving.service:service", *address]
    hosts = [f"{host}:{port}" for host in (HOST, "localhost")]
    # MLflow compares the Host header with its port; a page of another site cannot read the UI.
    guard = ["--allowed-hosts", ",".join(hosts), "--cors-allowed-origins", ",".join(f"http://{host}" for host in hosts)]
    quiet = ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    store = ["--backend-store-uri", settings.tracking_uri()]
    files = ["--artifacts-destination", str(settings.artifact_root())]
    return [sys.executable, "-m", "mlflow", "server", *address, *quiet, *store, *files, *guard]


def environment() -> dict[str, str]:
    """The environment of both processes: MLflow's settings, no telemetry, unbuffered output."""
    fixed = {"BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore::UserWarning"}
    return {**settings.ENVIRONMENT, **os.environ, **fixed}


class Servers:
    """Processes whose lines are printed with their names, and of which none outlives another."""

    def __init__(self) -> None:
        self.ending = False
        self._status: int | None = None
        self._children: dict[str, Child] = {}
        self._printing = threading.Lock()

    def run(self, commands: Mapping[str, Sequence[str]], announce: Callable[[], None]) -> int:
        """Run them until a signal comes or one ends; gives 128 + n for signal n, the status of the one that ended.

        `announce` runs in a thread beside them.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
            signal.signal(number, lambda number, _: self.end(128 + number))
        threads = [threading.Thread(target=self._end_if_output_closed, args=(announce,))]
        try:
            for name, words in commands.items():
                child = Child(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment())
                self._children[name] = child
                self._end_if_output_closed(self._print, "system", f"{name} started (pid={child.pid})")
                threads.append(threading.Thread(target=self._print_lines, args=(name, child), daemon=True))
            for thread in threads:
                thread.start()
            while not self.ending:
                self._end_with_the_first()
                time.sleep(WATCHED_EVERY_S)
        finally:
            self.ending = True
            end_all(self._children.values(), ENDED_WITHIN_S)
            threads[0].join()
        return self._status or 1

    def end(self, status: int) -> None:
        """Begin to end; the first status is that of all."""
        self._status = status if self._status is None else self._status
        self.ending = True

    def _end_with_the_first(self) -> None:
        for child in self._children.values():
            if not child.is_running():
                status = child.returncode
                self.end(128 - status if status < 0 else status or 1)  # a server should not end, so never 0

    def _print_lines(self, name: str, child: Child) -> None:
        assert child.stdout is not None
        with suppress(ValueError):  # closed when all has ended
            for line in child.stdout:
                self._end_if_output_closed(self._print, name, line.decode(errors="replace").rstrip("\n"))

    def _print(self, name: str, text: str) -> None:
        with self._printing:
            print(f"{time.strftime('%H:%M:%S')} {name:<8}| {text}", flush=True)

    def _end_if_output_closed(self, work: Callable[..., None], *arguments: str) -> None:
        """Run work that prints; where the terminal or the pipe is closed, end as if by SIGPIPE and print no more."""
        try:
            work(*arguments)
        except OSError:
            self.end(128 + signal.SIGPIPE)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
