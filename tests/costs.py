"""What a test may cost: marks, sets of tests by their marks, and a guard that fails an unmarked test that costs more.

The guard watches `--quick` alone: there, nothing that costs more has run before, which would hide or share the cost.

The marks are in pyproject.toml. A module whose tests all have one says so by `pytestmark`, and `--quick` does not even
import it: a test module may import torch or MLflow at its top only then.
"""

import ast
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

COSTS = ("torch", "mlflow", "process", "pipeline")  # in the order in which they run
PROOF = "proof"
# What costs as much whoever uses it: such a test needs no mark.
FIXTURES = {"server": "process", "copy": "pipeline", "dvc_stages": "pipeline"}
HEAVY = ("torch", "mlflow")
_BEFORE = pytest.StashKey[tuple[float, set[str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("convoy", "what the tests may cost")
    group.addoption("--quick", action="store_true", help="only tests without a mark: no torch, MLflow or long process")
    group.addoption("--costly", action="store_true", help="only tests with a mark, without the long proofs")
    group.addoption("--proofs", action="store_true", help="only the long proofs")
    parser.addini("unmarked_import_cpu_s", "the most CPU time to import a module of such tests", default="6")
    parser.addini("unmarked_cpu_s", "the most CPU time of a test without a mark, its fixtures included", default="2")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A module of costly tests is not imported for the quick ones."""
    if not config.getoption("quick") or not collection_path.name.startswith("test_"):
        return None
    return bool(module_marks(collection_path)) or None


def module_marks(path: Path) -> set[str]:
    """The costs that a test module names in its `pytestmark`, read without importing it."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            parts = [part for part in ast.walk(node.value) if isinstance(part, ast.Attribute)]
            return {part.attr for part in parts if ast.unparse(part.value) == "pytest.mark"} & {*COSTS, PROOF}
    return set()


def costs_of(item: pytest.Item) -> list[str]:
    """What a test costs by its marks and fixtures, the most costly last."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}  # may have a fixture's name
    of_fixtures = {FIXTURES.get(name) for name in getattr(item, "fixturenames", ()) if name not in parameters}
    return [cost for cost in (*COSTS, PROOF) if cost in of_fixtures or item.get_closest_marker(cost)]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    sets = [name for name in ("quick", "costly", "proofs") if config.getoption(name)]
    named = [named_test(argument, config) for argument in config.args if "::" in argument]

    def is_wanted(item: pytest.Item) -> bool:
        costs = costs_of(item)
        test_name = item.nodeid.partition("::")[2]
        if not sets and any(item.path == path and test_name.startswith(test) for path, test in named):
            return True  # who names a proof wants it
        if config.getoption("proofs") or PROOF in costs:
            return PROOF in costs and bool(config.getoption("proofs"))
        if config.getoption("costly"):
            return bool(costs)
        return not (costs and config.getoption("quick"))

    wanted = [item for item in items if is_wanted(item)]
    if len(wanted) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if not is_wanted(item)])
    # Cheap tests first: they answer soon. With workers, balance.py has the last word.
    order = ["", *COSTS, PROOF]
    items[:] = sorted(wanted, key=lambda item: order.index(["", *costs_of(item)][-1]))


def named_test(argument: str, config: pytest.Config) -> tuple[Path, str]:
    """The file and the test of an argument such as `tests/test_gc.py::test_it`."""
    path, _, test = argument.partition("::")
    return (config.invocation_params.dir / path).resolve(), test


def pytest_collection_finish(session: pytest.Session) -> None:
    """With `--quick`, no conftest may bring torch or MLflow either: it would hide what a test imports."""
    if session.config.getoption("quick") and loaded():
        raise pytest.UsageError(f"{' and '.join(sorted(loaded()))} is imported before the first test, by a conftest.py")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """With `--quick`, a module whose import brings torch or MLflow, or takes long, is an error."""
    began_s, before = cpu_s(), loaded()
    report = yield
    took_s, brought = cpu_s() - began_s, loaded() - before
    config = collector.config
    if not config.getoption("quick") or not isinstance(collector, pytest.Module) or not report.passed:
        return report
    allowed_s = float(config.getini("unmarked_import_cpu_s"))
    if brought:
        report.outcome = "failed"
        report.longrepr = (
            f"{collector.nodeid} imports {' and '.join(sorted(brought))} at its top. Import it in the tests that need"
            f" it and mark them, or mark the module: pytestmark = pytest.mark.{sorted(brought)[0]}"
        )
    elif took_s > allowed_s:
        report.outcome = "failed"
        report.longrepr = (
            f"{collector.nodeid} took {took_s:.1f} s of CPU time to import, {allowed_s:g} are allowed. Import what"
            " takes long in the tests that need it, or mark the module (pyproject.toml lists the marks)"
        )
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.stash[_BEFORE] = cpu_s(), loaded()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    result = yield
    began_s, before = item.stash[_BEFORE]
    if item.config.getoption("quick"):
        refuse(item.nodeid, cpu_s() - began_s, float(item.config.getini("unmarked_cpu_s")), loaded() - before)
    return result


def refuse(name: str, took_s: float, allowed_s: float, brought: set[str]) -> None:
    """Fail an unmarked test that imported something heavy, or took too long."""
    if brought:
        what = " and ".join(sorted(brought))
        pytest.fail(f"{name} imports {what} and has no mark; pyproject.toml lists the marks", pytrace=False)
    if took_s > allowed_s:
        pytest.fail(
            f"{name} took {took_s:.1f} s of CPU time and has no mark, which allows {allowed_s:g}; make it cheaper, or"
            " mark it (pyproject.toml lists the marks)",
            pytrace=False,
        )


def cpu_s() -> float:
    """CPU time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def loaded() -> set[str]:
    return {name for name in HEAVY if name in sys.modules}
