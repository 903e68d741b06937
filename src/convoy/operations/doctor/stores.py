"""Checks of the packages, git, DVC and MLflow's store; they change nothing."""

import importlib.metadata
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from convoy.core import tasks
from convoy.operations.doctor.doctor import Check
from convoy.tracking import settings

LOCK = Path("requirements.lock")
SHOWN = 5
PUBLISH = "`python -m convoy publish`"


def check_lock() -> Iterator[Check]:
    """Whether what is installed is what the figures were measured with."""
    if not LOCK.exists():
        yield Check(LOCK.name, "warning", "is not here", "run this in Convoy's folder")
        return
    installed = {_normal(each.name): each.version for each in importlib.metadata.distributions() if each.name}
    pinned = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    # One package may stand there twice, for two systems.
    allowed = {_normal(name): {version for other, version in pinned if other == name} for name, _ in pinned}
    differing = [
        f"{name} {installed[name]} (=={' or '.join(sorted(versions))})"
        for name, versions in allowed.items()
        if name in installed and not {installed[name], installed[name].partition("+")[0]} & versions
    ]
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        says = f"not installed as named: {', '.join(differing[:SHOWN])}{more}"
        yield Check(LOCK.name, "warning", says, "`make set-up` installs the exact versions")
    else:
        yield Check(LOCK.name, "ok", "what is installed is what it names")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def check_git() -> Iterator[Check]:
    """Whether a revision names what is here."""
    try:
        revision, changed = _run_git("rev-parse", "--short=12", "HEAD"), _run_git("status", "--porcelain")
    except FileNotFoundError:
        yield Check("git", "broken", "is not installed", "`apt-get install git`; DVC keeps its record beside it")
        return
    except subprocess.CalledProcessError as error:
        says = (error.stderr.strip().splitlines() or ["no commit"])[0]
        yield Check("git", "warning", says, "`git init`, then commit: runs are published without a revision until then")
        return
    if not changed:
        yield Check("git", "ok", f"revision {revision.strip()}, clean")
        return
    says = f"revision {revision.strip()}, {len(changed.splitlines())} files differ from it or are new"
    yield Check("git", "warning", says, "commit them, or their runs are published with a patch beside the revision")


def _run_git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=60).stdout


def check_dvc() -> Iterator[Check]:
    """DVC's cache and remote."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repo = Repo()
    except NotDvcRepoError:
        yield Check("DVC", "broken", "no DVC repository here", "run this in Convoy's folder; elsewhere `dvc init`")
        return
    with repo:
        yield Check("DVC", "ok", f"cache {repo.cache.local.path}")
        name = repo.config["core"].get("remote")
        url = str(repo.config["remote"].get(str(name), {}).get("url"))
    if not name:
        add = "`dvc remote add -d store /some/folder`, then `dvc push`"
        yield Check("DVC's remote", "warning", "none: what is built is on this machine alone", add)
    elif "://" not in url and not Path(url).exists():
        yield Check("DVC's remote", "warning", f"{name}: {url} is not there", "mount it, or make the folder")
    else:
        yield Check("DVC's remote", "ok", f"{name}: {url}")


def check_mlflow() -> Iterator[Check]:
    """Whether MLflow opens its store, and has no decision that the histories here lack."""
    from convoy.tracking import mlflow_runs

    uri, database = settings.tracking_uri(), settings.database()
    if database is not None:
        if settings.OLDER_DATABASE.exists():
            yield _check_older_store(database)
        if not database.exists():
            says = f"{database} is missing"
            yield Check("MLflow's store", "warning", says, f"{PUBLISH} makes it from DVC's record")
            return
        if (damage := _damage(database)) != "ok":
            yield Check("MLflow's store", "broken", f"{database} is damaged ({damage})", _remedy(database))
            return
    try:
        mlflow_runs.open_store().search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, SQLAlchemy's, alembic's, of a server
        says = f"{uri.split('@')[-1]} does not answer or cannot be read ({str(error).splitlines()[0]})"
        yield Check("MLflow's store", "broken", says, _remedy(database))
        return
    version = importlib.metadata.version("mlflow-skinny")
    yield Check("MLflow's store", "ok", f"{database or uri.split('@')[-1]}, MLflow {version}")
    yield from _check_histories(uri)


def _damage(database: Path) -> str:
    """What SQLite finds wrong with a file, which MLflow need not notice; "ok" for nothing."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            connection.execute("SELECT version_num FROM alembic_version")
            return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)


def _remedy(database: Path | None) -> str:
    if database is None:
        return f"start it, or unset MLFLOW_TRACKING_URI; what it misses {PUBLISH} adds later"
    replace = f"move it away and run {PUBLISH}, which brings all of it back from DVC's record"
    return f"`mlflow db upgrade sqlite:///{database}` where it is of an older MLflow, or {replace}"


def _check_older_store(database: Path) -> Check:
    older, place = settings.OLDER_DATABASE, settings.DATABASE
    about = "MLflow's older store"
    if database == older.absolute():
        move = f"end MLflow, then `mkdir -p {place.parent} && mv {older}* {place.parent}/`"
        return Check(about, "warning", f"{database} is in use, where no container reaches it", move)
    return Check(about, "warning", f"{older} is not used, {database} is", "move it away once it is needed no more")


def _check_histories(uri: str) -> Iterator[Check]:
    """Histories that lack decisions which MLflow has; nothing where there is none."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from convoy.release import journal, registry_sync
    from convoy.tracking.artifacts import ArtifactRefused

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for task in tasks.known():
        try:
            is_behind = registry_sync.has_later_lines(client, task)
        except (ArtifactRefused, journal.DecisionsBroken, MlflowException, OSError):
            continue  # `status` reports a broken history, the next command an MLflow that refuses
        if is_behind:
            says = f"MLflow's experiment {registry_sync.EXPERIMENT} has decisions that {journal.path_of(task)} lacks"
            remedy = (
                f"put back a newer backup (docs/operate.md, Backup); without one {PUBLISH} goes on from what is here"
            )
            yield Check(f"history {task}", "warning", says, remedy)
