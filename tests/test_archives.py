"""Archives of strangers are refused by name and reason, or read without a file ever being unpacked."""

import bz2
import gc
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sources_of_users import lay, params, zipped

from convoy.sources import archives, folders
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


@pytest.mark.process
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


def many(path: Path, count: int = 20) -> bytes:
    """A tar of so many texts of 1,024 bytes under two labels, so that each takes three blocks."""
    with tarfile.open(path, "w:", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(count):
            file(f"set/{'cat' if number % 2 else 'dog'}/{number}.txt", b"meow" * 256)(archive)
    return path.read_bytes()


HEADER = 10 * 3 * 512  # where the eleventh of them begins


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize(
    "hurt",
    [
        lambda whole: whole[: HEADER + 150] + bytes([whole[HEADER + 150] ^ 1]) + whole[HEADER + 151 :],
        lambda whole: whole[: HEADER + 200],
        lambda whole: whole[:HEADER],
        lambda whole: whole[:HEADER] + whole,
        lambda whole: whole + whole,
    ],
    ids=["a flipped bit in a header", "cut inside a header", "cut before a header", "no end", "one after the other"],
)
def test_a_tar_that_loses_its_later_members_is_refused(
    tmp_path: Path, suffix: str, hurt: Callable[[bytes], bytes]
) -> None:
    whole = many(tmp_path / "whole.tar")
    pack = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress}[suffix]
    (tmp_path / f"whole{suffix}").write_bytes(pack(whole))
    assert len(read(tmp_path / f"whole{suffix}")) == 20
    (tmp_path / f"hurt{suffix}").write_bytes(pack(hurt(whole)))
    with pytest.raises(SourceRefused, match=rf"hurt\{suffix}"):
        read(tmp_path / f"hurt{suffix}")


def test_what_a_compressed_tar_says_of_its_own_bytes_is_checked_to_its_end(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(many(tmp_path / "whole.tar"), compresslevel=0))
    packed[packed.find(b"meow", 10 + HEADER)] ^= 1  # the checksum of a tar's header does not cover its content
    (tmp_path / "flipped.tar.gz").write_bytes(packed)
    with pytest.raises(SourceRefused, match=r"flipped\.tar\.gz is damaged: CRC check failed"):
        read(tmp_path / "flipped.tar.gz")
    for pack, suffix in ((bz2.compress, ".tar.bz2"), (lzma.compress, ".tar.xz")):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(pack(many(tmp_path / "whole.tar"))[:-3])
        with pytest.raises(SourceRefused, match="damaged"):
            read(path)


def refused_in_little_memory(path: Path, reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SourceRefused, match=reason):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("crc", [zlib.crc32(b""), zlib.crc32(bytes(10))], ids=["wrong checksum", "checksum of a part"])
def test_a_zip_whose_directory_lies_about_a_size_takes_no_memory(tmp_path: Path, crc: int) -> None:
    path = zipped(tmp_path / "lie.zip", GOOD | {"set/cat/b.txt": bytes(60_000_000)})
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("set/cat/b.txt")
    told = struct.pack("<LLL", entry.CRC, entry.compress_size, entry.file_size)
    path.write_bytes(path.read_bytes().replace(told, struct.pack("<LLL", crc, entry.compress_size, 10)))
    refused_in_little_memory(path, r"lie\.zip.*(damaged|unpacks to)")


def test_a_zip_of_a_method_that_unpacks_without_bound_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("set/cat/1.txt", b"meow")
    with pytest.raises(SourceRefused, match="packed by another method than deflate"):
        read(tmp_path / "set.zip")


def long_header(kind: bytes, size: int, count: int = 1) -> Callable[[tarfile.TarFile], None]:
    """Before each of so many files a header of its name, or of pax records, that is so long."""

    def add(archive: tarfile.TarFile) -> None:
        for number in range(count):
            header = tarfile.TarInfo("././@LongLink")
            header.type, header.size = kind, size
            record = b"set/cat/%d.txt" % number
            if kind != tarfile.GNUTYPE_LONGNAME:
                record = b"%d comment=" % size
            archive.addfile(header, io.BytesIO(record + b"x" * (size - len(record) - 1) + b"\n"))
            file(f"set/cat/{number}n.txt")(archive)

    return add


def sparse_map(archive: tarfile.TarFile) -> None:
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n31 GNU.sparse.name=set/cat/b.t\n"
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    archive.addfile(header, io.BytesIO(records))
    file("set/cat/b.txt", b"9000000\n" + b"1\n" * 1_500_000)(archive)


@pytest.mark.process
@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (long_header(tarfile.GNUTYPE_LONGNAME, 50_000_000), "a header of over"),
        (long_header(tarfile.XHDTYPE, 50_000_000), "a header of over"),
        (long_header(tarfile.XGLTYPE, 50_000_000), "a header of over"),
        (long_header(tarfile.GNUTYPE_LONGNAME, 600_000, 40), "a bomb"),
        (long_header(tarfile.XGLTYPE, 600_000, 40), "a bomb"),
        (sparse_map, "a header of over"),
    ],
    ids=["a name", "pax records", "global records", "many names", "many records", "a map of what is sparse"],
)
def test_headers_of_a_tar_are_bounded_like_its_files(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None], reason: str
) -> None:
    tarred(tmp_path / "archive.tar.gz", add)
    refused_in_little_memory(tmp_path / "archive.tar.gz", reason)


def test_a_size_below_zero_is_no_way_back_in_a_tar(tmp_path: Path) -> None:
    path = tmp_path / "back.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, size in (("set/cat/1.txt", 0), ("set/dog/1.txt", -1024)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member)
    with pytest.raises(SourceRefused, match=r"'set/dog/1\.txt' is .* damaged"):
        read(path)


def test_of_the_headers_of_a_tar_few_are_in_memory_at_once(tmp_path: Path) -> None:
    many(tmp_path / "set.tar", 200)
    for headers in (archives._read_headers(tmp_path / "set.tar"), archives.tar_members(tmp_path / "set.tar")):
        for _ in range(150):
            next(headers)
        assert sum(type(one) is tarfile.TarInfo for one in gc.get_objects()) < 10
        headers.close()


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_damage_inside_packed_bytes_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    noise = {f"set/{label}/{number}.txt": random.Random(number).randbytes(9_000) for label in "ab" for number in "123"}
    path = tmp_path / f"set{suffix}"
    if suffix == ".zip":
        zipped(path, noise)
    else:
        with tarfile.open(path, {".tar.gz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}[suffix]) as archive:
            for name, content in noise.items():
                file(name, content)(archive)
    whole = path.read_bytes()
    for part in range(1, 10):
        start = len(whole) * part // 10
        path.write_bytes(whole[:start] + b"\xff" * 40 + whole[start + 40 :])
        with pytest.raises(SourceRefused, match=rf"set\{suffix} is damaged"):
            read(path)


@pytest.mark.parametrize("comment", [b"", b"PK", b"c" * 65_535])
def test_a_zip_of_whose_directory_a_part_was_taken_for_a_comment_is_refused(tmp_path: Path, comment: bytes) -> None:
    path = zipped(tmp_path / "set.zip", {f"set/{label}/{number}.txt": b"x" for label in "ab" for number in range(9)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
    assert len(read(path)) == 18
    content = bytearray(path.read_bytes())
    length = content.find(b"PK\1\2", content.find(b"PK\1\2") + 1) + 32  # of the second member's comment
    content[length + 1] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(SourceRefused, match="it tells of 18 members, 2 are found"):
        read(path)


@pytest.mark.process
def test_a_zip_may_hold_more_members_than_its_last_record_can_count(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", {f"{number % 2}/{number}.txt": b"" for number in range(65_537)})
    assert len(archives.refuse_hostile(path)) == 65_537


def test_a_tar_that_ends_with_a_zip_is_read_as_tar(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"set/lion/1.txt": b"roar"}).read_bytes()
    path = tarred(tmp_path / "set.tar", file("set/.archive.zip", inner), "w")
    assert zipfile.is_zipfile(path)  # Python's own answer, by the last 64 KB
    assert {item.label for item in read(path)} == {"cat", "dog"}
    path.write_bytes(tarred(path, mode="w").read_bytes() + inner)
    with pytest.raises(SourceRefused, match="goes on after the end of its tar"):
        read(path)
