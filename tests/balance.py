"""Balances workers (`pytest -n 2`): what shares a fixture runs on one of them, and the longest starts first.

A group is a module, or what `pytest.mark.xdist_group` names where modules share something that takes long to build.
durations.json holds the seconds of each group as `pytest --keep-durations` measured them.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.json")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "write the seconds of each group to tests/durations.json; wants -n"
    parser.getgroup("convoy").addoption("--keep-durations", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("keep_durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Keeper(), "keep-durations")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):  # no workers
        return
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    seconds = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
    # A group that nobody has measured comes first: it may be long.
    items.sort(key=lambda item: -seconds.get(group_of(item), float("inf")))


def group_of(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    return str(marker.args[0])


class Keeper:
    """Adds up what the workers report."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid.rpartition("@")[2]] += report.duration

    def pytest_sessionfinish(self) -> None:
        kept = json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}
        measured = {group: round(seconds, 1) for group, seconds in self.seconds.items() if group}
        content = {group: seconds for group, seconds in sorted({**kept, **measured}.items())}
        DURATIONS.write_text(json.dumps(content, indent=1) + "\n")
