"""docker-compose.yml and the images: what a container may write, whom it reaches, and how much it may use up."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import built_pipeline
import pytest
import yaml

COMPOSE: dict[str, Any] = yaml.safe_load(Path("docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WRITABLE = {"mlflow": {"${PWD}/mlflow-store", "${PWD}/mlruns"}, "pull": {"/work/deployed"}}
GATEWAYS = {"gateway", "mlflow-gateway"}
UNITS = {"m": 2**20, "g": 2**30}
# Runs in a container, beside nothing but Python: writes wherever it can below a folder, and says if a route leads out.
PROBE = """
import os, socket, sys
for folder, _, names in os.walk(sys.argv[1]):
    for path in [os.path.join(folder, "new"), *(os.path.join(folder, name) for name in names)]:
        try:
            print("written", file=open(path, "a"))
        except OSError:
            pass
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))  # sends nothing, and needs a route
    print("a way out")
except OSError:
    print("no way out")
"""


def writable_targets(service: dict[str, Any]) -> set[str]:
    found = set()
    for volume in service.get("volumes", []):
        if isinstance(volume, dict):
            found |= set() if volume.get("read_only") else {volume["target"]}
        elif not volume.endswith(":ro"):
            found.add(re.sub(r":rw$", "", volume).rpartition(":")[2])
    return found


def size_of(written: str) -> int:
    size = re.fullmatch(r"(\d+)([mg])", re.sub(r"\$\{\w+:-(\w+)\}", r"\1", written))
    assert size, f"{written!r} is no size"
    return int(size[1]) * UNITS[size[2]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_writes_only_into_listed_folders(name: str) -> None:
    assert writable_targets(SERVICES[name]) == WRITABLE.get(name, set())
    assert SERVICES[name]["read_only"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_only_a_gateway_has_a_way_out(name: str) -> None:
    networks = {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", network) for network in SERVICES[name]["networks"]}
    outside = {network for network in networks if not (COMPOSE["networks"][network] or {}).get("internal")}
    assert bool(outside) == (name in GATEWAYS)
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_no_closed_network_leads_to_this_machine() -> None:
    closed = [network for network in COMPOSE["networks"].values() if network and network.get("internal")]
    without_address = {"com.docker.network.bridge.inhibit_ipv4": "true"}
    assert len(closed) == 2 and all(network["driver_opts"] == without_address for network in closed)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_bounded_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    (temporary,) = service["tmpfs"]
    assert size_of(temporary.removeprefix("/tmp:size=")) < size_of(service.get("mem_limit", ""))  # which counts both
    assert 0 < service["pids_limit"] <= 1024
    assert service["logging"] == {"driver": "local"}  # which rotates
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("path", sorted(Path("serving").glob("*Dockerfile")), ids=lambda path: path.name)
def test_an_image_does_not_run_as_root(path: Path) -> None:
    users = re.findall(r"^USER (\S+)", path.read_text().rpartition("\nFROM ")[2], re.MULTILINE)
    assert users and users[-1] not in ("root", "0")


def test_health_asks_for_no_task_by_name() -> None:
    image = Path("serving/Dockerfile").read_text()
    assert "/readyz" in image.partition("HEALTHCHECK")[2]
    tasks = yaml.safe_load(Path("params.yaml").read_text())["tasks"]
    for text in (image, Path("docker-compose.yml").read_text()):
        assert not re.search(rf"\b(texts?|images?/predict|{'|'.join(tasks)})\b", text)


@pytest.mark.pipeline
def test_dvc_runs_no_stage_that_a_container_wrote(tmp_path: Path) -> None:
    folders = {Path(target).name for targets in WRITABLE.values() for target in targets}
    built_pipeline.git(tmp_path, "init", "--quiet")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet"], cwd=tmp_path, check=True)
    shutil.copy(".dvcignore", tmp_path)
    for folder in folders:
        (tmp_path / folder).mkdir()
        stages = {"stages": {"foreign": {"cmd": "touch ../ran", "outs": [f"../made-by-{folder}"]}}}
        (tmp_path / folder / "dvc.yaml").write_text(yaml.safe_dump(stages))
    ours = {"cmd": "touch out", "deps": [f"made-by-{folder}" for folder in folders], "outs": ["out"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"ours": ours}}))
    for folder in folders:
        (tmp_path / f"made-by-{folder}").touch()
    done = subprocess.run([*dvc, "repro"], cwd=tmp_path, capture_output=True, text=True)
    assert not (tmp_path / "ran").exists(), done.stdout
    assert done.returncode == 0, done.stderr


def test_no_writable_folder_can_become_a_python_package() -> None:
    for target in WRITABLE["mlflow"] | WRITABLE["pull"]:
        name = Path(target).name
        found = subprocess.run(
            ["git", "grep", "-nE", rf"^\s*(import|from) {name}\b", "--", "*.py"], capture_output=True
        )
        assert not name.isidentifier() or found.returncode == 1, f"{name} is imported:\n{found.stdout.decode()}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository's folders and files, which everybody may write."""
    for folder in (".venv/lib", ".git", ".github/workflows", ".ci", ".dvc", "src", "pipelines", "serving", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("deployed", "mlflow-store", "mlruns"):
        (tmp_path / folder).mkdir()
    for name in ("dvc.yaml", "params.yaml", "Makefile", ".venv/lib/a.pth", ".github/workflows/ci.yml", ".git/config"):
        (tmp_path / name).touch()
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o777)
    return tmp_path


def probe(repository: Path, name: str) -> tuple[set[str], str]:
    """What changed here, and what was said, where the probe ran with the mounts, networks and user of a service."""
    image = "python:3.11-slim"  # on which all of our images are built
    alone = {key: value for key, value in SERVICES[name].items() if key not in ("build", "depends_on", "profiles")}
    compose = {**COMPOSE, "name": f"convoy-test-{os.getpid()}", "services": {name: {**alone, "image": image}}}
    (repository / "compose.json").write_text(json.dumps(compose))
    user = {"CONVOY_UID": str(os.getuid()), "CONVOY_GID": str(os.getgid())}
    environment = {**os.environ, **user, "PWD": str(repository)}
    docker = ["docker", "compose", "--file", "compose.json"]

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*docker, *words], cwd=repository, env=environment, capture_output=True, text=True, timeout=120
        )

    below = "/work" if name == "pull" else str(repository)
    try:
        done = run("run", "--rm", "-T", name, "python3", "-c", PROBE, below)
    finally:
        run("down")
    assert done.returncode == 0, done.stderr
    compose_file = repository / "compose.json"
    changed = [path for path in repository.rglob("*") if path.is_file() and path.read_bytes() and path != compose_file]
    return {str(path.relative_to(repository)) for path in changed}, done.stdout.strip()


def engine_runs() -> bool:
    if shutil.which("docker") is None:
        return False
    ask = ["docker", "image", "inspect", "python:3.11-slim"]
    return subprocess.run(ask, capture_output=True, timeout=20).returncode == 0


needs_engine = pytest.mark.skipif(not engine_runs(), reason="no container engine that has python:3.11-slim")


@pytest.mark.process
@needs_engine
def test_mlflow_writes_nothing_else_and_reaches_nobody(repository: Path) -> None:
    assert probe(repository, "mlflow") == ({"mlflow-store/new", "mlruns/new"}, "no way out")


@pytest.mark.process
@needs_engine
def test_pull_writes_only_deployed_and_reaches_nobody(repository: Path) -> None:
    assert probe(repository, "pull") == ({"deployed/new"}, "no way out")
