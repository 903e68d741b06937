"""The methods by which BentoML knows the service: one for each route of each deployed task, with its answers."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import bentoml
import pytest
import tiny_bundles
from bentoml.exceptions import BentoMLException
from conftest import deploy

from serving.answers import answer_sets
from serving.apis import apis_of_deployed
from serving.deployed import Deployed, load_task
from serving.kinds.image import predict as predict_images
from serving.kinds.text import predict as predict_texts
from serving.models import DeployedModels, Work

# What BentoML's own code does with pydantic is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:The `__get_pydantic_core_schema__`")
TASKS = ("fashion", "reviews", "reviews-stream")


@pytest.fixture(scope="module")
def service(deployed: Path) -> Any:
    """A BentoML service with the methods, and its models loaded."""
    work = Work(DeployedModels({task: load_task(deployed, task) for task in TASKS}))
    return bentoml.service(name="tiny")(type("Tiny", (), apis_of_deployed(deployed, work)))


def ask(service: Any, method: str, **inputs: Any) -> Any:
    return asyncio.run(getattr(service.inner(), method)(**inputs))


def test_bentoml_knows_each_route_of_each_task(service: Any) -> None:
    verbs = {"fashion": ("explain", "predict", "sets"), "reviews": ("explain", "predict", "sets")}
    verbs["reviews-stream"] = ("stream",)
    expected = {f"{task}_{verb}".replace("-", "_"): f"/v1/{task}/{verb}" for task in TASKS for verb in verbs[task]}
    assert {name: api.route for name, api in service.apis.items()} == expected
    schemas = {name: set(api.schema()["input"]["properties"]) for name, api in service.apis.items()}
    assert schemas["fashion_explain"] == {"image", "label", "method", "polarity"}
    assert schemas["reviews_predict"] == {"texts"} and schemas["reviews_stream_stream"] == {"text", "final", "state"}


def test_a_method_answers_what_its_route_does(
    service: Any, image_model: Deployed, text_model: Deployed, tmp_path: Path
) -> None:
    images = [tiny_bundles.png(value) for value in (10, 200)]
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(image)
    texts = ["good film", "bad"]
    assert ask(service, "reviews_predict", texts=texts) == json.loads(predict_texts(text_model, texts))
    assert ask(service, "reviews_sets", texts=texts) == json.loads(predict_texts(text_model, texts, answer_sets))
    assert ask(service, "fashion_predict", image=files, polarity="dark_on_light") == json.loads(
        predict_images(image_model, images, "dark_on_light")
    )
    assert ask(service, "fashion_explain", image=files[0], label="dark")["label"] == "dark"
    first = ask(service, "reviews_stream_stream", text="the good fi")
    assert ask(service, "reviews_stream_stream", text="lm", final=True, state=first["state"])["words"]


def test_a_bad_input_has_the_status_of_its_error(service: Any) -> None:
    with pytest.raises(BentoMLException, match=r"texts\[1\]: the text is empty") as refused:
        ask(service, "reviews_predict", texts=["good", " "])
    assert refused.value.error_code == 422


def test_a_task_that_cannot_be_read_has_no_method(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = deploy(tmp_path, "fashion") / "card.json"
    card.unlink()
    os.mkfifo(card)
    deploy(tmp_path, "reviews")
    work = Work(DeployedModels())
    assert sorted(apis_of_deployed(tmp_path, work)) == ["reviews_explain", "reviews_predict", "reviews_sets"]
    assert (
        "fashion/current: BentoML's view of the service lacks its methods" in caplog.text
        and "no regular file" in caplog.text
    )
    assert apis_of_deployed(tmp_path / "nowhere", work) == {}
