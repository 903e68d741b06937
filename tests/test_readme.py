"""The README shows the tree as it is, and names only targets, verbs and files that exist."""

import json
import re
from pathlib import Path

README = Path("README.md").read_text()
OTHERS = {
    "Makefile": "the targets; each makes .venv where it is missing (.ci/set-up)",
    "params.yaml": "every number, with its reason",
    "dvc.yaml": "the stages, what each reads and writes",
    "demo.yaml": "what `make demo` and the end-to-end test change in params.yaml",
    "docker-compose.yml": "the MLflow UI and the service behind its gateway, in containers",
    "pyproject.toml": "what is needed, from which version on and why; settings of the checks",
    "requirements.lock": "the exact version of everything, with the sha256 of each file",
    "requirements-cuda.lock": "the same of torch's CUDA libraries",
}
BESIDE = {
    "src/convoy/preflight/page.css": "How that page looks, on light and dark, on a phone too",
    "src/convoy/preflight/page.html": "The page of the data report, a Jinja template",
    "serving/page.html": "The page at /: every route, to read and to try",
    "serving/Dockerfile": "The service as an image without torch",
    "serving/mlflow.Dockerfile": "The MLflow UI as an image",
    "serving/pull.Dockerfile": "The process that brings the registry's champion to deployed/, as an image",
    "serving/gateway.sh": "Starts that nginx: where to listen, whom to ask, and whether there is a certificate",
    "serving/gateway.conf": "nginx in front of the service: what is slow, large or frequent ends there",
    "serving/mlflow-gateway.conf": "nginx in front of the MLflow container, whose network leads nowhere",
    "bench/load.lua": "wrk's script: the bodies of a folder one after the other",
    "lab/dvc.yaml": "Its stages, which the default `dvc repro` does not run",
    "lab/page.css": "How the report looks, on light and dark, on a phone too",
    "lab/page.html": "The page of the report, a Jinja template",
    "lab/params.yaml": "Every number of the laboratory, with its reason",
    "lab/smoke.yaml": "What `make compare-smoke` changes in it",
    "bench/overload.js": "k6's script: one image at a fixed rate whatever comes back, and a probe beside it",
}


def first_sentence(path: Path) -> str:
    return path.read_text().split('"""')[1].strip().split("\n")[0].rstrip(".")


def tree() -> str:
    """One line per file: its name and the first line of what it says about itself."""
    lines = [f"{name:<30}{says}" for name, says in OTHERS.items()]
    for folder in ("pipelines", "src/convoy", "serving", "bench", "lab"):
        lines += ["", f"{folder}/"]
        says = {
            path.relative_to(folder): first_sentence(path) for path in Path(folder).rglob("*.py") if path.read_text()
        }
        says |= {Path(name).relative_to(folder): text for name, text in BESIDE.items() if name.startswith(folder)}
        for path in sorted(says, key=lambda path: (len(path.parts), path)):
            lines.append(f"  {path!s:<28}{says[path]}")
    lines += ["", f"{'tests/':<30}one file per module; test_end_to_end.py runs everything for real"]
    return "```\n" + "\n".join(lines) + "\n```"


def test_the_tree_is_the_one_on_disk() -> None:
    assert tree() in README, f"README.md, section 'The tree', should read:\n{tree()}"


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"predictions"} <= targets


def test_no_figure_is_left_to_fill_in() -> None:
    assert not re.findall(r"@[A-Z]+@", README)


def test_the_laboratory_is_told_as_its_report_has_it() -> None:
    told = " ".join(README.split())
    numbers = json.loads(Path("reports/compare/numbers.json").read_bytes())
    outcomes = [verdict["outcome"] for verdict in numbers["verdicts"] if not verdict["unfair"]]
    held, not_held, not_shown = (outcomes.count(each) for each in ("held", "did not hold", "not shown"))
    assert f"{len(numbers['verdicts'])} things that people say are judged" in told
    assert f"**{len(numbers['verdicts']) - len(outcomes)} of these verdicts rest" in told
    assert f"**{held} held, {not_held} did not, {not_shown} are neither shown nor refuted**" in told
    assert "76 times" not in told and "31.8 points" not in told
    for family in (each for of_task in numbers["accuracy"].values() for each in of_task.values()):
        mean, low, high = (f"{100 * family[name]:.1f}" for name in ("accuracy", "low", "high"))
        assert f"{mean} % ({low} to {high})" in told


def test_the_tree_names_every_file_that_a_newcomer_sees() -> None:
    named = {line.split()[0].rstrip("/") for line in tree().splitlines()[1:-1] if line.strip()}
    here = {path.name for path in Path().iterdir() if not path.name.startswith(".")}
    made = {
        "README.md",
        "candidates",
        "bundles",
        "data",
        "deployed",
        "reports",
        "mlflow-store",
        "mlruns",
        "dvc.lock",
        "src",
    }
    assert here - made - {"dvc_plots", "build"} <= named
