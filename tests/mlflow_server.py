"""A real MLflow server, for tests of all that talks to one."""

import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
from test_ports import free_port

from convoy.operations import smoke_request, supervisor
from convoy.tracking import settings

WITHIN_S = 120  # for what takes a few seconds on a machine that is not busy


class Server:
    """A real `mlflow server` on one port and one store, which can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = supervisor.command("mlflow", self.port)
        words[words.index("--backend-store-uri") + 1] = f"sqlite:///{settings.DATABASE.absolute()}"
        words[words.index("--allowed-hosts") + 1] = "*"  # the proxy's port too
        with Path("server.log").open("ab") as log:
            self.process = subprocess.Popen(words, env=supervisor.environment(), stdout=log, stderr=log)
        process = self.process
        assert smoke_request.wait_until_ready([f"{self.uri}/health"], WITHIN_S, lambda: process.poll() is not None)

    def kill(self) -> None:
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                for worker in psutil.Process(self.process.pid).children(recursive=True):
                    worker.kill()
            self.process.kill()
            self.process.wait()

    def ensure(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.start()
