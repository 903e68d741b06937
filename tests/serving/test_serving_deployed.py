"""deployed/ with missing and bad bundles: the process lives, tells why, and the other task keeps answering."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_bundles
from conftest import deploy, error_of, service_of

from convoy.bundles.bundle import Card
from serving.deployed import Deployed, Unavailable, deployed_folder, load_task


def spoil(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    return change


def flip_a_bit(folder: Path) -> None:
    model = bytearray((folder / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (folder / "model.onnx").write_bytes(model)


def cut_short(folder: Path) -> None:
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[: len(model) // 2])


def of_other_digest(folder: Path) -> None:
    release = (folder / "release.json").read_text()
    (folder / "release.json").write_text(release.replace(folder.name, "0" * 64))


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


FAULTS = {
    "gone": gone,
    "bit": flip_a_bit,
    "cut": cut_short,
    "no model": spoil("model.onnx", None),
    "empty model": spoil("model.onnx", b""),
    "no card": spoil("card.json", None),
    "other card": spoil("card.json", b"{}"),
    "no manifest": spoil("manifest.json", None),
    "broken manifest": spoil("manifest.json", b"\xff{"),
    "list as manifest": spoil("manifest.json", b"[]"),
    "a file too many": spoil("more.txt", b"x"),
    "no release": spoil("release.json", None),
    "broken release": spoil("release.json", b"{"),
    "other digest": of_other_digest,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_bundle_is_unavailable_with_a_reason_that_names_no_folder_of_the_machine(
    tmp_path: Path, fault: str
) -> None:
    FAULTS[fault](deploy(tmp_path, "image"))
    model = load_task(tmp_path, "image")
    assert isinstance(model, Unavailable)
    assert "image" in model.reason and str(tmp_path) not in model.reason


def test_a_bundle_of_the_other_task_is_refused(tmp_path: Path) -> None:
    deploy(tmp_path, "image", tiny_bundles.write_text_bundle)
    model = load_task(tmp_path, "image")
    assert isinstance(model, Unavailable) and "is a bundle for text" in model.reason


def test_what_the_libraries_raise_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk at /dev/secret")

    deploy(tmp_path, "image")
    monkeypatch.setattr("serving.deployed.Predictor", fail)
    model = load_task(tmp_path, "image")
    assert isinstance(model, Unavailable) and "OSError" in model.reason and "secret" not in model.reason


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DEPLOYED", raising=False)
    assert deployed_folder() == Path("deployed")
    monkeypatch.setenv("CONVOY_DEPLOYED", "/elsewhere")
    assert deployed_folder() == Path("/elsewhere")


@pytest.mark.process
def test_a_bad_text_bundle_leaves_the_images_answering(tmp_path: Path) -> None:
    deploy(tmp_path, "image")
    flip_a_bit(deploy(tmp_path, "text"))
    with service_of(tmp_path) as client:
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, error_of(ready)["code"]) == (503, "not_ready")
        assert ready.json()["tasks"]["image"] == {"state": "ready"}
        assert "model.onnx" in ready.json()["tasks"]["text"]["reason"]
        refused = client.post("/v1/texts/predict", json={"texts": ["good"]})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "model_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert client.post("/v1/images/predict", files={"image": tiny_bundles.png(9)}).status_code == 200
        assert client.get("/v1/models").json()["text"]["state"] == "unavailable"
        assert client.post("/v1/texts/predict", content=b"x").status_code == 415


def test_nothing_deployed_is_a_living_service_that_says_so(tmp_path: Path) -> None:
    with service_of(tmp_path / "nowhere") as client:
        assert client.get("/livez").status_code == 200
        tasks = client.get("/readyz").json()["tasks"]
        assert {task["state"] for task in tasks.values()} == {"unavailable"}
        assert tasks["image"]["reason"] == "image/current is missing: no model is deployed; promote one"
        assert client.get("/v1/models").status_code == 200


@pytest.mark.process
def test_the_limits_of_a_card_hold_for_its_task(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        limits = {"max_items": 2, "max_body_bytes": 100}
        tiny_bundles.write_text_bundle(folder, Card(**{**dict(tiny_bundles.TEXT_CARD), "limits": limits}))

    deploy(tmp_path, "image")
    deploy(tmp_path, "text", write)
    with service_of(tmp_path) as client:
        codes = [
            client.post("/v1/texts/predict", json={"texts": texts}).status_code
            for texts in (["a", "b"], ["a", "b", "c"], ["a" * 100])
        ]
        assert codes == [200, 422, 413]


def test_a_promotion_while_loading_never_mixes_two_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = deploy(tmp_path, "image")
    current = tmp_path / "image" / "current"
    from serving import deployed

    def promote_meanwhile(folder: Path) -> object:
        current.unlink()
        current.symlink_to("elsewhere")
        return original(folder)

    original = deployed.read_release
    monkeypatch.setattr(deployed, "read_release", promote_meanwhile)
    model = load_task(tmp_path, "image")
    assert isinstance(model, Deployed)
    assert model.release.digest == model.predictor.digest == first.name
