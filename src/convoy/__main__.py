"""The verbs of `python -m convoy`, in the order in which --help lists them"""

from convoy.cli import build, release, maintain, inspect, run  # isort: skip # the order of --help
from convoy.cli.application import app

__all__ = ["app", "build", "inspect", "maintain", "release", "run"]

if __name__ == "__main__":
    app(prog_name="python -m convoy")
