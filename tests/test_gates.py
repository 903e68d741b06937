"""Verdicts of the gates: by how much, in words; and a challenger that gets worse never gets through by that."""

from typing import Any

import built_pipeline
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.evaluation.reliability import reliability
from convoy.evaluation.significance import detectable_drop, mcnemar, paired_p, pass_rate
from convoy.release.gates import measure
from convoy.release.gates import report as gate_report
from convoy.release.gates.evidence import (
    GATE,
    ONNX,
    Alone,
    Best,
    Difference,
    Evidence,
    Latency,
    LogLossRise,
    Pair,
    Slice,
)
from convoy.release.gates.registry import GATES, PublishParams, judge, outcome_of
from convoy.release.gates.report import Party, Report
from convoy.release.gates.verdict import Verdict

LIMITS = PublishParams.model_validate({**built_pipeline.PUBLISH, "rest_rows": 64, "max_latency_ratio": 1.5})
ALONE = Alone(accuracy=0.9, low=0.88, high=0.92, log_loss=0.3, calibration_error=0.01, calibration_by_chance=0.02)
AGREES = Difference(max_difference=1e-6, class_flips=0, n=64)


def pair(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    test = mcnemar(ours, theirs)
    counts = {name: test[name] for name in ("wins", "losses", "p")}
    return {"rows": len(ours), "champion": theirs.mean(), "challenger": ours.mean(), **counts}


def evidence(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray | None = None, **changes: Any) -> Evidence:
    """Two models of which nothing but their right answers differs."""
    labels = np.arange(len(ours)) % 2 if labels is None else labels
    slices = tuple(
        Slice(kind="class", name=f"label {each}", **pair(ours[labels == each], theirs[labels == each]))
        for each in np.unique(labels)
    )
    found: dict[str, Any] = {
        "rows": len(ours),
        "challenger": ALONE,
        "champion": ALONE,
        "size_bytes": 1000,
        "champion_size_bytes": 1000,
        "has_champion": True,
        "paired": Pair(**pair(ours, theirs)),
        "slices": slices,
        "log_loss_rise": LogLossRise(mean=0.0, low=-0.01, high=0.01),
        "latency": Latency(pairs=20, champion_ms=1.0, challenger_ms=1.0, ratio=1.0, low=0.9, high=1.1),
        "onnx": AGREES,
        "rest": AGREES,
        "preflight": (),
    }
    return Evidence(**found | changes)


def answers(wins: int, losses: int, rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Two models of which each alone is right so often, on the first rows."""
    ours, theirs = np.ones(rows, dtype=bool), np.ones(rows, dtype=bool)
    theirs[:wins], ours[wins : wins + losses] = False, False
    return ours, theirs


def verdict(found: Evidence, gate: str, limits: PublishParams = LIMITS) -> Verdict:
    (one,) = [each for each in judge(found, limits) if each.gate == gate]
    return one


def failed(found: Evidence, limits: PublishParams = LIMITS) -> set[str]:
    return {each.gate for each in judge(found, limits) if each.outcome == "failed"}


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (10, 10), (60, 20), (20, 30)])
def test_equal_better_and_hardly_worse_passes_every_gate(wins: int, losses: int) -> None:
    found = judge(evidence(*answers(wins, losses)), LIMITS)
    assert outcome_of(found) == "passed" and len(found) == len(GATES)


@pytest.mark.parametrize(
    ("wins", "losses", "gates", "words"),
    [
        (20, 60, {"paired test", "accuracy"}, "it is worse by 2.00 points, and not by chance: of 2,000 rows it alone"),
        (0, 15, {"paired test"}, "has 0 right, the champion alone 15 (p = 6.1e-05)"),
        (300, 330, {"accuracy"}, "1.50 points worse, at most 1.00 points worse is allowed"),
    ],
)
def test_worse_fails_and_says_by_how_much(wins: int, losses: int, gates: set[str], words: str) -> None:
    generator = np.random.default_rng(0)
    order = generator.permutation(2000)  # over both classes alike, so that no slice fails
    ours, theirs = (each[order] for each in answers(wins, losses))
    found = evidence(ours, theirs)
    assert failed(found) == gates
    assert any(words in each.sentence for each in judge(found, LIMITS) if each.outcome == "failed")


def test_where_params_ask_for_a_gain_an_equal_model_fails() -> None:
    limits = LIMITS.model_copy(update={"min_accuracy_difference": 0.005})
    assert failed(evidence(*answers(20, 15)), limits) == {"accuracy"}
    assert failed(evidence(*answers(20, 10)), limits) == set()
    sentence = verdict(evidence(*answers(20, 15)), "accuracy", limits).sentence
    assert "0.25 points better, 0.50 points better is asked for" in sentence


def test_a_class_that_loses_fails_though_all_in_all_the_challenger_is_as_good() -> None:
    ours, theirs = answers(30, 30)
    labels = np.zeros(2000, dtype=int)
    labels[30:60], labels[500:700] = 1, 1
    found = evidence(ours, theirs, labels)
    assert failed(found) == {"classes and slices"}
    assert "label 1: 87.0% against 100.0% (n = 230, p = 1.9e-09)" in verdict(found, "classes and slices").sentence


def test_noise_in_a_small_class_does_not_decide() -> None:
    ours, theirs = answers(0, 5)
    labels = np.zeros(2000, dtype=int)
    labels[:6] = 1
    found = verdict(evidence(ours, theirs, labels), "classes and slices")
    assert found.outcome == "passed" and "1 have too few rows to tell" in found.sentence


@pytest.mark.parametrize(
    ("changes", "gate", "words"),
    [
        ({"log_loss_rise": LogLossRise(mean=0.03, low=0.01, high=0.05)}, "log loss", "0.0300 higher than"),
        ({"onnx": Difference(max_difference=0.2, class_flips=3, n=9)}, "parity torch/ONNX", "3 labels flip"),
        ({"onnx": Difference(max_difference=float("nan"), class_flips=0, n=9)}, "parity torch/ONNX", "nan"),
        ({"rest": Difference(max_difference=0.0, class_flips=1, n=9)}, "parity REST", "1 labels flip"),
        ({"rest": "the service answers 500"}, "parity REST", "the service answers 500"),
        ({"size_bytes": 2_000_000}, "bundle size", "2.00 MB, at most 1 is allowed"),
        ({"preflight": ("too few", "too many")}, "preflight", "too few; too many"),
        (
            {"challenger": ALONE.model_copy(update={"calibration_error": 0.07})},
            "calibration",
            "off by 7.00 points on average, 4.00 points is allowed",
        ),
        (
            {"latency": Latency(pairs=9, champion_ms=1, challenger_ms=2, ratio=2, low=1.9, high=2.1)},
            "latency",
            "2.00 times as long as the champion's",
        ),
    ],
)
def test_each_other_gate_fails_alone_and_in_words(changes: dict[str, Any], gate: str, words: str) -> None:
    found = evidence(*answers(10, 10), **changes)
    assert failed(found) == {gate} and words in verdict(found, gate).sentence


def test_what_chance_alone_makes_with_few_rows_is_no_bad_calibration() -> None:
    few = ALONE.model_copy(update={"calibration_error": 0.08, "calibration_by_chance": 0.09})
    assert failed(evidence(*answers(10, 10), challenger=few)) == set()


@pytest.mark.process
@pytest.mark.parametrize(
    ("rows", "true_error", "refused"), [(60, 0.04, (0, 0.05)), (600, 0.04, (0, 0.05)), (600, 0.2, (1, 1))]
)
def test_calibration_within_the_margin_is_hardly_ever_refused_and_far_beyond_it_always(
    rows: int, true_error: float, refused: tuple[float, float]
) -> None:
    generator = np.random.default_rng(0)
    outcomes = []
    for _ in range(40):
        top = generator.uniform(0.6, 0.99, rows)
        right = generator.random(rows) < top - true_error
        probabilities = np.stack([top, 1 - top], axis=1)
        chance = measure.error_by_chance(probabilities)
        error = reliability(np.where(right, 0, 1), probabilities).error
        alone = ALONE.model_copy(update={"calibration_error": error, "calibration_by_chance": chance})
        outcomes.append("calibration" in failed(evidence(*answers(10, 10), challenger=alone)))
    assert refused[0] <= np.mean(outcomes) <= refused[1]


def test_what_cannot_be_compared_asks_for_a_decision_and_the_rest_is_judged() -> None:
    found = evidence(*answers(100, 0), obstacle="it knows other labels than the champion", size_bytes=2_000_000)
    verdicts = judge(found, LIMITS)
    assert [each.gate for each in verdicts if each.outcome == "undecided"] == ["comparison"]
    assert "other labels" in verdicts[0].sentence and "100.00% against 95.00% right" in verdicts[0].sentence
    assert failed(found) == {"bundle size"} and outcome_of(verdicts) == "failed"
    assert outcome_of(judge(found.model_copy(update={"size_bytes": 1}), LIMITS)) == "undecided"


def test_what_was_not_measured_is_never_passed() -> None:
    missing = {"onnx": None, "challenger": None, "paired": None, "latency": None, "rest": None, "preflight": None}
    unknown = {GATE: "gate.arrow is missing", ONNX: "parity.json is missing"}
    verdicts = judge(evidence(*answers(0, 0), **missing, unknown=unknown), LIMITS)
    told = {each.gate: each.sentence for each in verdicts if each.outcome == "undecided"}
    assert set(told) == {each.gate for each in verdicts} - {"bundle size"}
    assert "parity.json is missing" in told[ONNX] and "gate.arrow is missing" in told["comparison"]


def test_without_a_champion_it_is_judged_alone() -> None:
    found = evidence(*answers(0, 0), has_champion=False, paired=None, champion=None, latency=None)
    gates = [each.gate for each in judge(found, LIMITS)]
    assert set(gates) >= {"calibration", "parity torch/ONNX", "parity REST", "bundle size", "preflight"}
    assert not set(gates) & {"paired test", "accuracy", "classes and slices", "log loss", "latency", "comparison"}
    without = LIMITS.model_copy(update={"rest_rows": 0})
    assert "parity REST" not in [each.gate for each in judge(found, without)]


rows = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 2)), min_size=1, max_size=150)
limits = st.builds(
    lambda drop, least, significance: LIMITS.model_copy(
        update={"max_slice_drop": drop, "min_accuracy_difference": least, "significance": significance}
    ),
    st.floats(0, 0.3),
    st.floats(-0.3, 0.1),
    st.floats(0.001, 0.4),
)


@pytest.mark.process
@given(rows, limits, st.data())
def test_one_more_wrong_answer_never_turns_failed_into_passed(
    found: list[tuple[bool, bool, int]], limits: PublishParams, data: st.DataObject
) -> None:
    ours, theirs, labels = (np.array(column) for column in zip(*found, strict=True))
    before = failed(evidence(ours, theirs, labels), limits)
    worse = ours.copy()
    worse[data.draw(st.integers(0, len(ours) - 1))] = False
    assert before <= failed(evidence(worse, theirs, labels), limits)


numbers = st.floats(0, 3)


@pytest.mark.process
@settings(max_examples=50)
@given(st.tuples(*[numbers] * 6), st.tuples(*[numbers] * 6), st.lists(st.text(), max_size=2))
def test_no_figure_that_gets_worse_turns_failed_into_passed(
    figures: tuple[float, ...], more: tuple[float, ...], findings: list[str]
) -> None:
    def of(values: tuple[float, ...], preflight: tuple[str, ...]) -> Evidence:
        rise, ratio, size, error, onnx, rest = values
        return evidence(
            *answers(5, 5, 20),
            log_loss_rise=LogLossRise(mean=rise - 1, low=-9, high=9),
            latency=Latency(pairs=9, champion_ms=1, challenger_ms=ratio, ratio=ratio, low=0, high=9),
            size_bytes=int(size * 1e6),
            challenger=ALONE.model_copy(update={"calibration_error": error / 10}),
            onnx=Difference(max_difference=onnx / 1e4, class_flips=0, n=1),
            rest=Difference(max_difference=rest / 1e4, class_flips=0, n=1),
            preflight=preflight,
        )

    before = failed(of(figures, tuple(findings)))
    worse = tuple(one + other for one, other in zip(figures, more, strict=True))
    assert before <= failed(of(worse, (*findings, "one more")))


@pytest.mark.process
@pytest.mark.parametrize(("rows", "differing"), [(200, 10), (2000, 100), (2000, 0), (10_000, 300)])
def test_a_detectable_drop_is_found_four_times_in_five(rows: int, differing: int) -> None:
    """Simulated: models that truly differ by so much, judged by the test itself."""
    drop = detectable_drop(rows, differing, LIMITS.significance)
    share = max(differing / rows, drop)
    generator = np.random.default_rng(0)
    counts = generator.binomial(rows, share, 4000)
    losses = generator.binomial(counts, (1 + drop / share) / 2)
    p_values = {pair: paired_p(pair[0] - pair[1], pair[1]) for pair in set(zip(counts, losses, strict=True))}
    found = [
        2 * lost > count and p_values[count, lost] < LIMITS.significance
        for count, lost in zip(counts, losses, strict=True)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)


def test_a_drop_just_significant_is_missed_half_the_time() -> None:
    """What was reported as the drop that "would be seen" before: the least that is significant when observed."""
    rows, differing = 2000, 100
    losses = next(lost for lost in range(50, 101) if paired_p(differing - lost, lost) < LIMITS.significance)
    observed = (2 * losses - differing) / rows
    assert detectable_drop(rows, differing, LIMITS.significance) > 1.3 * observed
    sentence = verdict(evidence(*answers(50, 50)), "paired test").sentence
    assert "a true drop of 1.44 points would be found in 80% of cases" in sentence


def test_too_few_rows_find_no_drop() -> None:
    assert detectable_drop(5, 0, 0.05) == np.inf
    assert detectable_drop(6, 0, 0.05) <= 1


@given(st.integers(10, 3000), st.floats(0, 1), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(-0.05, 0.05))
def test_a_worse_model_never_passes_more_often(rows: int, share: float, drop: float, more: float, least: float) -> None:
    differing = int(share * rows)
    assert pass_rate(rows, differing, drop + more, least) <= pass_rate(rows, differing, drop, least) + 1e-6


def test_the_accuracy_gate_tells_its_error_rates() -> None:
    assert 1 - pass_rate(200, 10, 0.0, -0.01) == pytest.approx(0.22, abs=0.02)
    assert pass_rate(2000, 100, 0.005, -0.01) == pytest.approx(0.85, abs=0.03)
    sentence = verdict(evidence(*answers(5, 5, rows=200)), "accuracy").sentence
    assert "an equal model would be refused in 21% of cases, one that is truly worse by 0.50 points" in sentence


@pytest.mark.parametrize("least", [-1.0, -0.6, 0.0, 0.6, 1.0])
def test_any_allowed_difference_can_be_judged(least: float) -> None:
    limits = LIMITS.model_copy(update={"min_accuracy_difference": least})
    for wins, losses in ((0, 0), (10, 10), (0, 2000)):
        assert verdict(evidence(*answers(wins, losses)), "accuracy", limits).sentence


def test_the_log_loss_gate_tells_its_error_rates() -> None:
    rise = LogLossRise(mean=0.0, low=-0.0196, high=0.0196)  # a standard error of 0.01
    sentence = verdict(evidence(*answers(0, 0), log_loss_rise=rise), "log loss").sentence
    assert "refused in 2% of cases, one that is truly worse by 0.04 would pass in 2%" in sentence


def test_allowed_drops_do_not_add_up() -> None:
    ours, theirs = answers(0, 10)  # half a point below the champion: allowed
    assert failed(evidence(ours, theirs)) == {"paired test"}
    near = Best(version="1", value=ours.mean() + 0.009)
    far = Best(version="1", value=ours.mean() + 0.011)
    assert "accuracy" not in failed(evidence(ours, theirs, best_accuracy=near))
    found = verdict(evidence(ours, theirs, best_accuracy=far), "accuracy")
    assert found.outcome == "failed" and "the best champion before, version 1, had 100.60%" in found.sentence
    assert failed(evidence(*answers(0, 0), best_log_loss=Best(version="1", value=0.27))) == {"log loss"}
    assert failed(evidence(*answers(0, 0), best_log_loss=Best(version="1", value=0.29))) == set()


def report(found: Evidence) -> Report:
    verdicts = judge(found, LIMITS)
    return Report(
        task="fashion",
        challenger=Party(version="2", digest="b" * 64),
        champion=Party(version="1", digest="a" * 64) if found.has_champion else None,
        gate_split="c" * 64,
        judged_before=0,
        outcome=outcome_of(verdicts),
        verdicts=tuple(verdicts),
        limits=LIMITS,
        evidence=found,
    )


def test_a_report_is_the_same_after_it_was_written_and_read() -> None:
    one = report(evidence(*answers(20, 60)))
    assert Report.model_validate_json(one.model_dump_json()) == one


def test_the_table_names_every_gate_and_what_failed_comes_first_in_the_objections() -> None:
    one = report(evidence(*answers(20, 60), preflight=None))
    table = "\n".join(one.table())
    assert "version 2 against version 1, 2,000 rows of the gate split: failed" in table
    assert all(each.gate in table for each in one.verdicts) and "97.00%" in table
    assert [each.split(":")[0] for each in one.objections] == ["paired test", "accuracy", "preflight"]
    assert one.figures["accuracy_challenger"] == 0.97 and one.figures["preflight"] == "undecided"


@pytest.mark.parametrize("alone", [True, False])
def test_a_picture_is_drawn_with_a_champion_and_without_one(alone: bool) -> None:
    nothing = {"has_champion": False, "paired": None, "slices": (), "champion": None, "latency": None}
    figure = gate_report.draw(report(evidence(*answers(20, 60), **(nothing if alone else {}))))
    assert len(figure.axes) == (1 if alone else 2)
    assert any(text.get_text() == "calibration" for text in figure.axes[0].texts)
