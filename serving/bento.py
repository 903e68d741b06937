"""What `bentoml build` writes beside the code: how an image of a Bento is installed, and the bundles that serve."""

import os
import shutil
from pathlib import Path
from typing import Any

from bentoml.exceptions import BentoMLException
from bentoml.images import Image

from convoy.core.paths import DEPLOYED, TASKS
from serving.deployed import deployed_folder

INSIDE = "/home/bentoml/bento/src"  # where BentoML's own Dockerfile puts the code


class BentoImage(Image):  # type: ignore[misc]  # bentoml exports it untyped
    """BentoML copies no link to a folder, such as `current`, and would take every bundle that ever served."""

    def freeze(self, bento_fs: Path, *arguments: Any, **options: Any) -> Any:
        """Called once, when the code is in place. Raises BentoMLException where a task has nothing that serves."""
        for task in TASKS:
            current = deployed_folder() / task / "current"
            if not current.exists():
                raise BentoMLException(f"{current} is missing: a Bento takes what is deployed; promote a model")
            place = bento_fs / "src" / DEPLOYED / task
            shutil.copytree(current, place / current.resolve().name)
            os.symlink(current.resolve().name, place / "current")
        return super().freeze(bento_fs, *arguments, **options)


def image() -> BentoImage:
    """Python and this package with what serving needs; pyproject.toml has it install the versions of the lock."""
    made = BentoImage(python_version="3.11", lock_python_packages=False)
    made.build_include("pyproject.toml", "requirements.lock", "README.md", "LICENSE", "src")
    made.python_packages(f"convoy[serve] @ file://{INSIDE}")
    return made
