"""Whatever happens to a stage or to its DVC: the next run needs no hands, and nothing half made is left."""

import fcntl
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.interruptions import kills, races
from bench.interruptions.ground import FAULTS, Ground
from convoy.core import atomic
from convoy.core.stage import RWLOCK
from convoy.lineage import workspace

pytestmark = pytest.mark.process
METRICS = {"validation": {"accuracy": 0.9, "log_loss": 0.3}}
CHOICE, WINNER = Path("reports/bars/choice.json"), Path("winner/bars")
CANDIDATES = [Path("candidates/bars", name, "candidate.json") for name in ("bars-cnn", "bars-lstm")]
ENTRIES = {
    "data": {"bars": {"kind": "image"}},
    "tasks": {"bars": {"data": "bars", "kind": "image"}},
    "candidates": {
        f"bars-{name}": {"task": "bars", "data": "bars", "kind": "image", "network": {"name": name}}
        for name in ("cnn", "lstm")
    },
}
WITHIN_S = 60  # for what takes a second on a machine that is not busy
SLOW = """
import os
import time
from pathlib import Path
from convoy.core import stage

def main() -> None:
    Path("started").touch()
    time.sleep(float(Path("seconds").read_text()))
    Path("out.txt").write_text("done")

if __name__ == "__main__":
    gate = Path(os.environ.get("GATE", "."))  # imports take as long as it is missing
    Path("importing").touch()
    while not gate.exists():
        time.sleep(0.02)
    stage.run(main)
"""
FAKE_DVC = """
import json, os, subprocess, sys
from pathlib import Path

Path(".dvc/tmp").mkdir(parents=True, exist_ok=True)
Path(".dvc/tmp/rwlock").write_text(json.dumps({"write": {"out.txt": {"pid": os.getpid(), "cmd": "dvc repro"}}}))
subprocess.run(sys.argv[1:])
"""


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where the stage `choose bars` has run before, as the current one."""
    monkeypatch.chdir(tmp_path)
    for file in CANDIDATES:
        atomic.write_json(file, METRICS)
    choose_by("accuracy")
    assert run_choose().returncode == 0
    yield tmp_path


def choose_by(metric: str) -> None:
    Path("params.yaml").write_text(json.dumps({**ENTRIES, "choose": {"metric": metric}}))


def environment(**more: str) -> dict[str, str]:
    root = Path(__file__).parent.parent
    return workspace.environment(root) | more


def run_choose(
    *before: str, prepare: Callable[[], None] | None = None, **more: str
) -> "subprocess.CompletedProcess[str]":
    command = [*before, sys.executable, "-m", "pipelines.choose", "bars"]
    return subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=WITHIN_S, preexec_fn=prepare
    )


def leftovers(folder: Path) -> list[str]:
    return [str(file) for file in folder.rglob(".*.????????")]


def assert_one_line(done: "subprocess.CompletedProcess[str]", *words: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("choose@bars: "), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_a_disk_that_is_full_from_any_write_on_ends_a_stage_in_one_line_and_leaves_the_old(choose: Path) -> None:
    log, files = choose.parent / "fault", (CHOICE, WINNER / "candidate.json")
    before = [file.read_bytes() for file in files]
    for step in range(1, 50):
        log.unlink(missing_ok=True)
        done = run_choose(
            PYTHONPATH=f"{FAULTS}:{environment()['PYTHONPATH']}",
            CONVOY_FAULT="full",
            CONVOY_FAULT_AT=str(step),
            CONVOY_FAULT_IN="pipelines.choose",
            CONVOY_FAULT_LOG=str(log),
        )
        assert [file.read_bytes() for file in files] == before
        assert not leftovers(choose)
        if not log.exists():
            break
        assert_one_line(done, "No space left on device", "free some space, then run `dvc repro` again")
    assert step > 3 and done.returncode == 0


def test_a_full_disk_is_told_with_the_path_and_the_bytes_that_are_needed(choose: Path) -> None:
    limit = 10  # bytes: the same error by another number, where nothing can be mounted
    before, needed = CHOICE.read_bytes(), len(CANDIDATES[0].read_bytes())
    done = run_choose(prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert_one_line(done, f"{WINNER}: ", f"{needed} bytes are needed", "ulimit -f")
    assert CHOICE.read_bytes() == before and not leftovers(choose)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount")
def test_a_disk_that_is_really_full_or_read_only_is_told_so(choose: Path) -> None:
    reports = Path("reports")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", reports], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount here")
    try:
        with (reports / "filler").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
            while True:
                stream.write(bytes(4096))
        assert_one_line(run_choose(), str(CHOICE), "No space left on device", "bytes are needed", "free some space")
        (reports / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,ro", reports], check=True)
        assert_one_line(run_choose(), "reports/bars", "Read-only file system", "mount it writable")
        subprocess.run(["mount", "-o", "remount,rw", reports], check=True)
        assert run_choose().returncode == 0 and not leftovers(choose)
    finally:
        subprocess.run(["umount", reports], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs to become another user")
def test_a_folder_that_may_not_be_written_is_told_with_the_remedy(choose: Path) -> None:
    for folder in (choose, *choose.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    shutil.chown(".run/stages", "nobody")
    shutil.chown(".run/stages/choose@bars.lock", "nobody")
    done = run_choose("setpriv", "--reuid", "65534", "--clear-groups")
    assert_one_line(done, f"{WINNER}: ", "Permission denied", "give yourself the right to it")


@pytest.mark.parametrize("few", [5, 6])
def test_too_few_files_are_told_with_the_remedy(choose: Path, few: int) -> None:
    """Three are open from the start, one is the lock's, one the temporary folder's, one that of a file in it."""
    done = run_choose(prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)))
    assert_one_line(done, "Too many open files", "ulimit -n")
    assert not leftovers(choose)


def test_what_is_missing_or_invalid_is_told_in_one_line(choose: Path) -> None:
    choose_by("beauty")
    assert_one_line(run_choose(), "params.yaml: choose.metric is 'beauty'")
    choose_by("accuracy")
    CANDIDATES[0].unlink()
    assert_one_line(run_choose(), str(CANDIDATES[0]), "No such file")


def test_what_a_kill_left_is_swept_and_what_another_process_writes_is_not(tmp_path: Path) -> None:
    dead, folder, alive = (tmp_path / f".x.json.{end}" for end in ("aaaaaaaa", "bbbbbbbb", "cccccccc"))
    other = tmp_path / ".x.json.bak.aaaaaaaa"
    folder.mkdir()
    (folder / "inside").touch()
    for file in (dead, alive, other):
        file.touch()
    with alive.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        atomic.write_json(tmp_path / "x.json", {})
        assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, alive.name, "x.json"]
    atomic.write_json(tmp_path / "x.json", {})
    assert not alive.exists()


def test_a_copy_that_finds_the_disk_full_names_its_target(tmp_path: Path) -> None:
    def copy() -> None:
        (tmp_path / "source").write_bytes(bytes(5000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with atomic.new_file(tmp_path / "target") as temporary:
            shutil.copyfile(tmp_path / "source", temporary)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/target'"):
            copy()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stage that takes its time."""
    monkeypatch.chdir(tmp_path)
    Path("pipelines").mkdir()
    Path("pipelines/__init__.py").touch()
    Path("pipelines/slow.py").write_text(SLOW)
    Path("seconds").write_text(str(2 * WITHIN_S))
    return tmp_path


def start_slow(*before: str, **more: str) -> "subprocess.Popen[str]":
    paths = f"{Path.cwd()}:{environment()['PYTHONPATH']}"
    command = [*before, sys.executable, "-m", "pipelines.slow"]
    return subprocess.Popen(command, env=environment(PYTHONPATH=paths, **more), stderr=subprocess.PIPE, text=True)


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_run_by_hand_says_who_runs(slow: Path) -> None:
    with start_slow() as first:
        wait_for(Path("started").exists)
        began = time.monotonic()
        with start_slow() as second:
            said = second.communicate(timeout=WITHIN_S)[1]
        assert second.returncode == 1 and time.monotonic() - began < 10
        assert f"slow: another run of it is going on, pid {first.pid}; wait" in said
        assert first.poll() is None
        first.kill()


def test_a_stage_ends_with_its_dvc(slow: Path) -> None:
    with start_slow("sh", "-c", '"$@" & wait', "sh", DVC_STAGE="slow") as parent:
        wait_for(Path("started").exists)
        (stage,) = psutil.Process(parent.pid).children()
        parent.kill()
    wait_for(lambda: is_over(stage))
    assert not Path("out.txt").exists()


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_stage_orphaned_while_importing_ends_and_spares_the_next(slow: Path) -> None:
    with start_slow(sys.executable, "-c", FAKE_DVC, DVC_STAGE="slow", GATE="gate") as dead:
        wait_for(Path("importing").exists)
        (orphan,) = psutil.Process(dead.pid).children()
        dead.kill()
        dead.wait(WITHIN_S)
        with start_slow(sys.executable, "-c", FAKE_DVC, DVC_STAGE="slow") as following:
            wait_for(Path("started").exists)
            Path("started").unlink()
            Path("gate").touch()
            wait_for(lambda: is_over(orphan))
            assert not Path("started").exists() and following.poll() is None
            (stage,) = [each for each in psutil.Process(following.pid).children() if "pipelines.slow" in each.cmdline()]
            assert not is_over(stage), "the orphan has killed the stage of a living DVC"
            stage.kill()
        assert dead.stderr and "slow: its DVC was killed before it began" in dead.stderr.read()


@pytest.mark.parametrize(
    "lock", [None, "", '{"write": {"out', "{}", '{"write": {"out.txt": {"pid": %d, "cmd": "x"}}}'], ids=repr
)
def test_a_stage_whose_dvc_lives_or_is_unknown_runs(slow: Path, lock: str | None) -> None:
    Path("seconds").write_text("0")
    if lock is not None:
        RWLOCK.parent.mkdir(parents=True)
        RWLOCK.write_text(lock % os.getpid() if "%" in lock else lock)
    with start_slow("sh", "-c", '"$@"; exit', "sh", DVC_STAGE="slow") as ran:  # a shell between
        said = ran.communicate(timeout=WITHIN_S)[1]
    assert ran.returncode == 0, said


@pytest.mark.parametrize("rank", ["RANK", "SLURM_PROCID"])
def test_ranks_that_a_launcher_started_are_no_orphans(slow: Path, rank: str) -> None:
    Path("seconds").write_text("0")
    RWLOCK.parent.mkdir(parents=True)
    RWLOCK.write_text('{"write": {"out.txt": {"pid": 999999999, "cmd": "dvc repro"}}}')
    with start_slow(DVC_STAGE="slow", **{rank: "0"}) as ran:
        said = ran.communicate(timeout=WITHIN_S)[1]
    assert ran.returncode == 0, said


def test_a_child_whose_parent_died_before_it_asked_ends() -> None:
    """As the process that exports an explanation, where its stage is killed as it starts."""
    code = "import sys; from convoy.core import stage; stage.end_with_parent(int(sys.argv[1])); print('goes on')"
    for parent, ended in ((os.getpid(), 0), (999_999_999, -signal.SIGTERM)):
        command = [sys.executable, "-c", code, str(parent)]
        assert subprocess.run(command, env=environment(), timeout=WITHIN_S).returncode == ended


def test_a_stage_whose_dvc_is_dead_gives_way_to_the_next(slow: Path) -> None:
    with start_slow(DVC_STAGE="slow") as orphan:
        wait_for(Path("started").exists)
        Path("seconds").write_text("0")
        with start_slow(DVC_STAGE="slow") as following:
            following.communicate(timeout=WITHIN_S)
        assert (orphan.wait(WITHIN_S), following.returncode) == (-signal.SIGKILL, 0)
    assert Path("out.txt").read_text() == "done"


def test_of_two_dvc_repro_at_once_one_says_that_the_other_runs(piped: Path) -> None:
    Path("seconds").write_text("8")
    paths = environment(PYTHONPATH=f"{piped}:{environment()['PYTHONPATH']}")
    command = [sys.executable, "-m", "dvc", "repro"]
    with subprocess.Popen(command, env=paths, stdout=subprocess.DEVNULL) as first:
        wait_for(Path("started").exists)
        began = time.monotonic()
        second = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=WITHIN_S)
        assert time.monotonic() - began < 10
        assert second.returncode != 0 and f"(PID {first.pid})" in second.stderr, second.stderr
        assert first.wait(WITHIN_S) == 0
    third = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=WITHIN_S, check=True)
    assert "Running stage" not in third.stdout and Path("out.txt").read_text() == "done"


@pytest.fixture
def ground(copy: Path, tmp_path: Path) -> Ground:
    """A copy of the copy, to be damaged."""
    shutil.copytree(copy, tmp_path / "convoy", symlinks=True)
    taken = Ground(tmp_path / "convoy")
    taken.take()
    return taken


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("every", "full_every", "at_random"), [(8, 5, 1), pytest.param(1, 3, 4, marks=pytest.mark.proof)]
)
def test_after_kills_at_any_time_and_full_disks_the_next_repro_gives_the_same(
    ground: Ground, every: int, full_every: int, at_random: int
) -> None:
    outcomes = list(kills.at_each_write(ground, "choose@reviews", "stage", every))
    assert len(outcomes) > 8 // every
    full = list(kills.with_full_disk(ground, "choose@reviews", full_every))
    assert len(full) > 8 // full_every and all(outcome.told for outcome in full), full
    outcomes += full
    rng = random.Random(0)
    for target in ("dvc", "both"):
        found = [kills.at_random(ground, "choose@reviews", target, rng) for _ in range(at_random)]
        outcomes += [outcome for outcome in found if outcome]
    print(*outcomes, sep="\n")
    assert all(outcome.verified and outcome.same for outcome in outcomes)
    # A kill of DVC while it writes its own files, which is rare, is the test below.
    assert all(outcome.plain for outcome in outcomes if outcome.kind.startswith("stage"))


@pytest.mark.pipeline
@pytest.mark.parametrize("after_s", [0, pytest.param(1, marks=pytest.mark.proof)])
def test_of_two_dvc_repro_at_once_at_least_one_ends_and_nothing_is_lost(ground: Ground, after_s: int) -> None:
    race = races.run(ground, "choose@reviews", after_s)
    assert race.ended.startswith(("both", "one")) and race.plain and race.same, race


@pytest.mark.pipeline
@pytest.mark.parametrize("every", [24, pytest.param(6, marks=pytest.mark.proof)])
def test_a_dvc_killed_while_it_writes_its_own_files_goes_on_after_verify(ground: Ground, every: int) -> None:
    outcomes = list(kills.at_each_write(ground, "choose@reviews", "dvc", every))
    print(*outcomes, sep="\n")
    assert len(outcomes) > 48 // every and all(outcome.verified and outcome.same for outcome in outcomes)
    assert all(outcome.plain or "torn" in outcome.at for outcome in outcomes)


@pytest.fixture
def piped(slow: Path) -> Path:
    """The folder as a repository of DVC's, its stage in a pipeline."""
    stages = {"slow": {"cmd": f"exec {sys.executable} -m pipelines.slow", "deps": ["seconds"], "outs": ["out.txt"]}}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], env=environment(), check=True)
    return slow


def start_repro(folder: Path, shell: str = "/bin/sh") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        env=environment(PYTHONPATH=f"{folder}:{environment()['PYTHONPATH']}", SHELL=shell),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_killed_dvc_leaves_no_stage_running_whatever_its_shell(piped: Path, shell: str) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    with start_repro(piped, shell) as dvc:
        wait_for(Path("started").exists)
        stages = [each for each in psutil.Process(dvc.pid).children() if "pipelines.slow" in each.cmdline()]
        dvc.kill()
        wait_for(lambda: not any(each.is_running() for each in stages))
    assert len(stages) == 1 and not Path("out.txt").exists()
