"""What is installed and what GitHub runs: named by hash or commit, and secrets only where they are used."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

WORKFLOWS = sorted(Path(".github/workflows").glob("*.yml"))
LOCKS = ("requirements.lock", "requirements-cuda.lock")
SECRET = re.compile(r"secrets\.|github\.token")


def entries(lock: str) -> dict[str, list[str]]:
    """Requirement -> its hashes."""
    joined = Path(lock).read_text().replace("\\\n", " ")
    lines = [line.split() for line in joined.splitlines() if line and not line.startswith("#")]
    return {
        " ".join(word for word in words if not word.startswith("--")): [w for w in words if w.startswith("--hash=")]
        for words in lines
    }


def steps(workflow: Path) -> list[dict[str, Any]]:
    content = yaml.safe_load(workflow.read_text())
    return [step for job in content["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("lock", LOCKS)
def test_each_locked_version_has_its_hashes(lock: str) -> None:
    for text, hashes in entries(lock).items():
        (pin,) = Requirement(text).specifier
        assert pin.operator == "==" and "*" not in pin.version, text
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", found) for found in hashes), text


def test_the_lock_leaves_room_for_s3_and_otlp() -> None:
    """boto3 refuses python-dateutil from 3 on; the OTLP exporter wants the proto of BentoML's SDK."""
    versions = {Requirement(text).name: str(Requirement(text).specifier) for text in entries("requirements.lock")}
    assert versions["python-dateutil"].startswith("==2.")
    assert versions["opentelemetry-proto"] == versions["opentelemetry-sdk"]


@pytest.mark.process
def test_every_dependency_of_the_project_is_locked() -> None:
    locked = {Requirement(text).name for text in entries("requirements.lock")}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "freeze", "--exclude-editable"], capture_output=True, text=True, check=True
    )
    installed = {
        re.split("[= ]", line)[0].lower().replace("_", "-").replace(".", "-") for line in done.stdout.splitlines()
    }
    assert installed - {name.lower().replace(".", "-") for name in locked} == set()


def test_an_entry_is_cut_out_whole() -> None:
    """The command by which images and workflows install uv itself."""
    command = ["sed", "-n", r"/^uv==/,/[^\\]$/p", "requirements.lock"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (text,) = (text for text in entries("requirements.lock") if text.startswith("uv=="))
    assert found.startswith("uv==") and found.count("\nuv") == 0
    assert found.count("--hash=sha256:") == len(entries("requirements.lock")[text])
    for name in ("serving/Dockerfile", "serving/mlflow.Dockerfile", "serving/pull.Dockerfile"):
        assert command[2] in Path(name).read_text()


@pytest.mark.parametrize("name", ["serving/Dockerfile", "serving/mlflow.Dockerfile", "serving/pull.Dockerfile"])
def test_images_install_nothing_without_a_hash(name: str) -> None:
    joined = Path(name).read_text().replace("\\\n", " ")
    installs = re.findall(r"pip install [^&\n]*", joined)
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--build-constraints requirements.lock" in command, command
        assert "--require-hashes" in command or "-c requirements.lock" in command or "--no-deps" in command, command


def test_set_up_installs_nothing_without_a_hash() -> None:
    installs = re.findall(r"pip install .*", Path(".ci/set-up").read_text())
    assert len(installs) == 5
    for command in installs:
        assert "--require-hashes" in command or command.split()[2:] == ["--no-deps", "--no-build-isolation", "-e", "."]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_named_by_commit(workflow: Path) -> None:
    for step in steps(workflow):
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_checkout_keeps_no_token(workflow: Path) -> None:
    checkouts = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_secrets_are_given_to_single_steps(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        for step in job.pop("steps"):
            environment = step.pop("env", {})
            assert not SECRET.search(str(step)), "a secret belongs into env, where no shell line can show it"
            assert sum(bool(SECRET.search(str(value))) for value in environment.values()) <= 1, step["name"]
    assert not SECRET.search(str(content))


def test_no_step_writes_an_expression_into_a_shell() -> None:
    """What GitHub fills in, as a branch's name, would be run as code."""
    for workflow in WORKFLOWS:
        for step in steps(workflow):
            assert "${{" not in step.get("run", ""), step


def test_workflows_run_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
    lines = [step.get("run", "") for workflow in WORKFLOWS for step in steps(workflow)]
    named = [name for line in lines for name in re.findall(r"\bmake ([a-z-]+)|\.ci/run ([a-z-]+)", line)]
    assert {"quick", "prove"} <= {one or other for one, other in named} <= targets
    assert any(line == "bash .ci/run" for line in lines) and "target=${1:-test}" in Path(".ci/run").read_text()
