"""Scoring in bulk of some rows and of ten times as many: rows a second, and the most memory that it held."""

import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from pyarrow import parquet

from bench import machine
from bench.bodies import deploy
from bench.samples import TEXTS
from convoy.core import atomic, paths
from convoy.kinds.text.items.prepared import read as read_texts

REPORT = Path("reports/bench/scoring.json")
WATCHED_EVERY_S = 0.02


def score(folder: Path, source: Path, rows: int) -> dict[str, Any]:
    """One run of the verb in a process of its own, start included. Raises RuntimeError where a row is not scored."""
    output = folder / f"{rows}.parquet"
    command = [sys.executable, "-m", "convoy", "score", str(source), str(output), "--task", TEXTS]
    log = folder / "log"
    began_s = time.perf_counter()
    with log.open("wb") as stream, subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream) as process:
        peak_mib = _watch_memory(process)
    seconds = time.perf_counter() - began_s
    scored = parquet.read_table(output, columns=["error"]) if process.returncode == 0 else None
    if scored is None or len(scored) != rows or scored["error"].null_count != rows:
        raise RuntimeError(f"not all of {rows} rows were scored: {log.read_text()[-2000:]}")
    return {"rows": rows, "seconds": round(seconds, 1), "rows_per_s": round(rows / seconds), "peak_mib": peak_mib}


def _watch_memory(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of a process; the most memory that it held, in MiB.

    By its own counter, on Linux alone: the kernel's ru_maxrss of a child begins with what its parent held.
    """
    status, peak_kib = Path("/proc", str(process.pid), "status"), 0
    while process.poll() is None:
        with suppress(OSError):
            if held := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE):
                peak_kib = int(held[1])
        time.sleep(WATCHED_EVERY_S)
    return round(peak_kib / 1024)


def main(
    rows: Annotated[int, typer.Option(min=1, help="Of the smaller table.")] = 5_000,
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
) -> None:
    """Score validation reviews with what was built last, again and again until there are enough."""
    texts = list(read_texts(paths.split_file(TEXTS, "validation")).contents)
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deploy(folder / "deployed")
        found = []
        for count in (rows, 10 * rows):
            source = folder / f"{count}.csv"
            with source.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows([["text"], *([text] for text in islice(cycle(texts), count))])
            found.append(score(folder, source, count))
    atomic.write_json(report, {**facts, "results": found})
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
