"""`up` with the real MLflow server and the real prediction service: together up, together down, nothing left."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import built_pipeline
import psutil
import pytest
import tiny_bundles
from mlflow_store import open_empty_store
from test_ports import free_port

from convoy.bundles.bundle import Release, digest_of
from convoy.operations import smoke_request, supervisor
from convoy.release import deployment

pytestmark = [pytest.mark.process, pytest.mark.mlflow]
ROOT = Path(__file__).parents[1]
END_WITHIN_S = 10


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which both tasks are deployed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tiny_bundles.write_image_bundle(Path("bundles/fashion"))
    tiny_bundles.write_text_bundle(Path("bundles/reviews"))
    for task in ("fashion", "reviews"):
        digest = digest_of(Path("bundles", task))
        release = Release(name=f"convoy-{task}", version="1", run_id="r", digest=digest, promoted_at="2026-01-01")
        deployment.deploy(task, Path("bundles", task), release)
        built_pipeline.write_params(tmp_path, task)
    open_empty_store()
    return tmp_path


def is_alive(process: psutil.Process) -> bool:
    """Whether it can still do anything; an orphan that ended waits for init, which is not ours."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Up:
    """`python -m convoy up` as a process, with all that it starts."""

    def __init__(self, place: Path) -> None:
        self.ports = (free_port(), free_port())
        self.log = place / "up.log"
        words = ["up", "--port", str(self.ports[0]), "--mlflow-port", str(self.ports[1])]
        with self.log.open("w") as stream:
            self.process = subprocess.Popen([sys.executable, "-m", "convoy", *words], stdout=stream, stderr=stream)
        self.family: list[psutil.Process] = []

    def wait_for(self, words: str, within_s: float = 90) -> None:
        deadline = time.monotonic() + within_s
        while words not in self.log.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> int:
        """Wait until it has ended, and see that nothing is left of it."""
        status = self.process.wait(timeout=END_WITHIN_S)
        assert [process for process in self.family if is_alive(process)] == []
        for port in self.ports:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0
        return status

    def named(self, words: str) -> psutil.Process:
        return next(process for process in self.family if words in " ".join(process.cmdline()))


@pytest.fixture
def up_without_store(place: Path) -> Iterator[Up]:
    Path("mlflow-store/mlflow.db").unlink()
    yield from running(place)


@pytest.fixture
def up(place: Path) -> Iterator[Up]:
    yield from running(place)


def running(place: Path) -> Iterator[Up]:
    up = Up(place)
    yield up
    if up.process.poll() is None:
        up.process.kill()
        for process in up.family:
            if process.is_running():
                process.kill()
        up.process.wait()


def test_both_answer_and_a_real_request_of_each_task_is_shown_then_ctrl_c_ends_all(up: Up) -> None:
    up.wait_for("Ctrl-C ends both.")
    said = up.log.read_text()
    shown = said.split("MLflow UI  ")[1].split("\n\n")
    assert f"http://127.0.0.1:{up.ports[1]}" in shown[0] and f"http://127.0.0.1:{up.ports[0]}" in shown[0]
    for text in shown[1:3]:
        command, answer = text.split("\n", 1)
        assert len(json.loads(answer)["predictions"]) == 1
        again = subprocess.run(shlex.split(command.removeprefix("$ ")), capture_output=True, text=True, check=True)
        first, second = (json.loads(said) for said in (answer, again.stdout))  # the line works as it stands
        assert first.pop("request_id") != second.pop("request_id") and first == second
    with urllib.request.urlopen(f"http://127.0.0.1:{up.ports[1]}/health", timeout=5) as health:
        assert health.status == 200
    up.process.send_signal(signal.SIGINT)
    assert up.end() == 130


def test_sigterm_while_they_start_ends_all(up: Up) -> None:
    up.wait_for("mlflow started")
    up.process.send_signal(signal.SIGTERM)
    assert up.end() == 143


def test_up_waits_for_the_thread_that_announces(tmp_path: Path) -> None:
    """Python aborts where it ends a daemon thread that is in C++ code, as in an import of numpy."""
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from convoy.operations.supervisor import Servers\n"
        "announce = lambda: (time.sleep(1), print('announced', flush=True))\n"
        "raise SystemExit(Servers().run({'short': ['true']}, announce))\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30)
    assert ended.stdout.endswith("announced\n") and ended.returncode == 1


@pytest.mark.parametrize("victim", ["bentoml serve", "mlflow server"])
def test_when_one_is_killed_the_other_is_ended_and_the_status_tells(up: Up, victim: str) -> None:
    up.wait_for("Ctrl-C ends both.")
    up.named(victim).kill()
    assert up.end() == 128 + signal.SIGKILL


def test_one_task_alone_is_served_and_shown(place: Path) -> None:
    Path("deployed/reviews/current").unlink()
    up = Up(place)
    try:
        up.wait_for("Ctrl-C ends both.")
        said = up.log.read_text()
        assert "/v1/fashion/predict" in said and '"label"' in said and "/v1/reviews" not in said
    finally:
        up.process.send_signal(signal.SIGTERM)
        assert up.end() == 143


def test_an_mlflow_that_is_missing_is_filled_before_it_is_shown(up_without_store: Up) -> None:
    up_without_store.wait_for("Ctrl-C ends both.")
    said = up_without_store.log.read_text()
    assert "mlflow.db is missing: publishing" in said and "is convoy-fashion version 1 again" in said
    up_without_store.process.send_signal(signal.SIGTERM)
    assert up_without_store.end() == 143


def test_a_taken_port_is_an_error_before_anything_is_started(place: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = str(listener.getsockname()[1])
        words = [sys.executable, "-m", "convoy", "up", "--port", str(free_port()), "--mlflow-port", taken]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and f"port {taken} is taken" in done.stdout and "started" not in done.stdout


def test_with_nothing_deployed_up_says_what_to_do(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "convoy", "up", "--port", str(free_port()), "--mlflow-port", str(free_port())]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "nothing is deployed; `make run` builds it" in done.stdout


@pytest.mark.parametrize("opened", [os.pipe, os.openpty])
def test_when_the_pipe_or_terminal_is_closed_under_it_all_is_ended(
    place: Path, opened: Callable[[], tuple[int, int]]
) -> None:
    reading, writing = opened()
    numbers = (free_port(), free_port())
    words = [sys.executable, "-m", "convoy", "up", "--port", str(numbers[0]), "--mlflow-port", str(numbers[1])]
    process = subprocess.Popen(words, stdout=writing, stderr=writing)
    os.close(writing)
    said = b""
    while said.count(b" started (pid=") < 2:
        said += os.read(reading, 4096)
    family = psutil.Process(process.pid).children(recursive=True)
    os.close(reading)
    try:
        assert process.wait(timeout=90) == 128 + signal.SIGPIPE
        assert len(family) >= 2 and [left for left in family if is_alive(left)] == []
    finally:
        process.kill()
        process.wait()
        for left in family:
            if left.is_running():
                left.kill()


ENDLESS = ["sh", "-c", "trap '' TERM; echo going; while :; do sleep 1; done"]


def test_whatever_the_loop_raises_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = supervisor.Servers()

    def fail() -> None:
        raise KeyError("a fault in the loop")

    monkeypatch.setattr(servers, "_end_with_the_first", fail)
    monkeypatch.setattr(supervisor, "ENDED_WITHIN_S", 0.5)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(KeyError):
        servers.run({"endless": ENDLESS}, lambda: None)
    assert not is_there(servers._children["endless"].pid)


def is_there(pid: int) -> bool:
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


@pytest.mark.parametrize(
    ("verb", "path"), [(["serve", "--port"], "livez"), (["ui", "--mlflow-port"], "health")], ids=["serve", "ui"]
)
def test_one_of_them_alone_in_the_foreground(place: Path, verb: list[str], path: str) -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "convoy", *verb, str(port)], stdout=subprocess.DEVNULL) as process:
        # Not only until the port is open: BentoML's arbiter loses a signal that comes while its worker starts.
        url = f"http://127.0.0.1:{port}/{path}"
        assert smoke_request.wait_until_ready([url], 60, lambda: process.poll() is not None)
        family = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=END_WITHIN_S)
        finally:
            for left in [psutil.Process(process.pid), *family] if process.poll() is None else []:
                left.kill()
    assert [left for left in family if is_alive(left)] == []
