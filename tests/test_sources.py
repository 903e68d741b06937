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


def test_fashion_mnist_is_read_from_its_idx_files(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
    header = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 2) + b"\x09\x00")
    )
    found, labels = fashion_mnist.read(tmp_path, "train")
    assert np.array_equal(found, images)
    assert [fashion_mnist.LABELS[label] for label in labels] == ["Ankle boot", "T-shirt/top"]


def test_only_the_imdb_rows_are_read_with_their_line_breaks_and_quotes(tmp_path: Path) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["text", "label", "source"])
    writer.writerows([['a "good"\nfilm<br />', "1", "imdb"], ["snippet", "1", "rotten_tomatoes"], ["bad", "0", "imdb"]])
    with zipfile.ZipFile(tmp_path / imdb_reviews.WHEEL, "w") as wheel:
        wheel.writestr(imdb_reviews.TABLE, stream.getvalue())
    texts, labels = imdb_reviews.read(tmp_path)
    assert texts == ['a "good"\nfilm<br />', "bad"]
    assert [imdb_reviews.LABELS[label] for label in labels] == ["positive", "negative"]
