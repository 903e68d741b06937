"""Checks of git, DVC, MLflow's store and deployed/; they change nothing."""

import importlib.metadata
import json
import shutil
import sqlite3
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from convoy.core import tasks
from convoy.core.paths import DEPLOYED
from convoy.operations.doctor.doctor import Check, broken, ok, warning
from convoy.tracking import settings

ANSWERS_WITHIN_S = 5
RWLOCK = Path(".dvc/tmp/rwlock")
PUBLISH = "`python -m convoy publish`"


def check_git() -> Iterator[Check]:
    """The repository, its revision, and whether the working tree differs from it."""
    if shutil.which("git") is None:
        yield broken("git", "is not installed", "`apt-get install git`; DVC keeps its record beside it")
        return
    result = _run_git("rev-parse", "--short=12", "HEAD")
    if result.returncode:
        says = (result.stderr.strip().splitlines() or ["no commit"])[0]
        yield warning("git", says, "`git init`, then commit: runs are published without a revision until then")
        return
    changed = _run_git("status", "--porcelain").stdout.splitlines()
    revision = f"revision {result.stdout.strip()}"
    if changed:
        yield warning(
            "git",
            f"{revision}, {len(changed)} files differ from it or are new",
            "`git status` names them; commit them, or their runs are published with a patch beside the revision",
        )
    else:
        yield ok("git", f"{revision}, clean")


def _run_git(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False, timeout=60)


def check_dvc() -> Iterator[Check]:
    """DVC's version, cache, records and remote."""
    version = importlib.metadata.version("dvc")
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repo = Repo()
    except NotDvcRepoError:
        yield broken("DVC", f"{version}, no DVC repository here", "run this in Convoy's folder; elsewhere `dvc init`")
        return
    with repo:
        yield ok("DVC", f"{version}, cache {repo.cache.local.path}")
        yield _check_rwlock(Path(repo.root_dir))
        yield _check_remote(repo.config)


def _check_rwlock(root: Path) -> Check:
    """Whether the file is whole: a kill of DVC tears it (treeverse/dvc #7615)."""
    try:
        if isinstance(json.loads((root / RWLOCK).read_bytes()), dict):
            return ok("DVC's locks", "whole")
    except FileNotFoundError:
        return ok("DVC's locks", "none held")
    except ValueError:
        pass
    return broken("DVC's locks", f"{RWLOCK} is torn by a kill", "`python -m convoy verify --mend`")


def _check_remote(config: dict[str, dict[str, dict[str, str]]]) -> Check:
    name = config["core"].get("remote")
    if not name:
        add = "`dvc remote add -d store /some/folder`, then `dvc push`"
        return warning("DVC's remote", "none: what is built is on this machine alone", add)
    url = str(config["remote"].get(str(name), {}).get("url"))
    if "://" not in url and not Path(url).exists():
        return warning("DVC's remote", f"{name}: {url} is not there", "mount it, or make the folder")
    return ok("DVC's remote", f"{name}: {url}")


def check_mlflow() -> Iterator[Check]:
    """Whether the store exists, has the schema of this MLflow, and answers."""
    uri, database = settings.tracking_uri(), settings.database()
    version = importlib.metadata.version("mlflow-skinny")
    if database is None:
        yield from _check_server(uri)
        return
    if settings.OLDER_DATABASE.exists():
        yield _check_older_store(database)
    if not database.exists():
        yield warning("MLflow's store", f"{database} is missing", f"{PUBLISH} makes it from DVC's record")
        return
    replace = f"move it away and run {PUBLISH}, which brings all of it back from DVC's record"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            schema = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    except sqlite3.Error as error:
        yield broken("MLflow's store", f"{database} cannot be read ({error})", replace)
        return
    if damage != "ok":
        yield broken("MLflow's store", f"{database} is damaged ({damage})", replace)
        return
    opening = _check_opening(database, f"{database}, schema {schema}, MLflow {version}", replace)
    yield opening
    if opening.state == "ok":
        yield from _check_histories()


def _check_older_store(database: Path) -> Check:
    older, place = settings.OLDER_DATABASE, settings.DATABASE
    about = "MLflow's older store"
    if database == older.absolute():
        move = f"end MLflow, then `mkdir -p {place.parent} && mv {older}* {place.parent}/`"
        return warning(about, f"{database} is in use, where no container reaches it", move)
    return warning(about, f"{older} is not used, {database} is", "move it away once it is needed no more")


def _check_opening(database: Path, says: str, replace: str) -> Check:
    """Open the store as every command does: MLflow compares the schema with its own."""
    from convoy.tracking import mlflow_runs

    try:
        mlflow_runs.open_store().search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, SQLAlchemy's, alembic's
        reason = str(error).splitlines()[0]
        upgrade = f"`mlflow db upgrade sqlite:///{database}` where it is of an older MLflow, or {replace}"
        return broken("MLflow's store", f"{says}: {reason}", upgrade)
    return ok("MLflow's store", says)


def _check_server(uri: str) -> Iterator[Check]:
    if not uri.startswith("http"):
        yield ok("MLflow's store", f"{uri.split('@')[-1]}, not looked at")
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWERS_WITHIN_S):
            yield ok("MLflow's store", f"{uri} answers")
    except (OSError, ValueError) as error:
        remedy = f"start it, or unset MLFLOW_TRACKING_URI; what it misses {PUBLISH} adds later"
        yield broken("MLflow's store", f"{uri} does not answer ({getattr(error, 'reason', error)})", remedy)
        return
    yield from _check_histories()


def _check_histories() -> Iterator[Check]:
    """Decisions that MLflow has and the histories here lack; nothing where they agree."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from convoy.release import journal, registry_sync
    from convoy.tracking import settings

    uri = settings.tracking_uri()
    for task in tasks.known():
        try:
            missing, lost = registry_sync.missing_lines(MlflowClient(tracking_uri=uri, registry_uri=uri), task)
        except (journal.DecisionsBroken, MlflowException, OSError):
            continue  # check_deployed reports a broken history, the next command a server that refuses
        if lost:
            problem, _, remedy = lost.partition(". ")
            yield broken(f"history {task}", problem, remedy)
        elif missing:
            says = f"MLflow has {len(missing)} lines that follow on the last of {journal.path_of(task)}"
            yield warning(f"history {task}", says, f"{PUBLISH} brings them back")


def check_deployed() -> Iterator[Check]:
    """Whether the deployed models are whole and their histories unbroken."""
    from convoy.bundles.bundle import BundleInvalid, read_bundle, read_release
    from convoy.release import deployment, journal

    for task in tasks.known():
        about = f"deployed {task}"
        try:
            history = journal.read_history(task)
            digest = deployment.current_digest(task)
            if history.unfinished:
                yield warning(about, f"a decision was cut off: {history.unfinished.told}", f"{PUBLISH} completes it")
            if digest is None:
                yield warning(about, "nothing", f"{PUBLISH}, after `dvc repro`")
                continue
            folder = DEPLOYED / task / digest
            if read_bundle(folder).digest != digest or (release := read_release(folder)) is None:
                yield broken(about, f"{folder} is not the bundle that it is named after, or has no release", PUBLISH)
                continue
            torn = f", of which {history.torn} lines are cut off" if history.torn else ""
            summary = f"version {release.version}, digest {digest[:12]}, {len(history.decisions)} decisions{torn}"
            yield ok(about, summary)
        except BundleInvalid as error:
            yield broken(about, str(error), f"{PUBLISH} mends it from MLflow's copy")
        except journal.DecisionsBroken as error:
            problem, _, remedy = str(error).partition(". ")
            yield broken(about, problem, remedy)
