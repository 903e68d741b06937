"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): four verified IDX files -> arrays and label names."""

import gzip
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from convoy.sources.download import Way, fetch_verified

LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
PACKAGE = "dataset-fashion-mnist"
HOME = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"


def fetch(folder: Path) -> None:
    """Put the four files into `folder`: from Debian's package, installed or downloaded, else from the set's home."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, sha256 in SHA256.items():
            ways: list[Way] = [
                (f"the installed package {PACKAGE}", _copy_from(INSTALLED / name)),
                (f"Debian's package {PACKAGE}", _copy_from_package(Path(scratch), name)),
                (HOME + name, _download(HOME + name)),
            ]
            fetch_verified(name, sha256, ways, folder / name)


def read(folder: Path, part: Literal["train", "t10k"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) uint8, light on dark, and labels (n,) as indices of LABELS."""
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    return images, labels.astype(np.int64)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]  # IDX: two zero bytes, the type (8 is uint8), the number of dimensions, their sizes
    shape = np.frombuffer(content, dtype=">u4", count=dimensions, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _copy_from(source: Path) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        shutil.copyfile(source, target)

    return copy


def _copy_from_package(scratch: Path, name: str) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        unpacked = scratch / "unpacked"
        if not unpacked.exists():
            _download_package(scratch)
            (package,) = scratch.glob("*.deb")
            _run("dpkg-deb", "-x", package.name, unpacked.name, folder=scratch)
        shutil.copyfile(unpacked / INSTALLED.relative_to("/") / name, target)

    return copy


def _download_package(scratch: Path) -> None:
    try:
        _run("apt-get", "download", "-q", PACKAGE, folder=scratch)
    except OSError:
        # No package lists yet: fetch them into a folder of our own, which needs no root.
        lists = scratch / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        own = ["-o", f"Dir::State::lists={lists}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
        _run("apt-get", *own, "update", "-q", folder=scratch)
        _run("apt-get", *own, "download", "-q", PACKAGE, folder=scratch)


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{command[0]} failed")


def _download(url: str) -> Callable[[Path], None]:
    def download(target: Path) -> None:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as stream:
            shutil.copyfileobj(answer, stream)

    return download
