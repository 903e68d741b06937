"""The file or folder that CONVOY_REQUEST_LOG names -> the files of logged requests, the newest first."""

from pathlib import Path

VARIABLE = "CONVOY_REQUEST_LOG"
NAME = "requests.jsonl"  # where the variable names a folder


def current(named: str) -> Path:
    """The file that lines are added to; `named` is a folder if it ends in / or exists as one, else a file."""
    path = Path(named).absolute()
    return path / NAME if named.endswith("/") or path.is_dir() else path


def older(path: Path, number: int) -> Path:
    """The file that `path` has become after `number` rotations."""
    return path.with_name(f"{path.name}.{number}")


def existing(named: str) -> list[Path]:
    """All files of a log, the newest first."""
    path = current(named)
    rotated = [file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdigit()]
    return [file for file in [path, *sorted(rotated, key=lambda file: int(file.suffix[1:]))] if file.is_file()]
