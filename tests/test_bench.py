"""The benchmarks compare like with like, and report every round."""

from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from prepared_splits import CONTRACTS, image_split, write_prepared, write_split
from tiny_bundles import write_text_bundle

from bench import following, scoring
from bench.contest import Contest, Ratio, hold, table
from bench.feeding import AugmentedImages, PaddedBatches
from bench.loop import train_by_hand
from bench.samples import IMAGES, SEED, TEXTS
from bench.subject import Subject, find
from bench.training import Size, measure
from convoy.core import paths
from convoy.kinds.image.items.dataset import BatchParams
from convoy.kinds.learning import candidates
from convoy.kinds.text.items.prepared import read as read_texts
from convoy.training.callbacks import seed_epoch
from convoy.training.trainer import Splits, TrainerParams, train

pytestmark = pytest.mark.torch
TRAINER = TrainerParams(**tiny_training.TRAINER | {"seed": SEED})


def subject(folder: Path) -> Subject:
    candidate, params = find("fashion-cnn")
    params = params.model_copy(update={"batches": {**params.batches, "size": 30}})
    contract = CONTRACTS["image"]
    data = candidates.open_dataset("image", write_split("image", folder / "train.arrow", 90), contract)
    return Subject(candidate, params, contract, data)


def test_the_plain_loop_does_the_work_of_lightning_to_the_bit(tmp_path: Path) -> None:
    one = subject(tmp_path)
    splits = Splits(one.data, one.data, one.batch_params, SEED)
    by_lightning = train(one.network(), splits, TRAINER, one.learning).network
    by_hand = one.network()
    seed_epoch(SEED, 0)
    train_by_hand(by_hand, one.batches, len(one.batches), one.learning, SEED)
    for name, weight in by_hand.state_dict().items():
        assert torch.equal(weight, by_lightning.state_dict()[name]), name


def test_the_stock_loader_augments_as_ours_does() -> None:
    split = image_split(3)
    images = AugmentedImages(split.contents, split.labels, BatchParams(size=3, flip=True, shift_px=1))
    torch.manual_seed(0)
    found = {images[0][0].numpy().tobytes() for _ in range(400)}
    padded = np.pad(split.contents[0], ((1, 1), (1, 1), (0, 0)))
    mirrored = np.pad(split.contents[0][:, ::-1], ((1, 1), (1, 1), (0, 0)))
    places = [(row, column) for row in range(3) for column in range(3)]
    assert found == {each[r : r + 28, c : c + 28].tobytes() for each in (padded, mirrored) for r, c in places}


def test_padded_batches_hold_every_text_at_one_length(tmp_path: Path) -> None:
    split = read_texts(write_split("text", tmp_path / "train.arrow", 64))
    batches = list(PaddedBatches(split.tokens, split.labels, 16, 50, split.pad_id))
    assert [tokens.shape for tokens, _ in batches] == [(16, 50)] * 4
    words = sorted(int((row != split.pad_id).sum()) for tokens, _ in batches for row in tokens)
    assert words == sorted(map(len, split.tokens))


def test_a_ratio_is_the_median_of_the_rounds_that_count() -> None:
    figures = {"a": iter([100.0, 6, 2, 4]), "b": iter([1.0, 2, 1, 4])}
    contestants = {name: lambda name=name: next(figures[name]) for name in figures}
    results = hold(Contest("things per second", 3, contestants, {"a_over_b": Ratio("a", "b", 2.5)}), "test")
    result = results["a_over_b"]
    assert (result["ratio"], result["lowest"], result["highest"]) == (2, 1, 3)
    assert result["rounds"] == [{"a": 6, "b": 2}, {"a": 2, "b": 1}, {"a": 4, "b": 4}]
    assert result["met"] is False and "MISSED" in table(results)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")  # on a machine with one core
def test_every_comparison_runs_and_reports(tmp_path: Path) -> None:
    for data, kind in ((IMAGES, "image"), (TEXTS, "text")):
        write_prepared(tmp_path / data, kind, {"train": 128})
    size = Size(train_images=128, load_images=128, reviews=64, rounds=1, text_rounds=1)
    results = measure(size, tmp_path.joinpath)
    goals = {"lightning_over_loop": 0.97, "ours_over_stock_dataloader": 5, "bucketed_over_padded": 1.5}
    assert {name: result["goal"] for name, result in results.items() if result["goal"]} == goals
    assert all(len(result["rounds"]) == 1 and result["ratio"] > 0 for result in results.values())


@pytest.mark.proof
def test_a_training_is_measured_with_mlflow_up_down_and_hanging(tmp_path: Path) -> None:
    write_prepared(tmp_path / paths.prepared(TEXTS), "text", {"train": 128, "validation": 128})
    results = following.measure(following.Size(reviews=128, validation=128, epochs=1, rounds=1), tmp_path)
    names = {"mlflow_up_over_unfollowed", "mlflow_down_over_unfollowed", "mlflow_hangs_over_unfollowed"}
    assert set(results) == names
    assert all(result["goal"] == 0.95 and result["ratio"] > 0 for result in results.values())


@pytest.mark.process
def test_scoring_is_measured_only_where_every_row_has_its_answer(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "deployed" / TEXTS / "a")
    (tmp_path / "deployed" / TEXTS / "current").symlink_to("a")
    table = tmp_path / "reviews.csv"
    table.write_text("text\n" + "the good film\n" * 30)
    found = scoring.score(tmp_path, table, 30)
    assert found["rows"] == 30 and found["rows_per_s"] > 0 and 20 < found["peak_mib"] < 2_000
    table.write_text("text\n" + "the good film\n" * 29 + '""\n')
    (tmp_path / "30.parquet").unlink()
    with pytest.raises(RuntimeError, match="not all of 30 rows were scored"):
        scoring.score(tmp_path, table, 30)
