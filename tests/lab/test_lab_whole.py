"""The whole laboratory on tiny data: every stage, the page, a real MLflow store."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prepared_splits import write_prepared
from tokenizers import Tokenizer, models, pre_tokenizers

from convoy.core import paths
from convoy.core.params import read_section
from convoy.kinds.text.items.inputs import TOKENIZER
from convoy.lineage.workspace import merge_files, merge_params
from lab import smoke
from lab.layout import FAMILIES, PARAMS, READERS, REPORT
from lab.learning.items import DataParams

ROOT = Path.cwd()
TINY = {
    "data": {"image": {"learn": 90, "ask": 30}, "text": {"learn": 90, "ask": 30}},
    "learning": {"seeds": [0, 1], "image": {"multiply_adds": 4e8}, "text": {"multiply_adds": 4e8}},
    "order": {"phrase_texts": 2},
    "memory": {"seeds": [0, 1], "steps": 3, "window": 2, "ask": 20},
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prepared splits, a tokenizer, and params for seconds."""
    overrides = tmp_path / "overrides.yaml"
    first = yaml.safe_load(merge_files(PARAMS, smoke.OVERRIDES))
    overrides.write_text(yaml.safe_dump(merge_params(first, TINY, overrides)))
    (tmp_path / PARAMS).parent.mkdir()
    (tmp_path / PARAMS).write_text(merge_files(PARAMS, overrides))
    shutil.copy(smoke.STAGES, tmp_path / smoke.STAGES)
    monkeypatch.chdir(tmp_path)
    data = read_section(DataParams, "data", path=PARAMS)
    write_prepared(paths.prepared(data.image.prepared), "image", {"train": 120})
    write_prepared(paths.prepared(data.text.prepared), "text", {"train": 120})
    tokenizer = Tokenizer(models.WordLevel({"[pad]": 0, "[unknown]": 1, "good": 2, "bad": 3}, unk_token="[unknown]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.save(str((paths.prepared(data.text.prepared) / paths.CONTRACT).with_name(TOKENIZER)))
    return tmp_path


def _plotted() -> Iterator[tuple[str, list[str]]]:
    """The files that `dvc plots show` reads, and the columns that it draws of each."""
    for plot in yaml.safe_load((ROOT / "lab/dvc.yaml").read_text())["plots"]:
        for path, columns in next(iter(plot.values()))["y"].items():
            assert (ROOT / "lab" / path).resolve().parent == ROOT / REPORT / "curves"
            yield Path(path).name, columns


@pytest.mark.proof
def test_everything_is_measured_judged_shown_and_published(small: Path) -> None:
    from mlflow_store import open_empty_store

    from lab import publication

    smoke.measure()

    numbers = json.loads((REPORT / "numbers.json").read_bytes())
    assert {"shift", "permuted", "shuffle", "negation", "phrase", "memory"} <= set(numbers["figures"])
    assert len((REPORT / "index.html").read_bytes()) < 2_000_000
    costs = [numbers["costs"]["image"][family]["multiply_adds"] for family in ("cnn", "lstm", "gru", "rnn", "mlp")]
    assert max(costs) < 1.1 * min(costs)
    assert numbers["costs"]["text"]["linear"]["multiply_adds"] == 0

    curves = {path.name: path.read_text().splitlines()[0].split(",")[1:] for path in (REPORT / "curves").iterdir()}
    plots = dict(_plotted())
    assert plots.keys() == curves.keys()
    assert all(set(columns) <= set(plots[name]) for name, columns in curves.items())

    client, said = open_empty_store(), []
    publication.publish(client, said.append)
    publication.publish(client, said.append)
    (experiment,) = [each for each in client.search_experiments() if each.name == publication.EXPERIMENT]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 2 * len(FAMILIES) + len(READERS) + 1
    assert {"accuracy/mean", "cost/weights", "curves/shift"} <= set(runs["image-cnn"].data.metrics)
    files = client.list_artifacts(runs["report"].info.run_id, "compare")
    assert "compare/index.html" in [each.path for each in files]
    assert all("it is complete" in line for line in said[len(runs) :])


@pytest.mark.mlflow
def test_what_is_in_git_is_published_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow_store import open_empty_store

    from lab import publication

    shutil.copytree(REPORT, tmp_path / REPORT)
    monkeypatch.chdir(tmp_path)
    client, said = open_empty_store(), []
    for _ in range(2):
        publication.publish(client, said.append)
    count = 2 * len(FAMILIES) + len(READERS) + 1
    assert all("new, with" in line for line in said[:count])
    assert len(said) == 2 * count and all("it is complete" in line for line in said[count:])


def test_smoke_params_are_those_of_the_laboratory_with_other_values(small: Path) -> None:
    shutil.copytree(ROOT / "lab", "other", ignore=shutil.ignore_patterns("__pycache__"))
    whole = yaml.safe_load(Path("other/params.yaml").read_text())
    less = yaml.safe_load(merge_files(Path("other/params.yaml"), Path("other/smoke.yaml")))
    assert whole.keys() == less.keys() and whole["families"] == less["families"]
    assert less["learning"]["image"]["multiply_adds"] < whole["learning"]["image"]["multiply_adds"]
