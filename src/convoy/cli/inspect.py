"""The verbs status, doctor and trace: questions that change nothing."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from convoy.cli.application import MlflowPort, Port, app, mlflow_refusals
from convoy.tracking import settings


@app.command()
def status(
    port: Port = 3000,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """What is built, published, deployed and serving, and what to type next where these differ."""
    settings.apply(impatient=True)  # an MLflow that is away is told, not waited for
    from convoy.operations import status as task_status

    statuses = task_status.read_status(port)
    typer.echo(task_status.to_json(statuses)) if json else task_status.print_status(statuses, typer.echo)


@app.command()
def doctor(
    port: Port = 3000,
    mlflow_port: MlflowPort = 5000,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Ports, GPU, threads, disk, git, DVC, MLflow, packages: what no other verb tells; exit code 1 where broken."""
    settings.apply()
    from convoy.operations.doctor import doctor as doctor_checks

    checks = doctor_checks.run_checks(port, mlflow_port)
    typer.echo(doctor_checks.to_json(checks)) if json else doctor_checks.print_checks(checks, typer.echo)
    raise typer.Exit(1 if any(check.state == "broken" for check in checks) else 0)


@app.command()
def trace(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A version (fashion/3), an MLflow run, a bundle's digest, or the id of a logged request.",
        ),
    ],
    checkout: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Bring that state back there, as a git worktree of its own.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Rebuild it, there or for a while, and compare; exit code 1 where it differs."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Apply the edits that MLflow holds of that state without asking.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; progress goes to stderr.")] = False,
    requests: Annotated[
        str, typer.Option(envvar="CONVOY_REQUEST_LOG", help="The request log of the service, a file or a folder.")
    ] = "",
) -> None:
    """Tell from one name of a state all others, its params, and what brings it back; nothing here is changed."""
    with mlflow_refusals():
        from convoy.lineage import trace as tracing
        from convoy.lineage.checkout import CheckoutRefused
        from convoy.lineage.index import Index
        from convoy.lineage.resolve import IdUnresolved

        def progress(line: str) -> None:
            typer.echo(line, err=True)

        def confirm(question: str) -> bool:
            return yes or (sys.stdin.isatty() and typer.confirm(question, err=True))

        try:
            status = tracing.trace(name, Index(requests), checkout, verify, as_json, typer.echo, progress, confirm)
        except (IdUnresolved, CheckoutRefused) as error:
            typer.echo(str(error), err=True)
            status = 1
    raise typer.Exit(status)
