"""What Convoy takes of libraries that they do not document: in one file, for proven versions, and never a need."""

import ast
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import tiny_bundles
from conftest import ROOT, serve
from prometheus_client import CollectorRegistry, Histogram

from serving import adapters

LIBRARIES = (
    "bentoml",
    "_bentoml_sdk",
    "_bentoml_impl",
    "circus",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "wsproto",
)
PROVEN = {"bentoml": "1.4.39", "uvicorn": "0.54.0", "prometheus-client": "0.26.0"}
# The service, as if each library had another version than the proven one.
SERVICE_OF_OTHER_VERSIONS = """
from serving import adapters
adapters.PROVEN = dict.fromkeys(adapters.PROVEN, "0.0")
from serving.service import service
"""


def private_names(path: Path) -> Iterator[str]:
    """Imports of private modules and names of LIBRARIES, their replaced attributes, and private names of others."""
    tree = ast.parse(path.read_text())
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                name = f"{module}.{alias.name}" if module else alias.name
                if name.split(".")[0] in LIBRARIES:
                    imported.add((alias.asname or alias.name).split(".")[0])
                    if any(part.startswith("_") for part in name.split(".")):
                        yield name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        if isinstance(node.ctx, ast.Store) and owner in imported:
            yield f"{owner}.{node.attr} is replaced"
        is_private = node.attr.startswith("_") and not node.attr.endswith("__")
        if is_private and owner not in ("self", "cls"):
            yield f"{owner or '...'}.{node.attr}"


def test_no_other_file_names_what_is_private() -> None:
    files = [path for path in (ROOT / "serving").rglob("*.py") if path.name != "adapters.py"]
    found = {path.name: names for path in files if (names := list(private_names(path)))}
    assert found == {}
    assert len(list(private_names(ROOT / "serving" / "adapters.py"))) > 5  # the search finds what there is


def test_each_part_is_proven_for_the_locked_versions() -> None:
    lock = (ROOT / "requirements.lock").read_text().replace("_", "-")
    assert adapters.PROVEN == PROVEN == {package: version(package) for package in PROVEN}
    assert all(f"\n{package}=={number}" in f"\n{lock}" for package, number in PROVEN.items())


def test_another_version_observes_one_by_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(adapters.PROVEN, "prometheus-client", "0.1")
    adapters.is_proven.cache_clear()
    histogram = Histogram("seconds", "", registry=CollectorRegistry())
    adapters.observe_all(histogram, [0.1, 2.0])
    adapters.observe_all(histogram, [0.3])
    adapters.is_proven.cache_clear()
    (family,) = histogram.collect()
    assert {sample.name: sample.value for sample in family.samples}["seconds_count"] == 3
    assert caplog.text.count("prometheus-client is 0.26.0, proven is 0.1: without observations") == 1


@pytest.mark.process
def test_a_service_of_other_versions_answers_and_says_what_it_lacks(deployed: Path, tmp_path: Path) -> None:
    (tmp_path / "others.py").write_text(SERVICE_OF_OTHER_VERSIONS)
    code = os.pathsep.join([str(tmp_path), str(ROOT)])
    with serve(deployed, tmp_path, "others:service", cwd=tmp_path, PYTHONPATH=code) as server:
        answer = httpx.post(
            f"{server.url}/v1/fashion/predict", content=tiny_bundles.png(9), headers={"content-type": "image/png"}
        )
        assert answer.status_code == 200
        assert "convoy_answer_seconds_count" in httpx.get(f"{server.url}/metrics").text
        assert httpx.get(f"{server.url}/").status_code == 200
    log = server.log.read_text()
    for package in PROVEN:
        assert f"{package} is {version(package)}, proven is 0.0: without" in log
