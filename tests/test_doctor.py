"""The doctor: every part that Convoy stands on, each finding with its remedy, also where parts are missing."""

import builtins
import importlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import built_pipeline
import pytest
from mlflow_store import open_empty_store
from test_ports import free_port

from convoy.operations.doctor import doctor, machine, stores
from convoy.operations.doctor.doctor import Check
from convoy.tracking import mlflow_runs, settings

pytestmark = pytest.mark.mlflow
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def found(look: Callable[[], Any], about: str = "") -> Check:
    return next(finding for finding in look() if finding.about.startswith(about))


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch takes seconds; one test asks it."""
    monkeypatch.setattr(machine, "_TORCH_SCRIPT", "print('[\"2.13.0\", null, false]')")


def test_every_finding_that_is_not_well_has_a_remedy_and_one_line(place: Path) -> None:
    for finding in doctor.run_checks(free_port(), free_port()):
        assert (finding.state == "ok") == (finding.remedy == ""), finding
        assert "\n" not in finding.says + finding.remedy


def test_packages_are_compared_with_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not here" in found(stores.check_lock).says
    monkeypatch.chdir(REPOSITORY)
    whole = found(stores.check_lock)
    assert whole.state == "ok" or "torch" not in whole.says, "of torch the build behind the + does not count"
    older = SimpleNamespace(name="Pillow", version="12.3.0")
    monkeypatch.setattr("importlib.metadata.distributions", lambda: [older])
    differing = found(stores.check_lock)
    assert differing.state == "warning" and "pillow 12.3.0 (==" in differing.says and "make set-up" in differing.remedy


def test_a_port_that_another_holds_is_named_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = next(machine.check_ports(port, free_port()))
    assert finding.state == "warning" and f"port {port} is taken" in finding.says and "PORT=" in finding.remedy


def test_git_says_whether_a_revision_names_what_is_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(stores.check_git).state == "warning"
    built_pipeline.git(place, "init", "--quiet")
    Path("file").write_text("one")
    built_pipeline.git(place, "add", "file")
    built_pipeline.git(place, "commit", "--quiet", "--message", "first")
    assert found(stores.check_git).says.endswith("clean")
    Path("file").write_text("two")
    assert "1 files differ" in found(stores.check_git).says
    monkeypatch.setenv("PATH", "")
    assert found(stores.check_git).state == "broken"


def test_dvc_and_its_remote(place: Path) -> None:
    assert found(stores.check_dvc).remedy.endswith("`dvc init`")
    built_pipeline.git(place, "init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    assert found(stores.check_dvc, "DVC's remote").state == "warning"
    Path(".dvc/config").write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = /not/there\n")
    assert "/not/there is not there" in found(stores.check_dvc, "DVC's remote").says


def test_mlflows_store_is_missing_whole_old_broken_or_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is missing" in found(stores.check_mlflow).says
    client = open_empty_store()
    assert found(stores.check_mlflow).state == "ok" and client
    for content in (b"no database at all", b""):
        Path("mlflow-store/mlflow.db").unlink()
        Path("mlflow-store/mlflow.db").write_bytes(content)
        broken = found(stores.check_mlflow)
        assert broken.state == "broken" and "move it away and run `python -m convoy publish`" in broken.remedy
    assert Path("mlflow-store/mlflow.db").read_bytes() == b"", "a look makes no tables"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    assert "does not answer" in found(stores.check_mlflow).says


def test_an_older_database_stays_in_use_until_moved() -> None:
    mlflow_runs.experiment_of(open_empty_store(), "reviews")
    Path("mlflow-store/mlflow.db").rename("mlflow.db")
    assert settings.database() == Path("mlflow.db").absolute()
    client = mlflow_runs.open_store()
    mlflow_runs.experiment_of(client, "fashion")
    assert not Path("mlflow-store/mlflow.db").exists()
    advice = found(stores.check_mlflow, "MLflow's older store").remedy
    (move,) = re.findall("`(mkdir.*)`", advice)
    subprocess.run(move, shell=True, check=True)
    assert settings.database() == Path("mlflow-store/mlflow.db").absolute()
    assert mlflow_runs.open_store().get_experiment_by_name("convoy-fashion") is not None
    assert found(stores.check_mlflow).about == "MLflow's store"


def test_a_store_of_plain_mlflow_is_not_used(place: Path) -> None:
    open_empty_store()
    Path("mlflow-store/mlflow.db").rename("mlflow.db")
    assert settings.database() == Path("mlflow-store/mlflow.db").absolute()
    Path("mlflow.db").write_bytes(b"")
    assert settings.database() == Path("mlflow-store/mlflow.db").absolute()
    Path("mlflow.db").write_bytes(b"damaged" * 100)
    assert settings.database() == Path("mlflow.db").absolute(), "it may hold runs: nothing is begun beside it"


def test_a_new_store_stands_in_its_own_folder(place: Path) -> None:
    mlflow_runs.open_store()
    assert [path.name for path in place.iterdir()] == ["mlflow-store"]
    Path("mlflow.db").touch()
    assert "mlflow.db is not used" in found(stores.check_mlflow, "MLflow's older store").says


def test_a_full_disk_and_threads_that_are_not_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((10, "broken"), (1_000_000_000, "warning"), (50_000_000_000, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda folder, free=free: type("Usage", (), {"free": free}))
        assert found(machine.check_disk).state == state
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert "`unset OMP_NUM_THREADS" in found(machine.check_threads).remedy
    for name in machine.THREADS:
        monkeypatch.delenv(name, raising=False)
    assert found(machine.check_threads).state == "ok"


def test_a_gpu_that_torch_does_not_see_is_told_with_the_remedy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = place / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 580.1'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    for torch, says, remedy in (
        (
            '["2.13.0+cpu", null, false]',
            "NVIDIA H100, driver 580.1, but torch 2.13.0+cpu does not",
            "built for the CPU",
        ),
        ('["2.13.0", "13.0", false]', "but torch 2.13.0 does not see it", "CUDA 13.0: update the driver"),
        ('["2.13.0", "13.0", "H100"]', "H100, NVIDIA H100, driver 580.1, torch 2.13.0", ""),
    ):
        monkeypatch.setattr(machine, "_TORCH_SCRIPT", f"print('{torch}')")
        finding = found(machine.check_gpu)
        assert says in finding.says and remedy in finding.remedy
    monkeypatch.setattr(machine, "_TORCH_SCRIPT", "import torch_is_not_here")
    assert "No module named 'torch_is_not_here'" in found(machine.check_gpu).says


@pytest.mark.parametrize("missing", ["dvc", "mlflow"])
def test_where_a_part_is_missing_the_rest_is_looked_at(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == missing or name.startswith(f"{missing}."):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *arguments, **options)

    for module in [name for name in sys.modules if name.startswith("convoy.operations.doctor.")]:
        if module not in ("convoy.operations.doctor.doctor", "convoy.operations.doctor.machine"):
            monkeypatch.delitem(sys.modules, module)
    again = importlib.import_module("convoy.operations.doctor.doctor")
    monkeypatch.setattr(builtins, "__import__", without)
    findings = again.run_checks(free_port(), free_port())
    assert any("is not installed" in finding.says for finding in findings) or missing == "mlflow"
    assert {finding.about.split()[0] for finding in findings} >= {"git", "GPU", "threads", "disk", "port"}


@pytest.mark.process
def test_the_exit_code_is_1_where_something_is_broken_and_0_with_warnings(place: Path) -> None:
    def doctor() -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "convoy", "doctor", "--json", "--port", str(free_port())]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

    built_pipeline.git(place, "init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    well = doctor()
    assert well.returncode == 0, well.stdout
    assert {finding["state"] for finding in json.loads(well.stdout)} == {"ok", "warning"}
    Path("mlflow-store").mkdir(exist_ok=True)
    Path("mlflow-store/mlflow.db").write_text("no database")
    assert doctor().returncode == 1
