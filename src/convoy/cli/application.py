"""The typer application of all commands, their shared options, and errors as one sentence on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from convoy.tracking import settings

HELP = "The verbs of `python -m convoy`, from the first look at data of your own to who serves."
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the prediction service.")]
MlflowPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")]


def _require_task(name: str | None) -> str | None:
    from convoy.core import tasks
    from convoy.core.params import ParamsInvalid

    try:
        return name and tasks.require_known(name)
    except (tasks.TaskUnknown, ParamsInvalid) as error:
        if name in tasks.with_history():  # so that a params.yaml that is broken keeps nobody from a rollback
            return name
        raise typer.BadParameter(str(error)) from None


Task = Annotated[str, typer.Option(callback=_require_task, help="The task, as params.yaml or deployed/ names it.")]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)


@contextmanager
def refused(*errors: type[Exception]) -> Iterator[None]:
    """These errors as one sentence on stderr, and exit code 1."""
    try:
        yield
    except errors as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@contextmanager
def open_mlflow() -> Iterator[Any]:
    """An MLflow client for one process at a time; expected errors are one sentence, without a traceback."""
    with mlflow_refusals():
        from sqlalchemy.exc import SQLAlchemyError

        from convoy.core import locks
        from convoy.core.params import ParamsInvalid
        from convoy.tracking.artifacts import StoreMoved
        from convoy.tracking.mlflow_runs import open_store
        from convoy.tracking.provenance import GitFailed, LockInvalid

        try:
            # For the store too: two at once would race to create its tables.
            with refused(GitFailed, LockInvalid, ParamsInvalid, StoreMoved), locks.hold_deployed(typer.echo):
                yield open_store()
        except SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            typer.echo(
                f"{settings.tracking_uri()} cannot be used ({reason}). If it is broken, move it away and run "
                "`python -m convoy publish`, which brings all of it back from DVC's record.",
                err=True,
            )
            raise typer.Exit(1) from None


@contextmanager
def mlflow_refusals() -> Iterator[None]:
    """Errors of MLflow's client and the registry as one sentence; needs nothing that a serving machine lacks."""
    settings.apply()
    import logging

    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from convoy.tracking.artifacts import ArtifactRefused
    from convoy.tracking.registry import VersionUnknown

    try:
        with refused(ArtifactRefused, VersionUnknown), refusals():
            yield
    except MlflowException as error:
        typer.echo(f"MLflow ({settings.tracking_uri()}) refuses: {error.message}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def refusals() -> Iterator[None]:
    """Errors of files and of refused approvals as one sentence; needs no MLflow."""
    from convoy.bundles.bundle import BundleInvalid
    from convoy.release.decision import ApprovalRefused
    from convoy.release.journal import DecisionsBroken

    with refused(BundleInvalid, DecisionsBroken, ApprovalRefused, OSError):
        yield
