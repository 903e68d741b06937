"""The verbs of `python -m convoy`, from the first look at data of your own to who serves; --help lists them."""

from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from convoy.layout import Architecture, Task
from convoy.publishing import mlflow_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the prediction service.")]
MlflowPort = Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")]


@app.command()
def init(
    task: Annotated[Task, typer.Option(help="What the data is.")],
    source: Annotated[Path, typer.Option("--from", help="A folder, an archive of one, a table, or arrays.")],
    write: Annotated[bool, typer.Option("--write", help="Put the proposal into params.yaml.")] = False,
    encoding: Annotated[str, typer.Option(help="Of texts and tables; it is never guessed.")] = "utf-8",
    labels: Annotated[str | None, typer.Option(help="The labels to take, with commas between; all without it.")] = None,
) -> None:
    """Look at data of your own and propose the params for it; `dvc repro` then does the rest."""
    from convoy.onboarding import verb
    from convoy.params import ParamsInvalid
    from convoy.sources.items import SourceRefused

    wanted = tuple(label.strip() for label in labels.split(",")) if labels else None
    try:
        verb.init(task, source, encoding, wanted, write, typer.echo)
    except (OSError, ParamsInvalid, SourceRefused) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


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
    reason: Annotated[str, typer.Option(help="Why; needed where the gates or a rollback stand against it.")] = "",
) -> None:
    """Let a registered version serve; a service that is running follows within seconds."""
    from convoy.publishing import deployment

    seen = deployment.current_digest(task)  # before the lock: of two at once the second is told so
    with _client() as client:
        from convoy.publishing import by_hand

        by_hand.promote(client, typer.echo, task, version, reason, seen)


@app.command()
def rollback(
    task: Annotated[Task, typer.Option(help="The task whose model changes.")],
    version: Annotated[str | None, typer.Option(help="One that served; without it the champion before this.")] = None,
    reason: Annotated[str, typer.Option(help="Why; the history keeps it.")] = "",
) -> None:
    """Let the model serve again that did before, in a second and without MLflow; nothing brings the other one back."""
    from convoy.publishing import deployment

    seen = deployment.current_digest(task)
    with _told():
        from convoy.publishing import rollback as way_back

        with deployment.exclusive(typer.echo):
            way_back.rollback(typer.echo, task, version, reason, seen)
    mlflow_settings.apply(impatient=True)  # it serves already; nobody should wait for an MLflow that is away
    try:
        with _client() as client:
            from convoy.publishing import by_hand

            by_hand.show(client, task)
    except typer.Exit:
        typer.echo("it serves all the same; the next `python -m convoy publish` tells MLflow", err=True)


@app.command()
def history(
    task: Annotated[Task, typer.Option(help="The task whose decisions are printed.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object per decision, with all its figures.")] = False,
) -> None:
    """Who decided what serves: when, who, from, to, why and by which figures; nothing in it is ever rewritten."""
    with _told():
        from convoy.publishing import decisions, retelling

        retelling.tell(decisions.read_history(task), decisions.path_of(task), json, typer.echo)


@app.command()
def status(
    port: Port = 3000,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """What is built, published, deployed and serving, and what to type next where these differ."""
    from convoy.publishing import status as standing

    found = standing.look(port)
    typer.echo(standing.to_json(found)) if json else standing.tell(found, typer.echo)


@app.command()
def doctor(
    port: Port = 3000,
    mlflow_port: MlflowPort = 5000,
    json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """Ports, git, DVC, MLflow, GPU, threads, disk, versions: each finding with its remedy; exit code 1 where broken."""
    mlflow_settings.apply()
    from convoy.doctor import verb

    found = verb.examine(port, mlflow_port)
    typer.echo(verb.to_json(found)) if json else verb.tell(found, typer.echo)
    raise typer.Exit(1 if any(finding.state == "broken" for finding in found) else 0)


@app.command()
def trace(
    asked: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A version (image/3), an MLflow run, a bundle's digest, a hash of DVC's, a git revision, a request.",
        ),
    ],
    checkout: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Bring that state back there, as a git worktree of its own.")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Rebuild it, there or for a while, and compare; exit code 1 where it differs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs; progress goes to stderr.")] = False,
    requests: Annotated[
        str, typer.Option(envvar="CONVOY_REQUEST_LOG", help="The request log of the service, a file or a folder.")
    ] = "",
) -> None:
    """Tell from one name of a state all others, its params, and what brings it back; nothing here is changed."""
    with _refusals():
        from convoy.tracing import verb
        from convoy.tracing.finding import TraceFailed
        from convoy.tracing.worktree import CheckoutRefused
        from convoy.tracing.world import World

        def progress(line: str) -> None:
            typer.echo(line, err=True)

        try:
            status = verb.trace(asked, World(requests), checkout, verify, as_json, typer.echo, progress)
        except (TraceFailed, CheckoutRefused) as error:
            typer.echo(str(error), err=True)
            status = 1
    raise typer.Exit(status)


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


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A .csv, .tsv, .jsonl or .parquet, or a folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .parquet to write: a row for each input.")],
    task: Annotated[Task, typer.Option(help="Which deployed model scores.")],
    column: Annotated[
        str | None, typer.Option(help="Of a table, its texts or image files, relative to it; text or path without it.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="Of CSV, TSV, JSONL and text files.")] = "utf-8",
    polarity: Annotated[
        Literal["light_on_dark", "dark_on_light"] | None,
        typer.Option(help="Of all images, where it is not the model's."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=4096, help="Rows that a thread takes at once; texts run sorted by length in it.")
    ] = 256,  # 32: 0.7 of the speed on texts; 1024: 1.1, but then four threads are all that a part keeps busy
    threads: Annotated[int | None, typer.Option(min=1, help="Batches at once; as many as cores without it.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, and replace an OUTPUT that exists.")] = False,
) -> None:
    """Score a table or a folder with the deployed model; after a kill the same command goes on where it was."""
    try:
        from convoy.bundle import BundleInvalid
        from convoy.scoring import bulk
        from convoy.scoring.inputs import Inputs
        from convoy.scoring.refusal import ScoringRefused
        from convoy.scoring.scorer import Scorer, load
        from convoy.sources.items import SourceRefused
    except ModuleNotFoundError as error:
        typer.echo(f"{error.name} is missing; `pip install -c requirements.lock '.[train]'` brings it", err=True)
        raise typer.Exit(1) from None
    inputs = Inputs(source, task, column or ("path" if task == "image" else "text"), encoding)
    settings = bulk.Settings(batch_size, threads, restart)
    try:
        bulk.score(Scorer(load(task), encoding, polarity), inputs, output, settings, typer.echo)
    except (BundleInvalid, ScoringRefused, SourceRefused, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("stopped; the same command, without --restart, goes on after the last part that is whole", err=True)
        raise typer.Exit(130) from None


@app.command()
def migrate(
    bundle: Annotated[Path, typer.Argument(help="A bundle of an older format; it stays as it is.")],
    into: Annotated[
        Path | None, typer.Option(help="The folder to write; without it one of deployed/ gets its successor beside it.")
    ] = None,
) -> None:
    """Bring a bundle of an older format into today's; one that serves is served by its successor, within seconds."""
    from convoy.bundle import BundleInvalid
    from convoy.housekeeping import migration
    from convoy.publishing import deployment

    try:
        with nullcontext() if into else deployment.exclusive(typer.echo):
            migration.migrate(bundle, into, typer.echo)
    except (BundleInvalid, migration.MigrationRefused, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def retrain(
    report: Annotated[Path, typer.Option(help="Where what was built and decided is told, in Markdown.")] = Path(
        ".run/retraining.md"
    ),
) -> None:
    """Fetch new data, `dvc repro`, publish, and write a report of it: what a schedule runs."""
    from convoy.housekeeping import retraining

    try:
        with _client() as client:
            before = retraining.champions(client)
        said = retraining.rebuild(typer.echo)
        with _client() as client:
            retraining.write_report(client, report, before, said)
    except (retraining.RetrainingFailed, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"the report is {report}")


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Do it, without a question.")] = False,
) -> None:
    """Say what old bundles, versions, runs and cache objects would go by params.yaml's `keep`; with --yes they do."""
    import sys
    from datetime import UTC, datetime

    from convoy.housekeeping import collection, dvc_cache
    from convoy.housekeeping.retention import KeepParams
    from convoy.params import read_section

    def look(client: Any) -> collection.Plan:
        return collection.plan(client, read_section(KeepParams, "keep"), datetime.now(UTC))

    try:
        with _client() as client:
            plan = look(client)
            collection.tell(plan, typer.echo)
            dvc_cache.collect(plan.revisions, plan.hashes, True, typer.echo)
        if not yes and not (sys.stdin.isatty() and typer.confirm("Remove what goes?")):
            typer.echo("nothing was removed; `python -m convoy gc --yes` does it")
            return
        told = {thing.key for thing in plan.going}
        with _client() as client:
            again = look(client)  # others may have published or promoted while the question stood
            collection.carry_out(client, [thing for thing in again.going if thing.key in told], typer.echo)
            after = look(client)
            dvc_cache.collect(after.revisions, after.hashes, False, typer.echo)
    except (dvc_cache.CacheRefused, collection.RetiringFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def backup(file: Annotated[Path, typer.Argument(metavar="FILE", help="The .tar.gz to write.")]) -> None:
    """Keep mlflow.db, its artifacts and deployed/ with its history in one archive; MLflow and the service may run."""
    from convoy.housekeeping.backup import BackupRefused, back_up
    from convoy.publishing import deployment

    try:
        with deployment.exclusive(typer.echo):
            back_up(file, typer.echo)
    except (BackupRefused, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` wrote.")],
    into: Annotated[Path, typer.Option(help="The folder to restore to; this one without it.")] = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="Move to .replaced/ what stands there.")] = False,
) -> None:
    """Bring a backup back, in this folder or another, once every file in it has proven to be the one that was kept."""
    from convoy.housekeeping.restoration import RestoreRefused
    from convoy.housekeeping.restoration import restore as restore_here
    from convoy.publishing import deployment
    from convoy.sources.items import SourceRefused

    archive = file.absolute()
    try:
        into.mkdir(parents=True, exist_ok=True)
        with chdir(into), deployment.exclusive(typer.echo):
            restore_here(archive, replace, typer.echo)
    except (RestoreRefused, SourceRefused, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


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
    from convoy.publishing.registry import VersionUnknown

    try:
        with _told():
            yield
    except MlflowException as error:
        typer.echo(f"MLflow ({mlflow_settings.tracking_uri()}) refuses: {error.message}", err=True)
    except VersionUnknown as error:
        typer.echo(str(error), err=True)
    else:
        return
    raise typer.Exit(1)


@contextmanager
def _told() -> Iterator[None]:
    """What a file or a person's word may be refused for, in a sentence; needs no MLflow."""
    from convoy.bundle import BundleInvalid
    from convoy.publishing.asked import NotAsAsked
    from convoy.publishing.decisions import DecisionsBroken

    try:
        yield
    except (BundleInvalid, DecisionsBroken, NotAsAsked, OSError) as error:
        typer.echo(str(error), err=True)
    else:
        return
    raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="python -m convoy")
