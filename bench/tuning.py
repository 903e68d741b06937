"""Trials per hour of two workers of one thread against one of two threads -> a report; about 10 minutes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from bench import machine
from bench.contest import Contest, Ratio, hold, table
from bench.place import ROOT, Place, params_on_cpu
from convoy.core import atomic, paths
from convoy.core.paths import Architecture, Task

REPORT = Path("reports/bench/tuning.json")
CANDIDATES: tuple[tuple[Task, Architecture], ...] = (("image", "cnn"), ("text", "lstm"))


@dataclass(frozen=True)
class Size:
    """How much is trained: a trial takes about 10 s, so that its start counts little."""

    images: int = 12800
    reviews: int = 3200
    validation: int = 500
    trials: int = 4
    rounds: int = 3


@dataclass(frozen=True)
class Tuning:
    """A candidate in a folder of its own, with some of the prepared data."""

    task: Task
    architecture: Architecture
    size: Size
    place: Place

    def contest(self) -> Contest:
        """Two workers against one, on the same cores."""
        return Contest(
            "trials per hour",
            self.size.rounds,
            {"two_workers_of_one_thread": lambda: self.run(2), "one_worker_of_two_threads": lambda: self.run(1)},
            {
                f"two_workers_over_one_{self.task}_{self.architecture}": Ratio(
                    "two_workers_of_one_thread", "one_worker_of_two_threads", None
                )
            },
        )

    def lay(self) -> None:
        """Params with a learning rate as the only thing to try: every trial costs the same, and none is pruned."""
        release = yaml.safe_load((ROOT / paths.RELEASE_PARAMS).read_text(encoding="utf-8"))
        rate = release["tune"][self.task][self.architecture]["learning.learning_rate"]
        release["tune"][self.task][self.architecture] = {"learning.learning_rate": rate}
        release["tune"]["random_trials"] = 1000
        atomic.write_bytes(self.place.folder / paths.RELEASE_PARAMS, yaml.safe_dump(release).encode())
        count = self.size.images if self.task == "image" else self.size.reviews
        self.place.lay(params_on_cpu(), self.task, {"train": count, "validation": self.size.validation})

    def run(self, workers: int) -> float:
        """Trials per hour from the first one's start to the last one's end: a long study does not wait for Python."""
        with tempfile.TemporaryDirectory(dir=self.place.folder) as folder:
            journal = Path(folder, "study.journal")
            words = ["--task", self.task, "--architecture", self.architecture, "--epochs", "1"]
            words += ["--trials", str(self.size.trials), "--workers", str(workers), "--storage", str(journal)]
            self.place.run("convoy", "tune", *words, MLFLOW_TRACKING_URI=self.place.store)
            study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(journal))))
            trials = study.get_trials(deepcopy=False)
        starts = [trial.datetime_start for trial in trials if trial.datetime_start]
        ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
        seconds = (max(ends) - min(starts)).total_seconds()
        return float(len(trials) * 3600 / seconds)


def measure(size: Size) -> dict[str, Any]:
    """The comparison for each candidate."""
    results: dict[str, Any] = {}
    for task, architecture in CANDIDATES:
        with tempfile.TemporaryDirectory() as folder:
            tuning = Tuning(task, architecture, size, Place(Path(folder)))
            tuning.lay()
            results |= hold(tuning.contest(), f"tuning {task}-{architecture}")
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
