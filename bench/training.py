"""How fast training is: our path against a plain loop, our batches against the usual ones -> a report."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from bench import feeding, machine
from bench.contest import Contest, Ratio, hold, table
from bench.samples import IMAGES, SEED, TEXTS, some_images, some_texts
from bench.subject import Subject, find, input_contract
from convoy.core import atomic, paths
from convoy.core.params import read_section
from convoy.kinds.image.items.prepared import Split as ImageSplit
from convoy.kinds.image.items.prepared import write as write_images
from convoy.kinds.learning import candidates
from convoy.kinds.learning.input_contract import InputContract
from convoy.kinds.text.items.prepared import Split as TextSplit
from convoy.kinds.text.items.prepared import write as write_texts
from convoy.kinds.text.items.preprocessing import open_preprocessor
from convoy.training.trainer import TrainerParams

REPORT = Path("reports/bench/training.json")
TRAIN = paths.split_file(IMAGES, "train").name
PADDED_TOKENS = 400  # what the goal names


@dataclass(frozen=True)
class Size:
    """How much is measured: at most 6 minutes on 2 quiet cores."""

    train_images: int = 6400  # 50 batches, about 3 s: what a step costs shows, what a start costs does not
    load_images: int = 20000  # about 3 s of the slower loader
    reviews: int = 3200  # one bucket of 50 batches; fewer could not be sorted as training sorts them
    rounds: int = 9  # a ratio near 1 needs more of them
    text_rounds: int = 5  # ratios far from 1, and each takes half a minute


def measure(size: Size, prepared: Callable[[str], Path]) -> dict[str, Any]:
    """All comparisons, on the folders of prepared data; gives the report of each by its name."""
    with tempfile.TemporaryDirectory() as folder:
        images, loading, texts = _contests(size, prepared, Path(folder))
        return {
            **hold(images, "training on images"),
            **hold(loading, "loading images"),
            **hold(texts, "training on texts"),
        }


def _contests(size: Size, prepared: Callable[[str], Path], folder: Path) -> tuple[Contest, Contest, Contest]:
    images, texts = prepared(IMAGES), prepared(TEXTS)
    return (
        _image_training(some_images(images / TRAIN, size.train_images), size, images, folder),
        _image_loading(some_images(images / TRAIN, size.load_images), size, images, folder),
        _text_training(some_texts(texts / TRAIN, size.reviews), size, texts, folder),
    )


def _image_training(split: ImageSplit, size: Size, prepared: Path, folder: Path) -> Contest:
    few = ImageSplit(split.contents[:250], split.labels[:250], split.names)
    subject = _image_subject(split, prepared, folder / "train.arrow")
    validation = _image_subject(few, prepared, folder / "few.arrow").data
    trainer = read_section(TrainerParams, "trainer")
    trainer = trainer.model_copy(update={"accelerator": "cpu", "precision": "32-true", "seed": SEED})
    stock = _stock(split, subject)
    return Contest(
        "samples per second in training",
        size.rounds,
        {
            "lightning": lambda: subject.by_lightning(trainer, validation),
            "loop": lambda: subject.by_hand(subject.batches),
            "loop_with_stock_dataloader": lambda: subject.by_hand(stock),
        },
        {
            "lightning_over_loop": Ratio("lightning", "loop", 0.97),
            "ours_over_stock_dataloader_whole_training": Ratio("loop", "loop_with_stock_dataloader", None),
        },
    )


def _image_loading(split: ImageSplit, size: Size, prepared: Path, folder: Path) -> Contest:
    subject = _image_subject(split, prepared, folder / "load.arrow")
    stock = _stock(split, subject)
    return Contest(
        "samples per second, loaded and augmented",
        size.rounds,
        {"ours": lambda: _drain(subject.batches, subject), "stock_dataloader": lambda: _drain(stock, subject)},
        {"ours_over_stock_dataloader": Ratio("ours", "stock_dataloader", 5)},
    )


def _text_training(texts: TextSplit, size: Size, prepared: Path, folder: Path) -> Contest:
    write_texts(folder / "texts.arrow", [texts])
    subject = _subject("reviews-lstm", prepared, folder / "texts.arrow")
    batch, longest = int(subject.batch_params.size), max(map(len, texts.tokens))
    padded = feeding.PaddedBatches(
        _cut_later(texts, subject.contract), texts.labels, batch, PADDED_TOKENS, texts.pad_id
    )
    padded_same = feeding.PaddedBatches(texts.tokens, texts.labels, batch, longest, texts.pad_id)
    return Contest(
        "reviews per second in training",
        size.text_rounds,
        {
            "bucketed": lambda: subject.by_hand(subject.batches),
            f"padded_to_{PADDED_TOKENS}": lambda: subject.by_hand(padded),
            "padded_to_max_tokens": lambda: subject.by_hand(padded_same),
        },
        {
            "bucketed_over_padded": Ratio("bucketed", f"padded_to_{PADDED_TOKENS}", 1.5),
            "bucketed_over_padded_to_max_tokens": Ratio("bucketed", "padded_to_max_tokens", None),
        },
    )


def _drain(batches: Any, subject: Subject) -> float:
    """Samples per second of drawing, augmenting and collating alone."""
    started_s = time.perf_counter()
    for _ in batches:
        pass
    return len(batches) * int(subject.params.batches["size"]) / (time.perf_counter() - started_s)


def _image_subject(split: ImageSplit, prepared: Path, path: Path) -> Subject:
    write_images(path, split)
    trainer = read_section(TrainerParams, "trainer")
    return replace(_subject("fashion-cnn", prepared, path), channels_last=trainer.channels_last)


def _subject(name: str, prepared: Path, path: Path) -> Subject:
    """A candidate on the split in `path`, its contract as in the folder of prepared data."""
    candidate, entry = find(name)
    contract = input_contract(candidate, entry, prepared)
    return Subject(candidate, entry, contract, candidates.open_dataset(candidate.kind, path, contract))


def _stock(split: ImageSplit, subject: Subject) -> Any:
    params = subject.batch_params
    return feeding.stock_loader(feeding.AugmentedImages(split.contents, split.labels, params), params.size)


def _cut_later(texts: TextSplit, contract: InputContract) -> list[NDArray[np.int32]]:
    """The same texts with up to PADDED_TOKENS tokens; prepared ones may have lost some of theirs."""
    longer = open_preprocessor(contract.preprocessing.model_copy(update={"max_tokens": PADDED_TOKENS}), contract.files)
    return [text.array.astype(np.int32) for text in longer.prepare_all(list(texts.contents))]


def main(
    check: Annotated[bool, typer.Option("--check", help="Fail where a goal is missed.")] = False,
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
) -> None:
    """Measure, write the report, and print a table."""
    content = machine.facts()
    try:
        results = measure(Size(), paths.prepared)
    except FileNotFoundError as error:
        typer.echo(f"{error}; here that is `dvc repro prepare@{IMAGES} prepare@{TEXTS}`", err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**content, "results": results})
    typer.echo(f"{table(results)}\nwritten: {report}")
    if check and any(result["met"] is False for result in results.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
