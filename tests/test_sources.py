"""A source is what its sha256 says, whichever way it came, and needs no network once it is cached."""

import csv
import gzip
import hashlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoy.core import atomic
from convoy.sources import fashion_mnist, imdb_reviews
from convoy.sources.download import SourceUnavailable, fetch_verified

CONTENT = b"the published file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def give(content: bytes):
    return lambda target: target.write_bytes(content)


def fail(_: Path) -> None:
    raise OSError("no route to host")


def test_the_first_way_that_yields_the_file_is_taken(tmp_path: Path) -> None:
    ways = [("a dead mirror", fail), ("a login page", give(b"<html>")), ("a good one", give(CONTENT))]
    fetch_verified("file", SHA256, ways, tmp_path / "raw" / "file")
    assert (tmp_path / "raw" / "file").read_bytes() == CONTENT


def test_what_is_cached_is_not_fetched_again(tmp_path: Path) -> None:
    fetch_verified("file", SHA256, [("once", give(CONTENT))], tmp_path / "one")
    fetch_verified("file", SHA256, [("never", fail)], tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == CONTENT


def test_a_damaged_cache_is_noticed_and_fetched_again(tmp_path: Path, cache: Path) -> None:
    fetch_verified("file", SHA256, [("once", give(CONTENT))], tmp_path / "one")
    (cache / "convoy" / SHA256 / "file").write_bytes(b"damaged")
    fetch_verified("file", SHA256, [("again", give(CONTENT))], tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == CONTENT


def test_when_no_way_works_the_error_lists_all_and_the_remedy_and_nothing_is_left(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(SourceUnavailable) as error:
        fetch_verified("file", SHA256, [("a mirror", fail), ("a page", give(b"<html>"))], tmp_path / "file")
    for words in ("no route to host", "a page", "sha256", str(cache / "convoy" / SHA256 / "file")):
        assert words in str(error.value)
    assert not (tmp_path / "file").exists()
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_fashion_mnist_is_read_from_its_idx_files_with_the_names_of_its_labels(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    content = {
        "images-idx3": struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28) + images.tobytes(),
        "labels-idx1": struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\x09\x00",
    }
    published = fashion_mnist.describe(Path("src/convoy/sources/fashion-mnist.yaml"))
    files = {f"{part}-{kind}-ubyte.gz": gzip.compress(content[kind]) for part in ("train", "t10k") for kind in content}
    for name, compressed in files.items():
        (tmp_path / name).write_bytes(compressed)
    sums = {name: hashlib.sha256(compressed).hexdigest() for name, compressed in files.items()}
    here = published.model_copy(update={"installed": tmp_path, "sha256": sums})
    found = list(fashion_mnist.items(here))
    assert [(item.split, item.label) for item in found] == [
        (split, label) for split in ("train", "test") for label in ("Ankle boot", "T-shirt/top")
    ]
    for item, image in zip(found[:2], images, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(item.content))), image)


def test_only_the_imdb_rows_are_read_with_their_line_breaks_and_quotes(tmp_path: Path, cache: Path) -> None:
    published = imdb_reviews.describe(Path("src/convoy/sources/imdb-reviews.yaml"))
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["text", "label", "source"])
    writer.writerows([['a "good"\nfilm<br />', "1", "imdb"], ["snippet", "1", "rotten_tomatoes"], ["bad", "0", "imdb"]])
    with zipfile.ZipFile(tmp_path / published.wheel, "w") as wheel:
        wheel.writestr(published.table, stream.getvalue())
    content = (tmp_path / published.wheel).read_bytes()
    here = published.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    atomic.write_bytes(cache / "convoy" / here.sha256 / here.wheel, content)
    found = list(imdb_reviews.items(here))
    assert [(item.content, item.label) for item in found] == [
        ('a "good"\nfilm<br />', "positive"),
        ("bad", "negative"),
    ]
