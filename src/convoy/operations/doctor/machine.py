"""Checks of this machine: ports, GPU, threads and disk; with the standard library alone."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from convoy.core.process import usable_cores
from convoy.operations import ports
from convoy.operations.doctor.doctor import Check

# Set by judgement: a first `make run` needs 2.2 GB for .venv and about as much for data, cache and MLflow's copies.
LOW_DISK_BYTES = 5_000_000_000
FULL_DISK_BYTES = 500_000_000  # a training's checkpoints and a bundle of every task, several times
ANSWERS_WITHIN_S = 2
TORCH_WITHIN_S = 120  # importing torch from a cold disk
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TORCH_SCRIPT = (
    "import json, torch; there = torch.cuda.is_available(); "
    "print(json.dumps([torch.__version__, torch.version.cuda, there and torch.cuda.get_device_name()]))"
)


def check_ports(port: int, mlflow_port: int) -> Iterator[Check]:
    """Whether both ports are free, or answer as ours do."""
    for name, number, path in (("PORT", port, "livez"), ("MLFLOW_PORT", mlflow_port, "health")):
        about = f"port {number}"
        try:
            ports.check({name: number})
            yield Check(about, "ok", "free")
        except ports.PortTaken as error:
            if _is_answering(f"http://{ports.HOST}:{number}/{path}"):
                yield Check(about, "ok", f"answers /{path}")
            else:
                what, _, remedy = str(error).partition("; ")
                yield Check(about, "warning", what, remedy)


def _is_answering(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWERS_WITHIN_S):
            return True
    except (OSError, ValueError):
        return False


def check_gpu() -> Iterator[Check]:
    """What the driver shows, and what torch sees; in processes of their own, since a broken driver hangs."""
    drivers = _nvidia_drivers()
    process = _run_command([sys.executable, "-c", _TORCH_SCRIPT], TORCH_WITHIN_S)
    if process is None or process.returncode:
        errors = process.stderr.strip().splitlines()[-1:] if process else ["it took too long"]
        install = "`uv pip install -c requirements.lock '.[train]'`; a machine that only serves needs none"
        yield Check("torch", "warning", f"cannot be imported: {' '.join(errors) or 'no reason given'}", install)
        return
    version, cuda, device = json.loads(process.stdout.splitlines()[-1])
    if device:
        yield Check("GPU", "ok", f"{device}, {'; '.join(drivers) or 'no NVIDIA driver'}, torch {version}")
    elif drivers:
        yield Check("GPU", "warning", f"{'; '.join(drivers)}, but torch {version} does not see it", _gpu_remedy(cuda))
    else:
        yield Check("GPU", "ok", f"none; torch {version} trains on the CPU")


def _gpu_remedy(cuda: str | None) -> str:
    if cuda is None:
        return (
            "this torch is built for the CPU; choose CUDA at https://pytorch.org/get-started/locally/ and set up anew"
        )
    return (
        f"this torch is built for CUDA {cuda}: update the driver, and look whether CUDA_VISIBLE_DEVICES hides the GPU"
    )


def _nvidia_drivers() -> list[str]:
    """Name and driver of each GPU that the driver shows."""
    if shutil.which("nvidia-smi") is None:
        return []
    process = _run_command(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], 20)
    if process is None or process.returncode:
        return ["an NVIDIA driver that does not answer"]
    return [line.replace(", ", ", driver ", 1) for line in process.stdout.splitlines() if line]


def _run_command(command: list[str], within_s: float) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=within_s)
    except (OSError, subprocess.TimeoutExpired):
        return None


def check_threads() -> Iterator[Check]:
    """How many cores this process may use, and what the environment allows."""
    cores = usable_cores()
    allowed = {name: os.environ[name] for name in THREADS if os.environ.get(name)}
    unexpected = {name: value for name, value in allowed.items() if not value.isdigit() or int(value) != cores}
    listed = ", ".join(f"{name}={value}" for name, value in allowed.items()) or "no limit set"
    if unexpected:
        names = " ".join(unexpected)
        yield Check(
            "threads",
            "warning",
            f"{listed}, with {cores} cores",
            f"`unset {names}`; a training goes on after a kill only with the number of threads that it began with",
        )
    else:
        yield Check("threads", "ok", f"{cores} cores, {listed}")


def check_disk() -> Iterator[Check]:
    """The space where this folder, DVC's cache and temporary files are."""
    devices = set()
    for folder in (Path(), Path(".dvc/cache"), Path("deployed"), Path(os.environ.get("TMPDIR", "/tmp"))):
        if not folder.exists() or folder.stat().st_dev in devices:
            continue
        devices.add(folder.stat().st_dev)
        free = shutil.disk_usage(folder).free
        about, says = f"disk of {folder.absolute()}", f"{free / 1e9:.1f} GB are free"
        if free < FULL_DISK_BYTES:
            remedy = "free some space; a stage that finds none ends, and leaves what was there"
            yield Check(about, "broken", says, remedy)
        elif free < LOW_DISK_BYTES:
            remedy = "a first `make run` needs about 5 GB; `make clean` and `dvc gc -w` free some"
            yield Check(about, "warning", says, remedy)
        else:
            yield Check(about, "ok", says)
