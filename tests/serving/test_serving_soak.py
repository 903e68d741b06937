"""Minutes of good, bad and broken-off requests: no answer of 5xx, and memory and descriptors stay where they were."""

from pathlib import Path

import pytest
import tiny_bundles

from bench.resilience import soak
from bench.resilience.ground import Ground, Size

pytestmark = [pytest.mark.process, pytest.mark.torch]


class TinyGround(Ground):
    """The trial's ground with the tests' models."""

    def __init__(self, folder: Path, deployed: Path, soak_s: int) -> None:
        self.folder, self.size, self.deployed = folder, Size(soak_s=soak_s), deployed
        self.images = [folder / "image.png"]
        self.images[0].write_bytes(tiny_bundles.png(128))


SHORT = {"answers_of_5xx", "descriptors_more"}
LONG = {*SHORT, "memory_mb_per_minute"}  # in seconds memory still grows to what it needs


@pytest.mark.parametrize(
    ("soak_s", "claimed"), [(15, SHORT), pytest.param(480, LONG, marks=pytest.mark.proof)], ids=["seconds", "minutes"]
)
def test_mixed_requests_leave_nothing_behind(
    deployed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soak_s: int, claimed: set[str]
) -> None:
    monkeypatch.setattr(soak, "SAMPLE_EVERY_S", soak_s / 48)
    results = soak.hold(TinyGround(tmp_path, deployed, soak_s=soak_s))
    assert {name for name, result in results.items() if isinstance(result, dict)} == LONG
    assert all(results[name]["met"] for name in claimed), results
    assert results["asked"] > 10 * soak_s
