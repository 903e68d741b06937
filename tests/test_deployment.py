"""deployed/: whole, proven, switched in one step, whatever moment the process is killed at."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tiny_bundles

from convoy.bundles.bundle import BundleInvalid, Release, digest_of, read_bundle, read_release, write_bundle
from convoy.core import locks
from convoy.core.paths import DEPLOYED
from convoy.release import deployment

# Dies at the nth call that changes the file system.
KILLED = """
import os, shutil, sys
from pathlib import Path
from convoy.release import deployment
from convoy.bundles.bundle import Release
left = int(sys.argv[2])
def dying(name, call):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **options)
    return wrapped
for owner, name in [(os, "mkdir"), (os, "rename"), (os, "replace"), (os, "symlink"), (os, "chmod"), (os, "fsync"),
                    (os, "unlink"), (shutil, "copyfile"), (shutil, "rmtree")]:
    setattr(owner, name, dying(name, getattr(owner, name)))
deployment.deploy("fashion", Path("new"), Release.model_validate_json(sys.argv[1]))
os._exit(0)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundles.write_image_bundle(Path("old"))
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"params": {"epochs": 2}})
    tiny_bundles.write_image_bundle(Path("new"), card)


def release(folder: str, version: str = "1") -> Release:
    return Release(
        name="convoy-fashion", version=version, run_id="r", digest=digest_of(Path(folder)), promoted_at="2026-01-01"
    )


def test_what_is_deployed_is_the_bundle_with_its_release(tmp_path: Path) -> None:
    assert deployment.deploy("fashion", Path("old"), release("old"))
    current = DEPLOYED / "fashion" / "current"
    assert os.readlink(current) == digest_of(Path("old"))  # relative: deployed/ may be mounted elsewhere
    assert read_bundle(current).digest == digest_of(Path("old"))
    assert read_release(current) == release("old")
    assert oct(current.resolve().stat().st_mode)[-3:] == "755"


def test_deploying_again_changes_nothing() -> None:
    deployment.deploy("fashion", Path("old"), release("old"))
    release_file = DEPLOYED / "fashion" / "current" / "release.json"
    before = release_file.stat().st_ino
    assert not deployment.deploy("fashion", Path("old"), release("old"))
    assert release_file.stat().st_ino == before


def test_a_new_version_number_is_brought_in_line_without_a_copy() -> None:
    deployment.deploy("fashion", Path("old"), release("old"))
    shutil.rmtree("old")
    again = release("new").model_copy(update={"digest": deployment.current_digest("fashion"), "version": "7"})
    assert deployment.deploy("fashion", Path("old"), again)
    assert read_release(DEPLOYED / "fashion" / "current") == again


def test_a_bundle_that_does_not_reproduce_its_examples_never_serves() -> None:
    deployment.deploy("fashion", Path("old"), release("old"))
    bundle = read_bundle(Path("new"))
    examples = bundle.files["examples.json"].replace(b"0.9", b"0.4")
    write_bundle(Path("bad"), bundle.card, {"model.onnx": bundle.files["model.onnx"], "examples.json": examples})
    with pytest.raises(BundleInvalid, match="does not reproduce"):
        deployment.deploy("fashion", Path("bad"), release("bad"))
    assert deployment.current_digest("fashion") == digest_of(Path("old"))
    assert not deployment.folder_of("fashion", digest_of(Path("bad"))).exists()


def test_another_bundle_than_the_release_names_is_refused() -> None:
    with pytest.raises(BundleInvalid, match="the release names"):
        deployment.deploy("fashion", Path("new"), release("old"))
    assert deployment.current_digest("fashion") is None


def test_a_broken_copy_is_made_anew() -> None:
    deployment.deploy("fashion", Path("old"), release("old"))
    (DEPLOYED / "fashion" / "current" / "model.onnx").write_bytes(b"half")
    assert deployment.deploy("fashion", Path("old"), release("old"))
    read_bundle(DEPLOYED / "fashion" / "current")


@pytest.mark.process
def test_a_kill_at_any_step_leaves_the_old_or_the_new_whole_and_the_next_one_completes_it() -> None:
    wanted = release("new")
    seen = set()
    for step in range(60):
        shutil.rmtree(DEPLOYED, ignore_errors=True)
        deployment.deploy("fashion", Path("old"), release("old"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 minds forks beside threads
            pid = os.fork()  # has all modules loaded: many kills in seconds
        if pid == 0:
            sys.argv = ["", wanted.model_dump_json(), str(step)]
            exec(KILLED, {"__name__": "killed"})
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        serving = deployment.current_digest("fashion")
        assert read_bundle(DEPLOYED / "fashion" / "current").digest == serving
        seen.add((status, serving))
        deployment.deploy("fashion", Path("new"), wanted)
        assert deployment.current_digest("fashion") == wanted.digest
        left = {path.name for path in (DEPLOYED / "fashion").iterdir()}
        assert left == {"current", digest_of(Path("old")), wanted.digest}
        if status == 0:
            break
    assert status == 0 and step > 10
    assert {(9, digest_of(Path("old"))), (9, wanted.digest), (0, wanted.digest)} <= seen


def test_only_one_process_changes_deployed_at_a_time() -> None:
    wait = (
        "from convoy.core import locks\n"
        "with locks.hold_deployed(lambda line: print(line, flush=True)):\n"
        "    print('mine', flush=True)\n"
    )
    with locks.hold_deployed(pytest.fail):
        other = subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "waiting for another publish, promote or rollback to end\n"
    assert other.communicate(timeout=20)[0] == "mine\n" and other.returncode == 0
