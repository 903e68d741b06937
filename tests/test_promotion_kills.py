"""Whatever moment a promotion is killed at: the old or the new champion is whole, and the next command completes it."""

from pathlib import Path

import promotion_kills
import pytest
from promotion_kills import ALIAS, DECIDES, MARKS, NOTES, NOTES_AGAIN, SHOWS, SWITCHES, Fault

pytestmark = pytest.mark.mlflow
PROOF = pytest.mark.proof
FORCED, ROLLED_BACK, AUTOMATIC = promotion_kills.SCENES
EVERY_TENTH = [(step, "") for step in range(0, 1000, 10)]  # of 87, 64 and 688 steps; it ends with the last


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        (FORCED, [DECIDES, NOTES, SWITCHES, ALIAS]),
        (ROLLED_BACK, [SWITCHES, ALIAS]),
        (AUTOMATIC, [SWITCHES]),
        pytest.param(FORCED, [MARKS, NOTES_AGAIN, SHOWS], marks=PROOF),
        *(pytest.param(name, EVERY_TENTH, marks=PROOF) for name in promotion_kills.SCENES),
    ],
)
def test_a_kill_leaves_the_old_or_the_new_and_the_next_command_completes_it(
    name: str, faults: list[Fault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = promotion_kills.attack(promotion_kills.SCENES[name], faults)
    if faults == EVERY_TENTH:
        assert 5 < sum(found.values()) < len(faults), "it has come to the last step"
    else:
        assert sum(found.values()) == len(faults)
    if SWITCHES in faults or len(faults) > 10:
        assert found["decided and to be completed, the old serves"] >= 1, found
