"""One thread per test process: the networks here are tiny, and two processes with two threads each only wait."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree in which everything has been built from raw data and published; built once."""
    from built_copy import build

    return build(tmp_path_factory.mktemp("end-to-end") / "convoy")
