"""Balances workers (`pytest -n 2`): what shares a fixture runs on one of them, and the longest starts first.

A group is a module, or several that share something which takes long to build. durations.json holds the seconds of each
group, as `pytest --keep-durations` measured them. (xdist's own `--dist loadgroup` does not group with pytest 9.2.)
"""

import json
from collections import Counter
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.json")
# Modules that use the fixture `copy`: one worker builds it, once.
BUILT = {f"tests/test_{name}.py" for name in ("behaviour", "data", "end_to_end", "interrupted_stages", "remote")}


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "write the seconds of each group to tests/durations.json"
    parser.getgroup("convoy").addoption("--keep-durations", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("keep_durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Keeper(), "keep-durations")


def group_of(nodeid: str) -> str:
    module = nodeid.partition("::")[0]
    return "built" if module in BUILT else module


def read_durations() -> dict[str, float]:
    durations: dict[str, float] = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    return durations


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        seconds = read_durations()
        # A group that nobody has measured comes first: it may be long.
        items.sort(key=lambda item: -seconds.get(group_of(item.nodeid), float("inf")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        """A worker gets a whole group, in the order in which they were collected."""

        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


class Keeper:
    """Adds up what the tests report."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[group_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus:
            return
        measured = {group: round(seconds, 1) for group, seconds in self.seconds.items()}
        DURATIONS.write_text(json.dumps({**read_durations(), **measured}, indent=1, sort_keys=True) + "\n")
