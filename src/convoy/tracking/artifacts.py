"""The files of a run in MLflow: read, listed and written only in allowed places, within limits of size and time."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlparse, urlsplit

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from convoy.tracking import settings

MAX_BYTES = 2_000_000_000  # the gate `bundle size` allows 100 MB: a file twenty times as large is no bundle
MAX_S = 600.0  # for that size over a line of 27 Mbit/s
MAX_DEPTH = 10  # of folders below one another; ours have three
_POLL_S = 0.05
# In a URL with these characters, urllib.parse (which checks) and urllib3 (which connects) can read two hosts.
_AMBIGUOUS_URL = re.compile(r"[\\@\s\x00-\x20\x7f]")
# Runs in a process that can be ended: MLflow's client limits neither the size nor the time of a whole file.
_DOWNLOAD_SCRIPT = """
import sys
from mlflow.artifacts import download_artifacts
print(download_artifacts(artifact_uri=sys.argv[1], tracking_uri=sys.argv[2], dst_path=sys.argv[3]))
"""


class ArtifactRefused(RuntimeError):
    """An artifact that MLflow cannot give, that is too large or too slow, or that lies on another host."""


class StoreMoved(RuntimeError):
    """MLflow's database names a folder for its files that is not this repository's: MLflow keeps absolute paths."""


def location(client: MlflowClient, run: str | Run) -> str:
    """Where a run, or that with an id, keeps its artifacts: a folder of this machine, or the tracking server itself.

    MLflow's client sends the token of the tracking server to whatever host a run names. Raises ArtifactRefused for
    another one.
    """
    run_id = run if isinstance(run, str) else run.info.run_id
    uri = str((client.get_run(run) if isinstance(run, str) else run).info.artifact_uri)
    try:
        artifact, server = urlsplit(uri), urlsplit(client.tracking_uri)
        is_here = artifact.scheme in ("", "file") or (artifact.scheme == "mlflow-artifacts" and not artifact.netloc)
        is_server = artifact.scheme in (server.scheme, "mlflow-artifacts") and server.scheme in ("http", "https")
        is_plain = artifact.scheme in ("", "file") or not _AMBIGUOUS_URL.search(uri)
        if is_plain and (is_here or (is_server and _host_and_port(artifact) == _host_and_port(server))):
            return uri
    except ValueError:  # no port that is a number, or half a bracket
        pass
    raise ArtifactRefused(
        f"run {run_id} keeps its artifacts at {uri!r}, not at the tracking server; "
        "start that server with --artifacts-destination, so that it hands them out itself"
    )


def folder_of(run: Run) -> Path | None:
    """Where a run's files lie: <artifact root>/<experiment>/<run id>/artifacts, with no link on the way below the root.

    None for any other place. The path is from MLflow's database, and whoever writes to that can name any folder.
    """
    uri, root = urlparse(run.info.artifact_uri), settings.artifact_root()
    path = Path(unquote(uri.path).replace("\0", ""))
    is_own = path.is_relative_to(root) and path.parts[-2:] == (run.info.run_id, "artifacts")
    if uri.scheme not in ("", "file") or uri.netloc or not is_own:
        return None
    return path if path.resolve() == root.resolve() / path.relative_to(root) else None


def require_own_folder(client: MlflowClient, run_id: str) -> None:
    """Raise StoreMoved where the files of a run in a local store would be written outside this folder's artifacts.

    Raises ArtifactRefused where a run behind a server would have them written to another host.
    """
    run = client.get_run(run_id)
    if not settings.is_local(client.tracking_uri):
        location(client, run)
    elif folder_of(run) is None:
        raise StoreMoved(
            f"{settings.database()} keeps the files of run {run_id} at {run.info.artifact_uri}, not in its "
            f"folder under {settings.artifact_root()}; nothing was written there. Delete that run (`mlflow runs "
            f"delete --run-id {run_id}`) and run `python -m convoy publish`, which makes it again"
        )


def download(
    client: MlflowClient, run_id: str, name: str, folder: Path, max_bytes: int = MAX_BYTES, max_s: float = MAX_S
) -> Path:
    """The artifact `name` of a run, now below `folder`. Raises ArtifactRefused, MlflowException."""
    uri = f"{location(client, run_id).rstrip('/')}/{name}"
    command = [sys.executable, "-P", "-c", _DOWNLOAD_SCRIPT, uri, client.tracking_uri, str(folder)]
    environment = {**os.environ, **settings.ENVIRONMENT}
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            _wait_for_download(process, folder, name, max_bytes, max_s)
        finally:
            process.kill()
        log.seek(0)
        output = log.read().decode(errors="replace").strip().splitlines() or ["no word"]
    if process.returncode:
        raise ArtifactRefused(f"{name} of run {run_id} cannot be downloaded: {output[-1][:300]}")
    return Path(output[-1])


def read(client: MlflowClient, run: str | Run, name: str) -> bytes:
    """The content of a small file, such as a patch. Raises ArtifactRefused, MlflowException, OSError."""
    uri = f"{location(client, run).rstrip('/')}/{name}"
    with tempfile.TemporaryDirectory() as folder:
        return Path(download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri)).read_bytes()


def put_files(client: MlflowClient, run_id: str, contents: Mapping[str, bytes]) -> None:
    """Write artifacts, folders and all, each in one step. Raises StoreMoved, ArtifactRefused.

    Not by `log_artifacts`: in a local store that follows links out of the run's folder, and leaves half a file where it
    is killed.
    """
    require_own_folder(client, run_id)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            path = Path(folder, Path(name).name)
            path.write_bytes(content)
            parent = str(Path(name).parent)
            client.log_artifact(run_id, str(path), None if parent == "." else parent)


def list_files(client: MlflowClient, run: str | Run, folder: str | None = None) -> dict[str, int | None]:
    """Artifact -> size in bytes, through all folders below `folder` of a run, or of that with an id.

    Raises ArtifactRefused.
    """
    root = location(client, run)  # raises: MLflow's client would connect to any host that the run names
    # Not by the run's id: then MLflow looks up the run and all models again for each folder.
    repository = get_artifact_repository(root, tracking_uri=client.tracking_uri)
    return _list_files(repository, folder, MAX_DEPTH)


def _list_files(repository: ArtifactRepository, folder: str | None, depth: int) -> dict[str, int | None]:
    if depth == 0:
        raise ArtifactRefused(f"{repository.artifact_uri} has folders below more than {MAX_DEPTH} others")
    sizes: dict[str, int | None] = {}
    for entry in repository.list_artifacts(folder):
        if entry.is_dir:
            sizes |= _list_files(repository, entry.path, depth - 1)
        else:
            sizes[entry.path] = entry.file_size
    return sizes


def _wait_for_download(
    process: "subprocess.Popen[bytes]", folder: Path, name: str, max_bytes: int, max_s: float
) -> None:
    """Wait until the process ends. Raises ArtifactRefused once a limit is passed."""
    deadline = time.monotonic() + max_s
    while process.poll() is None:
        _refuse_too_large(folder, name, max_bytes)
        if time.monotonic() > deadline:
            raise ArtifactRefused(f"{name} took more than {max_s:g} s to download")
        time.sleep(_POLL_S)
    _refuse_too_large(folder, name, max_bytes)


def _refuse_too_large(folder: Path, name: str, max_bytes: int) -> None:
    size = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                size += os.lstat(Path(root, file)).st_size
            except FileNotFoundError:
                continue  # a temporary file of the download
    if size > max_bytes:
        raise ArtifactRefused(f"{name} is larger than the {max_bytes:,} bytes that are allowed")


def _host_and_port(uri: SplitResult) -> tuple[str | None, int | None]:
    return uri.hostname, uri.port or {"http": 80, "https": 443}.get(uri.scheme)
