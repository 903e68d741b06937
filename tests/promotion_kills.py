"""Kill -9 at each step of a promotion, a rollback and a publish, and look at what is found; all of it by hand:

python tests/promotion_kills.py            every step of each: 87, 64 and 688 of them, an hour and a half
python tests/promotion_kills.py 201 400    of each the steps from one to before another, so that each core can do some
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import built_pipeline
from mlflow import MlflowClient
from mlflow_store import open_empty_store
from tqdm import tqdm

from convoy.bundles.bundle import read_bundle, read_release
from convoy.core import locks
from convoy.operations import status
from convoy.release import deployment, journal, registry_sync, rollback
from convoy.release import promote as promoting
from convoy.release import publish as publishing
from convoy.tracking import mlflow_runs, store

# Every call that changes a file or MLflow's store; a kill before one is a kill after the one before it.
FILES = [
    *((os, name) for name in ("mkdir", "rename", "replace", "symlink", "chmod", "fsync", "unlink", "write")),
    *((shutil, name) for name in ("copyfile", "rmtree")),
]
STORE = [
    "create_experiment",
    "create_run",
    "delete_registered_model_alias",
    "log_artifact",
    "log_batch",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_tag",
    "set_terminated",
]

Fault = tuple[int, str]  # how many changes happen before the kill, counted of one name alone where that is not empty
DECIDES, SWITCHES = (0, "write"), (0, "symlink")  # half of the line that decides; decided, and not switched yet
NOTES, NOTES_AGAIN = (1, "replace"), (4, "replace")  # a line is written, and the release does not name it yet
MARKS, ALIAS, SHOWS = (1, "write"), (0, "set_registered_model_alias"), (0, "log_artifact")


def silently(line: str) -> None:
    """Say nothing."""


def promote() -> None:
    with locks.hold_deployed(silently):
        seen = deployment.current_digest("fashion")
        promoting.promote(mlflow_runs.open_store(), silently, "fashion", "2", "asked for", seen)


def roll_back() -> None:
    with locks.hold_deployed(silently):
        rollback.rollback(silently, "fashion", None, "it answers worse", deployment.current_digest("fashion"))
        promoting.align_and_update_mlflow(mlflow_runs.open_store(), "fashion")


def publish() -> None:
    with locks.hold_deployed(silently):
        publishing.publish(mlflow_runs.open_store(), silently, ["fashion"])


def _lay(better: bool, published: int) -> None:
    """Version 1 serves, version 2 is built; and published, where so many publishes are asked for."""
    root = Path.cwd()
    built_pipeline.lay(root)
    open_empty_store()
    publish()
    built_pipeline.lay(root, shift=0 if better else 40, version=2)
    for _ in range(published):
        publish()


@dataclass(frozen=True)
class Scene:
    """What is there before, what is killed, and what a person types next."""

    lay: Callable[[], None]
    killed: Callable[[], None]
    next: Callable[[], None]
    ends_with: str  # the version that serves when the next command has run, whatever was killed


SCENES = {
    "a forced promotion, then the same again": Scene(lambda: _lay(False, 1), promote, promote, "2"),
    "a rollback, then publish": Scene(lambda: _lay(True, 1), roll_back, publish, "either"),
    "an automatic promotion, then publish": Scene(lambda: _lay(True, 0), publish, publish, "2"),
}


def forked(work: Callable[[], object], fault: Fault | None = None) -> int:
    """The exit status of `work` in a process of its own, which a fault kills."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 minds forks beside threads
        pid = os.fork()  # has all modules loaded: many kills in seconds; nothing here has opened the store
    if pid == 0:
        code = 1
        try:
            with open("log", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if fault is not None:
                arm(fault)
            work()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def arm(fault: Fault) -> None:
    """Die by SIGKILL before the change that it names; where that is a write, after half of it."""
    left, only = fault

    def dying(name: str, call: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= only in ("", name)
            if left < 0:
                if name == "write":
                    call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapped

    for owner, name in [*FILES, *((MlflowClient, name) for name in STORE)]:
        setattr(owner, name, dying(name, getattr(owner, name)))


def attack(scene: Scene, faults: Iterable[Fault]) -> Counter[str]:
    """Kill by each fault, look, run the next command, look again; counts what was found. Raises AssertionError.

    In the working directory, which is empty. Ends with the first fault that kills nothing any more.
    """
    kept = Path(tempfile.mkdtemp(prefix="convoy-kills-"))
    try:
        assert forked(scene.lay) == 0, Path("log").read_text()
        shutil.copytree(".", kept / "before", symlinks=True)
        found: Counter[str] = Counter()
        served = deployment.current_digest("fashion")
        for fault in faults:
            _restore(kept / "before")
            code = forked(scene.killed, fault)
            assert code in (0, -signal.SIGKILL), Path("log").read_text()
            found[_told_by(lambda: _look(served))] += code != 0
            assert forked(scene.next) == 0, Path("log").read_text()
            _told_by(lambda: _assert_whole(scene))
            if code == 0:
                break
        return found
    finally:
        shutil.rmtree(kept)


def _restore(before: Path) -> None:
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(before, ".", symlinks=True, dirs_exist_ok=True)


def _told_by(look: Callable[[], str]) -> str:
    """What a look at it says, in a process of its own: MLflow keeps the stores open that a process has read."""
    path = Path("told")
    assert forked(lambda: path.write_text(look())) == 0, Path("log").read_text()
    return path.read_text()


def _look(served: str | None) -> str:
    """What a kill has left, in words; whatever it is, what serves is whole, and a look tells what to do."""
    serving = journal.deployed_model("fashion")
    assert serving is not None
    folder = deployment.folder_of("fashion", serving.digest)
    release = read_release(folder)
    assert read_bundle(folder).digest == serving.digest and release is not None and release.digest == serving.digest
    history = journal.read_history("fashion")
    now = "the old" if serving.digest == served else "the new"
    steps = [step.why for step in status.read_status(1)[0].next]
    if history.unfinished is not None:
        assert any(why.startswith("completes what was cut off") for why in steps), steps
        return f"decided and to be completed, {now} serves"
    assert history.champion is not None and history.champion.digest == serving.digest
    if now == "the old":
        return f"nothing decided{', half a line' if history.torn else ''}, the old serves"
    right = store.read_registry("fashion").aliases["champion"] == serving.version
    return f"decided and followed, the new serves, MLflow's alias is {'right' if right else 'to be moved'}"


def _assert_whole(scene: Scene) -> str:
    """deployed/, history and MLflow agree, nothing temporary is left, and MLflow has every line."""
    serving, history = journal.deployed_model("fashion"), journal.read_history("fashion")
    assert serving is not None and history.champion is not None and history.champion.digest == serving.digest
    assert history.unfinished is None
    assert scene.ends_with in ("either", serving.version)
    assert store.read_registry("fashion").aliases["champion"] == serving.version
    rolled_back = [each for each in history.decisions if each.kind == "rollback"]
    if rolled_back:
        assert serving.digest == rolled_back[-1].after.digest, "a rollback stays"
    assert len([each for each in history.decisions if each.kind in ("forced", "rollback")]) <= 1
    assert not list(Path("deployed/fashion").glob(".*"))
    [shown] = Path("mlruns", registry_sync.EXPERIMENT).glob(f"*/artifacts/{registry_sync.LINES}")
    assert shown.read_bytes() == b"".join(line + b"\n" for line in history.lines)
    table = json.loads(shown.with_name(registry_sync.TABLE).read_text())
    assert [row[0] for row in table["data"]] == [each.number for each in history.decisions]
    return "whole"


if __name__ == "__main__":
    for name, scene in SCENES.items():
        steps = range(*map(int, sys.argv[1:3])) if sys.argv[1:] else count()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found = attack(scene, tqdm(((step, "") for step in steps), name, unit="kill", mininterval=10))
            os.chdir("/")
        print(f"{name}: {sum(found.values())} kills: {dict(found)}", flush=True)
