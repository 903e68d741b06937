"""The verbs: python -m convoy publish | verify | promote | pull | up | ui | serve | demo | tune."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from convoy.layout import Architecture, Task
from convoy.publishing import mlflow_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the prediction service.")]
MlflowPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")]


@app.command()
def publish() -> None:
    """Bring MLflow and deployed/ to what `dvc repro` built; again adds only what is missing."""
    with _client() as client:
        from convoy.publishing import publication

        publication.publish(client, typer.echo)


@app.command()
def verify(
    mend: Annotated[bool, typer.Option("--mend", help="Remove what is damaged, for DVC to make or fetch.")] = False,
) -> None:
    """Hash anew what dvc.lock names, in DVC's cache and here; exit code 1 where something is not as it says."""
    from dvc.exceptions import DvcException

    from convoy import verification

    try:
        found = verification.verify(mend, typer.echo)
    except DvcException as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if found.whole or mend else 1)


@app.command()
def promote(
    task: Annotated[Task, typer.Option(help="The task whose model changes.")],
    version: Annotated[str | None, typer.Option(help="A registered version; the challenger without it.")] = None,
) -> None:
    """Let a registered version serve; a service that is running follows within seconds."""
    with _client() as client:
        from convoy.publishing import publication

        publication.promote(client, typer.echo, task, version)


@app.command()
def pull(
    task: Annotated[Task | None, typer.Option(help="The task whose champion is fetched; both without it.")] = None,
    every: Annotated[float | None, typer.Option(min=1, help="Go on, and look again after so many seconds.")] = None,
) -> None:
    """Fetch the registry's champion into deployed/, for machines that only serve; MLFLOW_TRACKING_URI says where."""
    with _refusals():
        from mlflow import MlflowClient

        from convoy.layout import TASKS
        from convoy.publishing import deployment, pulling

        uri = mlflow_settings.tracking_uri()
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        tasks = [task] if task else list(TASKS)
        if every is not None:
            pulling.follow(client, tasks, every, typer.echo)
        with deployment.exclusive(typer.echo):
            for each in tasks:
                pulling.pull(client, each, typer.echo)


@app.command()
def up(port: Port = 3000, mlflow_port: MlflowPort = 5000) -> None:
    """Start the MLflow UI and the prediction service, and show one real answer of each task; Ctrl-C ends both."""
    mlflow_settings.apply()
    from convoy.running import processes

    raise typer.Exit(processes.up(port, mlflow_port, typer.echo))


@app.command()
def ui(mlflow_port: MlflowPort = 5000) -> None:
    """Start the MLflow UI alone, in the foreground."""
    from convoy.running import processes

    raise typer.Exit(processes.replace_by("mlflow", mlflow_port, typer.echo))


@app.command()
def serve(port: Port = 3000) -> None:
    """Start the prediction service alone, in the foreground."""
    from convoy.running import processes

    raise typer.Exit(processes.replace_by("serve", port, typer.echo))


@app.command()
def demo(folder: Path, port: Port = 3000, mlflow_port: MlflowPort = 5000) -> None:
    """Run everything on few examples in a folder of its own: pipeline, publish, up."""
    from convoy.running import workspace

    raise typer.Exit(workspace.demo(folder, port, mlflow_port, typer.echo))


@app.command(hidden=True)
def follow() -> None:
    """Show in MLflow the training that tells on standard input how it goes; training starts this by itself."""
    import os
    import sys

    os.nice(10)  # loading MLflow's client takes seconds of a core, which training should have first
    mlflow_settings.apply(impatient=True)

    from convoy.publishing import live

    live.follow(sys.stdin)


@app.command()
def tune(
    task: Annotated[Task, typer.Option(help="The task whose candidate is tuned.")],
    architecture: Annotated[
        Architecture | None, typer.Option(help="cnn for images, lstm for texts without it.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Finished trials to reach; params.yaml without it.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the cores.")] = 1,
    storage: Annotated[str | None, typer.Option(help="A file, or a database URL that several machines share.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each trial, instead of the candidate's own.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which no trial is begun.")] = None,
) -> None:
    """Look for better params, on validation; again goes on. What is tried stands in params.yaml, section tune."""
    mlflow_settings.apply()
    from convoy.params import ParamsInvalid, read_section
    from convoy.tuning.space import TuneParams
    from convoy.tuning.study import StudyChanged, Subject
    from convoy.tuning.tuner import Tuner

    chosen = architecture or ("cnn" if task == "image" else "lstm")
    place = storage or f".run/tune/{task}-{chosen}.journal"
    try:
        wanted = trials or read_section(TuneParams, "tune").trials
        tuner = Tuner(Subject(task, chosen, place, epochs), wanted, workers, timeout, typer.echo)
    except (ParamsInvalid, StudyChanged, FileNotFoundError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(tuner.run())


@contextmanager
def _client() -> Iterator[Any]:
    """An MLflow client, for one process at a time; what a user can mend is said in a sentence, without a traceback."""
    with _refusals():
        from sqlalchemy.exc import SQLAlchemyError

        from convoy.params import ParamsInvalid
        from convoy.publishing import deployment
        from convoy.publishing.git_state import GitFailed
        from convoy.publishing.provenance import LockInvalid
        from convoy.publishing.tracking import StoreMoved, open_store

        try:
            with deployment.exclusive(typer.echo):  # the store too: two at once would race to make its tables
                yield open_store()
        except SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            typer.echo(
                f"{mlflow_settings.tracking_uri()} cannot be used ({reason}). If it is broken, move it away and run "
                "`python -m convoy publish`, which brings all of it back from DVC's record.",
                err=True,
            )
        except (GitFailed, LockInvalid, ParamsInvalid, StoreMoved) as error:
            typer.echo(str(error), err=True)
        else:
            return
        raise typer.Exit(1)


@contextmanager
def _refusals() -> Iterator[None]:
    """What MLflow's client and the registry may refuse, in a sentence; needs nothing that a serving machine lacks."""
    mlflow_settings.apply()
    import logging

    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from convoy.bundle import BundleInvalid
    from convoy.publishing.registry import VersionUnknown

    try:
        yield
    except MlflowException as error:
        typer.echo(f"MLflow ({mlflow_settings.tracking_uri()}) refuses: {error.message}", err=True)
    except (BundleInvalid, VersionUnknown, OSError) as error:
        typer.echo(str(error), err=True)
    else:
        return
    raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="python -m convoy")
