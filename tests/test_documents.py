"""README.md, ARCHITECTURE.md, EXTENDING.md and docs/: short enough, and each link, fence and name leads somewhere."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGES = (*map(Path, ("README.md", "ARCHITECTURE.md", "EXTENDING.md")), *sorted(Path("docs").glob("*.md")))
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_fence_closes(page: Path) -> None:
    assert "```" not in prose(page)


def test_the_readme_leads_to_every_page() -> None:
    named = {link for link in re.findall(r"\]\(([^)\s]+\.md)\)", prose(Path("README.md")))}
    assert {str(page) for page in PAGES[1:]} <= named


def test_readme_and_architecture_stay_short() -> None:
    assert len(Path("README.md").read_text().split()) <= 1000
    assert len(Path("ARCHITECTURE.md").read_text().splitlines()) <= 150


def test_the_map_has_each_room_as_its_docstring() -> None:
    chapter = prose(Path("ARCHITECTURE.md")).partition("## Map of the rooms")[2].partition("Beside `src/convoy`")[0]
    mapped = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", chapter, re.MULTILINE))
    rooms = {path.parent.name: path.read_text().strip().strip('"') for path in Path("src/convoy").glob("*/__init__.py")}
    assert mapped == rooms


def test_the_map_has_the_order_of_the_import_contract() -> None:
    mapped = re.findall(r"^\| `(\w+)` \|", prose(Path("ARCHITECTURE.md")), re.MULTILINE)
    layers = re.findall(r"^    (?:.* \| )?convoy\.(\w+)", Path(".importlinter").read_text(), re.MULTILINE)
    upwards = list(dict.fromkeys(reversed(layers[: layers.index("core") + 1])))
    assert [room for room in mapped if room in upwards] == [room for room in upwards if room != "__main__"]


def test_every_file_that_extending_names_exists() -> None:
    rows = re.findall(r"^\| an? ([^|]+) \| (.+) \|$", prose(Path("EXTENDING.md")), re.MULTILINE)
    added = " ".join(name for name, _ in rows)
    for extension in ("network", "kind", "source", "gate", "metric", "endpoint", "baseline", "report page", "verb"):
        assert extension in added
    named = re.findall(r"`((?:src|serving|pipelines|lab|tests)/[\w/.-]+)`", prose(Path("EXTENDING.md")))
    assert len(named) > len(rows) and [name for name in named if not Path(name).exists()] == []


def test_decisions_have_the_keys_and_values_of_params() -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    checked, base = 0, ""
    for line in Path("docs/decisions.md").read_text().splitlines():
        begin = re.match(r"(#|\*\*|\* )(?:`([\w.<>-]+)(?:: ([^`]+))?`)?", line)
        if begin and begin[1] != "* ":
            base = f"{begin[2]}." if begin[2] else ""
        elif begin and begin[2]:
            found = values_of(params, (base + begin[2]).split("."))
            assert yaml.safe_load(begin[3]) in found if begin[3] else found, line
            checked += 1
    assert checked > 50


def values_of(section: Any, keys: list[str]) -> list[Any]:
    """The values below these keys; <name> stands for any entry."""
    if not keys:
        return [section]
    if not isinstance(section, dict):
        return []
    below = section.values() if keys[0] == "<name>" else [section[keys[0]]] if keys[0] in section else []
    return [value for each in below for value in values_of(each, keys[1:])]


def test_every_page_named_elsewhere_exists() -> None:
    command = ["git", "grep", "-hoIE", r"\bdocs/[a-z-]+\.md"]
    named = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert named and all(Path(name).exists() for name in named)
