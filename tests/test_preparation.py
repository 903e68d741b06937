"""Every file that is no usable image, and every text that serving would refuse, is told by name; the rest is kept."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from image_files import encode
from PIL import Image
from sources_of_users import png

from convoy.core import paths
from convoy.data import raw
from convoy.data.report import DataRefused
from convoy.data.splits import DivisionRefused
from convoy.kinds.image.items.preprocessing import ImagePreprocessing, ImagePreprocessor
from convoy.kinds.image.preparing import preparation as images
from convoy.kinds.text.items.preprocessing import TextPreprocessing
from convoy.kinds.text.preparing import preparation as texts
from convoy.sources.items import Item
from pipelines import fetch, prepare

DATA = {"image": "fashion", "text": "reviews"}  # the packaged data set of each kind
CONTRACT = ImagePreprocessing(kind="image", size_px=8, channels=3, fit="pad", polarity="any", max_pixels=1_000_000)


def saved(form: str, mode: str = "RGB", size: tuple[int, int] = (20, 10), **options: object) -> bytes:
    return encode(Image.new(mode, size, 1 if mode == "1" else 0), form, **options)


GOOD = {
    "grey.png": png(1, mode="L"),
    "colour.png": png(2),
    "clear.png": png(3, mode="RGBA"),
    "palette.png": saved("PNG", "P"),
    "bits.png": saved("PNG", "1"),
    "sixteen.png": saved("PNG", "I;16"),
    "cmyk.jpg": saved("JPEG", "CMYK"),
    "really a jpeg.png": saved("JPEG"),
    "moving.png": saved("PNG", save_all=True, append_images=[Image.new("RGB", (20, 10))]),
    "turned.jpg": saved("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "picture.webp": saved("WEBP"),
    "thin.png": saved("PNG", size=(1, 900)),
    f"{'n' * 200}.png": png(4),
    "ünï💥.png": png(5),
}
BAD = {
    "empty.png": b"",
    "words.png": b"not an image",
    "page.jpg": b"<html><body>404</body></html>",
    "cut.png": png(6, (60, 60))[:300],
    "head.jpg": saved("JPEG")[:40],
    "gif.png": saved("GIF", "P"),
    "tiff.png": saved("TIFF"),
    "bomb.png": saved("PNG", "1", (1_001, 1_000)),
}


def write(folder: Path, files: dict[str, bytes]) -> raw.RawItems:
    def items() -> Iterator[Item]:
        for index, (name, content) in enumerate(sorted(files.items())):
            yield Item(name, "ab"[index % 2], "", content)

    raw.write(folder, "files", "image", items(), None)
    return raw.RawItems(folder)


def prepared(raw_items: raw.RawItems, contract: ImagePreprocessing, folder: Path) -> images.Preparation:
    return images.Preparation(raw_items, images.Params(preprocessing=contract), folder)


def test_every_planted_bad_file_is_found_with_its_reason_and_every_good_one_kept(tmp_path: Path) -> None:
    found = prepared(write(tmp_path / "raw", GOOD | BAD), CONTRACT, tmp_path)
    names = sorted(GOOD | BAD)
    assert {names[row] for row, _ in found.rejected} == set(BAD)
    assert {error.code for _, error in found.rejected} == {"undecodable_image", "image_too_large"}
    assert {names[row] for row in found.rows} == set(GOOD)
    assert len(found.keys) == len(found.facts.modes) == len(found.facts.widths) == len(found.pixels) == len(GOOD)


def test_training_sees_what_serving_makes_of_the_same_bytes(tmp_path: Path) -> None:
    found = prepared(write(tmp_path / "raw", GOOD), CONTRACT, tmp_path)
    preprocessor = ImagePreprocessor(CONTRACT)
    for pixels, (_, encoded) in zip(found.pixels, sorted(GOOD.items()), strict=True):
        assert np.array_equal(pixels, preprocessor.prepare(encoded).array)


def test_scratch_files_have_no_name_and_are_gone_with_the_process(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    found = prepared(write(tmp_path / "raw", GOOD), CONTRACT, scratch)
    gathered = images.gather(found.pixels, np.array([2, 0, 2]), scratch)
    assert np.array_equal(gathered, found.pixels[[2, 0, 2]])
    assert list(scratch.iterdir()) == []


GATHER = """
import sys
from pathlib import Path
import numpy as np
from convoy.core import stage
from convoy.kinds.image.preparing.preparation import gather
stage.run(lambda: gather(np.ones((3, 1000, 1000, 1), np.uint8), np.arange(3), Path(sys.argv[1])) and None)
"""


@pytest.mark.process
def test_scratch_files_on_a_disk_that_is_too_small_are_one_line_and_not_a_signal(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # In a mount namespace of its own, so that nothing stays mounted.
    mount = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    mount += ['mount -t tmpfs -o size=1m none "$0" && exec "$@"', str(disk)]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no tmpfs be mounted")
    path = os.pathsep.join(str(Path(folder).resolve()) for folder in ("src", "."))
    done = subprocess.run(
        [*mount, sys.executable, "-c", GATHER, str(disk)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert f"{disk}: No space left on device, 3,000,000 bytes are needed; free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_texts_that_serving_would_refuse_are_told(tmp_path: Path) -> None:
    said = {"good": "fine", "blank": " \n\t", "long": "x" * 101, "emoji": "💥", "empty": ""}
    raw.write(tmp_path / "raw", "notes", "text", (Item(name, name[0], "", text) for name, text in said.items()), None)
    contract = TextPreprocessing(kind="text", max_tokens=9, head_tokens=3, max_characters=100, pad_id=0, unknown_id=1)
    params = texts.Params(vocabulary_size=100, preprocessing=contract)
    items = raw.RawItems(tmp_path / "raw")
    found = texts.Preparation(items, params, tmp_path)
    assert {items.name(row): error.code for row, error in found.rejected} == {
        "blank": "blank_text",
        "long": "text_too_long",
        "empty": "blank_text",
    }
    assert found.rows.tolist() == [0, 3] and found.facts.characters.tolist() == [4, 1]


def test_a_lone_surrogate_never_gets_into_the_raw_items(tmp_path: Path) -> None:
    said = ["good", "also good", "not \ud800 good"]
    items = (Item(f"{i}", "ab"[i % 2], "", one) for i, one in enumerate(said))
    raw.write(tmp_path / "raw", "notes", "text", items, None)
    assert [one.name for one in raw.RawItems(tmp_path / "raw").rejections] == ["2"]


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_every_way_to_fit_gives_whole_images(tmp_path: Path, fit: str) -> None:
    contract = CONTRACT.model_copy(update={"fit": fit})
    found = prepared(write(tmp_path / "raw", GOOD), contract, tmp_path)
    assert found.pixels.shape == (len(GOOD), 8, 8, 3)


@pytest.mark.parametrize(("label", "split", "said"), [("cat", "", "'cat' 0"), ("dog", "test", "split 'test'")])
@pytest.mark.parametrize("kind", DATA)
def test_a_label_or_a_split_of_which_nothing_can_be_used_is_refused_and_the_list_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, label: str, split: str, said: str
) -> None:
    def items() -> Iterator[Item]:
        for number in range(40):
            good: bytes | str = png(number) if kind == "image" else f"text {number}"
            bad: bytes | str = b"" if kind == "image" else " "
            yield Item(f"{number}", "dog" if number % 2 else "bird", "", good)
            yield Item(f"broken {number}", label, split, bad)

    code = {"image": "undecodable_image", "text": "blank_text"}[kind]
    shutil.copy(paths.PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    raw.write(paths.raw(DATA[kind]), DATA[kind], kind, items(), None)
    with pytest.raises(DivisionRefused) as error:
        prepare.main(DATA[kind])
    listed = paths.data_reports(DATA[kind]) / raw.REJECTED
    for words in (said, f"40 rejected {{'{code}': 40}}", str(listed)):
        assert words in str(error.value)
    assert [one.name for one in raw.read_rejections(listed)] == [f"broken {number}" for number in range(40)]


@pytest.mark.parametrize("kind", DATA)
def test_refused_data_leaves_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["data"][DATA[kind]]["prepare"]["limits"]["min_per_label"] = 1000
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    contents = [png(number) if kind == "image" else f"text {number} of many" for number in range(60)]
    data, items = DATA[kind], (Item(f"{n}", "ab"[n % 2], "", content) for n, content in enumerate(contents))
    raw.write(paths.raw(data), data, kind, items, None)
    with pytest.raises(DataRefused, match="min_per_label is 1000"):
        prepare.main(data)
    assert not paths.prepared(data).exists()
    assert (paths.data_reports(data) / "data.html").exists()


def test_rows_of_labels_that_are_not_wanted_count_for_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    rows = [f"{number} {number * 7} {number * 13},{'abc'[number % 3]}" for number in range(150)]
    Path("reviews.csv").write_text("\n".join(["text,label", *rows]))
    reviews = params["data"]["reviews"]
    reviews["fetch"] |= {"source": "table", "path": "reviews.csv", "labels": ["a", "b"]}
    limits = reviews["prepare"]["limits"]
    reviews["prepare"]["limits"] = {name: None for name in limits} | {"max_rejected_share": 0.01}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    fetch.main("reviews")
    prepare.main("reviews")
    report = json.loads((paths.data_reports("reviews") / "data.json").read_bytes())
    assert (report["raw"], report["rejected"]) == (100, 0)
    assert [one.code for one in raw.RawItems(paths.raw("reviews")).rejections] == ["label_not_wanted"] * 50
