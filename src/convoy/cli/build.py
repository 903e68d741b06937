"""The verbs init, verify, tune and score: from a user's own data to models and predictions."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from convoy.cli.application import app, refused
from convoy.core.paths import RELEASE_PARAMS
from convoy.kinds.registry import module
from convoy.tracking import settings


@app.command()
def init(
    task: Annotated[str | None, typer.Option(help="A name for the task and its data set, for example pets.")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A folder, an archive of one, a table, arrays.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of the data, as image; found without it.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Put the proposal into params.yaml.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Take all other data sets and tasks out.")] = False,
    encoding: Annotated[str, typer.Option(help="Of texts and tables; it is never guessed.")] = "utf-8",
    labels: Annotated[str | None, typer.Option(help="The labels to take, with commas between; all without it.")] = None,
    content: Annotated[str | None, typer.Option(help="Of a table, the column of the text or image file.")] = None,
    label: Annotated[str | None, typer.Option(help="Of a table, the column of the label.")] = None,
    split: Annotated[str | None, typer.Option(help="Of a table, the column that says train, test and so on.")] = None,
    remove: Annotated[str | None, typer.Option(help="Instead, a task to take out, with all that it alone has.")] = None,
) -> None:
    """Look at data of your own and propose its entries in params.yaml; `dvc repro` then does the rest."""
    from convoy.core.params import ParamsInvalid
    from convoy.core.tasks import TaskUnknown
    from convoy.operations.init import init as onboarding
    from convoy.operations.init.source import Stated
    from convoy.release.journal import DecisionsBroken
    from convoy.sources.items import SourceRefused

    wanted_labels = tuple(name.strip() for name in labels.split(",")) if labels else None
    table = {key: name for key, name in (("content", content), ("label", label), ("split", split)) if name}
    other_encoding = encoding if encoding != "utf-8" else None
    others = {
        "task": task,
        "from": source,
        "kind": kind,
        "replace": replace or None,
        "encoding": other_encoding,
        "labels": labels,
        **table,
    }
    with refused(OSError, DecisionsBroken, ParamsInvalid, SourceRefused, TaskUnknown, onboarding.InitRefused):
        if remove is not None:
            onboarding.require_alone(remove, others)
            onboarding.remove(remove, write, typer.echo)
            return
        if task is None or source is None:
            raise onboarding.InitRefused("--task NAME and --from PATH are needed, or --remove NAME")
        stated = Stated(source, kind, encoding, wanted_labels, table)
        onboarding.init(onboarding.Wanted(task, stated, write, replace), typer.echo)


@app.command()
def verify(
    mend: Annotated[bool, typer.Option("--mend", help="Remove what is damaged, for DVC to make or fetch.")] = False,
) -> None:
    """Hash anew what dvc.lock names, in DVC's cache and here; exit code 1 where something is not as it says."""
    from dvc.exceptions import DvcException

    from convoy.lineage import cache_integrity

    try:
        with refused(DvcException):
            verification = cache_integrity.verify(mend, typer.echo)
    except OSError as error:
        typer.echo(f"DVC's own files cannot be read or changed: {error}; see to your rights and to the disk", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(0 if verification.whole or (mend and verification.mendable) else 1)


@app.command()
def tune(
    candidate: Annotated[str, typer.Option(help="The candidate of params.yaml that is tuned.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Finished trials to reach, not release.yaml's.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="A SQLite file, or a database URL that several machines share.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each trial, instead of the candidate's own.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which no trial is begun.")] = None,
) -> None:
    """Look for better params, on validation; again goes on, and at the same time takes part of the trials.

    What is tried stands in release.yaml, section tune.
    """
    settings.apply()
    from convoy.core import tasks
    from convoy.core.params import ParamsInvalid, read_section
    from convoy.operations.tuning.space import TuneParams
    from convoy.operations.tuning.study import StorageUnusable, StudyChanged, Subject
    from convoy.operations.tuning.tuner import Tuner

    with refused(ParamsInvalid, StorageUnusable, StudyChanged, tasks.TaskUnknown, FileNotFoundError):
        entry = tasks.read().candidate(candidate)
        place = storage or f".run/tune/{candidate}.db"
        finished = trials or read_section(TuneParams, "tune", path=RELEASE_PARAMS).trials
        status = Tuner(Subject(entry.task, candidate, entry.data, place, epochs), finished, timeout, typer.echo).run()
    raise typer.Exit(status)


@app.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A .csv, .tsv, .jsonl or .parquet, or a folder.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .parquet to write: a row for each input.")],
    task: Annotated[str, typer.Option(help="The task whose deployed model scores.")],
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
        from convoy.bundles.bundle import BundleInvalid
        from convoy.operations.score import score as scoring
        from convoy.operations.score.inputs import Inputs, ScoringRefused
        from convoy.operations.score.score import Scorer, load
        from convoy.sources.items import SourceRefused
    except ModuleNotFoundError as error:
        typer.echo(f"{error.name} is missing; `uv pip install -c requirements.lock '.[train]'` brings it", err=True)
        raise typer.Exit(1) from None
    settings = scoring.Settings(batch_size, threads, restart)
    try:
        with refused(BundleInvalid, ScoringRefused, SourceRefused, OSError):
            predictor = load(task)
            kind = predictor.card.kind
            inputs = Inputs(source, task, kind, column or module(kind, "items.raw").COLUMN, encoding)
            scoring.score(Scorer(predictor, encoding, polarity), inputs, output, settings, typer.echo)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command, without --restart, goes on after the last part that is whole", err=True)
        raise typer.Exit(130) from None
