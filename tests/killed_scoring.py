"""Run as a programme: kill a scoring of texts at each sync, rename and removal that it makes, and go on each time.

Arguments: input, output, rows per part. CONVOY_DEPLOYED says where the model is. Each attempt is a process of its own,
forked after the imports, which take longer than the scoring itself.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convoy.core import atomic
from convoy.operations.score import score
from convoy.operations.score.inputs import Inputs
from convoy.operations.score.score import Scorer, load

KILLED = -signal.SIGKILL


def deadly(function: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """The same function, but where no step is left the process ends before it."""

    def step(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)

    return step


def child(source: Path, output: Path, steps: int) -> None:
    """Score; be killed at the step of this number, counted over all syncs, renames and removals."""
    left = [steps]
    atomic.sync = deadly(atomic.sync, left)
    Path.replace, Path.unlink = deadly(Path.replace, left), deadly(Path.unlink, left)
    shutil.rmtree = deadly(shutil.rmtree, left)
    inputs = Inputs(source, "reviews", "text", "text", "utf-8")
    score.score(Scorer(load("reviews"), "utf-8", None), inputs, output, score.Settings(batch_size=7), print)


def attempt(source: Path, output: Path, steps: int) -> int:
    """Exit code of a process of its own; minus the signal where that ended it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            child(source, output, steps)
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(source: Path, output: Path, part_rows: int) -> None:
    """Raises AssertionError where a scoring that was killed gives other bytes than one that was not."""
    score.PART_ROWS = part_rows
    assert attempt(source, output, 0) == 0
    expected, kills = output.read_bytes(), 0
    for steps in range(1, 1000):
        output.unlink()
        code = attempt(source, output, steps)
        if code == 0:
            assert output.read_bytes() == expected
            break
        again = attempt(source, output, steps)
        assert code == KILLED and again in (0, KILLED), (steps, code, again)
        if again == KILLED or not output.exists():
            assert attempt(source, output, 0) == 0, steps
        assert output.read_bytes() == expected, steps
        assert [path.name for path in output.parent.iterdir()] == [output.name], steps
        kills += 1 + (again == KILLED)
    print(f"{kills} kills at {steps - 1} steps, the same bytes each time")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
