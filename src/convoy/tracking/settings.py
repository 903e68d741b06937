"""What MLflow runs with: its environment, where its store is, and names in it; importable without MLflow."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # MLflow's default lets a model run code when it is loaded
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the job API was reachable without a password before
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow would wait 120 s and retry seven times: half an hour of silence when its server is away.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
# The follower of a training tries again with the next epoch. MLflow would repeat a request that was answered too
# late, and could so make a run twice.
_SHORT_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

DIGEST = "digest"  # tag of a version: the digest of its bundle
# The MLflow container may write in FOLDER, which `python -m convoy` has on its import path (it is in the repository's
# root). The hyphen keeps a package of that name from being imported: MLflow's own name would be a way to run code here.
FOLDER = Path("mlflow-store")
DATABASE = FOLDER / "mlflow.db"  # SQLite writes its journal beside it, so it has a folder of its own
OLDER_DATABASE = Path("mlflow.db")  # its place until it got that folder


def apply(impatient: bool = False) -> None:
    """Set ENVIRONMENT where the user has not; call it before MLflow is imported, which reads some of it then."""
    if impatient:
        os.environ.update(_SHORT_TIMEOUTS)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file of this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_database().absolute()}"


def default_database() -> Path:
    """DATABASE, or OLDER_DATABASE where it alone exists and holds Convoy's runs: it stays in use until moved."""
    is_older_alone = OLDER_DATABASE.exists() and not DATABASE.exists()
    return OLDER_DATABASE if is_older_alone and _holds_convoy_runs(OLDER_DATABASE) else DATABASE


def _holds_convoy_runs(database: Path) -> bool:
    """False for the file that plain `mlflow` makes in the root, its default place; True for one that cannot be read."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            query = "SELECT 1 FROM experiments WHERE name LIKE 'convoy%' LIMIT 1"
            return connection.execute(query).fetchone() is not None
    except sqlite3.Error as error:
        return "no such table" not in str(error)


def artifact_root() -> Path:
    """Where runs of a local store keep their files: an absolute path, since MLflow writes it down."""
    return Path("mlruns").absolute()


def database() -> Path | None:
    """The SQLite file of a local store."""
    uri = tracking_uri()
    return Path(uri.removeprefix("sqlite:///")) if is_local(uri) else None


def is_local(uri: str) -> bool:
    """Whether this machine writes the artifacts itself, without a server in between."""
    return uri.startswith("sqlite:")


def model_name(task: str) -> str:
    """The name of a task's registered model."""
    return f"convoy-{task}"
