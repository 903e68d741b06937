"""IDX and NPZ files give the images that were put into them, in the splits that their names say."""

import gzip
import io
import struct
import zipfile
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


def idx(content: np.ndarray) -> bytes:
    kind = {"u1": 8, "i1": 9, "i2": 11, "i4": 12}[content.dtype.str[1:]]
    return struct.pack(f">4B{content.ndim}I", 0, 0, kind, content.ndim, *content.shape) + content.tobytes()


def idx_files(folder: Path, *parts: str, suffix: str = "") -> Path:
    """A pair of IDX files of three images per part of a division."""
    for part in parts:
        for name, content in (("images-idx3", images(3, 4, 4)), ("labels-idx1", np.arange(3, dtype=np.uint8))):
            raw = idx(content)
            (folder / f"{part}-{name}-ubyte{suffix}").write_bytes(gzip.compress(raw, 0) if suffix else raw)
    return folder


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_idx_files_are_read_to_their_checksum_and_hold_nothing_more_than_they_say(tmp_path: Path, kind: str) -> None:
    path = idx_files(tmp_path, "train", suffix=".gz") / f"train-{kind}-ubyte.gz"
    raw = gzip.decompress(path.read_bytes())
    flipped = bytearray(gzip.compress(raw, 0))
    flipped[flipped.rfind(raw[-3:])] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(SourceRefused, match=rf"train-{kind}-ubyte\.gz is damaged: CRC check failed"):
        list(arrays.read(params(tmp_path)))
    path.write_bytes(gzip.compress(raw + b"x"))
    with pytest.raises(SourceRefused, match=rf"train-{kind}-ubyte\.gz goes on after"):
        list(arrays.read(params(tmp_path)))
    path.write_bytes(gzip.compress(raw))
    assert len(list(arrays.read(params(tmp_path)))) == 3


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_split_of_idx_files_stands_anywhere_in_their_names(tmp_path: Path, suffix: str) -> None:
    idx_files(tmp_path, "emnist-balanced-train", "emnist-balanced-test", suffix=suffix)
    (tmp_path / "emnist-balanced-mapping.txt").write_text("0 48\n")
    assert Counter(item.split for item in arrays.read(params(tmp_path))) == {"train": 3, "test": 3}


def test_an_idx_file_that_would_be_left_out_is_named(tmp_path: Path) -> None:
    def refused(*names: str) -> None:
        with pytest.raises(SourceRefused) as error:
            list(arrays.read(params(tmp_path)))
        assert all(name in str(error.value) for name in names), error.value

    idx_files(tmp_path, "emnist-letters-train", "emnist-digits-train")
    refused("emnist-letters-train-images-idx3-ubyte", "emnist-digits-train-images-idx3-ubyte", "'train'")
    for file in tmp_path.glob("emnist-digits*"):
        file.unlink()
    idx_files(tmp_path, "emnist-letters-train", suffix=".gz")
    refused("emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-images-idx3-ubyte.gz")
    (tmp_path / "emnist-letters-train-images-idx3-ubyte.gz").unlink()
    refused("emnist-letters-train-labels-idx1-ubyte", "emnist-letters-train-labels-idx1-ubyte.gz")
    (tmp_path / "emnist-letters-train-labels-idx1-ubyte.gz").unlink()
    assert len(list(arrays.read(params(tmp_path)))) == 3
    idx_files(tmp_path, "t10k")
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    refused("t10k-labels-idx1-ubyte")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("train_images", "train_labels", "x_train", "y_train"), ("train_images", "x_train")),
        (("x_train", "y_train", "x_training", "y_training"), ("x_train", "x_training", "'train'")),
        (("x_train", "y_train", "x_test"), ("x_test",)),
        (("x_train", "y_train", "y_test"), ("y_test",)),
        (("x", "y", "Y"), ("y", "Y")),
    ],
)
def test_an_array_that_would_be_left_out_is_named(
    tmp_path: Path, names: tuple[str, ...], told: tuple[str, ...]
) -> None:
    content = {
        name: np.arange(3) if name.startswith(("y", "Y")) or "labels" in name else images(3, 4, 4) for name in names
    }
    with pytest.raises(SourceRefused) as error:
        list(arrays.read(params(bad(tmp_path / "set.npz", **content))))
    assert all(name in str(error.value) for name in told)


def test_labels_are_named_as_those_of_tables_are(tmp_path: Path) -> None:
    def read(labels: np.ndarray) -> list[str]:
        found = arrays.read(params(bad(tmp_path / "set.npz", images=images(len(labels), 4, 4), labels=labels)))
        return [item.label if isinstance(item, Item) else item.code for item in found]

    assert read(np.array([b"cat", b"sch\xc3\xb6n", b"\xff", b" "])) == ["cat", "schön", "no_label", "no_label"]
    assert read(np.array([1.0, 0.5, np.nan])) == ["1", "0.5", "no_label"]
    assert read(np.array(["cat", "dog", ""])) == ["cat", "dog", "no_label"]
    assert read(np.array([True, False])) == ["True", "False"]
    for strange in (np.array([1j, 2]), np.array(["2024-01-01"], dtype="M8[D]"), np.array([(1, 2)], dtype="i4,i4")):
        with pytest.raises(SourceRefused, match="expected are names or numbers"):
            read(strange)


def test_a_header_that_promises_more_than_is_there_is_refused_before_it_is_believed(tmp_path: Path) -> None:
    most = (1 << 32) - 1
    for suffix in ("", ".gz"):
        for sizes in ((most, most, most), (most, 28, 28), (3, most, most), (3, 0, 4), (most,) * 255):
            idx_files(tmp_path, "train", suffix=suffix)
            raw = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes) + bytes(48)
            path = tmp_path / f"train-images-idx3-ubyte{suffix}"
            path.write_bytes(gzip.compress(raw) if suffix else raw)
            with pytest.raises(SourceRefused, match=path.name):
                list(arrays.read(params(tmp_path)))
            for file in tmp_path.iterdir():
                file.unlink()


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(shape: str, content: bytes = b"", kind: str = "|u1") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header + content


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        (npy("(-1, 2, 2)"), npy("(-1,)")),
        (npy("(1, 2, 2)", bytes(5)), npy("(1,)", bytes(1))),
        (npy("(1, 2, 2)", bytes(4)), npy("(1,)", bytes(2))),
        (npy(f"({10**30}, 2, 2)"), npy(f"({10**30},)")),
        (npy("(1, 2, 2)", bytes(4)), npy("(1,)", bytes(40_000_000), "<U10000000")),
        (npy("(1, 2, 2)", bytes(4)), npy("(1,)", b"\xff\xff\xff\x7f", "<U1")),
        (npy("(1, 2, 2)", bytes(4)), npy("(1,)", b"x", "|S0")),
        (npy("(((((" * 500), b""),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff" + b" " * 20_000, npy("(1,)", bytes(1))),
        (npy("(100_000, 28, 28)", bytes(78_400_000)), npy("(100_000,)", bytes(100_000))),
    ],
    ids=[
        "negative",
        "too long",
        "labels too long",
        "huge",
        "huge labels",
        "no character",
        "nothing",
        "deep",
        "long",
        "bomb",
    ],
)
def test_an_npz_whose_header_lies_is_refused(tmp_path: Path, pictures: bytes, labels: bytes) -> None:
    with pytest.raises(SourceRefused, match=r"set\.npz"):
        list(arrays.read(params(npz(tmp_path / "set.npz", images=pictures, labels=labels))))


def test_an_idx_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    idx_files(tmp_path, "train", suffix=".gz")
    raw = struct.pack(">4B3I", 0, 0, 8, 3, 100_000, 28, 28) + bytes(78_400_000)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(SourceRefused, match="a bomb"):
        list(arrays.read(params(tmp_path)))


def test_large_images_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 100)
    path = bad(tmp_path / "set.npz", images=images(7, 5, 8), labels=np.arange(7))
    found = list(arrays.read(params(path)))
    assert all(np.array_equal(pixels(one), image) for one, image in zip(found, images(7, 5, 8), strict=True))
    monkeypatch.setattr(arrays, "MAX_FILE_BYTES", 39)
    with pytest.raises(SourceRefused, match="of 40 bytes each"):
        list(arrays.read(params(path)))


def test_damage_inside_a_packed_array_is_refused(tmp_path: Path) -> None:
    path = idx_files(tmp_path, "train", suffix=".gz") / "train-images-idx3-ubyte.gz"
    content = bytearray(gzip.compress(idx(images(3, 4, 4))))
    content[10] = 0xFF  # no kind of a block of deflate
    path.write_bytes(content)
    with pytest.raises(SourceRefused, match=r"train-images-idx3-ubyte\.gz is damaged"):
        list(arrays.read(params(tmp_path)))
