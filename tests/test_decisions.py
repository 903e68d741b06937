"""The history of decisions: appended, chained, never rewritten, and readable after every kill."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from convoy.core.paths import DEPLOYED
from convoy.release import history_view, journal
from convoy.release.decision import Grounds, Kind, Model

ONE, TWO, THREE = (Model(version=number, digest=number * 64) for number in "123")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def decide(kind: Kind, before: Model | None, after: Model, why: str = "why") -> None:
    decision = journal.append("fashion", before, after, Grounds(kind, why, {"accuracy": 0.9}))
    if kind != "refusal":
        journal.mark("fashion", decision, "done")


def test_a_decision_says_when_who_from_to_why_and_by_which_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTOR", "octocat")
    grounds = Grounds("promotion", "better", {"accuracy": 0.9, "nothing": float("nan")}, "gates.json", "abc")
    journal.append("fashion", ONE, TWO, grounds)
    [decision] = journal.read("fashion")
    assert (decision.before, decision.after, decision.kind, decision.why) == (ONE, TWO, "promotion", "better")
    assert decision.who.startswith("octocat by ") and "@" in decision.who
    assert datetime.now(UTC) - datetime.fromisoformat(decision.at) < timedelta(minutes=1)
    assert decision.figures == {"accuracy": 0.9, "nothing": None}  # JSON knows no NaN
    assert (decision.gate_report, decision.revision) == ("gates.json", "abc")


def test_lines_are_appended_and_what_was_written_stays_byte_for_byte() -> None:
    path = journal.path_of("fashion")
    before = b""
    for after in (ONE, TWO, THREE):
        decide("promotion", None, after)
        assert path.read_bytes().startswith(before) and len(path.read_bytes()) > len(before)
        before = path.read_bytes()
    assert [decision.number for decision in journal.read("fashion")] == [1, 3, 5]  # marks have numbers too


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_line_that_was_changed_or_removed_is_noticed(line: int) -> None:
    for after in (ONE, TWO, THREE):
        journal.append("fashion", None, after, Grounds("refusal", "worse"))
    path = journal.path_of("fashion")
    whole = path.read_bytes().splitlines(keepends=True)
    changed = [*whole[:line], whole[line].replace(b"worse", b"better"), *whole[line + 1 :]]
    for content in (changed, whole[:line] + whole[line + 1 :]):
        path.write_bytes(b"".join([*content, b""]))
        if line == 2:  # the last has none after it that would name it; MLflow's copy has
            journal.read("fashion")
            continue
        with pytest.raises(journal.DecisionsBroken, match=rf"decisions.jsonl, line {line + 1 + (content is changed)}"):
            journal.read("fashion")
        with pytest.raises(journal.DecisionsBroken):
            decide("promotion", ONE, TWO)
        assert path.read_bytes() == b"".join(content)


def test_a_line_that_a_kill_cut_off_decided_nothing_and_stays_where_it_is() -> None:
    decide("promotion", None, ONE)
    path = journal.path_of("fashion")
    whole = path.read_bytes()
    decide("promotion", ONE, TWO)
    line = path.read_bytes()[len(whole) :].split(b"\n")[0]
    for length in range(1, len(line)):
        path.write_bytes(whole + line[:length])
        assert len(journal.read("fashion")) == 1 and journal.read_history("fashion").torn == 1
    decide("promotion", ONE, THREE)
    assert path.read_bytes().startswith(whole + line[: len(line) - 1] + b"\n")
    history = journal.read_history("fashion")
    assert [each.after for each in history.decisions] == [ONE, THREE] and history.torn == 1


def test_a_whole_line_without_its_end_has_decided_before_and_after_the_next() -> None:
    journal.append("fashion", None, ONE, Grounds("refusal", "worse"))
    path = journal.path_of("fashion")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(journal.read("fashion")) == 1
    journal.append("fashion", None, TWO, Grounds("refusal", "worse"))
    assert [each.after for each in journal.read("fashion")] == [ONE, TWO]


def test_a_full_disk_is_told_with_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match=r"No space left on device: 'deployed/fashion/decisions\.jsonl'"):
        decide("promotion", None, ONE)


@pytest.mark.parametrize(
    ("steps", "champion", "before"),
    [
        ([("promotion", None, ONE)], ONE, None),
        ([("promotion", None, ONE), ("promotion", ONE, TWO)], TWO, ONE),
        ([("promotion", None, ONE), ("promotion", ONE, TWO), ("rollback", TWO, ONE)], ONE, None),
        ([("promotion", ONE, TWO), ("promotion", TWO, THREE), ("rollback", THREE, TWO)], TWO, ONE),
        ([("promotion", ONE, TWO), ("promotion", TWO, THREE), ("rollback", THREE, ONE)], ONE, None),
        ([("promotion", ONE, TWO), ("rollback", TWO, ONE), ("forced", ONE, TWO)], TWO, ONE),
        ([("promotion", ONE, TWO), ("promotion", TWO, ONE)], ONE, TWO),
        ([("promotion", None, ONE), ("refusal", ONE, TWO), ("superseded", ONE, THREE)], ONE, None),
    ],
)
def test_the_champion_before_this_one_is_the_way_back(
    steps: list[tuple[Kind, Model | None, Model]], champion: Model, before: Model | None
) -> None:
    for kind, left, after in steps:
        decide(kind, left, after)
    history = journal.read_history("fashion")
    assert (history.champion, history.one_before) == (champion, before)


def test_what_stands_against_a_model_is_the_last_word_on_it() -> None:
    decide("promotion", None, ONE)
    decide("refusal", ONE, TWO, "less accurate")
    assert (found := journal.read_history("fashion").against(TWO.digest)) and found.why == "less accurate"
    decide("forced", ONE, TWO)
    assert journal.read_history("fashion").against(TWO.digest) is None
    decide("rollback", TWO, ONE)
    history = journal.read_history("fashion")
    assert (found := history.against(TWO.digest)) and found.kind == "rollback"
    assert history.against(ONE.digest) is None and history.against(THREE.digest) is None


def test_the_digests_that_decisions_name_and_those_of_the_last_while() -> None:
    decide("promotion", None, ONE)
    decide("refusal", ONE, TWO)
    assert journal.digests_named("fashion") == {ONE.digest, TWO.digest}
    assert journal.digests_named("fashion", datetime.now(UTC) - timedelta(minutes=1)) == {ONE.digest, TWO.digest}
    assert journal.digests_named("fashion", datetime.now(UTC) + timedelta(minutes=1)) == set()
    assert journal.digests_named("reviews") == set()


def test_a_history_is_told_to_people_and_to_programs() -> None:
    said: list[str] = []
    path = DEPLOYED / "fashion" / journal.FILE
    history_view.print_history(journal.read_history("fashion"), path, False, said.append)
    assert said == [f"{path} holds no decision yet; `python -m convoy publish` makes the first"]
    decide("promotion", None, ONE)
    decide("rollback", ONE, TWO, "it answers worse")
    with path.open("ab") as stream:
        stream.write(b'{"previous')
    said.clear()
    history_view.print_history(journal.read_history("fashion"), path, False, said.append)
    assert "rollback    version 1 (111111111111) -> version 2 (222222222222)  by " in said[3]
    assert said[4:6] == ["    why      it answers worse", "    figures  accuracy 0.9"]
    assert "1 lines that a kill has cut off" in said[-1]
    said.clear()
    history_view.print_history(journal.read_history("fashion"), path, True, said.append)
    first, second = map(json.loads, said)
    assert first["from"] is None and second["from"]["version"] == "1" and second["outcome"]["kind"] == "done"


def test_each_gate_has_a_line_of_its_own_with_the_figures_of_both_models() -> None:
    gates = {"accuracy": "failed", "accuracy_challenger": 0.88016, "accuracy_champion": 0.9096}
    new = {"parity": "passed", "parity_challenger": 0}
    journal.append("fashion", ONE, TWO, Grounds("refusal", "worse", {"outcome": "failed", **gates, **new, "rows": 9}))
    said: list[str] = []
    history_view.print_history(journal.read_history("fashion"), DEPLOYED / "fashion" / journal.FILE, False, said.append)
    assert said[2:] == [
        "    figures  outcome failed, rows 9",
        "             accuracy failed: challenger 0.8802, champion 0.9096",
        "             parity passed: challenger 0",
    ]
