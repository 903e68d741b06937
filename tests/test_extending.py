"""What the table "How to extend Convoy" says is enough: a source and a gate are one file and one entry."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from convoy.core import paths
from convoy.core.params import ParamsInvalid
from convoy.data.raw import RawItems
from convoy.sources import registry as sources
from pipelines import fetch

SOURCE = """
from convoy.sources.items import Item

def label_order(params):
    return ("late", "early")

def read(params, kind):
    for number, line in enumerate(params.path.read_text().splitlines()):
        yield Item(f"{params.path.name}:{number}", "early" if number % 2 else "late", "", line)
"""
GATE = """
from pydantic import Field
from convoy.core.params import Section
from convoy.release.gates.verdict import Verdict

COMPARES = False

class Limits(Section):
    max_rows: int = Field(ge=1)

def measure(comparison, limits):
    return {"rows": len(comparison.gate.labels)}

def judge(evidence, limits):
    rows = evidence.measured["few_rows"]["rows"]
    outcome = "passed" if rows <= limits.max_rows else "failed"
    return Verdict(gate="few rows", unit="count", limit=f"{limits.max_rows}", outcome=outcome, sentence=f"{rows} rows")
"""


def module(name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a file with this code would be."""
    made = ModuleType(name)
    exec(code, made.__dict__)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def test_a_source_is_one_file_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module("convoy.sources.plain_lines", SOURCE, monkeypatch)
    monkeypatch.setitem(sources.SOURCES, "lines", ("plain_lines", ("text",)))
    params = yaml.safe_load(paths.PARAMS.read_text())
    monkeypatch.chdir(tmp_path)
    Path("lines.txt").write_text("one\ntwo\nthree\n")
    params["fetch_text"] |= {"source": "lines", "path": "lines.txt"}
    paths.PARAMS.write_text(yaml.safe_dump(params))
    fetch.main("text")
    raw = RawItems(paths.raw("text"))
    assert raw.labels == ("late", "early") and raw.label_of.tolist() == [0, 1, 0]
    params["fetch_images"]["source"] = "lines"
    paths.PARAMS.write_text(yaml.safe_dump(params))
    with pytest.raises(ParamsInvalid, match=r"params\.yaml: fetch_images\.source: 'lines' is no source of image data"):
        fetch.main("image")


@pytest.mark.process
def test_a_gate_is_one_file_and_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import built_pipeline
    import gate_splits
    import tiny_bundles

    from convoy.release.gates import measure, registry
    from convoy.release.gates.split import read_gate_split

    gate = module("convoy.release.gates.rules.few_rows", GATE, monkeypatch)
    gates = (*registry.GATES, gate)
    for place in (registry, measure):
        monkeypatch.setattr(place, "GATES", gates)
    limits = registry.params_model(gates).model_validate({**built_pipeline.PUBLISH, "max_rows": 10})
    tiny_bundles.write_image_bundle(tmp_path / "bundle")
    split = read_gate_split("image", gate_splits.write("image", tmp_path / "gate.arrow", 40))
    evidence = measure.measure(split, tmp_path / "bundle", None, limits, {})
    (verdict,) = (verdict for verdict in registry.judge(evidence, limits) if verdict.gate == "few rows")
    assert (verdict.outcome, verdict.sentence) == ("failed", "40 rows")
    nothing = evidence.model_copy(update={"measured": {}})
    assert [one.outcome for one in registry.judge(nothing, limits) if one.gate == "few_rows"] == ["undecided"]
