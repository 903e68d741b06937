"""The MLflow UI and the prediction service as processes that start together and end together."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
from honcho.manager import Manager
from honcho.printer import Printer

from convoy.core import children, tasks
from convoy.core.process import Say
from convoy.operations import ports
from convoy.operations.ports import HOST
from convoy.tracking import settings

REAPED_WITHIN_S = 5  # after SIGKILL
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

    def announce(runner: "_ServerManager") -> None:
        from convoy.operations import smoke_request  # numpy starts threads when it is imported; honcho forks first

        if smoke_request.wait_until_ready(checks, READY_WITHIN_S, lambda: runner.ending):
            smoke_request.print_predictions(service, ui, say)
        elif not runner.ending:
            say(f"not ready after {READY_WITHIN_S} s: {' or '.join(checks)}; the lines above say why")
            os.kill(os.getpid(), signal.SIGTERM)

    runner = _ServerManager(lambda runner: _end_if_output_closed(lambda: announce(runner), runner))
    commands = {"serving": command("serve", port), **({"mlflow": command("mlflow", mlflow_port)} if local else {})}
    for name, words in commands.items():
        runner.add_process(name, f"exec {shlex.join(words)}", env=environment())
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # the terminal was closed
    return runner.run()


def _end_if_output_closed(work: Callable[[], None], runner: "_ServerManager") -> None:
    """Run work that prints; where the terminal or the pipe is closed, end everything."""
    try:
        work()
    except OSError:
        runner.drop_output()
    except RuntimeError as error:  # a signal's handler printed in the middle of another line
        if "reentrant" not in str(error):
            raise


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


class _Printer(Printer):  # type: ignore[misc]
    """A honcho Printer that outlives its terminal: a line that cannot be printed ends the servers, not the loop."""

    def __init__(self, runner: "_ServerManager") -> None:
        super().__init__(sys.stdout)
        self._runner = runner

    def write(self, message: object) -> None:
        """Print a line."""
        _end_if_output_closed(lambda: Printer.write(self, message), self._runner)


class _ServerManager(Manager):  # type: ignore[misc]
    """A honcho Manager that ends grandchildren too: bentoml's workers have sessions of their own."""

    def __init__(self, announce: Callable[["_ServerManager"], None]) -> None:
        super().__init__(_Printer(self))
        self.returncode: int | None = None
        self.ending = False
        self._announce = announce
        self._descendants: dict[str, list[psutil.Process]] = {}

    def run(self) -> int:
        """Start all and loop until all have ended; gives the exit status."""
        try:
            self.loop()
        finally:
            self.end_all()
        return self.exit_status()

    def exit_status(self) -> int:
        """The status of the process that ended first, 128 + n for signal n; never 0, since a server should not end."""
        status = int(self.returncode or 0)
        return 128 - status if status < 0 else status or 1

    def drop_output(self) -> None:
        """Begin to end, as a process that writes into a closed pipe; drop further lines."""
        if self.returncode is None:
            self.returncode = 128 + signal.SIGPIPE
        self.ending = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    def terminate(self) -> None:
        """End all; a signal during the start waits until honcho has registered all processes."""
        self.ending = True
        if self._all_started():
            self.note_descendants()
            super().terminate()

    def kill(self) -> None:
        """Kill the processes that are left, grandchildren included."""
        super().kill()
        self.end_descendants()

    def end_all(self) -> None:
        """Kill and reap what is left, however the loop ended; after a regular end nothing is left."""
        self.ending = True
        states = [state for state in self._processes.values() if "process" in state]
        forks = [state["process"].pid for state in states if state["process"].is_alive()]
        servers = [state["pid"] for state in states if "pid" in state and "returncode" not in state]
        left = [process for pid in forks + servers for process in _process_tree(pid)]
        children.kill(left)  # parents before what they might start again
        self.end_descendants()
        psutil.wait_procs(left, timeout=REAPED_WITHIN_S)

    def end_descendants(self) -> None:
        """Kill descendants that outlived their parent."""
        for name in self._descendants:
            self._end_descendants_of(name)

    def note_descendants(self) -> None:
        """Note the descendants while their parent lives; a parent killed from outside leaves them with its port."""
        for name, state in self._processes.items():
            try:
                parent = psutil.Process(state["pid"])
                if parent.status() == psutil.STATUS_ZOMBIE:
                    self._end_descendants_of(name)
                else:
                    self._descendants[name] = parent.children(recursive=True)
            except (KeyError, psutil.NoSuchProcess):  # not started yet, or ended and waited for
                continue

    def _end_descendants_of(self, name: str) -> None:
        children.kill(self._descendants.get(name, []))

    def _start(self) -> None:
        super()._start()
        # After the forks: a fork beside a thread could inherit its locks.
        # Python waits for this one: it imports numpy, and to end a daemon thread in C++ code aborts the process.
        threading.Thread(target=self._announce, args=(self,)).start()
        threading.Thread(target=self._watch_descendants, daemon=True).start()

    def _watch_descendants(self) -> None:
        while not self.ending:
            self.note_descendants()
            time.sleep(1)

    def _any_stopped(self) -> bool:
        """honcho's loop calls this in each round: True starts its countdown to kill(), even before any has ended."""
        return self.ending or bool(super()._any_stopped())


def _process_tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants; empty where it has ended."""
    try:
        return [psutil.Process(pid), *children.descendants(pid)]
    except psutil.NoSuchProcess:
        return []
