"""IDX and NPZ files give the images that were put into them, in the splits that their names say."""

import gzip
import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sources_of_users import params

from convoy.sources import arrays
from convoy.sources.items import Item, SourceRefused


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def pixels(item: Item) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(item.content)))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_the_pixels_of_an_npz_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = images(arrays.BLOCK + 3, *shape)
    labels = np.arange(len(content)) % 3
    np.savez_compressed(tmp_path / "set.npz", x_train=content, y_train=labels, x_test=content[:2], y_test=labels[:2])
    found = list(arrays.read(params(tmp_path / "set.npz")))
    assert Counter(item.split for item in found) == {"train": len(content), "test": 2}
    trained = [item for item in found if item.split == "train"]
    assert [item.label for item in trained] == [str(label) for label in labels]
    for item, image in zip(trained, content, strict=True):
        assert np.array_equal(pixels(item).reshape(shape), image)


@pytest.mark.parametrize("names", [("images", "labels"), ("data", "targets"), ("X", "Y")])
def test_usual_names_without_a_split_are_known(tmp_path: Path, names: tuple[str, str]) -> None:
    np.savez(tmp_path / "set.npz", **{names[0]: images(4, 3, 3), names[1]: np.array([[0], [1], [0], [1]])})
    assert [item.label for item in arrays.read(params(tmp_path / "set.npz"))] == ["0", "1", "0", "1"]


def test_validation_has_many_names(tmp_path: Path) -> None:
    parts = {f"{part}_images": images(2, 3, 3) for part in ("train", "val", "test")}
    np.savez(tmp_path / "set.npz", **parts, **{f"{part}_labels": np.array([0, 1]) for part in ("train", "val", "test")})
    found = list(arrays.read(params(tmp_path / "set.npz")))
    assert Counter(item.split for item in found) == {"train": 2, "validation": 2, "test": 2}
    assert {item.split for item in arrays.read(params(tmp_path / "set.npz", given_splits=False))} == {""}


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path: Path, packed: bool) -> None:
    content = images(3, 4, 4)
    for name, raw in {
        "train-images-idx3-ubyte": struct.pack(">4B3I", 0, 0, 8, 3, *content.shape) + content.tobytes(),
        "train-labels-idx1-ubyte": struct.pack(">4BI", 0, 0, 8, 1, 3) + bytes([2, 0, 1]),
    }.items():
        (tmp_path / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(raw) if packed else raw)
    found = list(arrays.read(params(tmp_path)))
    assert [(item.name, item.label, item.split) for item in found] == [
        ("train:0", "2", "train"),
        ("train:1", "0", "train"),
        ("train:2", "1", "train"),
    ]
    assert np.array_equal(pixels(found[1]), content[1])


def bad(path: Path, **content: np.ndarray) -> Path:
    np.savez(path, **content)
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"images": np.zeros((2, 3, 3)), "labels": np.zeros(2)}, "float64"),
        ({"images": images(2, 3, 3, 4), "labels": np.zeros(2)}, "expected are uint8 images"),
        ({"images": images(2, 3, 3), "labels": np.zeros(3)}, "one label per image is due"),
        ({"images": np.array([{}], dtype=object), "labels": np.zeros(1)}, "holds objects"),
        ({"pictures": images(2, 3, 3)}, "no pair of images and labels"),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_what_is_expected(
    tmp_path: Path, content: dict[str, np.ndarray], reason: str
) -> None:
    with pytest.raises(SourceRefused, match=reason):
        list(arrays.read(params(bad(tmp_path / "set.npz", **content))))


def test_files_that_end_too_early_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 9, 9, 9) + b"x")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 9) + bytes(9))
    with pytest.raises(SourceRefused, match="ends too early"):
        list(arrays.read(params(tmp_path)))
    (tmp_path / "set.npz").write_bytes(b"PK")
    with pytest.raises(SourceRefused, match="cannot be read"):
        list(arrays.read(params(tmp_path / "set.npz")))
