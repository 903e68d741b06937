"""Minutes of good, bad and broken-off requests: no answer of 5xx, and memory and descriptors stay where they were."""

from pathlib import Path

import pytest
import tiny_bundles

from bench.resilience import soak
from bench.resilience.ground import Ground, Size

pytestmark = [pytest.mark.process, pytest.mark.proof, pytest.mark.torch]


class TinyGround(Ground):
    """The trial's ground with the tests' models."""

    def __init__(self, folder: Path, deployed: Path, soak_s: int) -> None:
        self.folder, self.size, self.deployed = folder, Size(soak_s=soak_s), deployed
        self.images = [folder / "image.png"]
        self.images[0].write_bytes(tiny_bundles.png(128))


def test_minutes_of_mixed_requests_leave_nothing_behind(deployed: Path, tmp_path: Path) -> None:
    results = soak.hold(TinyGround(tmp_path, deployed, soak_s=480))
    claims = {name: result for name, result in results.items() if isinstance(result, dict)}
    assert set(claims) == {"answers_of_5xx", "memory_mb_per_minute", "descriptors_more"}
    assert all(claim["met"] for claim in claims.values()), results
    assert results["asked"] > 5_000
