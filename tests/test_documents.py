"""README.md, ARCHITECTURE.md and docs/: short where they should be, and each link, fence and name leads somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

PAGES = (Path("README.md"), Path("ARCHITECTURE.md"), *sorted(Path("docs").glob("*.md")))
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


def test_every_page_named_elsewhere_exists() -> None:
    command = ["git", "grep", "-hoIE", r"\bdocs/[a-z-]+\.md"]
    named = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert named and all(Path(name).exists() for name in named)
