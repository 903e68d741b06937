"""The file or folder that CONVOY_REQUEST_LOG names -> the files of logged requests, of each worker of the service."""

import glob
import re
from pathlib import Path

VARIABLE = "CONVOY_REQUEST_LOG"
NAME = "requests.jsonl"  # where the variable names a folder


def current(named: str) -> Path:
    """The file that lines are added to; `named` is a folder if it ends in / or exists as one, else a file."""
    path = Path(named).absolute()
    return path / NAME if named.endswith("/") or path.is_dir() else path


def of_worker(path: Path, worker: int) -> Path:
    """The file of a worker of the service; they count from 1, and the first has `path` itself."""
    return path if worker <= 1 else path.with_name(f"{path.stem}-{worker}{path.suffix}")


def existing(named: str) -> list[Path]:
    """All files of a log: the present one of each worker, then those that were full, of each the newest first."""
    path = current(named)
    pattern = re.compile(rf"{re.escape(path.stem)}(?:-(\d+))?{re.escape(path.suffix)}(?:\.(\d+))?")
    names = {file: pattern.fullmatch(file.name) for file in path.parent.glob(f"{glob.escape(path.stem)}*")}
    found = [(int(name[2] or 0), int(name[1] or 1), file) for file, name in names.items() if name and file.is_file()]
    return [file for _, _, file in sorted(found)]
