"""The raw items of one kind -> one Arrow file per split, duplicates out, and the report of the data. Argument: kind."""

import shutil
import sys

from pydantic import create_model

from convoy.core import atomic, paths, stage, stage_names
from convoy.core.params import read_section
from convoy.core.paths import DataKind
from convoy.data.census import take_census
from convoy.data.findings import PreflightLimits
from convoy.data.raw import RawItems
from convoy.data.report import DataRefused, rejections_reported, summary, write_report
from convoy.data.splits import DivisionParams, DivisionRefused, divide, require_usable
from convoy.kinds import registry
from convoy.kinds.kind import Preparation
from convoy.sources.items import Rejection


class Params(DivisionParams):
    """What the section prepare_* of every kind holds; each kind has keys of its own besides."""

    limits: PreflightLimits


def params_model(kind: DataKind) -> type[Params]:
    """The model of the section of one kind."""
    return create_model("Params", __base__=(Params, registry.module(kind, "preparation").Params))


def main(kind: DataKind) -> None:
    """Prepare the items as the model will see them, each in one split."""
    section = stage_names.prepare(kind)
    params = read_section(params_model(kind), section)
    raw = RawItems(paths.raw(kind))
    folder = paths.prepared(kind, "train").parent
    prepared: Preparation = registry.module(kind, "preparation").Preparation(raw, params, folder)
    rejected = [Rejection(raw.name(row), error.code, error.message) for row, error in prepared.rejected]
    labels = raw.label_of[prepared.rows]
    with rejections_reported(kind, [*raw.rejections, *rejected]):
        require_usable(raw.given, prepared.rows)
        division = divide(prepared.keys, labels, raw.given[prepared.rows], raw.labels, params)
    figures = prepared.write(dict(division.rows.items()), labels, raw.labels)
    census = take_census(raw, prepared, rejected, division)
    try:
        findings = write_report(kind, census, params.limits, section, prepared.show)
    except DataRefused:
        shutil.rmtree(folder)  # nothing may learn from it
        raise
    atomic.write_json(paths.data_reports(kind) / "data.json", {**summary(findings, len(raw)), **figures})
    print(f"{kind}: dropped {division.dropped}, kept { {name: len(items) for name, items in division.rows.items()} }")


if __name__ == "__main__":
    stage.run(main, *sys.argv[1:], refusals=(DivisionRefused, DataRefused))
