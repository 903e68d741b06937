"""Training tells a side process how it goes, and whatever becomes of that, training neither waits nor fails."""

import os
import stat
import time
from pathlib import Path

import pytest

from convoy.training import follower as following
from convoy.training.follower import Follower

pytestmark = pytest.mark.process
ROW = {"epoch": 0, "train_loss": 0.5, "elapsed_s": 1.25}


def stand_in(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another programme be the side process."""
    path = Path("python").absolute()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(following.sys, "executable", str(path))


@pytest.fixture
def follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Follower:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CONVOY_FOLLOW", raising=False)
    return Follower()


def whole_training(follower: Follower, rows: int = 3) -> float:
    """The longest that a call held training up, in seconds; the last call, which may wait, left out."""
    waits = []
    for row in range(-1, rows):
        began = time.perf_counter()
        if row < 0:
            follower.start("fashion", "fashion-cnn", "cnn", "f" * 64, {"learning": {"epochs": 3}})
        else:
            follower.epoch({**ROW, "epoch": row})
        waits.append(time.perf_counter() - began)
    return max(waits)


def test_a_side_process_hears_all_in_order(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("cat > heard", monkeypatch)
    whole_training(follower)
    follower.end("FAILED", "a reason")
    events = [following.json.loads(line) for line in Path("heard").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "epoch", "end"]
    assert (events[0]["task"], events[0]["candidate"], events[0]["network"]) == ("fashion", "fashion-cnn", "cnn")
    assert events[0]["pid"] == os.getpid() and events[0]["params"] == {"learning": {"epochs": 3}}
    assert events[1]["row"] == ROW and events[4]["reason"] == "a reason"


@pytest.mark.parametrize("script", ["exit 1", "exec 0<&-; sleep 3", "exec sleep 30"])
def test_a_side_process_that_dies_or_never_reads_holds_nothing_up(
    script: str, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(script, monkeypatch)
    assert whole_training(follower, rows=2000) < 0.5  # more than a pipe takes
    process = follower.process
    began = time.perf_counter()
    follower.end("FINISHED")
    assert time.perf_counter() - began < following.GRACE_S + 0.5
    assert process is None or process.wait() is not None


def test_what_a_full_pipe_did_not_take_comes_later_and_whole(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("sleep 0.5; cat > heard", monkeypatch)
    whole_training(follower, rows=2000)
    time.sleep(1)
    for _ in range(3):
        follower.epoch(ROW)
        time.sleep(0.1)
    follower.end("FINISHED")
    assert len([following.json.loads(line) for line in Path("heard").read_text().splitlines()]) == 2005


def test_without_a_programme_to_start_and_where_switched_off_there_is_silence(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.sys, "executable", "/absent/python")
    whole_training(follower)
    follower.end("FINISHED")
    stand_in("touch started", monkeypatch)
    monkeypatch.setenv("CONVOY_FOLLOW", "0")
    whole_training(follower)
    follower.end("FINISHED")
    assert not Path("started").exists()


def test_a_resumed_training_began_before_it_was_resumed(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("cat > heard", monkeypatch)
    follower.start("fashion", "fashion-cnn", "cnn", "f", {}, [{"epoch": 0, "elapsed_s": 100.0}])
    follower.end("KILLED")
    started_ms = following.json.loads(Path("heard").read_text().splitlines()[0])["started_ms"]
    assert started_ms == pytest.approx((time.time() - 100) * 1000, abs=5000)
