"""The commands of docs/operate.md, section Backup, run as they stand there."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/operate.md"
# For a machine without the program: the same two things by SQLite's own library.
SQLITE3 = """#!{python}
import sqlite3, sys
*_, database, command = sys.argv
connection = sqlite3.connect(database, timeout=60)
if command.startswith(".backup"):
    connection.backup(sqlite3.connect(command.split(maxsplit=1)[1].strip('"')))
else:
    connection.executescript(command)
"""


def _commands() -> dict[str, str]:
    section = PAGE.read_text().split("\n## Backup\n")[1].split("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return dict(zip(("keep", "keep_cache", "restore", "restore_cache"), found, strict=True))


def run(name: str, kept: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the commands called `name` in `folder`, with $KEPT as in the document."""
    programs = Path(sys.executable).parent
    path = f"{programs}:{os.environ['PATH']}"
    if shutil.which("sqlite3") is None:
        own = kept.parent / "programs"
        own.mkdir(exist_ok=True)
        (own / "sqlite3").write_text(SQLITE3.format(python=sys.executable))
        (own / "sqlite3").chmod(0o755)
        path = f"{own}:{path}"
    environment = {**os.environ, "KEPT": str(kept), "PATH": path}
    command = ["bash", "-c", _commands()[name]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def do(name: str, kept: Path, folder: Path) -> None:
    """Run the commands called `name`, which must succeed."""
    done = run(name, kept, folder)
    assert done.returncode == 0, (name, done.stdout, done.stderr)


def move_paths(database: Path, was: str, now: str) -> None:
    """Put the folder `now` of artifacts in place of `was`, by the SQL that stands in the document."""
    statements = re.findall(r"UPDATE .*;", _commands()["restore"])
    script = "\n".join(statements).replace("""$(cat "$KEPT/folder")/mlruns""", was).replace("$PWD/mlruns", now)
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(script)
