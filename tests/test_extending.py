"""What EXTENDING.md says is enough: a network, a source and a gate are one file and one entry each."""

import re
import shutil
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
    params["data"]["reviews"]["fetch"] |= {"source": "lines", "path": "lines.txt"}
    paths.PARAMS.write_text(yaml.safe_dump(params))
    fetch.main("reviews")
    raw = RawItems(paths.raw("reviews"))
    assert raw.labels == ("late", "early") and raw.label_of.tolist() == [0, 1, 0]
    params["data"]["fashion"]["fetch"]["source"] = "lines"
    paths.PARAMS.write_text(yaml.safe_dump(params))
    match = r"params\.yaml: data\.fashion\.fetch\.source: 'lines' is no source of image data"
    with pytest.raises(ParamsInvalid, match=match):
        fetch.main("fashion")


def table() -> dict[str, tuple[str, str]]:
    """Of EXTENDING.md: what is to be added -> what to copy, and where to name it."""
    rows = [line.strip("|").split(" | ") for line in Path("EXTENDING.md").read_text().splitlines() if " | " in line]
    return {what.strip(): (copied, named) for what, copied, named in rows}


def test_every_file_that_the_list_names_is_there() -> None:
    rows = table()
    assert {"a network", "a source", "a gate", "a kind of data", "a metric", "a baseline of images"} <= set(rows)
    for copied, named in rows.values():
        files = [word for word in re.findall(r"`([\w./<>]+)`", copied + named) if "/" in word and "<" not in word]
        assert not [file for file in files if not Path(file).exists()]


@pytest.mark.torch
@pytest.mark.process
def test_a_network_is_one_file_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the file that the list names, with another activation, is trained, chosen, exported and answers."""
    import prepared_splits
    import tiny_training

    from convoy.bundles.bundle import EXPLANATION
    from convoy.bundles.predictor import Predictor
    from convoy.kinds.image import networks
    from convoy.kinds.image.explanation import occlude
    from pipelines import choose, evaluate, export, train

    copied = table()["a network"][0].split("`")[1]
    folder = shutil.copytree(Path(networks.__path__[0]), tmp_path / "networks")
    (folder / "waves.py").write_text(Path(copied).read_text().replace("nn.ReLU()", "nn.Tanh()"))
    monkeypatch.setattr(networks, "__path__", [str(folder)])
    monkeypatch.setenv("CONVOY_FOLLOW", "0")
    params = tiny_training.entries("image", "mlp", epochs=2, learning_rate=0.0001)
    entry = params["candidates"]["bars-mlp"]
    learning = {**entry["learning"], "epochs": 6, "learning_rate": 0.01}
    params["candidates"]["bars-waves"] = {**entry, "network": {**entry["network"], "name": "waves"}} | {
        "learning": learning
    }
    params["choose"] = {"metric": "log_loss"}
    monkeypatch.chdir(tiny_training.lay_task(tmp_path, params))
    for name in params["candidates"]:
        train.main(name)
    for stage in (choose, export, evaluate):
        stage.main("bars")
    predictor = Predictor(paths.bundle("bars"))
    assert (predictor.card.architecture, predictor.card.candidate) == ("waves", "bars-waves")
    split = prepared_splits.image_split(30)
    found = predictor.probabilities(list(split.contents))
    assert (found.argmax(axis=1) == split.labels).mean() > 0.9
    assert not (predictor.folder / EXPLANATION).exists(), "no sum over places: it is explained by occlusion"
    patches = predictor.card.explanation.patches
    original, falls = occlude(predictor.probabilities, predictor.card.explanation, split.contents[0])
    assert falls.shape == (3, patches, patches) and original.argmax() == split.labels[0]


@pytest.mark.process
def test_a_gate_is_one_file_and_one_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import built_pipeline
    import gate_splits
    import tiny_bundles

    from convoy.release.gates import measure, registry
    from convoy.release.gates.split import read_gate_split
    from convoy.tracking.checked_bundle import CheckedBundle

    gate = module("convoy.release.gates.rules.few_rows", GATE, monkeypatch)
    gates = (*registry.GATES, gate)
    for place in (registry, measure):
        monkeypatch.setattr(place, "GATES", gates)
    limits = registry.params_model(gates).model_validate({**built_pipeline.PUBLISH, "max_rows": 10})
    tiny_bundles.write_image_bundle(tmp_path / "bundle")
    split = read_gate_split("fashion", "image", gate_splits.write("image", tmp_path / "gate.arrow", 40))
    evidence = measure.measure(split, CheckedBundle.read(tmp_path / "bundle"), None, limits, {})
    (verdict,) = (verdict for verdict in registry.judge(evidence, limits) if verdict.gate == "few rows")
    assert (verdict.outcome, verdict.sentence) == ("failed", "40 rows")
    nothing = evidence.model_copy(update={"measured": {}})
    assert [one.outcome for one in registry.judge(nothing, limits) if one.gate == "few_rows"] == ["undecided"]
