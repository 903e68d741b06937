"""Whatever moment a promotion is killed at: the old or the new champion is whole, and the next command completes it."""

from pathlib import Path

import promotion_kills
import pytest
from promotion_kills import ALIAS, DECIDES, MARKS, NOTES, NOTES_AGAIN, SHOWS, SWITCHES, Fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("a forced promotion, then the same again", [DECIDES, NOTES, SWITCHES, MARKS, NOTES_AGAIN, ALIAS, SHOWS]),
        ("a rollback, then publish", [SWITCHES, ALIAS]),
        ("an automatic promotion, then publish", [SWITCHES]),
    ],
)
def test_a_kill_leaves_the_old_or_the_new_and_the_next_command_completes_it(
    name: str, faults: list[Fault], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = promotion_kills.attack(promotion_kills.SCENES[name], faults)
    assert sum(found.values()) == len(faults)
    assert found["decided and to be completed, the old serves"] >= 1, found
