"""Empty MLflow stores in milliseconds: the schema is made once per test process and copied."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from convoy.tracking import settings

settings.apply()

from mlflow import MlflowClient  # noqa: E402

from convoy.tracking import mlflow_runs  # noqa: E402


@cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="convoy-test-store-"), "mlflow.db")
    MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_experiments()
    return path


def open_empty_store() -> MlflowClient:
    """A client of an empty store in the working directory."""
    settings.FOLDER.mkdir(exist_ok=True)
    shutil.copy(_template(), settings.DATABASE)
    return mlflow_runs.open_store()
