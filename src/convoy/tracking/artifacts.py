"""The files of a run in MLflow: read, listed and put only where they may lie, within limits of size and time."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlparse, urlsplit

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run

from convoy.tracking import settings

MAX_BYTES = 2_000_000_000  # the gate `bundle size` allows 100 MB: whatever is twenty times as large is no bundle
MAX_S = 600.0  # for that size over a line of 27 Mbit/s
MAX_DEPTH = 10  # of folders below one another; ours have three
_POLL_S = 0.05
# Of a URL with these two libraries can name two hosts: urllib.parse, which looks here, and urllib3, which connects.
_READ_DIFFERENTLY = re.compile(r"[\\@\s\x00-\x20\x7f]")
# In a process of its own, which can be ended: MLflow's client knows no limit of size, nor of the time of a whole file.
_DOWNLOAD = """
import sys
from mlflow.artifacts import download_artifacts
print(download_artifacts(artifact_uri=sys.argv[1], tracking_uri=sys.argv[2], dst_path=sys.argv[3]))
"""


class ArtifactRefused(RuntimeError):
    """An artifact that MLflow cannot give, that is too large or too slow, or that lies on another host."""


class StoreMoved(RuntimeError):
    """MLflow's database names a folder for its files that is not this repository's: MLflow keeps absolute paths."""


def location(client: MlflowClient, run_id: str) -> str:
    """Where a run keeps its artifacts: a folder of this machine, or the tracking server itself.

    MLflow's client sends the token of the tracking server to whatever host a run names. Raises ArtifactRefused for
    another one.
    """
    uri = str(client.get_run(run_id).info.artifact_uri)
    try:
        named, server = urlsplit(uri), urlsplit(client.tracking_uri)
        is_here = named.scheme in ("", "file") or (named.scheme == "mlflow-artifacts" and not named.netloc)
        is_server = named.scheme in (server.scheme, "mlflow-artifacts") and server.scheme in ("http", "https")
        is_plain = named.scheme in ("", "file") or not _READ_DIFFERENTLY.search(uri)
        if is_plain and (is_here or (is_server and _host(named) == _host(server))):
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
    own = path.is_relative_to(root) and path.parts[-2:] == (run.info.run_id, "artifacts")
    if uri.scheme not in ("", "file") or uri.netloc or not own:
        return None
    return path if path.resolve() == root.resolve() / path.relative_to(root) else None


def require_own_folder(client: MlflowClient, run_id: str) -> None:
    """Raise StoreMoved where the files of a run in a local store would be written outside this folder's artifacts.

    Raises ArtifactRefused where a run behind a server would have them written to another host.
    """
    run = client.get_run(run_id)
    if not settings.is_local(client.tracking_uri):
        location(client, run_id)
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
    words = [sys.executable, "-P", "-c", _DOWNLOAD, uri, client.tracking_uri, str(folder)]
    environment = {**os.environ, **settings.ENVIRONMENT}
    with tempfile.TemporaryFile() as log, subprocess.Popen(words, env=environment, stdout=log, stderr=log) as child:
        try:
            _watch(child, folder, name, max_bytes, max_s)
        finally:
            child.kill()
        log.seek(0)
        said = log.read().decode(errors="replace").strip().splitlines() or ["no word"]
    if child.returncode:
        raise ArtifactRefused(f"{name} of run {run_id} cannot be downloaded: {said[-1][:300]}")
    return Path(said[-1])


def read(client: MlflowClient, run_id: str, name: str) -> bytes:
    """The content of a small file, such as a patch. Raises ArtifactRefused, MlflowException, OSError."""
    uri = f"{location(client, run_id).rstrip('/')}/{name}"
    with tempfile.TemporaryDirectory() as folder:
        return Path(download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri)).read_bytes()


def put_file(client: MlflowClient, run_id: str, name: str, content: bytes) -> None:
    """Write one artifact, folders and all. Raises StoreMoved, ArtifactRefused."""
    require_own_folder(client, run_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(name).name)
        path.write_bytes(content)
        parent = str(Path(name).parent)
        client.log_artifact(run_id, str(path), None if parent == "." else parent)


def list_files(client: MlflowClient, run_id: str, folder: str | None = None) -> dict[str, int | None]:
    """Artifact -> size in bytes, through all folders below `folder`. Raises ArtifactRefused."""
    location(client, run_id)  # MLflow's client would ask any host that the run names
    return _list_files(client, run_id, folder, MAX_DEPTH)


def _list_files(client: MlflowClient, run_id: str, folder: str | None, depth: int) -> dict[str, int | None]:
    if depth == 0:
        raise ArtifactRefused(f"run {run_id} has folders of artifacts below more than {MAX_DEPTH} others")
    found: dict[str, int | None] = {}
    entries: list[Any] = client.list_artifacts(run_id, folder)
    for entry in entries:
        if entry.is_dir:
            found |= _list_files(client, run_id, entry.path, depth - 1)
        else:
            found[entry.path] = entry.file_size
    return found


def _watch(child: "subprocess.Popen[bytes]", folder: Path, name: str, max_bytes: int, max_s: float) -> None:
    """Wait for the end. Raises ArtifactRefused once one of the limits is passed."""
    deadline = time.monotonic() + max_s
    while child.poll() is None:
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


def _host(uri: SplitResult) -> tuple[str | None, int | None]:
    return uri.hostname, uri.port or {"http": 80, "https": 443}.get(uri.scheme)
