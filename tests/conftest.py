"""One thread per test process: the networks here are tiny, and two processes with two threads each only wait."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
