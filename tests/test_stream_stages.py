"""train_stream, export_stream and evaluate_stream on a few texts: a bundle that reads them whole and in pieces."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from prepared_splits import text_split
from tiny_training import BATCHES, LEARNING, TRAINER

from convoy.bundles.bundle import read_bundle
from convoy.bundles.predictor import Predictor
from convoy.bundles.streaming import begin, read
from convoy.core import paths
from convoy.kinds.text.preparation import build_tokenizer
from convoy.kinds.text.prepared import Split as TextSplit
from convoy.kinds.text.prepared import write as write_texts
from convoy.kinds.text.preprocessing import StreamPreprocessing, TextPreprocessing, TextPreprocessor
from convoy.kinds.text.stream_dataset import TextStreamDataset

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[1]
CONTRACT = TextPreprocessing(
    kind="text", max_tokens=8, head_tokens=3, max_characters=20_000, pad_id=0, unknown_id=1
)  # cuts most of the texts, which the stream model reads whole
NETWORK = {"embedding": 16, "units": 16, "dropout": 0.1, "context_window": 2}
COUNTS = {"train": 300, "validation": 60, "calibration": 60, "gate": 60, "test": 60}


def prepare(folder: Path) -> None:
    """As prepare_text leaves it."""
    tokenizer = build_tokenizer(text_split(300).contents, 60).encode()
    contract = folder / paths.contract("text")
    contract.parent.mkdir(parents=True)
    contract.write_text(CONTRACT.model_dump_json())
    (folder / paths.TOKENIZER).write_bytes(tokenizer)
    preprocessor = TextPreprocessor(CONTRACT, tokenizer)
    for name, count in COUNTS.items():
        split = text_split(count)
        tokens = [prepared.array.astype(np.int32) for prepared in preprocessor.prepare_all(list(split.contents))]
        kept = [row for row, label in enumerate(split.labels) if name != "train" or label == 0 or row % 6 == 1]
        whole = TextSplit(
            [split.contents[row] for row in kept], [tokens[row] for row in kept], split.labels[kept], split.names, 60, 0
        )  # three negative texts for each positive one to learn from
        write_texts(folder / paths.prepared("text", name), [whole])  # type: ignore[arg-type]


def lay(folder: Path) -> Path:
    prepare(folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    candidate = {
        "trainer": TRAINER,
        "learning": LEARNING | {"class_weights": "balanced"},
        "batches": BATCHES["text"],
        "network": NETWORK,
    }
    exported = {**params["export_stream"], "piece_texts": 20, "sets": "class_conditional"}
    kept = {"train_stream": candidate, "export_stream": exported, "evaluate_stream": params["evaluate_stream"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(kept))
    labels = text_split(COUNTS["test"]).labels
    rows = "".join(f"{label},{label}\n" for label in labels)
    table = folder / paths.baselines("text-stream")
    table.parent.mkdir(parents=True)
    table.write_text(f"actual,nb-svm\n{rows}")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = lay(tmp_path_factory.mktemp("stream") / "place")
    for stage in ("train_stream", "export_stream", "evaluate_stream"):
        words = [sys.executable, "-m", f"pipelines.{stage}"]
        done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{stage}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    yield folder


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "CONVOY_FOLLOW": "0", "OMP_NUM_THREADS": "1"}


def test_the_dataset_reads_whole_texts_that_the_prepared_file_cuts(tmp_path: Path) -> None:
    prepare(tmp_path)
    dataset = TextStreamDataset(tmp_path / paths.prepared("text-stream", "validation"))
    split = text_split(COUNTS["validation"])
    assert [len(array) for array in dataset.arrays] == [len(text.split()) for text in split.contents]
    assert max(dataset.lengths) > CONTRACT.max_tokens
    assert dataset.lengths[dataset.evaluation_order].tolist() == sorted(dataset.lengths)


@pytest.mark.process
def test_the_bundle_reads_texts_whole_and_in_pieces_and_has_learnt(built: Path) -> None:
    predictor = Predictor(built / paths.bundle("text-stream"))
    contract = predictor.card.preprocessing
    assert isinstance(contract, StreamPreprocessing) and contract.max_words == 100_000
    assert predictor.state_size == 4 * NETWORK["units"] + 1
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
    reports = built / paths.reports("text-stream")
    parity = json.loads((reports / "parity.json").read_text())
    assert set(parity) == {"validation", "sizes", "batches", "pieces"}
    assert parity["pieces"]["n"] > 200 and parity["pieces"]["max_difference"] <= 1e-5
    card = read_bundle(built / paths.bundle("text-stream")).card
    assert (card.task, card.architecture, card.sets.n) == ("text-stream", "lstm", COUNTS["calibration"] // 2)
    assert (card.sets.threshold, card.sets.n_per_label) == ((0.0, 0.0), (15, 15)), "too few rows for 95 %"
    assert (card.temperature, card.calibration_n) == (1.0, COUNTS["calibration"] // 2), "too few rows to change it"
    assert card.logit_offsets == pytest.approx(np.log([0.75, 0.25]), abs=1e-6)
    test = json.loads((reports / "test.json").read_text())
    assert test["calibration"]["fitted_n"] == card.calibration_n and test["calibration"]["frequencies_restored"]
    assert set(test["sets"]["per_label"]) == set(card.labels)
    assert test["n"] == COUNTS["test"] and test["torch_against_onnx"]["max_difference"] <= 1e-4
    assert set(json.loads((reports / "candidates.json").read_text())) == {"lstm"}
    made = {str(path.relative_to(reports)) for path in reports.rglob("*") if path.is_file()}
    assert made == {
        "candidates.json", "parity.json",
        "predictions.csv", "reliability.png", "slices.json", "slices.png", "test.json",
        "lstm/confusion.png", "lstm/curves.csv", "lstm/metrics.json", "lstm/misclassified.png", "lstm/training.json",
    }  # fmt: skip
