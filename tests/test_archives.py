"""Archives of strangers are refused by name and reason, or read without a file ever being unpacked."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sources_of_users import lay, params, zipped

from convoy.sources import folders
from convoy.sources.items import Item, SourceRefused

GOOD = {"set/cat/1.txt": b"meow", "set/dog/1.txt": b"woof"}


def tarred(path: Path, change: Callable[[tarfile.TarFile], None] = lambda _: None, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in GOOD.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        change(archive)
    return path


def special(name: str, kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)

    return add


def file(name: str, content: bytes = b"x") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    return add


def read(path: Path) -> list[Item]:
    return [one for one in folders.read(params(path), "text") if isinstance(one, Item)]


def zip_of(path: Path, entry: zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, good in GOOD.items():
            archive.writestr(name, good)
        archive.writestr(entry, content)
    return path


def symlink(path: Path) -> Path:
    entry = zipfile.ZipInfo("set/cat/link.txt")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zip_of(path, entry, b"/etc/passwd")


def encrypted(path: Path) -> Path:
    zipped(path, GOOD)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(mark)
        content[start + offset] |= 1
    path.write_bytes(content)
    return path


def damaged(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, good in GOOD.items():
            archive.writestr(name, good)
    path.write_bytes(path.read_bytes().replace(b"meow", b"meOw"))
    return path


def nul(path: Path) -> Path:
    zipped(path, GOOD | {"set/cat/2.txt#.exe": b"x"})
    path.write_bytes(path.read_bytes().replace(b"2.txt#", b"2.txt\0"))
    return path


def doubled(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for name in ("set/cat/1.txt", "set/dog/1.txt", "set/cat/1.txt"):
            archive.writestr(name, b"x")
    return path


def cut_short(path: Path) -> Path:
    content = tarred(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


HOSTILE: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "dots": (".tar.gz", lambda p: tarred(p, file("set/../../out.txt")), "lead out"),
    "absolute": (".tar", lambda p: tarred(p, file("/tmp/out.txt"), "w"), "lead out"),
    "drive": (".tar.gz", lambda p: tarred(p, file("C:/out.txt")), "lead out"),
    "backslash": (".tar.bz2", lambda p: tarred(p, file("set\\..\\out.txt"), "w:bz2"), "lead out"),
    "dots in zip": (".zip", lambda p: zipped(p, GOOD | {"../out.txt": b"x"}), "lead out"),
    "absolute in zip": (".zip", lambda p: zipped(p, GOOD | {"/out.txt": b"x"}), "lead out"),
    "backslash in zip": (".zip", lambda p: zipped(p, GOOD | {"..\\out.txt": b"x"}), "lead out"),
    "nul in zip": (".zip", nul, "lead out"),
    "link": (".tar.gz", lambda p: tarred(p, special("set/cat/l", tarfile.SYMTYPE, "/etc/passwd")), "a link"),
    "link within": (".tar.gz", lambda p: tarred(p, special("set/cat/l", tarfile.SYMTYPE, "1.txt")), "a link"),
    "hard link": (".tar.gz", lambda p: tarred(p, special("set/cat/l", tarfile.LNKTYPE, "/etc/passwd")), "a link"),
    "device": (".tar.gz", lambda p: tarred(p, special("set/cat/d", tarfile.CHRTYPE)), "a device"),
    "block device": (".tar.gz", lambda p: tarred(p, special("set/cat/d", tarfile.BLKTYPE)), "a device"),
    "pipe": (".tar.gz", lambda p: tarred(p, special("set/cat/p", tarfile.FIFOTYPE)), "a device"),
    "link in zip": (".zip", symlink, "a link"),
    "bomb": (".zip", lambda p: zipped(p, GOOD | {"set/cat/b.txt": bytes(50_000_000)}), "a bomb"),
    "tar bomb": (".tar.gz", lambda p: tarred(p, file("set/cat/b.txt", bytes(50_000_000))), "a bomb"),
    "xz bomb": (".tar.xz", lambda p: tarred(p, file("set/cat/b.txt", bytes(50_000_000)), "w:xz"), "a bomb"),
    "encrypted": (".zip", encrypted, "encrypted"),
    "wrong checksum": (".zip", damaged, "damaged"),
    "twice": (".zip", doubled, "twice"),
    "twice in tar": (".tar.gz", lambda p: tarred(p, file("set/cat/1.txt")), "twice"),
    "cut short": (".tar.gz", cut_short, "damaged"),
    "no archive": (".zip", lambda p: lay(p.parent, {p.name: b"<html>not found</html>"}) / p.name, "damaged"),
    "empty file": (".tar.gz", lambda p: lay(p.parent, {p.name: b""}) / p.name, "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_archive_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    suffix, make, reason = HOSTILE[name]
    path = make(tmp_path / f"archive{suffix}")
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(SourceRefused, match=reason) as refused:
        read(path)
    assert str(path) in str(refused.value)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_every_kind_of_archive_gives_what_its_folder_gives(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"archive{suffix}"
    kinds = {".tar": "w", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
    if suffix == ".zip":
        zipped(path, GOOD)
    else:
        tarred(path, mode=kinds.get(suffix, "w:gz"))
    assert read(path) == read(lay(tmp_path / "folder", GOOD) / "set")
