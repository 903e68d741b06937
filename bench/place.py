"""A folder with params.yaml and some of the prepared data, where the project's own commands run."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.samples import write_some
from convoy.core import atomic, paths
from convoy.core.paths import Split

ROOT = Path(__file__).resolve().parent.parent


def params_on_cpu() -> dict[str, Any]:
    """The project's params; the goals are those of a machine without a GPU."""
    params: dict[str, Any] = yaml.safe_load((ROOT / paths.PARAMS).read_text(encoding="utf-8"))
    params["trainer"] |= {"accelerator": "cpu", "precision": "32-true"}
    return params


@dataclass(frozen=True)
class Place:
    """A folder that looks like the project's own to `python -m convoy` and `python -m pipelines`."""

    folder: Path
    source: Path = ROOT  # whose prepared data are taken

    @property
    def store(self) -> str:
        """The URI of an MLflow store in the folder."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def lay(self, params: dict[str, Any], data: str, counts: dict[Split, int]) -> None:
        """Write the params, and so many items of each split of a data set."""
        atomic.write_bytes(self.folder / paths.PARAMS, yaml.safe_dump(params).encode())
        write_some(data, self.source / paths.prepared(data), self.folder / paths.prepared(data), counts)

    def run(self, *words: str, **environment: str) -> None:
        """`python -m` these words, told where MLflow is by nothing but `environment`."""
        kept = {
            name: value for name, value in os.environ.items() if name not in ("CONVOY_FOLLOW", "MLFLOW_TRACKING_URI")
        }
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise RuntimeError(f"python -m {' '.join(words)} ended with {done.returncode}: {said}")
