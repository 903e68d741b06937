"""A real MLflow server, for tests of all that talks to one."""

from pathlib import Path

from test_ports import free_port

from convoy.core.children import Child
from convoy.operations import smoke_request, supervisor
from convoy.tracking import settings

WITHIN_S = 120  # for what takes a few seconds on a machine that is not busy


class Server:
    """A real `mlflow server` on one port and one store, which can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: Child | None = None

    def start(self) -> None:
        words = supervisor.command("mlflow", self.port)
        words[words.index("--backend-store-uri") + 1] = f"sqlite:///{settings.DATABASE.absolute()}"
        words[words.index("--allowed-hosts") + 1] = "*"  # the proxy's port too
        process = self.process = Child(words, Path("server.log"), env=supervisor.environment())
        assert smoke_request.wait_until_ready([f"{self.uri}/health"], WITHIN_S, lambda: not process.is_running())

    def kill(self) -> None:
        if self.process is not None:
            self.process.is_running()  # notes its workers
            self.process.kill()
            self.process.end()

    def ensure(self) -> None:
        if self.process is None or self.process.poll() is not None:
            self.start()
