"""Two real bundles and a gate split, judged: what is better passes, what is worse or cannot be told does not."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import built_pipeline
import gate_splits
import pytest
import tiny_bundles

from convoy.bundles.bundle import Card, digest_of, write_bundle
from convoy.release.gates import run
from convoy.release.gates.evidence import ONNX, Difference
from convoy.release.gates.registry import PublishParams
from convoy.release.gates.report import Party, Report
from convoy.release.gates.run import Contender, StoredReport
from convoy.tracking.checked_bundle import CheckedBundle

pytestmark = pytest.mark.process
LIMITS = PublishParams.model_validate(built_pipeline.PUBLISH)
RECORDED = {"onnx": Difference(max_difference=1e-6, class_flips=0, n=10), "preflight": ()}
ROWS = 1000


@dataclass
class Court:
    """A folder for bundles and reports."""

    root: Path
    task: str = "fashion"
    rows: int = ROWS
    limits: PublishParams = LIMITS

    def bundle(self, name: str, card: Card = tiny_bundles.IMAGE_CARD, **model: float) -> Contender:
        folder = self.root / name
        write = built_pipeline.WRITERS[self.task]
        write(folder, card.model_copy(update={"params": {name: 1}}), **model)
        return self.contender(name)

    def contender(self, name: str) -> Contender:
        bundle = CheckedBundle.read(self.root / name)
        return Contender(Party(version=name[-1], digest=bundle.digest), bundle)

    def judge(
        self, challenger: Contender, champion: Contender | None, recorded: dict[str, Any] = RECORDED
    ) -> StoredReport:
        path = self.root / "gate.arrow"
        if not path.exists():
            path.write_bytes(gate_splits.content(built_pipeline.KINDS[self.task], self.rows))
        folder = self.root / "gates"
        return run.judge_once(self.task, challenger, champion, path, self.limits, recorded, folder, lambda _: None)


@pytest.fixture
def court(tmp_path: Path) -> Court:
    return Court(tmp_path)


def failed(report: Report) -> set[str]:
    return {each.gate for each in report.verdicts if each.outcome == "failed"}


def test_an_equal_bundle_passes_and_its_report_is_kept_as_json_and_picture(court: Court) -> None:
    kept = court.judge(court.bundle("new 2"), court.bundle("old 1"))
    assert kept.report.outcome == "passed" and kept.report.evidence.rows == ROWS
    assert kept.report.evidence.paired is not None and kept.report.evidence.paired.p == 1.0
    assert json.loads(kept.files["report"].read_bytes())["challenger"]["digest"] == digest_of(court.root / "new 2")
    assert kept.files["picture"].read_bytes().startswith(b"\x89PNG")


def test_a_better_bundle_passes_and_a_worse_one_fails_by_so_much(court: Court) -> None:
    good = court.bundle("good 2")
    assert court.judge(good, court.bundle("hardly worse 1", shift=5)).report.outcome == "passed"
    report = court.judge(court.bundle("bad 3", shift=20), good).report
    assert {"paired test", "accuracy"} <= failed(report)
    pair = report.evidence.paired
    assert pair is not None and pair.challenger < pair.champion - 0.03
    assert f"it is worse by {-pair.difference * 100:.2f} points, and not by chance" in report.objections[0]
    assert report.evidence.champion is not None and report.evidence.champion.accuracy == pair.champion


def test_a_slow_decline_is_stopped_by_the_best_champion(court: Court) -> None:
    limits = court.limits.model_copy(update={"significance": 1e-6, "min_accuracy_difference": -0.025})
    court = replace(court, limits=limits)
    best, lower, lowest = (court.bundle(name, shift=shift) for name, shift in (("a 1", 0), ("b 2", 12), ("c 3", 16)))
    second = court.judge(lower, best).report
    assert "accuracy" not in failed(second)
    third = court.judge(lowest, lower).report
    pair = third.evidence.paired
    assert pair is not None and pair.difference >= -0.025, "allowed over the champion alone"
    assert "accuracy" in failed(third)
    assert any("the best champion before, version 1" in objection for objection in third.objections)


def test_texts_are_judged_too(tmp_path: Path) -> None:
    court = Court(tmp_path, task="reviews")
    good, equal, bad = (
        court.bundle(name, tiny_bundles.TEXT_CARD, shift=by) for name, by in (("2", 0), ("equal 1", 0), ("bad 3", 1))
    )
    assert court.judge(equal, good).report.outcome == "passed"
    report = court.judge(bad, good).report
    assert "paired test" in failed(report)
    assert {each.kind for each in report.evidence.slices} == {"class", "length_tokens"}


def test_a_bundle_that_is_worse_in_one_class_alone_is_refused(court: Court) -> None:
    champion, challenger = court.bundle("old 1", dark=14), court.bundle("new 2", shift=15, dark=-15)
    report = court.judge(challenger, champion).report
    pair = report.evidence.paired
    assert pair is not None and abs(pair.difference) < 0.01
    assert failed(report) == {"classes and slices"}
    assert "it is worse, and not by chance, in bright" in report.objections[0]


def test_a_slower_bundle_is_seen_and_a_larger_one_too(court: Court) -> None:
    court.limits = LIMITS.model_copy(update={"max_latency_ratio": 1.5, "latency_pairs": 60})
    report = court.judge(court.bundle("slow 2", layers=20), court.bundle("quick 1")).report
    assert failed(report) == {"latency", "bundle size"}
    assert report.evidence.latency is not None and report.evidence.latency.low > 1.5
    assert "bundle has 1.4" in report.objections[1]


def test_a_bundle_that_is_too_sure_of_itself_fails(court: Court) -> None:
    report = court.judge(court.bundle("sure 1", sharp=5), None).report
    assert failed(report) == {"calibration"} and report.champion is None


def test_other_labels_ask_for_a_decision(court: Court) -> None:
    labels = ("dark", "middle", "light")
    champion = court.bundle("old 1", tiny_bundles.IMAGE_CARD.model_copy(update={"labels": labels}))
    report = court.judge(court.bundle("new 2"), champion).report
    assert report.outcome == "undecided"
    assert "it knows other labels than the champion (bright new, light gone)" in report.objections[0]
    assert report.evidence.paired is None and report.evidence.latency is not None


def test_other_data_asks_for_a_decision_and_shows_the_figures_all_the_same(court: Court) -> None:
    data = {"train": "1" * 64}
    champion = court.bundle("old 1", tiny_bundles.IMAGE_CARD.model_copy(update={"data": data}), shift=15)
    report = court.judge(court.bundle("new 2"), champion).report
    assert report.outcome == "undecided" and [each.gate for each in report.verdicts][:2] == ["comparison", "latency"]
    assert "built on other data than the champion (train)" in report.objections[0]
    assert report.evidence.paired is not None and "as far as it goes" in report.objections[0]


def test_a_champion_that_cannot_be_loaded_asks_for_a_decision(court: Court) -> None:
    whole = court.bundle("old 1").bundle
    files = {name: content for name, content in whole.files.items() if name != "card.json"}
    write_bundle(court.root / "broken 1", whole.card, {**files, "model.onnx": b"broken"})
    report = court.judge(court.bundle("new 2"), court.contender("broken 1")).report
    assert report.outcome == "undecided" and "the champion's bundle cannot be loaded" in report.objections[0]


def test_a_gate_split_of_other_labels_is_not_asked(court: Court) -> None:
    labels = ("dark", "middle", "light")
    challenger = court.bundle("new 2", tiny_bundles.IMAGE_CARD.model_copy(update={"labels": labels}))
    kept = court.judge(challenger, None)
    assert kept.report.outcome == "undecided" and not kept.files
    assert "has the labels dark, middle, bright, the bundle dark, middle, light" in kept.report.objections[0]


def test_it_is_judged_once_for_the_same_bundles_split_and_limits(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    court.rows = 100
    challenger, champion = court.bundle("new 2"), court.bundle("old 1")
    first = court.judge(challenger, champion)
    first.files["picture"].unlink()
    with monkeypatch.context() as patch:
        patch.setattr(run, "measure", None)  # calling it would fail
        court.limits = LIMITS.model_copy(update={"promote": "asked"})
        renumbered = replace(challenger, party=challenger.party.model_copy(update={"version": "7"}))
        second = court.judge(renumbered, champion)
    assert second.report == first.report.model_copy(update={"challenger": renumbered.party})
    assert second.files["picture"].exists()
    court.limits = LIMITS.model_copy(update={"max_slice_drop": 0.04})
    again = court.judge(challenger, champion)
    assert again.files["report"] != first.files["report"] and again.report.judged_before == 1


def test_where_something_was_missing_it_is_judged_again(court: Court) -> None:
    court.rows = 100
    challenger = court.bundle("new 2")
    kept = court.judge(challenger, None, {"preflight": (), "unknown": {ONNX: "parity.json is missing"}})
    assert kept.report.outcome == "undecided" and not kept.files and not (court.root / "gates").exists()
    assert court.judge(challenger, None).files


def test_a_report_that_cannot_be_read_is_made_anew(court: Court) -> None:
    challenger = court.bundle("new 2")
    kept = court.judge(challenger, None)
    kept.files["report"].write_text("{}")
    assert court.judge(challenger, None).report.outcome == "passed"
    assert json.loads(kept.files["report"].read_bytes())["outcome"] == "passed"
