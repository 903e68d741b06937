"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): four verified IDX files -> items."""

import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from convoy.core.params import Section, read_section
from convoy.sources.arrays import read_pair
from convoy.sources.download import Way, fetch_verified
from convoy.sources.items import Item, ItemsAndRejections, SourceParams


class Publication(Section):
    """The content of fashion-mnist.yaml: where the four files are, their sha256, and the names of their labels."""

    labels: tuple[str, ...]
    installed: Path
    package: str
    home: str
    sha256: dict[str, str]


def describe(path: Path) -> Publication:
    """Read the file at `path`. Raises ParamsInvalid where it is another kind of file."""
    return read_section(Publication, path=path)


def label_order(params: SourceParams) -> tuple[str, ...]:
    """The labels as they were published."""
    return describe(params.path).labels


def read(params: SourceParams, kind: str) -> ItemsAndRejections:
    """The official train and test split. Raises ParamsInvalid where the path is another kind of file."""
    return items(describe(params.path))


def items(published: Publication) -> ItemsAndRejections:
    """The official train and test split."""
    with tempfile.TemporaryDirectory() as scratch:
        fetch(published, Path(scratch, "verified"))
        for split, part in (("train", "train"), ("test", "t10k")):
            files = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
            for item in read_pair(Path(scratch, "verified"), *files, split, split):
                assert isinstance(item, Item)
                yield replace(item, label=published.labels[int(item.label)])


def fetch(published: Publication, folder: Path) -> None:
    """Put the four files into `folder`: from Debian's package, installed or downloaded, else from the authors' site."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, sha256 in published.sha256.items():
            ways: list[Way] = [
                (f"the installed package {published.package}", _copy_from(published.installed / name)),
                (f"Debian's package {published.package}", _copy_from_package(Path(scratch), published, name)),
                (published.home + name, _download(published.home + name)),
            ]
            fetch_verified(name, sha256, ways, folder / name)


def _copy_from(source: Path) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        shutil.copyfile(source, target)

    return copy


def _copy_from_package(scratch: Path, published: Publication, name: str) -> Callable[[Path], None]:
    def copy(target: Path) -> None:
        unpacked = scratch / "unpacked"
        if not unpacked.exists():
            _download_package(scratch, published.package)
            (package,) = scratch.glob("*.deb")
            _run("dpkg-deb", "-x", package.name, unpacked.name, folder=scratch)
        shutil.copyfile(unpacked / published.installed.relative_to("/") / name, target)

    return copy


def _download_package(scratch: Path, package: str) -> None:
    try:
        _run("apt-get", "download", "-q", package, folder=scratch)
    except OSError:
        # No package lists yet: fetch them into a folder of our own, which needs no root.
        lists = scratch / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::lists={lists}", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
        _run("apt-get", *options, "update", "-q", folder=scratch)
        _run("apt-get", *options, "download", "-q", package, folder=scratch)


def _run(*command: str, folder: Path) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if result.returncode != 0:
        raise OSError(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"{command[0]} failed")


def _download(url: str) -> Callable[[Path], None]:
    def download(target: Path) -> None:
        with urllib.request.urlopen(url, timeout=60) as response, target.open("wb") as stream:
            shutil.copyfileobj(response, stream)

    return download
