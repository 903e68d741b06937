"""Verdicts follow from numbers: made-up ones both ways, and such as show nothing."""

import math
from functools import cache

import numpy as np
import pytest
from lab_results import SEEDS, as_people_say, right, the_other_way_round, trained
from scipy.stats import t

from convoy.core.params import read_section
from lab.images.space import SpaceParams
from lab.layout import PARAMS
from lab.learning import measuring
from lab.learning.estimates import Estimate, estimate
from lab.memory import MemoryParams
from lab.report import contents
from lab.report.claims import memory as of_memory
from lab.report.claims.space import weights_ratio
from lab.report.contents import Asked, ReportParams
from lab.report.results import Results
from lab.report.verdicts import Verdict, above, all_of, within
from lab.texts.negation import NegationParams
from lab.texts.order import OrderParams

pytestmark = pytest.mark.torch


@cache
def asked() -> Asked:
    return Asked(
        space=read_section(SpaceParams, "space", path=PARAMS),
        order=read_section(OrderParams, "order", path=PARAMS),
        negation=read_section(NegationParams, "negation", path=PARAMS),
        memory=read_section(MemoryParams, "memory", path=PARAMS),
        report=read_section(ReportParams, "report", path=PARAMS),
    )


def verdicts(results: Results) -> list[Verdict]:
    return [each for section in contents.sections(results, asked()) for each in section.all_verdicts]


def test_what_people_say_holds_where_the_figures_say_so() -> None:
    found = verdicts(as_people_say())
    assert [each.claim for each in found if each.outcome != "held"] == []
    assert len(found) > 30


def test_the_same_claims_do_not_hold_where_the_figures_say_the_contrary() -> None:
    found = verdicts(the_other_way_round())
    # A CNN to which order is nothing, as here, sees none beyond its windows either.
    assert [each.claim for each in found if each.outcome != "did not hold"] == ["A CNN sees local order alone"]


def test_a_cnn_that_loses_more_by_whole_shuffling_sees_more_than_local_order() -> None:
    found = as_people_say()
    found.text["cnn"]["shuffle"]["drop"] = found.text["lstm"]["shuffle"]["drop"]
    (verdict,) = [each for each in verdicts(found) if each.claim == "A CNN sees local order alone"]
    assert verdict.outcome == "did not hold"


def test_a_verdict_says_its_figures() -> None:
    (first, *_) = verdicts(as_people_say())
    assert first.sentence.startswith("CNNs suit images better than recurrent networks: held; the CNN has 90.0 % (")
    assert "5.0 points (" in first.figures


@pytest.mark.parametrize(
    "mean, error, of_above, of_within",
    [
        (0.10, 0.01, "held", "did not hold"),
        (-0.10, 0.01, "did not hold", "did not hold"),
        (0.00, 0.001, "did not hold", "held"),
        (0.02, 0.05, "not shown", "not shown"),
        (0.03, 0.0, "held", "did not hold"),
    ],
)
def test_three_outcomes_by_interval_and_margin(mean: float, error: float, of_above: str, of_within: str) -> None:
    found = Estimate(mean, error, 1000)
    assert above(found, 0.02) == of_above and within(found, 0.02) == of_within


def test_of_all_cases_one_is_enough_to_contradict() -> None:
    assert all_of([True, True]) == "held" and all_of([True, False]) == "did not hold" and all_of([]) == "not shown"


def test_an_interval_over_items_alone_is_students() -> None:
    values = np.random.default_rng(0).normal(3, 1, 20)
    found = estimate(values[None])
    reach = t.ppf(0.975, 19) * values.std(ddof=1) / math.sqrt(20)
    assert (found.low, found.high) == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_seeds_that_differ_widen_the_interval_and_cost_its_freedom() -> None:
    generator = np.random.default_rng(0)
    alike = generator.normal(0, 1, (3, 1000))
    apart = alike + np.array([[-1.0], [0.0], [1.0]])
    narrow, wide = estimate(alike), estimate(apart)
    assert wide.high - wide.low > 10 * (narrow.high - narrow.low)
    assert wide.freedom == pytest.approx(2, abs=0.1) and narrow.freedom > 2


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        values = generator.normal(0, 1, (1, 50)) + generator.normal(0, 0.1, (3, 1)) + generator.normal(0, 1, (3, 50))
        found = estimate(values)
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / 400 <= 1


def test_equal_values_are_certain() -> None:
    assert estimate(np.full((3, 5), 0.5)) == Estimate(0.5, 0.0, math.inf)


def test_an_estimate_survives_its_file() -> None:
    before = Estimate(0.5, 0.01, 7.0)
    assert Estimate.from_json(before.to_json()) == before
    assert above(Estimate.from_json(Estimate(0.5, 0.0, math.inf).to_json()), 0.4) == "held"


def test_answers_survive_their_file() -> None:
    before = right(0.7)
    assert np.array_equal(measuring.unpack(measuring.accuracy(before)), before)


def test_losses_of_trainings_of_different_length_are_told_by_share() -> None:
    found = measuring.losses(trained([[4.0, 3.0, 2.0, 1.0], [4.0, 2.0]]))
    assert found == {"x": [0.5, 1.0], "per_seed": [[3.5, 4.0], [1.5, 2.0]]}


def test_the_ratio_of_weights_is_read_off_where_both_are_equally_good() -> None:
    cnn = ([100, 1000], np.array([[0.8, 0.9]] * SEEDS))
    mlp = ([100, 10_000], np.array([[0.6, 0.8]] * SEEDS))
    assert weights_ratio(cnn, mlp).mean == pytest.approx(2)
    assert weights_ratio(mlp, cnn).mean == pytest.approx(-2)


def test_a_gradient_that_no_seed_has_is_not_judged() -> None:
    found = as_people_say()
    found.memory["rnn"]["gradient_trained"] = [None] * SEEDS
    claims = [each.claim for each in of_memory.of_gradients(found, asked().memory, 10)]
    assert len(claims) == 1 and "before training" in claims[0]


def test_texts_with_other_labels_have_no_sentences_to_negate() -> None:
    found = as_people_say()
    for family in found.text.values():
        del family["negation"], family["contrast"]
    titles = [
        figure.title for section in contents.sections(found, asked()) for p in section.probes for figure in p.figures
    ]
    assert not any("turns around" in title for title in titles) and "Short and long texts" in titles
