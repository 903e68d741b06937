"""dvc.lock and reports -> what MLflow should hold of one candidate; reads only, imports no MLflow."""

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convoy.core import paths, tasks
from convoy.core.tasks import Candidate
from convoy.tracking.provenance import Lock, same_file

# MLflow allows word characters and `-./ :`, no colon on Windows, and refuses a name that changes as a path does:
# with `/` at an end, `//`, or a part `.` or `..`. `_x` begins an escape, so it is escaped itself.
_ESCAPED = re.compile(r"[^\w./ -]|_(?=[xX])|\A/|/(?=/|\Z)|(?<![^/])\.(?=\.?(?:/|\Z))")
# A name may have 250 characters; the others are left to the keys around a label.
_MAX_PART_LENGTH = 150
_HASH_DIGITS = 32

_CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}


def metric_name_part(label: str) -> str:
    """The part of a name that stands for a label: itself where MLflow takes it, else escaped, as `C_x2b__x2b_`.

    Escapes are those of .NET's XmlConvert.EncodeName: the code point in hexadecimal digits between `_x` and `_`.
    A part that would be too long is cut, and ends with a hash of the label. Only labels that differ in case alone,
    which convoy.data.raw refuses, have parts that differ in case alone: some stores compare names without regard to it.
    """
    part = _ESCAPED.sub(lambda match: f"_x{ord(match[0]):x}_", label) or "_x_"
    if len(part) < _MAX_PART_LENGTH:
        return part
    # All cut parts have the same length, which no other has.
    digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:_HASH_DIGITS]
    return f"{part[: _MAX_PART_LENGTH - _HASH_DIGITS - 1]}_{digest}"


def flat_metrics(content: Any, prefix: str) -> dict[str, float]:
    """The numeric leaves of a report, named after the keys that lead to them, with `/` between."""
    if isinstance(content, dict):
        metrics: dict[str, float] = {}
        for key, value in content.items():
            metrics |= flat_metrics(value, f"{prefix}/{metric_name_part(str(key))}".removeprefix("/"))
        return metrics
    is_number = isinstance(content, int | float) and not isinstance(content, bool)
    return {prefix: float(content)} if is_number else {}


@dataclass(frozen=True)
class DataFile:
    """One prepared file that a candidate learnt from or was measured on."""

    name: str
    digest: str  # DVC's md5
    path: str
    context: str


@dataclass(frozen=True)
class RunContent:
    """All that a run in MLflow should hold; `key`, the training's fingerprint, says which run it is."""

    name: str
    key: str
    started_ms: int
    ended_ms: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)  # (epoch, ms since start, value)
    metrics: dict[str, float] = field(default_factory=dict)
    data_sets: list[DataFile] = field(default_factory=list)
    files: dict[str, Path | bytes] = field(default_factory=dict)
    note: str = ""
    changed_code: list[str] = field(default_factory=list)  # sources that have changed since this was made


def read_json(path: Path) -> Any:
    """The content of a report; None where it is absent or half written."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested dicts -> (keys joined by dots, leaf), in order."""
    if not isinstance(content, dict):
        yield prefix, content
        return
    for key, value in content.items():
        yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))


def metrics_file(candidate: Candidate) -> Path:
    """File of a training's figures, with its fingerprint."""
    return paths.candidate_reports(candidate.task, candidate.name) / "metrics.json"


def training_key(candidate: Candidate) -> str:
    """The fingerprint of a candidate's training."""
    return str(read_json(metrics_file(candidate))["training"]["fingerprint"])


def texts(content: Any) -> dict[str, str]:
    """The leaves of nested params as MLflow keeps them."""
    return {name: leaf if isinstance(leaf, str) else json.dumps(leaf) for name, leaf in flatten(content)}


def read_run(candidate: Candidate, lock: Lock, evaluated: bool, is_winner: bool, missing: list[str]) -> RunContent:
    """What there is of a candidate whose metrics.json is the one of dvc.lock; `missing` lists what is not."""
    task = tasks.read().task(candidate.task)
    written = {**lock.outs(candidate.train), **lock.outs(task.evaluate)}
    reports = paths.candidate_reports(candidate.task, candidate.name)
    curves = _read_curves(reports / "curves.csv")
    elapsed_ms = max((point[1] for points in curves.values() for point in points), default=0)
    ended_ms = _made_at_ms(paths.candidate(candidate.task, candidate.name), reports)
    stages = lock.behind(candidate.train)
    return RunContent(
        name=candidate.name,
        key=training_key(candidate),
        started_ms=ended_ms - elapsed_ms,
        ended_ms=ended_ms,
        params=_params(candidate, lock),
        tags=_tags(candidate, lock),
        curves=curves,
        metrics=_metrics(candidate, evaluated, is_winner, written),
        data_sets=_data_sets(candidate, lock, evaluated),
        files={
            **_report_files(candidate, evaluated, is_winner, written, missing),
            "dvc.lock": lock.excerpt(stages),
        },
        note=f"Candidate {candidate.name} as `dvc repro` trained it; `dvc.lock` names its data and weights.",
        changed_code=lock.changed_code(stages),
    )


def _params(candidate: Candidate, lock: Lock) -> dict[str, str]:
    """The params of the training; the same idea has the same name in every candidate."""
    data = f"data.{candidate.data}"
    names = {candidate.key: "", f"{data}.prepare": "prepare", f"{data}.fetch": "fetch", f"{data}.kind": "kind"}
    params = {"architecture": candidate.network}
    for key, value in (pair for stage in lock.behind(candidate.train) for pair in lock.params(stage).items()):
        name = names.get(key, key)
        params |= texts({name: value} if name else value)
    return params


def _tags(candidate: Candidate, lock: Lock) -> dict[str, str]:
    data = {path: md5 for path, md5 in lock.deps(candidate.train).items() if path.startswith("data/")}
    made = lock.outs_of(lock.behind(candidate.train), "data/", "candidates/")
    return {
        "convoy.task": candidate.task,
        "convoy.candidate": candidate.name,
        "convoy.architecture": candidate.network,
        "mlflow.source.name": f"dvc repro {candidate.train}",
        "mlflow.source.type": "LOCAL",
        **{f"convoy.dvc.{path}": md5 for path, md5 in {**data, **made}.items()},
    }


def _read_curves(path: Path) -> dict[str, list[tuple[int, int, float]]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return curves_of(csv.DictReader(stream))


def curves_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, int, float]]]:
    """Rows of figures per epoch, as training sends or has written them -> points per curve, equal for both."""
    curves: dict[str, list[tuple[int, int, float]]] = {}
    for row in rows:
        elapsed_ms = round(float(row.get("elapsed_s") or 0) * 1000)
        for name, value in row.items():
            if name not in ("epoch", "elapsed_s") and value not in ("", None):
                curves.setdefault(f"curves/{name}", []).append((int(row["epoch"]), elapsed_ms, float(value)))
    return curves


def _metrics(candidate: Candidate, evaluated: bool, is_winner: bool, written: dict[str, str]) -> dict[str, float]:
    """The figures of the reports that dvc.lock names; one that was changed since gives none."""

    def figures(path: Path) -> Any:
        return read_json(path) if same_file(path, written.get(str(path), "")) else {}

    training = figures(metrics_file(candidate))
    metrics = flat_metrics({name: value for name, value in training.items() if name != "training"}, "")
    test = dict(figures(paths.reports(candidate.task) / "test.json")) if evaluated else {}
    metrics |= flat_metrics(test.pop("candidates", {}).get(candidate.name, {}), "test")
    if is_winner:
        for part in ("slices", "explanation"):
            metrics |= flat_metrics(test.pop(part, None), part)
        metrics |= flat_metrics(test, "test")
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _data_sets(candidate: Candidate, lock: Lock, evaluated: bool) -> list[DataFile]:
    inputs = lock.deps(candidate.train)
    if evaluated:
        inputs = {**inputs, **lock.deps(tasks.read().task(candidate.task).evaluate)}
    return [
        DataFile(f"{candidate.data}-{split}", md5[:36], path, _CONTEXTS[split])
        for path, md5 in inputs.items()
        if path.startswith(f"{paths.prepared(candidate.data)}/") and (split := _split_of(path))
    ]


def _split_of(path: str) -> str | None:
    file = Path(path)
    return file.stem if file.suffix == ".arrow" and file.stem in _CONTEXTS else None


def _report_files(
    candidate: Candidate, evaluated: bool, is_winner: bool, written: dict[str, str], missing: list[str]
) -> dict[str, Path | bytes]:
    folder = paths.reports(candidate.task)
    own, pictures = paths.candidate_reports(candidate.task, candidate.name), folder / "pictures"
    wanted = [own / "metrics.json", own / "curves.csv"]
    data = paths.data_reports(candidate.data)
    wanted += [data / name for name in ("data.json", "data.html", "findings.json", "rejected.csv")]
    if evaluated:
        wanted += [pictures / f"{candidate.name}-{name}.png" for name in ("confusion", "misclassified")]
        wanted += [folder / "test.json"]
    if is_winner:
        wanted += [paths.choice(candidate.task), folder / "parity.json"]
        wanted += [pictures / name for name in ("reliability.png", "slices.png") if evaluated]
    files: dict[str, Path | bytes] = {}
    for path in wanted:
        if not path.exists():
            missing.append(f"{path} is not there")
        elif str(path) in written and not same_file(path, written[str(path)]):
            missing.append(f"{path} is not the file that dvc.lock names")
        else:
            files[f"reports/{path.name}"] = path
    return files


def _made_at_ms(*folders: Path) -> int:
    """When a candidate was finished: the time of its oldest file."""
    times = [path.stat().st_mtime for folder in folders if folder.exists() for path in folder.iterdir()]
    return int(min(times, default=0) * 1000)
