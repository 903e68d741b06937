"""A folder that is filled once and restored for each test, at the same path, since MLflow keeps absolute paths."""

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from mlflow_store import open_empty_store

NUMBERS = count()


class KeptFolder:
    """`fill` is called once, in an empty folder with an empty MLflow store."""

    def __init__(self, root: Path, fill: Callable[[], object]) -> None:
        self.root, self.copy = root / "place", root / "kept"
        self.root.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            open_empty_store()
            fill()
        shutil.copytree(self.root, self.copy, symlinks=True)

    def restore(self, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The folder as `fill` left it, now the working directory."""
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.copy, self.root, symlinks=True, dirs_exist_ok=True)
        monkeypatch.chdir(self.root)
        use_store(monkeypatch, Path("mlflow-store/mlflow.db"))
        return self.root


def use_store(monkeypatch: pytest.MonkeyPatch, content: Path | None) -> None:
    """A store by a name that was never used: MLflow keeps connections to those that this process has opened."""
    name = f"{next(NUMBERS)}.db"
    if content is not None:
        content.rename(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path(name).absolute()}")
