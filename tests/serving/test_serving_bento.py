"""`bentoml build` makes a Bento that serves, away from the repository, what was deployed when it was built."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from conftest import ROOT, WRITERS, deploy, serve

pytestmark = pytest.mark.process
INSIDE = "/home/bentoml/bento/src"  # where BentoML has the code in a container
PNG = tiny_bundles.png(255)


def build(folder: Path) -> Path:
    """A Bento of a copy of the repository in which tiny bundles are deployed; gives the Bento's folder."""
    copy = folder / "copy"
    for name in ("serving", "src/convoy"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    other = tiny_bundles.TEXT_CARD.model_copy(update={"temperature": 2.0})
    deploy(copy / "deployed", "reviews", lambda folder: tiny_bundles.write_text_bundle(folder, other))
    for task in WRITERS:
        deploy(copy / "deployed", task)
    environment = {**os.environ, "BENTOML_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"], cwd=copy, env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert len(list((copy / "deployed" / "reviews").iterdir())) == 3  # what served before, what serves, the link
    (bento,) = (folder / "home" / "bentos" / "convoy").glob("*/bento.yaml")
    shutil.rmtree(copy)
    return bento.parent


def test_a_bento_serves_what_was_deployed_when_it_was_built(tmp_path: Path) -> None:
    bento = build(tmp_path)
    moved = shutil.copytree(bento, tmp_path / "elsewhere", symlinks=True)
    with serve(None, tmp_path, str(moved), tmp_path) as server:
        image = httpx.post(f"{server.url}/v1/fashion/predict", content=PNG, headers={"content-type": "image/png"})
        text = httpx.post(f"{server.url}/v1/reviews/predict", json={"texts": ["the good film"]})
        assert [answer.json()["predictions"][0]["label"] for answer in (image, text)] == ["bright", "positive"]
        assert httpx.get(f"{server.url}/v1/models").json()["tasks"]["fashion"]["release"]["version"] == "7"


def test_a_bentos_image_installs_the_locked_versions_and_no_root_runs_it(tmp_path: Path) -> None:
    bento = build(tmp_path)
    wanted = (bento / "env/python/requirements.txt").read_text()
    assert f"convoy[serve]@file://{INSIDE}\n" in wanted
    for task in WRITERS:
        inside = bento / "src" / "deployed" / task
        assert {path.name for path in inside.iterdir()} == {"current", os.readlink(inside / "current")}
    dockerfile = (bento / "env/docker/Dockerfile").read_text()
    assert "\nUSER bentoml\n" in dockerfile
    assert f"UV_CONSTRAINT={INSIDE}/requirements.lock" in dockerfile
    assert {path.name for path in (bento / "src").iterdir()} == {
        "LICENSE", "README.md", "deployed", "pyproject.toml", "requirements.lock", "serving", "src", "bentofile.yaml"
    }  # fmt: skip
