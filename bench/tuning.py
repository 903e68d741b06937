"""Trials per hour of two processes of one thread against one of two threads -> a report; about 10 minutes."""

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
import yaml

from bench import machine
from bench.contest import Contest, Ratio, hold, table
from bench.place import ROOT, Place, params_on_cpu
from convoy.core import atomic, paths, tasks
from convoy.core.paths import Split
from convoy.core.tasks import Candidate

REPORT = Path("reports/bench/tuning.json")


@dataclass(frozen=True)
class Size:
    """How much is trained of each candidate: a trial takes about 10 s, so that its start counts little."""

    train: Mapping[str, int] = field(default_factory=lambda: {"fashion-cnn": 12800, "reviews-lstm": 3200})
    validation: int = 500
    trials: int = 4
    rounds: int = 3


@dataclass(frozen=True)
class Tuning:
    """A candidate in a folder of its own, with some of the prepared data."""

    candidate: Candidate
    size: Size
    place: Place

    def contest(self) -> Contest:
        """Two processes against one, on the same cores."""
        return Contest(
            "trials per hour",
            self.size.rounds,
            {"two_workers_of_one_thread": lambda: self.run(2), "one_worker_of_two_threads": lambda: self.run(1)},
            {
                f"two_workers_over_one_{self.candidate.name}": Ratio(
                    "two_workers_of_one_thread", "one_worker_of_two_threads", None
                )
            },
        )

    def lay(self) -> None:
        """Params with a learning rate as the only thing to try: every trial costs the same, and none is pruned."""
        release = yaml.safe_load((ROOT / paths.RELEASE_PARAMS).read_text(encoding="utf-8"))
        tried = release["tune"]["candidates"]
        tried[self.candidate.name] = {"learning.learning_rate": tried[self.candidate.name]["learning.learning_rate"]}
        release["tune"]["random_trials"] = 1000
        atomic.write_bytes(self.place.folder / paths.RELEASE_PARAMS, yaml.safe_dump(release).encode())
        counts: dict[Split, int] = {"train": self.size.train[self.candidate.name], "validation": self.size.validation}
        self.place.lay(params_on_cpu(), self.candidate.data, counts)

    def run(self, processes: int) -> float:
        """Trials per hour from the first one's start to the last one's end: a long study does not wait for Python."""
        with tempfile.TemporaryDirectory(dir=self.place.folder) as folder, ThreadPoolExecutor(processes) as pool:
            study_file = Path(folder, "study.db")
            words = ["--candidate", self.candidate.name, "--epochs", "1"]
            words += ["--trials", str(self.size.trials), "--storage", str(study_file)]
            variables = {"MLFLOW_TRACKING_URI": self.place.store, "OMP_NUM_THREADS": str(2 // processes)}
            for done in [pool.submit(self.place.run, "convoy", "tune", *words, **variables) for _ in range(processes)]:
                done.result()
            study = optuna.load_study(study_name=None, storage=f"sqlite:///{study_file}")
            trials = study.get_trials(deepcopy=False)
        starts = [trial.datetime_start for trial in trials if trial.datetime_start]
        ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
        seconds = (max(ends) - min(starts)).total_seconds()
        return float(len(trials) * 3600 / seconds)


def measure(size: Size) -> dict[str, Any]:
    """The comparison for each candidate."""
    results: dict[str, Any] = {}
    for name in size.train:
        with tempfile.TemporaryDirectory() as folder:
            tuning = Tuning(tasks.read().candidate(name), size, Place(Path(folder)))
            tuning.lay()
            results |= hold(tuning.contest(), f"tuning {name}")
    return results


def main(report: Annotated[Path, typer.Option(help="Where to write.")] = REPORT) -> None:
    """Measure, write the report, and print a table."""
    content = machine.facts()
    try:
        results = measure(Size())
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    atomic.write_json(report, {**content, "results": results})
    typer.echo(f"{table(results)}\nwritten: {report}")


if __name__ == "__main__":
    typer.run(main)
