"""The verbs up, ui, serve, demo and follow: the service, the MLflow UI and the demo as processes."""

from pathlib import Path

import typer

from convoy.cli.application import MlflowPort, Port, app
from convoy.tracking import settings


@app.command()
def up(port: Port = 3000, mlflow_port: MlflowPort = 5000) -> None:
    """Start the MLflow UI and the prediction service, and show one real answer of each task; Ctrl-C ends both."""
    settings.apply()
    from convoy.operations import supervisor

    raise typer.Exit(supervisor.up(port, mlflow_port, typer.echo))


@app.command()
def ui(mlflow_port: MlflowPort = 5000) -> None:
    """Start the MLflow UI alone, in the foreground."""
    from convoy.operations import supervisor

    raise typer.Exit(supervisor.exec_server("mlflow", mlflow_port, typer.echo))


@app.command()
def serve(port: Port = 3000) -> None:
    """Start the prediction service alone, in the foreground."""
    from convoy.operations import supervisor

    raise typer.Exit(supervisor.exec_server("serve", port, typer.echo))


@app.command()
def demo(folder: Path, port: Port = 3000, mlflow_port: MlflowPort = 5000) -> None:
    """Run everything on few examples in a folder of its own: pipeline, publish, up."""
    from convoy.operations.demo import run

    raise typer.Exit(run(folder, port, mlflow_port, typer.echo))


@app.command(hidden=True)
def follow() -> None:
    """Show in MLflow the training that tells on standard input how it goes; training starts this by itself."""
    import os
    import sys

    os.nice(10)  # loading MLflow's client takes seconds of a core, which training should have first
    settings.apply(impatient=True)

    from convoy.tracking import live_runs

    live_runs.follow(sys.stdin)
