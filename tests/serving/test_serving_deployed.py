"""deployed/ with missing and bad bundles: the process lives, tells why, and the other tasks keep answering."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_bundles
from conftest import deploy, error_of, service_of

from convoy.bundles.bundle import Card
from serving.deployed import Deployed, Unavailable, deployed_folder, deployed_tasks, load_task
from serving.service import models


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


def pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


FAULTS = {
    "a pipe as model": pipe("model.onnx"),
    "a pipe as manifest": pipe("manifest.json"),
    "a pipe as release": pipe("release.json"),
    "a pipe too many": pipe("more"),
    "a link to nothing": lambda folder: (folder / "more").symlink_to("nowhere"),
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
    FAULTS[fault](deploy(tmp_path, "fashion"))
    model = load_task(tmp_path, "fashion")
    assert isinstance(model, Unavailable)
    assert "fashion" in model.reason and str(tmp_path) not in model.reason


@pytest.mark.parametrize("fault", FAULTS)
def test_no_reason_names_the_folder_that_current_leads_to(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    root, elsewhere = tmp_path / "deployed", tmp_path / "elsewhere"
    deploy(root, "fashion").rename(elsewhere)
    (root / "fashion" / "current").unlink()
    (root / "fashion" / "current").symlink_to(elsewhere)
    if fault == "other digest":
        (elsewhere / "release.json").write_text((elsewhere / "release.json").read_text().replace('digest":"', 'x":"'))
    else:
        FAULTS[fault](elsewhere)
    model = load_task(root, "fashion")
    assert isinstance(model, Unavailable)
    assert "fashion/current" in model.reason and str(tmp_path) not in model.reason and "elsewhere" not in model.reason


def test_folders_with_a_reserved_name_are_no_tasks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("fashion", "models", "none"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "current").symlink_to("nowhere")
    with caplog.at_level(logging.ERROR, "bentoml.convoy"):
        assert deployed_tasks(tmp_path) == deployed_tasks(tmp_path) == ["fashion"]
    assert caplog.text.count("models is no task") == caplog.text.count("none is no task") == 1


def test_a_missing_file_is_no_invalid_bundle(tmp_path: Path) -> None:
    for name in ("model.onnx", "manifest.json", "release.json"):
        folder = deploy(tmp_path / name, "fashion")
        (folder / name).unlink()
        model = load_task(tmp_path / name, "fashion")
        assert isinstance(model, Unavailable) and name in model.reason
        assert model.invalid == (name == "model.onnx"), name


def test_a_bundle_of_the_other_task_is_refused(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion", tiny_bundles.write_text_bundle)
    model = load_task(tmp_path, "fashion")
    assert isinstance(model, Unavailable) and "is a bundle for reviews, not for fashion" in model.reason


def test_a_bundle_of_the_tasks_former_name_answers_under_the_present_one(tmp_path: Path) -> None:
    card = tiny_bundles.IMAGE_CARD.model_copy(update={"task": "image"})
    deploy(tmp_path, "fashion", lambda folder: tiny_bundles.write_image_bundle(folder, card))
    model = load_task(tmp_path, "fashion")
    assert isinstance(model, Deployed) and model.predictor.card.task == "image"
    deploy(tmp_path, "digits", lambda folder: tiny_bundles.write_image_bundle(folder, card))
    other = load_task(tmp_path, "digits")
    assert isinstance(other, Unavailable) and "is a bundle for image, not for digits" in other.reason


def test_what_the_libraries_raise_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk at /dev/secret")

    deploy(tmp_path, "fashion")
    monkeypatch.setattr("serving.deployed.Predictor", fail)
    model = load_task(tmp_path, "fashion")
    assert isinstance(model, Unavailable) and "OSError" in model.reason and "secret" not in model.reason


def test_the_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVOY_DEPLOYED", raising=False)
    assert deployed_folder() == Path("deployed")
    monkeypatch.setenv("CONVOY_DEPLOYED", "/elsewhere")
    assert deployed_folder() == Path("/elsewhere")


@pytest.mark.process
def test_a_bad_text_bundle_leaves_the_images_answering(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion")
    flip_a_bit(deploy(tmp_path, "reviews"))
    with service_of(tmp_path) as client:
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, error_of(ready)["code"]) == (503, "not_ready")
        assert ready.json()["tasks"]["fashion"] == {"state": "ready"}
        assert "model.onnx" in ready.json()["tasks"]["reviews"]["reason"]
        refused = client.post("/v1/reviews/predict", json={"texts": ["good"]})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "model_unavailable")
        assert "model.onnx" in error_of(refused)["message"]
        assert int(refused.headers["retry-after"]) > 0
        assert client.post("/v1/fashion/predict", files={"image": tiny_bundles.png(9)}).status_code == 200
        assert client.get("/v1/models").json()["tasks"]["reviews"]["state"] == "unavailable"
        assert client.get("/v1/models/reviews").json()["state"] == "unavailable"
        assert client.get("/v1/reviews/predict").status_code == 405
        # Nobody knows what it would take, so that no route of it is described, and any body gets the reason.
        described = client.get("/docs.json").json()["paths"]
        assert [path for path in described if "reviews" in path] == ["/v1/models/reviews"]
        assert client.post("/v1/reviews/predict", content=b"x").status_code == 503


def test_nothing_deployed_is_a_living_service_that_says_so(tmp_path: Path) -> None:
    with service_of(tmp_path / "nowhere") as client:
        assert client.get("/livez").status_code == 200
        ready = client.get("/readyz")
        assert (ready.status_code, error_of(ready)["code"], ready.json()["tasks"]) == (503, "not_ready", {})
        assert "nothing is deployed" in error_of(ready)["message"]
        assert client.get("/v1/models").json()["tasks"] == {}
        missing = client.post("/v1/fashion/predict")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
        assert "no task is deployed" in error_of(missing)["message"]


def test_a_start_forgets_the_tasks_before_it(tmp_path: Path) -> None:
    models.put("older", Unavailable("gone"))
    with service_of(tmp_path / "nowhere") as client:
        assert client.get("/v1/models").json()["tasks"] == {}


def test_a_link_to_nothing_is_a_task_that_cannot_be_loaded(tmp_path: Path) -> None:
    deploy(tmp_path, "fashion")
    gone(deploy(tmp_path, "reviews"))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes").mkdir()  # without a link
    assert deployed_tasks(tmp_path) == ["fashion", "reviews"]
    with service_of(tmp_path) as client:
        tasks = client.get("/readyz").json()["tasks"]
        assert tasks["reviews"]["reason"] == "reviews/current leads to no bundle: no model is deployed; promote one"
        assert tasks["fashion"] == {"state": "ready"}


@pytest.mark.process
def test_the_limits_of_a_card_hold_for_its_task(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        limits = {"max_items": 2, "max_body_bytes": 100}
        tiny_bundles.write_text_bundle(folder, Card(**{**dict(tiny_bundles.TEXT_CARD), "limits": limits}))

    deploy(tmp_path, "fashion")
    deploy(tmp_path, "reviews", write)
    with service_of(tmp_path) as client:
        codes = [
            client.post("/v1/reviews/predict", json={"texts": texts}).status_code
            for texts in (["a", "b"], ["a", "b", "c"], ["a" * 100])
        ]
        assert codes == [200, 422, 413]


def test_a_promotion_while_loading_never_mixes_two_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = deploy(tmp_path, "fashion")
    current = tmp_path / "fashion" / "current"
    from serving import deployed

    def promote_meanwhile(folder: Path) -> object:
        current.unlink()
        current.symlink_to("elsewhere")
        return original(folder)

    original = deployed.read_release
    monkeypatch.setattr(deployed, "read_release", promote_meanwhile)
    model = load_task(tmp_path, "fashion")
    assert isinstance(model, Deployed)
    assert model.release.digest == model.predictor.digest == first.name
