"""An artifact of a run -> a file or folder here: from the tracking server's host, within limits of size and time."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from convoy.publishing import mlflow_settings

MAX_BYTES = 2_000_000_000  # the gate `bundle size` allows 100 MB: whatever is twenty times as large is no bundle
MAX_S = 600.0  # for that size over a line of 27 Mbit/s
_POLL_S = 0.05
# Of a URL with these two libraries can name two hosts: urllib.parse, which looks here, and urllib3, which connects.
_READ_DIFFERENTLY = re.compile(r"[\\@\s\x00-\x20\x7f]")
# In a process of its own, which can be ended: MLflow's client knows no limit of size, nor of the time of a whole file.
_DOWNLOAD = """
import sys
from mlflow.artifacts import download_artifacts
download_artifacts(artifact_uri=sys.argv[1], tracking_uri=sys.argv[2], dst_path=sys.argv[3])
"""


class ArtifactRefused(RuntimeError):
    """An artifact that MLflow cannot give, that is too large or too slow, or that lies on another host."""


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


def download(
    client: MlflowClient, run_id: str, name: str, folder: Path, max_bytes: int = MAX_BYTES, max_s: float = MAX_S
) -> Path:
    """The artifact `name` of a run, now below `folder`. Raises ArtifactRefused, MlflowException."""
    uri = f"{location(client, run_id).rstrip('/')}/{name}"
    words = [sys.executable, "-P", "-c", _DOWNLOAD, uri, client.tracking_uri, str(folder)]
    environment = {**os.environ, **mlflow_settings.ENVIRONMENT}
    with tempfile.TemporaryFile() as log, subprocess.Popen(words, env=environment, stdout=log, stderr=log) as child:
        try:
            _watch(child, folder, name, max_bytes, max_s)
        finally:
            child.kill()
        if child.returncode:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines() or ["no word"]
            raise ArtifactRefused(f"{name} of run {run_id} cannot be downloaded: {said[-1][:300]}")
    return folder / Path(name).name if (folder / Path(name).name).exists() else folder / name


def read(client: MlflowClient, run_id: str, name: str) -> bytes:
    """The content of a small file, such as a patch. Raises ArtifactRefused, MlflowException, OSError."""
    uri = f"{location(client, run_id).rstrip('/')}/{name}"
    with tempfile.TemporaryDirectory() as folder:
        return Path(download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri)).read_bytes()


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
