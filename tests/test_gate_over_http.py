"""The service that a gate asks: a real one, for one bundle alone, which never outlives whoever asked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import built_pipeline
import gate_splits
import numpy as np
import psutil
import pytest
import tiny_bundles

from convoy.bundles.predictor import Predictor
from convoy.release.gates import measure, rest_parity
from convoy.release.gates.evidence import REST, Difference
from convoy.release.gates.registry import PublishParams
from convoy.release.gates.split import read_gate_split
from convoy.tracking.checked_bundle import CheckedBundle

SERVES = """
import sys, time
from pathlib import Path
from convoy.release.gates import rest_parity
from convoy.tracking.checked_bundle import CheckedBundle
with rest_parity.run_service(CheckedBundle.read(Path(sys.argv[1]))) as url:
    print(url, flush=True)
    time.sleep(600)
"""
pytestmark = pytest.mark.process  # a real service each, whose start takes seconds


@pytest.mark.parametrize(
    ("task", "kind", "write"),
    [
        ("fashion", "image", tiny_bundles.write_image_bundle),
        ("reviews", "text", tiny_bundles.write_text_bundle),
        ("reviews-stream", "text", tiny_bundles.write_stream_bundle),
    ],
)
def test_a_real_service_says_what_the_bundle_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, kind: str, write: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("CONVOY_API_KEY", "of the real service, not of this one")
    write(tmp_path / "bundle")
    gate = read_gate_split(task, kind, gate_splits.write(kind, tmp_path / "gate.arrow", 40))
    limits = PublishParams.model_validate({**built_pipeline.PUBLISH, "rest_rows": 20})
    found = measure.measure(gate, CheckedBundle.read(tmp_path / "bundle"), None, limits, {"preflight": ()})
    assert isinstance(found.rest, Difference) and found.rest.n == 20 and not found.unknown
    assert found.rest.max_difference < 1e-6 and not found.rest.class_flips


def test_another_bundle_answers_otherwise_and_what_cannot_be_answered_is_told(tmp_path: Path) -> None:
    tiny_bundles.write_image_bundle(tmp_path / "served")
    tiny_bundles.write_image_bundle(tmp_path / "other", shift=20)
    other, served = Predictor(tmp_path / "other"), CheckedBundle.read(tmp_path / "served")
    inputs = [tiny_bundles.png(brightness) for brightness in (0, 100, 120)]
    with rest_parity.run_service(served) as url:
        found = rest_parity.predict(url, served.card, inputs)
        expected = other.probabilities([other.prepare(raw).array for raw in inputs])
        assert np.abs(found - expected).max() > 0.1
        with pytest.raises(rest_parity.AnswerRefused, match="the service answers 4"):
            rest_parity.predict(url, served.card, [b"no image"])
    with pytest.raises(rest_parity.AnswerRefused, match="does not answer"):
        rest_parity.predict(url, served.card, inputs)


def test_the_service_ends_with_a_publish_that_was_killed(tmp_path: Path) -> None:
    tiny_bundles.write_image_bundle(tmp_path / "bundle")
    words = [sys.executable, "-c", SERVES, str(tmp_path / "bundle")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None and asking.stdout.readline().startswith("http://127.0.0.1:")
        family = psutil.Process(asking.pid).children(recursive=True)
        assert len(family) > 1
        os.kill(asking.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_a_service_that_cannot_be_started_says_nothing_of_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_bundles.write_image_bundle(tmp_path / "bundle")
    gate = read_gate_split("fashion", "image", gate_splits.write("image", tmp_path / "gate.arrow", 40))
    limits = PublishParams.model_validate({**built_pipeline.PUBLISH, "rest_rows": 20})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "bentoml.py").write_text("raise SystemExit('no bentoml here')")
    began = time.monotonic()
    found = measure.measure(gate, CheckedBundle.read(tmp_path / "bundle"), None, limits, {"preflight": ()})
    assert found.rest is None and found.unknown == {REST: "the service ended at once: no bentoml here"}
    assert time.monotonic() - began < rest_parity.READY_WITHIN_S
