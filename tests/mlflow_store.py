"""Empty MLflow stores in milliseconds: the schema is made once for each version of MLflow, and copied."""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from convoy.tracking import settings

settings.apply()

from mlflow import MlflowClient  # noqa: E402

from convoy.tracking import mlflow_runs  # noqa: E402

TEMPLATE = Path(__file__).parents[1] / ".run" / "tests" / f"mlflow-{version('mlflow')}.db"


def _template() -> Path:
    if not TEMPLATE.exists():  # two processes may both make it: the last rename stays, and either is right
        TEMPLATE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TEMPLATE.parent) as folder:
            path = Path(folder, "mlflow.db")
            MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_experiments()
            path.rename(TEMPLATE)
    return TEMPLATE


def open_empty_store() -> MlflowClient:
    """A client of an empty store in the working directory."""
    settings.FOLDER.mkdir(exist_ok=True)
    shutil.copy(_template(), settings.DATABASE)
    return mlflow_runs.open_store()
