"""A bundle is whole and unaltered, or it is refused; the same content has the same digest."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from pydantic import ValidationError
from tiny_bundles import TEXT_CARD, write_image_bundle, write_text_bundle

from convoy.bundles.bundle import (
    BundleInvalid,
    Calibration,
    Card,
    Release,
    Sets,
    digest_of,
    read_bundle,
    read_release,
    write_bundle,
)
from convoy.bundles.predictor import Predictor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_text_bundle(tmp_path / "text")
    return tmp_path / "text"


def test_the_same_content_gives_the_same_digest(tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "one")
    write_image_bundle(tmp_path / "somewhere" / "else")
    assert read_bundle(tmp_path / "one").digest == read_bundle(tmp_path / "somewhere" / "else").digest


def test_a_release_stands_outside_the_digest(folder: Path) -> None:
    before = read_bundle(folder).digest
    assert read_release(folder) is None
    release = Release(name="convoy-text", version="3", run_id="r", digest=before, promoted_at="2026-01-01T00:00:00Z")
    (folder / "release.json").write_text(release.model_dump_json())
    assert read_bundle(folder).digest == before
    assert read_release(folder) == release
    anchored = {**release.model_dump(), "history": {"lines": 2, "sha256": "0" * 64}}
    (folder / "release.json").write_text(json.dumps(anchored))
    found = read_release(folder)
    assert found is not None and found.history is not None and found.history.lines == 2
    assert found.model_dump() == release.model_dump()  # as the service tells of it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", "1\r\nX-Evil: 1"),
        ("version", "1\n"),
        ("version", "2x"),
        ("version", "\u0661"),
        ("digest", "../o"),
        ("digest", "A" * 64),
    ],
)
def test_a_release_that_could_forge_a_header_is_refused(folder: Path, name: str, value: str) -> None:
    release = {"name": "n", "version": "1", "run_id": "r", "digest": "a" * 64, "promoted_at": "2026-01-01"}
    (folder / "release.json").write_text(json.dumps(release))
    assert read_release(folder) == Release(**release)
    (folder / "release.json").write_text(json.dumps({**release, name: value}))
    with pytest.raises(BundleInvalid, match=rf"is not a release: {name}"):
        read_release(folder)


@pytest.mark.parametrize(
    "examples", [b"{", b"[{}]", b'[{"input": 1, "label": "x", "probabilities": []}]', b"\xff", b"null", b"[[]]"]
)
def test_malformed_examples_make_the_bundle_invalid(tmp_path: Path, examples: bytes) -> None:
    write_image_bundle(tmp_path / "image")
    manifest = json.loads((tmp_path / "image/manifest.json").read_bytes())
    manifest["examples.json"] = {**manifest["examples.json"], "sha256": hashlib.sha256(examples).hexdigest()}
    (tmp_path / "image/examples.json").write_bytes(examples)
    (tmp_path / "image/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleInvalid, match=r"examples\.json"):
        Predictor(tmp_path / "image")


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "tokenizer.json", "examples.json", "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleInvalid, match=name):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "card.json", "tokenizer.json", "examples.json"])
def test_one_flipped_bit_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(BundleInvalid, match=name):
        read_bundle(folder)


def test_a_file_that_the_manifest_does_not_name_is_refused(folder: Path) -> None:
    (folder / "model.onnx.data").write_bytes(b"weights from elsewhere")
    with pytest.raises(BundleInvalid, match=r"model\.onnx\.data"):
        read_bundle(folder)


@pytest.mark.parametrize("task", ["image", "text"])
def test_a_bundle_of_the_format_before_is_refused_with_a_remedy(task: str) -> None:
    told = r"has bundle format 1, this release reads format 2; export it again, or .*`python -m convoy migrate "
    with pytest.raises(BundleInvalid, match=told):
        read_bundle(Path(__file__).parent / "old_bundles" / f"format-1-{task}")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"card.json": 3}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleInvalid):
        Predictor(folder)


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_image_bundle(tmp_path / "image")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("task", ["image", "text"])
def test_a_bundle_that_was_written_when_its_format_was_new_still_answers(task: str) -> None:
    """The files stay for good; a release that reads this format no more must say so, as for format 1 above."""
    folder = Path(__file__).parent / "old_bundles" / f"format-2-{task}"
    predictor = Predictor(folder)  # which has reproduced the examples in it
    assert (predictor.card.task, predictor.card.format_version) == (task, 2)
    assert predictor.digest == digest_of(folder)


def test_a_model_that_keeps_weights_in_another_file_is_refused(folder: Path, tmp_path: Path) -> None:
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    for tensor in model.graph.initializer:
        if tensor.name == "scores":
            length = len(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in {"location": str(tmp_path / "weights.bin"), "offset": "0", "length": str(length)}.items():
                tensor.external_data.add(key=key, value=value)
    bundle = read_bundle(folder)
    files = {name: content for name, content in bundle.files.items() if name not in ("card.json", "model.onnx")}
    write_bundle(tmp_path / "bad", bundle.card, {**files, "model.onnx": model.SerializeToString()})
    with pytest.raises(BundleInvalid, match=r"model\.onnx cannot be loaded"):
        Predictor(tmp_path / "bad")


def test_a_card_with_a_threshold_per_label_is_read_back(tmp_path: Path) -> None:
    sets = Sets(coverage=0.9, threshold=(0.0, 0.4), n=100, n_per_label=(8, 92))
    card = TEXT_CARD.model_copy(update={"sets": sets, "logit_offsets": (-0.1, -2.3), "calibration_n": 100})
    write_text_bundle(tmp_path / "one", card)
    found = read_bundle(tmp_path / "one").card
    assert found == card and found.calibration == Calibration(1.0, (-0.1, -2.3), 100)


@pytest.mark.parametrize(
    "change",
    [
        {"logit_offsets": [0.1]},
        {"logit_offsets": [0.1, float("inf")]},
        {"sets": {"coverage": 0.9, "threshold": [0.1, 0.2, 0.3], "n": 9}},
    ],
    ids=str,
)
def test_a_card_without_a_number_per_label_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"logit_offsets|sets"):
        Card.model_validate(TEXT_CARD.model_dump() | change)


def test_a_refused_release_tells_no_content(tmp_path: Path) -> None:
    for content in (b"root:x:0:0:secret", b'{"name": "secret", "version": ["secret"]}', b"[" * 100_000):
        (tmp_path / "release.json").write_bytes(content)
        with pytest.raises(BundleInvalid, match="is not a release: ") as refused:
            read_release(tmp_path)
        assert "secret" not in str(refused.value)
