"""The verbs retrain, gc and migrate: what a deployment needs over months."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from convoy.cli.application import app, open_mlflow, refused

_ANY_WORDS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def retrain(
    report: Annotated[Path, typer.Option(help="Where what was built and decided is told, in Markdown.")] = Path(
        ".run/retraining.md"
    ),
) -> None:
    """Fetch new data, `dvc repro`, publish, and write a report of it: what a schedule runs."""
    from convoy.operations import retrain as retraining

    with refused(retraining.RetrainingFailed, OSError):
        with open_mlflow() as client:
            before = retraining.champions(client)
        published, status = retraining.rebuild(typer.echo)
        with open_mlflow() as client:
            retraining.write_report(client, report, before, published)
    typer.echo(f"the report is {report}")
    if status:
        typer.echo(f"`convoy publish` ended with {status}; the report has what it said", err=True)
        raise typer.Exit(1)


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Do it, without a question.")] = False,
    clock_is_right: Annotated[
        bool, typer.Option("--clock-is-right", help="Judge by age though nothing was recorded for `keep.days`.")
    ] = False,
) -> None:
    """Say what old bundles, versions, runs and cache objects would go by release.yaml's `keep`; with --yes they do."""
    import sys
    from datetime import UTC, datetime

    from convoy.core.params import read_section
    from convoy.core.paths import RELEASE_PARAMS
    from convoy.operations.cleanup import dvc_cache
    from convoy.operations.cleanup import gc as cleanup
    from convoy.operations.cleanup.retention import ClockSuspicious, KeepParams
    from convoy.operations.cleanup.run_cleanup import RetiringFailed

    def make_plan(client: Any) -> cleanup.Plan:
        params = read_section(KeepParams, "keep", path=RELEASE_PARAMS)
        return cleanup.plan(client, params, datetime.now(UTC), clock_is_right)

    with refused(dvc_cache.CacheRefused, ClockSuspicious, RetiringFailed):
        with open_mlflow() as client:
            plan = make_plan(client)
            cleanup.print_plan(plan, typer.echo)
            dvc_cache.collect(plan.revisions, plan.hashes, True, typer.echo)
        if not yes and not (sys.stdin.isatty() and typer.confirm("Remove what goes?")):
            typer.echo("nothing was removed; `python -m convoy gc --yes` does it")
            return
        printed = {thing.key for thing in plan.going}
        with open_mlflow() as client:
            renewed = make_plan(client)  # others may have published or promoted while the question stood
            cleanup.carry_out(client, [thing for thing in renewed.going if thing.key in printed], typer.echo)
            after = make_plan(client)
            dvc_cache.collect(after.revisions, after.hashes, False, typer.echo)


@app.command("backup", hidden=True, context_settings=_ANY_WORDS)
@app.command("restore", hidden=True, context_settings=_ANY_WORDS)
def backup() -> None:
    """Name the recipe that stands for these two former verbs."""
    typer.echo(
        "backup and restore are commands of sqlite3 and tar now; docs/operate.md, section Backup, has them", err=True
    )
    raise typer.Exit(2)


@app.command()
def migrate(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle of an older format; without it the tasks of this checkout.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="The folder to write; without it one of deployed/ gets its successor beside it.")
    ] = None,
) -> None:
    """Bring a checkout to the present names of tasks, or a bundle of an older format to the present one.

    A deployed bundle is followed by its successor, which a running service loads within seconds.
    """
    if bundle is None and into is not None:
        raise typer.BadParameter(f"--into {into} is for a BUNDLE; name that too, or leave --into out")
    if bundle is None:
        _migrate_names()
        return
    from convoy.bundles.bundle import BundleInvalid
    from convoy.core import locks
    from convoy.operations import migrate as migration

    held = nullcontext() if into else locks.hold_deployed(typer.echo)
    with refused(BundleInvalid, migration.MigrationRefused, OSError), held:
        migration.migrate(bundle, into, typer.echo)


def _migrate_names() -> None:
    with open_mlflow() as client:
        from convoy.operations import renaming

        with refused(renaming.RenamingRefused):
            renaming.rename_tasks(client, typer.echo)
