"""A folder of labels gives its items, and tells by name and reason of all that is none."""

import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from sources_of_users import lay, params, png, zipped

from convoy.sources import folders
from convoy.sources.items import Item, Rejection, SourceRefused


def test_the_files_of_a_label_are_its_items_also_in_folders_below(tmp_path: Path) -> None:
    lay(tmp_path, {"cat/1.png": png(1), "cat/more/2.png": png(2), "ca t é/3.jpg": png(3)})
    found = list(folders.read(params(tmp_path), "image"))
    assert [(item.name, item.label, item.split) for item in found] == [
        ("ca t é/3.jpg", "ca t é", ""),
        ("cat/1.png", "cat", ""),
        ("cat/more/2.png", "cat", ""),
    ]
    assert found[1].content == png(1)


def test_a_division_is_seen_and_may_be_passed_over(tmp_path: Path) -> None:
    lay(tmp_path, {f"{split}/{label}/1.txt": b"x" for split in ("Train", "val", "test") for label in ("a", "b")})
    given = list(folders.read(params(tmp_path), "text"))
    assert Counter(item.split for item in given) == {"train": 2, "validation": 2, "test": 2}
    assert {item.label for item in given} == {"a", "b"}
    anew = list(folders.read(params(tmp_path, given_splits=False), "text"))
    assert Counter((item.split, item.label) for item in anew) == {("", "a"): 3, ("", "b"): 3}


def test_labels_that_are_named_like_a_split_are_labels_where_nothing_is_held_out(tmp_path: Path) -> None:
    lay(tmp_path, {"train/1.txt": b"a locomotive", "plane/1.txt": b"wings"})
    assert {item.label for item in folders.read(params(tmp_path), "text")} == {"train", "plane"}


def test_the_official_reviews_are_read_without_their_unlabelled_half(tmp_path: Path) -> None:
    files = {f"{split}/{label}/0_9.txt": b"fine" for split in ("train", "test") for label in ("neg", "pos")}
    extra = {"train/unsup/0_0.txt": b"?", "README": b"read", "imdb.vocab": b"the", "train/labeledBow.feat": b"9 0:9"}
    lay(tmp_path, files | extra | {"train/urls_neg.txt": b"http"})
    found = list(folders.read(params(tmp_path, labels=("neg", "pos")), "text"))
    assert Counter((one.split, one.label) for one in found if isinstance(one, Item)) == {
        (split, label): 1 for split in ("train", "test") for label in ("neg", "pos")
    }
    left_out = {one.name: one.code for one in found if isinstance(one, Rejection)}
    assert left_out == {
        "README": "no_label",
        "imdb.vocab": "no_label",
        "train/labeledBow.feat": "no_label",
        "train/urls_neg.txt": "no_label",
        "train/unsup/0_0.txt": "label_not_wanted",
    }
    assert all(one.ignored for one in found if isinstance(one, Rejection))


def test_what_cannot_be_read_is_rejected_and_what_was_never_meant_is_ignored(tmp_path: Path) -> None:
    outside = lay(tmp_path / "outside", {"secret.txt": b"secret"})
    root = lay(tmp_path / "set", {"a/1.txt": b"x", "b/1.txt": b"x", "a/.DS_Store": b"x", "b/Thumbs.db": b"x"})
    lay(root, {"a/latin.txt": "schön".encode("latin-1"), "notes.md": b"x", "a/picture.png": png()})
    (root / "a" / "leak.txt").symlink_to(outside / "secret.txt")
    (root / "a" / "loop.txt").symlink_to("loop.txt")
    (root / "b" / "gone.txt").symlink_to("nowhere.txt")
    (root / "b" / "inside.txt").symlink_to(root / "a" / "1.txt")
    (root / "c").symlink_to(root / "a")
    found = list(folders.read(params(root), "text"))
    assert {one.name: one.code for one in found if isinstance(one, Rejection) and not one.ignored} == {
        "a/latin.txt": "encoding",
        "a/leak.txt": "unreadable",
        "a/loop.txt": "unreadable",
        "b/gone.txt": "unreadable",
    }
    ignored = {one.name: one.code for one in found if isinstance(one, Rejection) and one.ignored}
    assert ignored.pop("c") == "no_label"
    assert ignored == {
        "a/.DS_Store": "hidden",
        "b/Thumbs.db": "hidden",
        "notes.md": "no_label",
        "a/picture.png": "no_text_file",
    }
    assert {one.name for one in found if isinstance(one, Item)} == {"a/1.txt", "b/1.txt", "b/inside.txt"}
    assert "secret" not in str(found)


def test_another_encoding_is_read_where_it_is_stated(tmp_path: Path) -> None:
    lay(tmp_path, {"a/1.txt": "schön".encode("latin-1"), "b/1.txt": b"x"})
    found = list(folders.read(params(tmp_path, table={"encoding": "latin-1"}), "text"))
    assert found[0].content == "schön"


def test_a_label_without_a_usable_file_stops_with_its_name(tmp_path: Path) -> None:
    lay(tmp_path, {"a/1.txt": b"x", "b/1.txt": b"x", "empty/.DS_Store": b"x"})
    with pytest.raises(SourceRefused, match="no usable file in empty"):
        list(folders.read(params(tmp_path), "text"))


def test_a_path_that_is_nothing_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceRefused, match=r"gone does not exist; correct the path in params\.yaml"):
        list(folders.read(params(tmp_path / "gone"), "text"))
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(SourceRefused, match=r"a\.docx is neither a folder nor"):
        list(folders.read(params(tmp_path / "a.docx"), "text"))


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_a_label_whose_files_are_all_unreadable_stops_with_its_name(tmp_path: Path, suffix: str) -> None:
    files = {"set/a/1.txt": b"x", "set/b/1.txt": b"x", "set/bad/1.txt": b"\xff", "set/bad/more/2.txt": b"\xff"}
    path = packed(tmp_path / f"set{suffix}", files) if suffix else lay(tmp_path, files) / "set"
    with pytest.raises(
        SourceRefused, match=r"no usable file in bad \(bad/1\.txt: not utf-8: byte 0xff at 0\) \(of 1\)"
    ):
        list(folders.read(params(path), "text"))


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """An archive with these members in their order; a name that ends in / is a folder's."""
    if path.suffix == ".zip":
        return zipped(path, files)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE, len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_folders_of_an_archive_may_follow_their_files(tmp_path: Path, suffix: str) -> None:
    files = {"set/a/1.txt": b"x", "set/b/1.txt": b"x", "set/b/": b"", "set/a/": b"", "set/": b""}
    assert len(list(folders.read(params(packed(tmp_path / f"set{suffix}", files)), "text"))) == 2
    path = packed(tmp_path / f"empty{suffix}", files | {"set/c/": b""})
    with pytest.raises(SourceRefused, match="no usable file in c"):
        list(folders.read(params(path), "text"))


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("root", ["./", "./pictures/", "pictures/", ".//pictures/"])
def test_the_folder_that_was_packed_is_no_label(tmp_path: Path, suffix: str, root: str) -> None:
    files = {f"{root}cat/1.txt": b"x", f"{root}dog/1.txt": b"x"}
    if suffix == ".tar":
        files = {"./": b"", root: b"", f"{root}cat/": b"", f"{root}dog/": b""} | files
    found = list(folders.read(params(packed(tmp_path / f"set{suffix}", files)), "text"))
    assert [(one.name, one.label) for one in found] == [("cat/1.txt", "cat"), ("dog/1.txt", "dog")]


def test_one_file_under_two_spellings_of_its_name_is_there_twice(tmp_path: Path) -> None:
    path = packed(tmp_path / "set.tar", {"set/a/1.txt": b"x", "./set/a/1.txt": b"y", "set/b/1.txt": b"x"})
    with pytest.raises(SourceRefused, match=r"'set/a/1\.txt' is there twice"):
        list(folders.read(params(path), "text"))
