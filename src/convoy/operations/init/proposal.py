"""The params that suit a survey, each with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy.core import paths, stage_names
from convoy.core.paths import Task
from convoy.kinds.registry import module
from convoy.operations.init.survey import READ, Detected, Survey

STEPS = 1_200  # of a small set's training: below it, the one-cycle rate has hardly begun to fall
MAX_EPOCHS = 60
FEW = 20_000  # below so many items, larger shares are held out, or their figures would say little
SHARES = {"validation": 0.15, "calibration": 0.1, "gate": 0.1, "test": 0.15}  # of few
UNEVEN = 5.0  # largest label over smallest, above which labels are weighted


@dataclass(frozen=True)
class Change:
    """One value of params.yaml, under its keys, and why."""

    keys: tuple[str, ...]
    value: Any
    reason: str


def propose(task: Task, detected: Detected, survey: Survey) -> list[Change]:
    """Every value that should differ from the params of the packaged data set; the others suit most data."""
    changes = [
        *_propose_source(stage_names.fetch(task), detected, survey),
        *_propose_shares(stage_names.prepare(task), survey),
    ]
    prepared = stage_names.prepare(task)
    changes += [Change((prepared, *keys), value, reason) for keys, value, reason in survey.sample.propose_preparation()]
    sections, trained = _training_sections(task), _training_items(survey)
    for section in sections:
        proposals = survey.sample.propose_batches()
        changes += [Change((*section, "batches", *keys), value, reason) for keys, value, reason in proposals]
    for section in sections:
        changes += _propose_learning(section, module(task, "survey").BATCH_SIZE, trained, survey)
    return changes


def _training_sections(task: Task) -> list[tuple[str, ...]]:
    """The training sections of all candidates that learn from this data."""
    tasks = [task_of_kind for task_of_kind in paths.TASKS if paths.kind_of(task_of_kind) == task]
    return [
        stage_names.training_section(task_of_kind, name)
        for task_of_kind in tasks
        for name in paths.architectures(task_of_kind)
    ]


def _propose_source(section: str, detected: Detected, survey: Survey) -> Iterator[Change]:
    params, table = detected.params, detected.params.table
    yield Change((section, "source"), detected.source, READ[detected.source])
    yield Change((section, "path"), str(params.path), f"{survey.counts.total():,} items; DVC watches it")
    labels = None if params.labels is None else list(params.labels)
    yield Change((section, "labels"), labels, "all of them" if labels is None else "as asked for; others are left out")
    if survey.splits:
        yield Change((section, "given_splits"), True, "false divides anew")
    elif not params.given_splits:
        yield Change(
            (section, "given_splits"), False, f"the column {table.split!r} has other values than names of splits"
        )
    if detected.source == "table":
        yield Change((section, "table", "file"), table.file, "its name, where the folder holds several")
        for key, reason in detected.reasons.items():
            if reason:  # else params.yaml says so already
                yield Change((section, "table", key), getattr(table, key), reason)
        split_reason = "as found in the table" if survey.splits else "where there is one, and given_splits is true"
        yield Change((section, "table", "split"), table.split, split_reason)
    yield Change((section, "table", "encoding"), table.encoding, "as stated")


def _propose_shares(section: str, survey: Survey) -> Iterator[Change]:
    if survey.counts.total() >= FEW:
        return
    reason = f"of few: {survey.counts.total():,} items"
    yield Change((section, "validation_share"), SHARES["validation"], f"{reason}; more for choosing a model by")
    yield Change((section, "calibration_share"), SHARES["calibration"], reason)
    yield Change((section, "gate_share"), SHARES["gate"], f"{reason}; more for seeing a difference of two models")
    yield Change((section, "test_share"), SHARES["test"], f"{reason}; where the source has no test set")


def _training_items(survey: Survey) -> int:
    """About how many items will be trained on."""
    if survey.counts.total() >= FEW:
        return round(0.8 * (survey.splits["train"] or survey.counts.total()))
    held_out = sum(share for name, share in SHARES.items() if name not in survey.splits)
    return max(1, round((1 - held_out) * (survey.splits["train"] or survey.counts.total())))


def _propose_learning(section: tuple[str, ...], default_size: int, trained: int, survey: Survey) -> Iterator[Change]:
    largest, smallest = max(survey.counts.values()), min(survey.counts.values())
    reason = f"the largest label has {largest / smallest:.1f} times the items of the smallest"
    weights = "balanced" if largest / smallest > UNEVEN else "none"
    yield Change((*section, "learning", "class_weights"), weights, reason)
    if trained >= FEW:
        return
    size = int(min(default_size, max(8, 2 ** int(np.log2(max(8, trained / 20))))))
    epochs = int(min(MAX_EPOCHS, max(8, -(-STEPS * size // trained))))
    yield Change(
        (*section, "batches", "size"), size, f"{trained:,} items to train on: {max(1, trained // size)} steps per epoch"
    )
    yield Change((*section, "learning", "epochs"), epochs, f"{epochs * max(1, trained // size):,} steps in all")
    yield Change((*section, "learning", "patience"), epochs, "small sets' validation figures jump")
