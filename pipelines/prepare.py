"""The raw items of a data set -> one Arrow file per split, duplicates out, and the report of the data.

Argument: data set.
"""

import shutil
import sys

from pydantic import create_model

from convoy.core import atomic, paths, stage, tasks
from convoy.core.params import read_section
from convoy.data.census import take_census
from convoy.data.findings import PreflightLimits
from convoy.data.raw import RawItems
from convoy.data.report import DataRefused, rejections_reported, summary, write_report
from convoy.data.splits import DivisionParams, DivisionRefused, divide, require_usable
from convoy.kinds import registry
from convoy.kinds.preparing.kind import Preparation
from convoy.sources.items import Rejection


class Params(DivisionParams):
    """What the section `prepare` of every data set holds; each kind has keys of its own besides."""

    limits: PreflightLimits


def params_model(kind: str) -> type[Params]:
    """The model of the section of one kind."""
    return create_model("Params", __base__=(Params, registry.module(kind, "preparing.preparation").Params))


def main(data: str) -> None:
    """Prepare the items, each in one split, in the form that all candidates begin with."""
    kind = tasks.read().data_set(data).kind
    params = read_section(params_model(kind), "data", data, "prepare")
    raw = RawItems(paths.raw(data))
    folder = paths.prepared(data)
    prepared: Preparation = registry.module(kind, "preparing.preparation").Preparation(raw, params, folder)
    rejected = [Rejection(raw.name(row), error.code, error.message) for row, error in prepared.rejected]
    labels = raw.label_of[prepared.rows]
    with rejections_reported(data, [*raw.rejections, *rejected]):
        require_usable(raw.given, prepared.rows)
        division = divide(prepared.keys, labels, raw.given[prepared.rows], raw.labels, params)
    figures = prepared.write(dict(division.rows.items()), labels, raw.labels)
    census = take_census(raw, prepared, rejected, division)
    try:
        findings = write_report(data, census, params.limits, f"data.{data}.prepare", prepared.show)
    except DataRefused:
        shutil.rmtree(folder)  # nothing may learn from it
        raise
    atomic.write_json(paths.data_reports(data) / "data.json", {**summary(findings, len(raw)), **figures})
    print(f"{data}: dropped {division.dropped}, kept { {name: len(items) for name, items in division.rows.items()} }")


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(DivisionRefused, DataRefused))
