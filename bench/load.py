"""wrk against a server on this machine -> requests per second and latencies; wrk is a Debian package of this name."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parent / "load.lua"
SERVER_CORE, LOAD_CORE = 0, 1  # so that neither takes the other's time


class ToolMissing(Exception):
    """A program that a benchmark needs is not there; the message says how to get it."""


@dataclass(frozen=True)
class Load:
    """Bodies that are posted to one address, one after the other, by so many connections at once."""

    url: str
    content_type: str
    bodies: Sequence[Path]

    @property
    def port(self) -> str:
        """The port of the address."""
        return self.url.split(":")[2].partition("/")[0]

    def run(self, connections: int, seconds: float, core: int | None = None) -> dict[str, float]:
        """Gives requests, seconds, p50_ms and p99_ms. Raises RuntimeError where one was not answered by 2xx."""
        command = [
            program("wrk"),
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10s",
            "-s",
            str(SCRIPT),
            self.url,
        ]
        bodies = "\n".join(str(path.absolute()) for path in self.bodies)
        done = subprocess.run(
            pinned(command, core),
            env={**os.environ, "BODIES": bodies, "CONTENT_TYPE": self.content_type},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            raise RuntimeError(f"{' '.join(command)} gave no result: {done.stdout}{done.stderr}")
        found: dict[str, float] = json.loads(lines[0].removeprefix("RESULT "))
        if found["failed"] or found["broken"]:
            raise RuntimeError(f"{self.url}: {found['failed']} answers of 4xx or 5xx, {found['broken']} broken")
        return found


def pinned(command: list[str], core: int | None) -> list[str]:
    """The command, bound to a core where one is named and the system can."""
    return ["taskset", "-c", str(core), *command] if core is not None and shutil.which("taskset") else command


def program(name: str) -> str:
    """Where a program is that Debian has as a package of the same name. Raises ToolMissing."""
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(f"{name} is missing, which makes the load; on Debian: apt-get install {name}")
    return found
