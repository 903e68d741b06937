"""The service, the MLflow UI and the demo as processes"""

from pathlib import Path

import typer

from convoy.publishing import mlflow_settings
from convoy.verbs.application import MlflowPort, Port, app


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
