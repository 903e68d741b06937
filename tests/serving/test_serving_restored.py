"""A backup that is restored in another folder serves the same bytes."""

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import backup_recipe
import httpx
import pytest
import tiny_bundles
from conftest import WRITERS, deploy, serve

from convoy.tracking.settings import DATABASE

pytestmark = pytest.mark.process  # two real services


def answers(url: str) -> list[bytes]:
    """The bodies of every route that models answer, but for the request's own id."""
    texts = {"texts": ["the good film", "bad " * 40, "film"]}
    images = [("image", tiny_bundles.png(brightness)) for brightness in (0, 99, 255)]
    responses = [httpx.post(f"{url}/v1/reviews/{route}", json=texts) for route in ("predict", "sets")]
    responses += [httpx.post(f"{url}/v1/fashion/{route}", files=images) for route in ("predict", "sets")]
    responses.append(httpx.get(f"{url}/v1/models"))
    assert {answer.status_code for answer in responses} == {200}
    return [re.sub(rb'"request_id": ?"[^"]*"', b"", answer.content) for answer in responses]


def test_the_same_requests_get_the_same_bytes(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for name in ("kept", "first", "second", "elsewhere", "here/mlruns", "here/mlflow-store"):
        (tmp_path / name).mkdir(parents=True)
    with closing(sqlite3.connect(here / DATABASE)) as connection:
        connection.executescript("CREATE TABLE experiments (artifact_location); CREATE TABLE runs (artifact_uri)")
    for task in WRITERS:
        deploy(here / "deployed", task)
    with serve(here / "deployed", tmp_path / "first") as server:
        before = answers(server.url)
        backup_recipe.do("keep", tmp_path / "kept", here)  # while it serves
    shutil.rmtree(here / "deployed")
    backup_recipe.do("restore", tmp_path / "kept", elsewhere)
    with serve(elsewhere / "deployed", tmp_path / "second") as server:
        assert answers(server.url) == before
    assert len(set(before)) == len(before)
