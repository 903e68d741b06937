"""The guard of what tests cost fails what it should, and each set of tests holds what its name says."""

from pathlib import Path

import pytest
from costs import module_marks

pytest_plugins = "pytester"
pytestmark = pytest.mark.process
TESTS = Path(__file__).parent
CASES = """
import time
import pytest

def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

def test_cheap(): pass
def test_long(): burn(0.6)
def test_importing(): import torch

@pytest.fixture
def costly(): burn(0.6)
def test_with_a_costly_fixture(costly): pass

@pytest.mark.process
def test_long_and_marked(): burn(0.6)
@pytest.mark.proof
def test_of_minutes(): raise AssertionError
"""
MARKED = """
import pytest
import torch
pytestmark = [pytest.mark.torch, pytest.mark.process]
def test_costly(): pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest with the guard, in a folder whose torch is an empty module."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    marks = "\n".join(f"    {name}: a cost" for name in ("torch", "mlflow", "process", "pipeline", "proof"))
    limits = "unmarked_cpu_s = 0.5\nunmarked_import_cpu_s = 0.5"
    pytester.makeini(f"[pytest]\naddopts = -p costs --strict-markers\n{limits}\nmarkers =\n{marks}\n")
    pytester.makepyfile(torch="", test_cases=CASES, test_marked=MARKED)

    def run_with(*options: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess("-q", *options)

    return run_with


def test_an_unmarked_test_that_costs_more_fails(run) -> None:
    result = run("--quick")
    result.assert_outcomes(passed=4, errors=3, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "*test_cases.py::test_long took *s of CPU time and has no mark*",
            "*test_cases.py::test_importing imports torch and has no mark*",
            "*test_cases.py::test_with_a_costly_fixture took *s of CPU time*",
        ]
    )


def test_a_quick_module_may_not_import_torch(run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_unmarked="import torch\ndef test_it(): pass")
    result = run("--quick", "test_unmarked.py")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*test_unmarked.py imports torch at its top*pytestmark = pytest.mark.torch*"])


def test_a_quick_module_may_not_take_long_to_import(run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_unmarked=CASES + "\nburn(0.6)\n")
    result = run("--quick", "test_unmarked.py")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*test_unmarked.py took *s of CPU time to import*"])


def test_a_conftest_may_not_import_torch(run, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import torch")
    result = run("--quick")
    assert result.ret != 0
    result.stderr.fnmatch_lines(["*torch is imported before the first test, by a conftest.py*"])


def test_two_workers_guard_as_one(run) -> None:
    result = run("--quick", "-p", "xdist", "-n", "2")
    result.assert_outcomes(passed=4, errors=3)


def test_costly_tests_are_those_with_a_mark(run) -> None:
    run("--costly").assert_outcomes(passed=2, deselected=5)


def test_proofs_run_only_when_asked_for(run, pytester: pytest.Pytester) -> None:
    run("--proofs").assert_outcomes(failed=1, deselected=6)
    run().assert_outcomes(passed=6, deselected=1)
    run("test_cases.py::test_of_minutes").assert_outcomes(failed=1)  # who names it wants it
    run(str(pytester.path / "test_cases.py") + "::test_of_minutes").assert_outcomes(failed=1)


def test_marks_of_a_module_are_read_without_its_import(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(MARKED)
    (tmp_path / "test_b.py").write_text("import pytest\n@pytest.mark.torch\ndef test_it(): pass\n")
    assert module_marks(tmp_path / "test_a.py") == {"torch", "process"}
    assert module_marks(tmp_path / "test_b.py") == set()
