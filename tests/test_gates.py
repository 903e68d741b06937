"""Gates: a challenger serves by itself only where it is known not to be worse."""

import pytest

from convoy.publishing.gates import Evidence, PublishParams, objections

LIMITS = PublishParams(max_validation_accuracy_drop=0.01, max_validation_log_loss_rise=0.02)
CHAMPION = Evidence({"accuracy": 0.9, "log_loss": 0.3}, "data")


@pytest.mark.parametrize("figures", [{"accuracy": 0.89, "log_loss": 0.32}, {"accuracy": 0.95, "log_loss": 0.2}])
def test_better_or_within_the_limits_passes(figures: dict[str, float]) -> None:
    assert objections(CHAMPION, Evidence(figures, "data"), LIMITS) == []


@pytest.mark.parametrize(
    ("challenger", "words"),
    [
        (Evidence({"accuracy": 0.88, "log_loss": 0.3}, "data"), "accuracy is 0.8800, the champion's 0.9000"),
        (Evidence({"accuracy": 0.95, "log_loss": 0.33}, "data"), "log_loss is 0.3300, the champion's 0.3000"),
        (Evidence({"accuracy": 0.95, "log_loss": 0.3}, "other"), "cannot be compared"),
        (Evidence({"accuracy": 0.95}, "data"), "log_loss of it is not known"),
    ],
)
def test_worse_or_unknown_is_objected_to_in_words(challenger: Evidence, words: str) -> None:
    (objection,) = objections(CHAMPION, challenger, LIMITS)
    assert words in objection


def test_without_the_champions_figures_nothing_is_compared() -> None:
    assert objections(Evidence({}, ""), Evidence({}, ""), LIMITS)
