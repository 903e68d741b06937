"""Whatever a kill of DVC has left of its record, the next plain `dvc` goes on."""

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest

from convoy.running import workspace

ROOT = Path(__file__).parent.parent
GROUP, NAME = "networkx.backend_info", "convoy_records"
TORN = '{"write": {"/some/out": {"pid": 1, "cm'


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of DVC's with one stage, as the current folder; Convoy beside it as if installed from this tree."""
    (tmp_path / "repository").mkdir()
    monkeypatch.chdir(tmp_path / "repository")
    Path("dvc.yaml").write_text("stages: {make: {cmd: echo 1 > out, outs: [out]}}\n")
    monkeypatch.setattr(os, "environ", workspace.environment(ROOT))
    if not any(point.group == GROUP for point in distribution("convoy").entry_points):  # installed before there was one
        points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
        installed = tmp_path / "convoy_here-1.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: convoy-here\nVersion: 1\n")
        (installed / "entry_points.txt").write_text(f"[{GROUP}]\n{NAME} = {points[NAME]}\n")
        os.environ["PYTHONPATH"] += f":{tmp_path}"
    assert dvc("init", "--no-scm").returncode == 0 and dvc("repro").returncode == 0
    return Path.cwd()


def dvc(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dvc", *words, "--quiet"]
    return subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["", TORN])
def test_the_next_dvc_says_what_was_torn_and_goes_on(repository: Path, left: str) -> None:
    (repository / ".dvc/tmp/rwlock").write_text(left)
    done = dvc("repro")
    assert (done.returncode, done.stderr) == (0, ".dvc/tmp/rwlock is torn by a kill, put aside\n")
    assert dvc("repro").stderr == ""


@pytest.mark.slow
def test_in_a_folder_below_too_and_what_is_no_dvc_touches_nothing(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rwlock = repository / ".dvc/tmp/rwlock"
    rwlock.write_text(TORN)
    subprocess.run([sys.executable, "-W", "error", "-c", "import networkx"], env=dict(os.environ), check=True)
    assert rwlock.read_text() == TORN
    (repository / "below").mkdir()
    monkeypatch.chdir(repository / "below")
    assert dvc("repro", "../dvc.yaml").returncode == 0
