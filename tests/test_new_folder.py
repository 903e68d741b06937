"""A folder that takes another's place: at every moment one of the two stands, whole."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.interruptions.ground import FAULTS
from convoy.core import atomic
from convoy.lineage import workspace

ROOT = Path(__file__).parent.parent
OLD, NEW = {"a": "old", "b/c": "old"}, {"a": "new", "d": "new"}
WRITER = """
import sys
from pathlib import Path
from convoy.core import atomic

if "aside" in sys.argv:
    atomic._swap = lambda new, path: False
with atomic.new_folder(Path("x")) as folder:
    for name in ("a", "d"):
        (folder / name).write_text("new")
"""


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def write(folder: Path, files: dict[str, str] = NEW) -> None:
    with atomic.new_folder(folder) as temporary:
        for name, text in files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text)


def cannot_exchange(*_: Path) -> bool:
    return False


@pytest.fixture(params=["exchange", "aside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: that of Linux, and that of systems that cannot exchange two names."""
    if request.param == "aside":
        monkeypatch.setattr(atomic, "_swap", cannot_exchange)
    return str(request.param)


@pytest.fixture
def x(tmp_path: Path) -> Iterator[Path]:
    write(tmp_path / "x", OLD)
    yield tmp_path / "x"
    for hidden in tmp_path.glob(".x*"):
        pytest.fail(f"{hidden} was left behind")


def test_the_new_takes_the_place_of_the_old(x: Path, way: str) -> None:
    write(x)
    assert content(x) == NEW


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_linux_exchanges_in_one_step(x: Path, tmp_path: Path) -> None:
    write(tmp_path / "y")
    assert atomic._swap(tmp_path / "y", x)
    assert (content(x), content(tmp_path / "y")) == (NEW, OLD)


@pytest.mark.parametrize("make", [lambda path: path.write_text("old"), lambda path: path.symlink_to("nowhere")])
def test_what_is_no_folder_gives_way_too(tmp_path: Path, way: str, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    write(tmp_path / "x")
    assert content(tmp_path / "x") == NEW
    assert os.listdir(tmp_path) == ["x"]


def test_an_error_while_it_is_filled_leaves_the_old(x: Path, way: str) -> None:
    with pytest.raises(RuntimeError), atomic.new_folder(x) as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert content(x) == OLD


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old(x: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    monkeypatch.setattr(atomic, "_swap", cannot_exchange)
    renames, rename = [], Path.rename

    def fail(self: Path, target: Path) -> Path:
        renames.append(target)
        if len(renames) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self), None, str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match=rf"Input/output error: '{x}'"):
        write(x)
    assert content(x) == OLD


@pytest.mark.process
@pytest.mark.parametrize("how", ["exchange", "aside"])
def test_a_kill_at_each_step_leaves_the_old_or_the_new_and_the_next_write_sweeps(x: Path, how: str) -> None:
    log, seen = x.parent.parent / f"{x.parent.name}.fault", []
    for step in range(1, 50):
        log.unlink(missing_ok=True)
        armed = {"CONVOY_FAULT": "kill", "CONVOY_FAULT_AT": str(step), "CONVOY_FAULT_IN": how}
        paths = f"{FAULTS}:{workspace.environment(ROOT)['PYTHONPATH']}"
        environment = workspace.environment(ROOT) | armed | {"PYTHONPATH": paths, "CONVOY_FAULT_LOG": str(log)}
        subprocess.run([sys.executable, "-c", WRITER, how], cwd=x.parent, env=environment, timeout=60)
        if not log.exists():
            break
        stands = [content(place) for place in (x, x.with_name(".x.aside")) if place.exists()]
        seen.append(stands[0])
        assert stands[0] in (OLD, NEW), log.read_text()
        atomic._remove_leftovers(x)
        assert content(x) == stands[0] and os.listdir(x.parent) == ["x"], log.read_text()
        write(x, OLD)
    assert step > 8 and OLD in seen and NEW in seen


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount")
def test_a_mount_point_is_refused_with_nothing_lost(tmp_path: Path, way: str) -> None:
    mounted = tmp_path / "x"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", mounted], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        (mounted / "a").write_text("old")
        with pytest.raises(OSError, match=f"Device or resource busy: '{mounted}'"):
            write(mounted)
        assert content(mounted) == {"a": "old"} and os.listdir(tmp_path) == ["x"]
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_a_failed_second_try_closes_nothing_twice(tmp_path: Path) -> None:
    """The number of a closed descriptor belongs to whoever opens the next file: here another thread's."""
    others: list[int] = []

    def make(path: Path) -> tuple[int, Path]:
        if made:
            others.append(os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR))
            raise OSError(errno.EMFILE, "too many open files")
        made.append(os.open(tmp_path / "gone", os.O_CREAT | os.O_RDWR))
        (tmp_path / "gone").unlink()  # as where another process has swept it
        return made[0], tmp_path / "gone"

    made: list[int] = []
    with pytest.raises(OSError, match="too many open files"), atomic._locked_temporary(tmp_path / "file", make):
        pass
    assert others == made, "the number was given again"
    os.write(others[0], b"still open")
    os.close(others[0])
