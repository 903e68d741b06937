"""The README shows the tree as it is, and names only targets, verbs and files that exist."""

import re
from pathlib import Path

README = Path("README.md").read_text()
OTHERS = {
    "params.yaml": "every number, with its reason",
    "dvc.yaml": "the stages, what each reads and writes",
    "demo.yaml": "what `make demo` and the end-to-end test change in params.yaml",
    "docker-compose.yml": "the MLflow UI and the service in containers",
    "requirements.lock": "the exact version of everything",
}


def first_sentence(path: Path) -> str:
    return path.read_text().split('"""')[1].strip().split("\n")[0].rstrip(".")


def tree() -> str:
    """One line per file: its name and the first line of what it says about itself."""
    lines = [f"{name:<30}{says}" for name, says in OTHERS.items()]
    for folder in ("pipelines", "src/convoy", "serving"):
        lines += ["", f"{folder}/"]
        modules = [path for path in sorted(Path(folder).rglob("*.py")) if path.read_text()]
        for path in sorted(modules, key=lambda path: (len(path.parts), path)):
            lines.append(f"  {path.relative_to(folder)!s:<28}{first_sentence(path)}")
    lines += ["", f"{'tests/':<30}one file per module; test_end_to_end.py runs everything for real"]
    return "```\n" + "\n".join(lines) + "\n```"


def test_the_tree_is_the_one_on_disk() -> None:
    assert tree() in README, f"README.md, section 'The tree', should read:\n{tree()}"


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"predictions"} <= targets


def test_no_figure_is_left_to_fill_in() -> None:
    assert not re.findall(r"@[A-Z]+@", README)
