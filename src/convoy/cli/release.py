"""The verbs publish, promote, rollback, history and pull: what is built -> MLflow, and which model is deployed."""

from typing import Annotated

import typer

from convoy.cli.application import Task, app, mlflow_refusals, open_mlflow, refusals, refused
from convoy.tracking import settings


@app.command()
def publish() -> None:
    """Bring MLflow and deployed/ to what `dvc repro` built; again adds only what is missing."""
    with open_mlflow() as client:
        from convoy.release import publish as publishing

        with refused(publishing.PublishFailed):
            publishing.publish(client, typer.echo)


@app.command()
def promote(
    task: Task,
    version: Annotated[str | None, typer.Option(help="A registered version; the challenger without it.")] = None,
    reason: Annotated[str, typer.Option(help="Why; needed where the gates or a rollback stand against it.")] = "",
) -> None:
    """Let a registered version serve; a service that is running follows within seconds."""
    from convoy.release import deployment

    digest_before = deployment.current_digest(task)  # before the lock: of two at once the second is refused
    with open_mlflow() as client:
        from convoy.release import promote as promoting

        promoting.promote(client, typer.echo, task, version, reason, digest_before)


@app.command()
def rollback(
    task: Task,
    version: Annotated[str | None, typer.Option(help="One that served; without it the champion before this.")] = None,
    reason: Annotated[str, typer.Option(help="Why; the history keeps it.")] = "",
) -> None:
    """Let the model serve again that did before, in a second and without MLflow; `promote` brings the other back."""
    from convoy.release import deployment

    digest_before = deployment.current_digest(task)
    settings.apply(impatient=True)  # an MLflow that is away holds nothing up
    with refusals():
        from convoy.core import locks
        from convoy.release.rollback import rollback as roll_back

        with locks.hold_deployed(typer.echo):
            roll_back(typer.echo, task, version, reason, digest_before)
    try:
        with open_mlflow() as client:
            from convoy.release import promote as promoting

            promoting.align_and_update_mlflow(client, task)
    except typer.Exit:
        typer.echo("it serves all the same; the next `python -m convoy publish` tells MLflow", err=True)


@app.command()
def history(
    task: Task,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per decision, with all its figures.")] = False,
) -> None:
    """Who decided what serves: when, who, from, to, why and by which figures; nothing in it is ever rewritten."""
    with refusals():
        from convoy.release import history_view, journal

        history_view.print_history(journal.read_history(task), journal.path_of(task), json, typer.echo)


@app.command()
def pull(
    task: Annotated[str | None, typer.Option(help="The task whose champion is fetched; all without it.")] = None,
    every: Annotated[float | None, typer.Option(min=1, help="Go on, and look again after so many seconds.")] = None,
) -> None:
    """Fetch the registry's champion into deployed/, for machines that only serve; MLFLOW_TRACKING_URI says where."""
    with mlflow_refusals():
        from mlflow import MlflowClient

        from convoy.core import locks
        from convoy.release import pull as pulling

        uri = settings.tracking_uri()
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)

        def complain(line: str) -> None:
            typer.echo(line, err=True)

        if every is not None:
            pulling.follow(client, task, every, typer.echo)
        steps = [(task, pulling.pull)] if task else pulling.steps(client)
        with locks.hold_deployed(typer.echo):
            done = [pulling.attempt(step, client, name, typer.echo, complain) for name, step in steps]
        is_empty = not any(step is pulling.pull for _, step in steps)
        if is_empty:
            complain(f"{uri} has no champion; `python -m convoy publish`, where the pipeline runs, makes one")
        if is_empty or not all(done):
            raise typer.Exit(1)
