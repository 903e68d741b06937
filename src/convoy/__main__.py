"""The verbs of `python -m convoy`, in the order in which --help lists them"""

from convoy.verbs import building, deciding, keeping, looking, running
from convoy.verbs.application import app

__all__ = ["app", "building", "deciding", "keeping", "looking", "running"]

if __name__ == "__main__":
    app(prog_name="python -m convoy")
