"""The laboratory's verbs: python -m lab publish | smoke; what they show is measured by `dvc repro lab/dvc.yaml`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def publish() -> None:
    """Bring MLflow to what the laboratory measured; again adds only what is missing."""
    from convoy.core import locks
    from convoy.tracking import settings

    settings.apply()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    from convoy.tracking import mlflow_runs
    from convoy.tracking.artifacts import StoreMoved
    from lab import publication

    try:
        with locks.hold_deployed(typer.echo):
            publication.publish(mlflow_runs.open_store(), typer.echo)
    except (MlflowException, OSError, SQLAlchemyError, StoreMoved) as error:
        typer.echo(f"MLflow ({settings.tracking_uri()}) was not brought up to date: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def smoke(folder: Annotated[Path, typer.Argument(help="Where all of it happens.")]) -> None:
    """Run the whole laboratory on few examples in a folder of its own."""
    from lab import smoke as laboratory

    raise typer.Exit(laboratory.run(folder, typer.echo))


@app.command(hidden=True)  # elsewhere it would write over what DVC has measured
def measure() -> None:
    """What `smoke` runs in its folder: every stage of the laboratory in one process, past DVC."""
    import torch

    from lab import smoke as laboratory

    torch.set_flush_denormal(True)  # as the stages do: denormal numbers cost a recurrent network twenty times the time
    laboratory.measure()


if __name__ == "__main__":
    app(prog_name="python -m lab")
