"""The values that suit a survey, each with its reason, for the template of the data's kind."""

import numpy as np

from convoy.kinds.registry import module
from convoy.operations.init import template
from convoy.operations.init.source import READ, Detected
from convoy.operations.init.survey import Survey
from convoy.operations.init.template import Value

STEPS = 1_200  # of a small set's training: below it, the one-cycle rate has hardly begun to fall
MAX_EPOCHS = 60
FEW = 20_000  # below so many items, larger shares are held out, or their figures would say little
SHARES = {"validation": 0.15, "calibration": 0.1, "gate": 0.1, "test": 0.15}  # of few
UNEVEN = 5.0  # largest label over smallest, above which labels are weighted


def propose(name: str, detected: Detected, survey: Survey, replaced: str = "") -> dict[str, Value]:
    """The value of each placeholder of the template; others keep what the template has.

    `replaced` has the lines of the data set's entry as it is: a column that it names keeps its comment.
    """
    of_kind = {key: Value(*proposed) for key, proposed in survey.sample.propose().items()}
    default_size: int = module(detected.kind, "survey").BATCH_SIZE
    return {
        "name": Value(name),
        **_propose_source(detected, survey),
        **_propose_columns(detected, survey, replaced),
        **_propose_shares(survey),
        **_propose_learning(default_size, survey),
        **of_kind,
    }


def _propose_source(detected: Detected, survey: Survey) -> dict[str, Value]:
    params = detected.params
    values = {
        "source": Value(detected.source, READ[detected.source]),
        "path": Value(str(params.path), f"{survey.counts.total():,} items; DVC watches it"),
    }
    if params.labels is not None:
        values["labels"] = Value(list(params.labels), "as --labels says; others are left out")
    if survey.splits:
        values["given_splits"] = Value(True, "false divides again")
    elif not params.given_splits:
        values["given_splits"] = Value(False, f"the column {params.table.split!r} names no splits")
    return values


def _propose_columns(detected: Detected, survey: Survey, replaced: str) -> dict[str, Value]:
    """The columns of a table; of other sources, what the entry must have."""
    columns = detected.params.table.model_dump()
    reasons = {key: why or template.comment_of(replaced, key, columns[key]) for key, why in detected.reasons.items()}
    if detected.source == "table":
        reasons["split"] = "as found in the table" if survey.splits else "where there is one, and given_splits is true"
    return {key: Value(value, reasons.get(key, "")) for key, value in columns.items()}


def _propose_shares(survey: Survey) -> dict[str, Value]:
    if survey.counts.total() >= FEW:
        return {}
    reasons = {"validation": f"of few: {survey.counts.total():,} items", "test": "where the source has no test split"}
    return {f"{split}_share": Value(share, reasons.get(split, "")) for split, share in SHARES.items()}


def _propose_learning(default_size: int, survey: Survey) -> dict[str, Value]:
    largest, smallest, trained = max(survey.counts.values()), min(survey.counts.values()), _training_items(survey)
    ratio = largest / smallest
    weights = "balanced" if ratio > UNEVEN else "none"
    values = {"class_weights": Value(weights, f"the largest label has {ratio:.1f} times the items of the smallest")}
    if trained >= FEW:
        return values
    size = int(min(default_size, max(8, 2 ** int(np.log2(max(8, trained / 20))))))
    epochs = int(min(MAX_EPOCHS, max(8, -(-STEPS * size // trained))))
    steps = max(1, trained // size)
    return values | {
        "batch_size": Value(size, f"{trained:,} items to train on: {steps:,} steps an epoch"),
        "epochs": Value(epochs, f"{epochs * steps:,} steps in all"),
        "patience": Value(epochs, "a small set's validation figures jump"),
    }


def _training_items(survey: Survey) -> int:
    """About how many items will be trained on."""
    if survey.counts.total() >= FEW:
        return round(0.8 * (survey.splits["train"] or survey.counts.total()))
    held_out = sum(share for name, share in SHARES.items() if name not in survey.splits)
    return max(1, round((1 - held_out) * (survey.splits["train"] or survey.counts.total())))
