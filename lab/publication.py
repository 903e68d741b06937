"""What was measured -> MLflow: a run per family and kind of data with its curves, and one that has the report."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from convoy.core import atomic
from convoy.core.process import Say
from convoy.tracking import mlflow_runs
from convoy.tracking.run_content import RunContent, flat_metrics, texts
from lab.layout import FAMILIES, READERS, REPORT, Family, Kind, Reader, learnt, permuted, remembered, sized
from lab.report.results import Results

EXPERIMENT = "convoy-compare"
CURVES = ("loss", "shift", "hide", "shuffle", "front", "back", "phrase", "negation", "contrast", "length")


def publish(client: MlflowClient, say: Say) -> None:
    """Bring MLflow to what the laboratory measured; the caller holds locks.hold_deployed().

    Raises FileNotFoundError where something was not measured yet.
    """
    results = Results.read()
    experiment = mlflow_runs.experiment_named(client, EXPERIMENT)
    contents = [image_run(family, results) for family in FAMILIES]
    contents += [family_run("text", family, results, {}, []) for family in FAMILIES]
    contents += [reader_run(reader, results) for reader in READERS]
    for content in [*contents, report_run(results)]:
        _, added = mlflow_runs.complete_run(client, experiment, content)
        what = ", ".join(f"{count} {name}" for name, count in added.items() if count and name != "run")
        say(f"run {content.name}: {'new, with ' if added['run'] else 'added '}{what or 'nothing, it is complete'}")


def image_run(family: Family, results: Results) -> RunContent:
    """A family on images: on permuted ones too, and in smaller sizes where it has some."""
    files = [permuted(family), *([sized(family)] if family in results.sizes else [])]
    return family_run("image", family, results, {"permuted": _interval(results.permuted[family]["accuracy"])}, files)


def family_run(
    kind: Kind, family: Family, results: Results, more: Mapping[str, Any], more_files: Sequence[Path]
) -> RunContent:
    """Accuracy, costs and curves of a family on a kind of data; a point's step is its x, in hundredths with decimals.

    `more` are figures that only this kind has, `more_files` where they stand.
    """
    found = results.of(kind)[family]
    cost = found["cost"]
    costs = {**cost, "training_s": _mean(cost["training_s"])}
    figures = flat_metrics({"accuracy": _interval(found["accuracy"]), "cost": costs, **more}, "")
    curves = {f"curves/{name}": _curve(found[name]) for name in CURVES if found.get(name, {}).get("x")}
    params = {"task": kind, "family": family, "seeds": found["seeds"], "learnt_from": found["learnt_from"]}
    files = [learnt(kind, family), *more_files]
    return _run(f"{kind}-{family}", params, figures, curves, files, sum(cost["training_s"]))


def reader_run(reader: Reader, results: Results) -> RunContent:
    """Over which distances a reader remembers."""
    found = results.memory[reader]
    curve = _curve({"x": found["distances"], "per_seed": list(zip(*found["per_seed"], strict=True))})
    figures = {"weights": found["weights"], "reach": _mean(found["reach"])}
    params = {"task": "memory", "family": reader, "seeds": found["seeds"]}
    return _run(
        f"memory-{reader}", params, flat_metrics(figures, ""), {"curves/memory": curve}, [remembered(reader)], 0
    )


def report_run(results: Results) -> RunContent:
    """The report itself, and how many of its claims held."""
    content = json.loads((REPORT / "numbers.json").read_bytes())
    outcomes = [verdict["outcome"] for verdict in content["verdicts"]]
    counts = {f"verdicts/{outcome.replace(' ', '_')}": float(outcomes.count(outcome)) for outcome in set(outcomes)}
    files = [REPORT / name for name in ("index.html", "numbers.json", "accuracy.json")]
    return _run("report", {"seeds": results.image["cnn"]["seeds"]}, counts, {}, files, 0)


def _run(
    name: str,
    params: dict[str, Any],
    metrics: dict[str, float],
    curves: dict[str, list[tuple[int, int, float]]],
    files: list[Path],
    seconds: float,
) -> RunContent:
    """A run whose key is the content of its files: measured anew, it is another one."""
    contents = {str(path): mlflow_runs.digest_of(path.read_bytes()) for path in files}
    ended_ms = int(max(path.stat().st_mtime for path in files) * 1000)
    return RunContent(
        name=name,
        key=hashlib.sha256(atomic.to_json({"laboratory": name, "files": contents})).hexdigest(),
        started_ms=ended_ms - int(1000 * seconds),
        ended_ms=ended_ms,
        params=texts(params),
        tags={
            "convoy.laboratory": "true",
            "mlflow.source.name": "dvc repro lab/dvc.yaml",
            "mlflow.source.type": "LOCAL",
        },
        metrics=metrics,
        curves=curves,
        files={f"compare/{path.name}": path for path in files},
        note="Measured by the laboratory (`make compare`); it never serves. The run `report` has the page.",
    )


def _interval(found: dict[str, Any]) -> dict[str, float]:
    return {name: found[name] for name in ("mean", "low", "high")}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _curve(points: dict[str, Any]) -> list[tuple[int, int, float]]:
    """(step, milliseconds since the start, mean over seeds) of each point."""
    factor = 1 if all(float(x).is_integer() for x in points["x"]) else 100
    means = [_mean(list(of_seeds)) for of_seeds in points["per_seed"]]
    return [(round(factor * x), 0, mean) for x, mean in zip(points["x"], means, strict=True)]
