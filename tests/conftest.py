"""What every test process begins with: one thread, no deadline of an example, and Ctrl-C as a terminal has it."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ("costs", "balance")

# For all processes of a test too: two workers with two threads each would mostly wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["BENTOML_DO_NOT_TRACK"] = "true"
os.environ["CONVOY_HOSTS"] = "testserver"  # what starlette's test client calls the service
# An example that takes 200 ms on a busy machine is no fault.
settings.register_profile("no-deadline", settings(), deadline=None)
settings.load_profile("no-deadline")
# A script's shell lets what it starts with & ignore SIGINT, and so would every process that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the working tree in which everything was built from raw data and published; one for all modules.

    balance.py gives them all to one worker.
    """
    from built_copy import build_again

    return build_again(tmp_path_factory.mktemp("end-to-end") / "convoy")
