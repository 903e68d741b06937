"""Run as a programme: train one candidate as its stage does, and see to it that it is followed for sure.

Arguments: candidate and, where the training is to be held, after which epoch (from 0) until there is a file
`go`. Without that the training waits at its end for all of it to be told, however busy the machine is.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow_server import WITHIN_S

from convoy.training import follower
from convoy.training.follower import Follower
from pipelines import train


def hold(after_epoch: int) -> None:
    tell = Follower.epoch

    def tell_and_wait(self: Follower, row: Mapping[str, float]) -> None:
        tell(self, row)
        deadline = time.monotonic() + WITHIN_S
        while row["epoch"] == after_epoch and not Path("go").exists():
            assert time.monotonic() < deadline, "nobody lets it go on"
            time.sleep(0.1)

    Follower.epoch = tell_and_wait  # type: ignore[method-assign]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        hold(int(sys.argv[2]))
    else:
        follower.GRACE_S = WITHIN_S
    train.main(sys.argv[1])
