"""The verb `init` as its tests say it, and what params.yaml then holds."""

from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from convoy.__main__ import app
from convoy.core import paths

PACKAGED = Path(__file__).parents[1] / "params.yaml"


def say(*options: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the verb."""
    done = CliRunner().invoke(app, ["init", *map(str, options)])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


def init(source: object, *options: str, name: str = "mine") -> tuple[int, str, str]:
    """The same for a task of this name."""
    return say("--task", name, "--from", source, *options)


def values(path: Path = paths.PARAMS) -> Any:
    return read(path.read_text(encoding="utf-8"))


def read(text: str) -> Any:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def fetch(name: str = "mine") -> Any:
    return values()["data"][name]["fetch"]
