"""How fast training is: our path against a plain loop, our batches against the usual ones -> a report."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from bench import feeding, machine
from bench.contest import Contest, Ratio, hold, table
from bench.subject import SEED, Candidate, Subject
from convoy.core import atomic, paths, stage_names
from convoy.core.params import read_section
from convoy.core.paths import DATA_KINDS, Task
from convoy.kinds import candidates
from convoy.kinds.image.prepared import Split as ImageSplit
from convoy.kinds.image.prepared import read as read_images
from convoy.kinds.image.prepared import write as write_images
from convoy.kinds.text.prepared import Split as TextSplit
from convoy.kinds.text.prepared import read as read_texts
from convoy.kinds.text.prepared import write as write_texts
from convoy.kinds.text.preprocessing import TextPreprocessing, TextPreprocessor
from convoy.training.trainer import TrainerParams

REPORT = Path("reports/bench/training.json")
PADDED_TOKENS = 400  # what the goal names


@dataclass(frozen=True)
class Size:
    """How much is measured: at most 6 minutes on 2 quiet cores."""

    train_images: int = 6400  # 50 batches, about 3 s: what a step costs shows, what a start costs does not
    load_images: int = 20000  # about 3 s of the slower loader
    reviews: int = 3200  # one bucket of 50 batches; fewer could not be sorted as training sorts them
    rounds: int = 9  # a ratio near 1 needs more of them
    text_rounds: int = 5  # ratios far from 1, and each takes half a minute


def measure(size: Size, split: Callable[[Task], Path], contract: Path, tokenizer: Path) -> dict[str, Any]:
    """All comparisons on prepared splits; gives the report of each by its name."""
    with tempfile.TemporaryDirectory() as folder:
        images, loading, texts = _contests(size, split, contract, tokenizer, Path(folder))
        return {
            **hold(images, "training on images"),
            **hold(loading, "loading images"),
            **hold(texts, "training on texts"),
        }


def _contests(
    size: Size, split: Callable[[Task], Path], contract: Path, tokenizer: Path, folder: Path
) -> tuple[Contest, Contest, Contest]:
    texts = some_texts(split("text"), size.reviews)
    return (
        _image_training(some_images(split("image"), size.train_images), size, folder),
        _image_loading(some_images(split("image"), size.load_images), size, folder),
        _text_training(texts, _cut_later(texts, contract, tokenizer), size, folder),
    )


def _image_training(split: ImageSplit, size: Size, folder: Path) -> Contest:
    few = ImageSplit(split.contents[:250], split.labels[:250], split.names)
    subject, validation = _image_subject(split, folder / "train.arrow"), _image_subject(few, folder / "few.arrow").data
    trainer = read_section(TrainerParams, "train", "trainer")
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


def _image_loading(split: ImageSplit, size: Size, folder: Path) -> Contest:
    subject = _image_subject(split, folder / "load.arrow")
    stock = _stock(split, subject)
    return Contest(
        "samples per second, loaded and augmented",
        size.rounds,
        {"ours": lambda: _drain(subject.batches, subject), "stock_dataloader": lambda: _drain(stock, subject)},
        {"ours_over_stock_dataloader": Ratio("ours", "stock_dataloader", 5)},
    )


def _text_training(texts: TextSplit, longer: list[NDArray[np.int32]], size: Size, folder: Path) -> Contest:
    write_texts(folder / "texts.arrow", [texts])
    params = read_section(Candidate, "train", "text", "lstm")
    subject = Subject("text", "lstm", params, candidates.open_dataset("text", folder / "texts.arrow"))
    batch, longest = int(params.batches["size"]), max(map(len, texts.tokens))
    padded = feeding.PaddedBatches(longer, texts.labels, batch, PADDED_TOKENS, texts.pad_id)
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


def _image_subject(split: ImageSplit, path: Path) -> Subject:
    write_images(path, split)
    params = read_section(Candidate, "train", "image", "cnn")
    trainer = read_section(TrainerParams, "train", "trainer")
    return Subject("image", "cnn", params, candidates.open_dataset("image", path), trainer.channels_last)


def _stock(split: ImageSplit, subject: Subject) -> Any:
    params = candidates.batch_params("image", subject.params.batches)
    return feeding.stock_loader(feeding.AugmentedImages(split.contents, split.labels, params), params.size)


def some_images(path: Path, count: int) -> ImageSplit:
    """Some of a prepared split, drawn evenly; the same ones each time."""
    split = read_images(path)
    rows = _some(len(split.labels), count)
    return ImageSplit(split.contents[rows], split.labels[rows], split.names)


def some_texts(path: Path, count: int) -> TextSplit:
    """Some of a prepared split, drawn evenly; the same ones each time."""
    split = read_texts(path)
    rows = _some(len(split.labels), count)
    texts, tokens = ([column[row] for row in rows] for column in (split.contents, split.tokens))
    return TextSplit(texts, tokens, split.labels[rows], split.names, split.vocabulary, split.pad_id)


def _cut_later(texts: TextSplit, contract: Path, tokenizer: Path) -> list[NDArray[np.int32]]:
    """The same texts with up to PADDED_TOKENS tokens; prepared ones may have lost some of theirs."""
    params = TextPreprocessing.model_validate_json(contract.read_bytes())
    longer = TextPreprocessor(params.model_copy(update={"max_tokens": PADDED_TOKENS}), tokenizer.read_bytes())
    return [text.array.astype(np.int32) for text in longer.prepare_all(list(texts.contents))]


def _some(total: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).permutation(total)[:count]


def main(
    check: Annotated[bool, typer.Option("--check", help="Fail where a goal is missed.")] = False,
    report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT,
) -> None:
    """Measure, write the report, and print a table."""
    content = machine.facts()
    try:
        results = measure(Size(), lambda task: paths.prepared(task, "train"), paths.contract("text"), paths.TOKENIZER)
    except FileNotFoundError as error:
        typer.echo(f"{error}; here that is `dvc repro {' '.join(map(stage_names.prepare, DATA_KINDS))}`", err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**content, "results": results})
    typer.echo(f"{table(results)}\nwritten: {report}")
    if check and any(result["met"] is False for result in results.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
