"""train, export and evaluate of a task of texts in pieces: a bundle that reads them whole and in pieces."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import yaml
from prepared_splits import TEXTS, text_split, write_contract
from tiny_training import LEARNING, NETWORKS

from convoy.bundles.bundle import read_bundle
from convoy.bundles.predictor import Predictor
from convoy.bundles.streaming import begin, read
from convoy.core import paths, tasks
from convoy.core.params import ParamsInvalid
from convoy.kinds.learning import candidates
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import build_tokenizer
from convoy.kinds.text.items.prepared import write as write_texts
from convoy.kinds.text.items.preprocessing import StreamPreprocessing, TextPreprocessor
from pipelines import train

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[1]
CONTRACT = TEXTS.model_copy(update={"max_tokens": 8, "head_tokens": 3})  # cuts most texts, which this task reads whole
INPUT = {"max_pending_characters": 256, "max_words": 100_000}
COUNTS = {"train": 300, "validation": 60, "calibration": 60, "gate": 60, "test": 60}
NAME = "notes-stream-lstm"


def prepare(folder: Path) -> None:
    """As the stage `prepare` leaves the data set."""
    tokenizer = build_tokenizer(text_split(300).contents, 60).encode()
    write_contract(folder / paths.prepared("notes"), InputContract(CONTRACT, {"tokenizer.json": tokenizer}, False))
    preprocessor = TextPreprocessor(CONTRACT, tokenizer)
    for name, count in COUNTS.items():
        split = text_split(count)
        tokens = [prepared.array.astype(np.int32) for prepared in preprocessor.prepare_all(list(split.contents))]
        kept = [row for row, label in enumerate(split.labels) if name != "train" or label == 0 or row % 6 == 1]
        whole = TextSplit(
            [split.contents[row] for row in kept], [tokens[row] for row in kept], split.labels[kept], split.names, 60, 0
        )  # three negative texts for each positive one to learn from
        write_texts(folder / paths.split_file("notes", name), [whole])  # type: ignore[arg-type]


def lay(folder: Path) -> Path:
    prepare(folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    laid = tiny_training.entries("text", "stream_lstm", {"input": INPUT}, **{**LEARNING, "class_weights": "balanced"})
    laid["tasks"]["notes"] |= {"limits": {"max_items": 1, "max_body_bytes": 500_000}, "explanation": None}
    laid |= {
        "choose": params["choose"],
        "export": {**params["export"], "piece_texts": 20, "sets": "class_conditional"},
        "evaluate": params["evaluate"],
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(laid))
    labels = text_split(COUNTS["test"]).labels
    table = folder / paths.baselines("notes") / "predictions.csv"
    table.parent.mkdir(parents=True)
    table.write_text("actual,nb-svm\n" + "".join(f"{label},{label}\n" for label in labels))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = lay(tmp_path_factory.mktemp("stream") / "place")
    for stage, name in (("train", NAME), ("choose", "notes"), ("export", "notes"), ("evaluate", "notes")):
        words = [sys.executable, "-m", f"pipelines.{stage}", name]
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{stage}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    yield folder


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "CONVOY_FOLLOW": "0", "OMP_NUM_THREADS": "1"}


def test_the_dataset_reads_whole_texts_that_the_prepared_file_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    candidate = tasks.Candidate(NAME, "notes", "notes", "text", "stream_lstm")
    contract = candidates.input_contract(candidate, INPUT)
    dataset = candidates.open_dataset("text", paths.split_file("notes", "validation"), contract)
    split = text_split(COUNTS["validation"])
    assert [len(array) for array in dataset.arrays] == [len(text.split()) for text in split.contents]
    lengths = np.array(list(map(len, dataset.arrays)))
    assert max(lengths) > CONTRACT.max_tokens
    assert lengths[dataset.evaluation_order].tolist() == sorted(lengths)


@pytest.mark.parametrize("network", [name for kind, name in NETWORKS if kind == "text" and name != "stream_lstm"])
def test_texts_in_pieces_need_a_network_that_carries_its_state(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_training.lay(tmp_path, "text", network, {"input": INPUT}))
    name = tiny_training.named("text", network)
    with pytest.raises(ParamsInvalid) as error:
        train.main(name)
    for words in (f"candidates.{name}.input has max_words", f"the network {network} needs", "choose stream_lstm"):
        assert words in str(error.value)
    assert not Path("candidates").exists() and not list(Path(".run").rglob("*.ckpt"))


@pytest.mark.process
def test_the_bundle_reads_texts_whole_and_in_pieces_and_has_learnt(built: Path) -> None:
    predictor = Predictor(built / paths.bundle("notes"))
    contract = predictor.card.preprocessing
    assert isinstance(contract, StreamPreprocessing) and contract.max_words == 100_000
    assert predictor.state_size == 4 * NETWORKS["text", "stream_lstm"]["units"] + 1
    split = text_split(COUNTS["test"])
    found = predictor.probabilities([predictor.prepare(text).array for text in split.contents])
    assert (found.argmax(axis=1) == split.labels).mean() > 0.8
    for text, row in zip(split.contents[:10], found, strict=False):
        state = begin(predictor)
        for place in range(0, len(text), 3):
            state = read(predictor, state, text[place : place + 3]).state
        state = read(predictor, state, "", final=True).state
        np.testing.assert_allclose(state.latest, row, atol=1e-5)


@pytest.mark.process
def test_the_export_proves_pieces_and_the_reports_are_those_of_every_task(built: Path) -> None:
    reports = built / paths.reports("notes")
    parity = json.loads((reports / "parity.json").read_text())
    assert set(parity) == {"validation", "sizes", "batches", "pieces"}
    assert parity["pieces"]["n"] > 200 and parity["pieces"]["max_difference"] <= 1e-5
    card = read_bundle(built / paths.bundle("notes")).card
    assert (card.task, card.architecture, card.candidate, card.sets.n) == ("notes", "stream_lstm", NAME, 30)
    assert (card.sets.threshold, card.sets.n_per_label) == ((0.0, 0.0), (15, 15)), "too few rows for 95 %"
    assert (card.temperature, card.calibration_n) == (1.0, COUNTS["calibration"] // 2), "too few rows to change it"
    assert card.logit_offsets == pytest.approx(np.log([0.75, 0.25]), abs=1e-6)
    test = json.loads((reports / "test.json").read_text())
    assert test["calibration"]["fitted_n"] == card.calibration_n and test["calibration"]["frequencies_restored"]
    assert set(test["sets"]["per_label"]) == set(card.labels)
    assert test["n"] == COUNTS["test"] and test["torch_against_onnx"]["max_difference"] <= 1e-4
    assert set(test["candidates"]) == {NAME} and test["explanation"] is None
    assert set(test["slices"]) == {"class", "length_tokens"}
    made = {str(path.relative_to(reports)) for path in reports.rglob("*") if path.is_file()}
    assert made == {
        "choice.json", "parity.json", "predictions.csv", "test.json",
        f"{NAME}/curves.csv", f"{NAME}/metrics.json",
        f"pictures/{NAME}-confusion.png", f"pictures/{NAME}-misclassified.png",
        "pictures/reliability.png", "pictures/slices.png",
    }  # fmt: skip
