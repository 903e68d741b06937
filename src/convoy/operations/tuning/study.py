"""A candidate, its data and its space -> an Optuna study in a database that several processes share and that lasts."""

import hashlib
import json
import re
import uuid
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from convoy.core import locks, paths
from convoy.core.atomic import sha256_of
from convoy.core.params import read_section
from convoy.operations.tuning.space import METRICS, Tree, TuneParams, read_candidate, read_space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
TAKEN = (*FINISHED, TrialState.RUNNING)
HOST = "host"  # attribute of a trial: the machine that runs or ran it
HEARTBEAT_S = 30  # shows that a trial's process lives; after two missing ones Optuna fails the trial
LOCKED_S = 60  # how long SQLite waits for another process that writes

# Drivers whose package has another name.
DRIVER_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "mysqldb": "mysqlclient"}

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats and retries are
RETRY = RetryHeartbeatStaleTrialCallback(max_retry=1)


class StorageUnusable(ValueError):
    """The storage is a database that does not answer, or whose driver is not installed."""


class StudyChanged(ValueError):
    """The study in the storage compared other params, other data or another space."""


@dataclass(frozen=True)
class Subject:
    """What is tuned and where its trials are kept; `epochs` overrides the candidate's, for cheap trials."""

    task: str
    candidate: str
    data: str
    storage: str
    epochs: int | None = None

    @property
    def name(self) -> str:
        """The study's name: trials of different lengths are not compared."""
        return self.candidate + (f"-{self.epochs}-epochs" if self.epochs else "")

    @property
    def place(self) -> str:
        """The storage as it may be shown: a database without its user and password."""
        return re.sub("//.*@", "//", self.storage)

    def params(self) -> dict[str, Any]:
        """The params that a trial changes."""
        params = read_candidate(self.candidate)
        return {**params, "learning": {**params["learning"], "epochs": self.epochs}} if self.epochs else params

    def digest(self) -> str:
        """sha256 (hex) of all that makes values comparable: params, space, metric and data.

        Raises FileNotFoundError where a split is missing.
        """
        space = {key: tried.model_dump() for key, tried in read_space(self.candidate).items()}
        trainer = read_section(Tree, "trainer").model_dump()
        files = [paths.split_file(self.data, "train"), paths.split_file(self.data, "validation")]
        for path in files:
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing; run `dvc repro` to prepare it")
        sums = [sha256_of(path) for path in files]
        metric = read_section(TuneParams, "tune", path=paths.RELEASE_PARAMS).metric
        content = [trainer, self.params(), space, metric, sums]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def open_study(subject: Subject) -> Study:
    """The study of a subject, created where it is missing. Raises StudyChanged, StorageUnusable."""
    if "://" in subject.storage:
        return _open_study(subject, subject.storage, {})
    file = Path(subject.storage).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    with locks.hold_when_free(file.with_name(f"{file.name}.lock")):  # of two that make the tables one would fail
        return _open_study(subject, f"sqlite:///{file}", {"connect_args": {"timeout": LOCKED_S}})


def _open_study(subject: Subject, url: str, options: dict[str, Any]) -> Study:
    params = read_section(TuneParams, "tune", path=paths.RELEASE_PARAMS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=subject.name,
        storage=_open_storage(subject, url, options),
        direction=METRICS[params.metric],
        pruner=optuna.pruners.MedianPruner(params.random_trials, params.prune_after_epochs - 1),
        load_if_exists=True,
    )
    stored_digest, digest = study.user_attrs.get("digest"), subject.digest()
    if stored_digest is None:
        study.set_user_attr("key", uuid.uuid4().hex)
        study.set_user_attr("digest", digest)
    elif stored_digest != digest:
        raise StudyChanged(
            f"the study {subject.name} in {subject.place} compared other params, data or ranges than those of now: "
            "its values say nothing about them. Name another --storage, or delete that one."
        )
    return study


def sampler_of(trial: optuna.Trial) -> optuna.samplers.TPESampler:
    """The sampler of one trial, with a seed of its own: processes that share a study draw different params.

    One process alone draws the same again. Several use each other's trials, in the order in which they happen to end.
    """
    params = read_section(TuneParams, "tune", path=paths.RELEASE_PARAMS)
    seed = params.seed + trial.number
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=params.random_trials, constant_liar=True)


def fail_dead(study: Study) -> None:
    """Fail the trials whose heartbeat stays away, and queue each once more.

    Optuna looks at heartbeats alone: the trial of a process that was killed before its first one is failed here.
    """
    optuna.storages.fail_stale_trials(study)
    latest = datetime.now() - timedelta(seconds=2 * HEARTBEAT_S)
    for trial in trials_in(study, TrialState.RUNNING):
        if HOST not in trial.user_attrs and (trial.datetime_start or latest) < latest:
            queue_again(study, trial.number)


def queue_again(study: Study, number: int) -> None:
    """Fail a trial that its process gave up, and queue it once more, as its missing heartbeat would do later."""
    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    RETRY(study, study.get_trials()[number])


def trials_in(study: Study, *states: TrialState) -> list[FrozenTrial]:
    """The trials in these states."""
    return study.get_trials(deepcopy=False, states=states)


def _open_storage(subject: Subject, url: str, options: dict[str, Any]) -> RDBStorage:
    """Optuna's storage in a database. Raises StorageUnusable."""
    try:
        return RDBStorage(url, options, heartbeat_interval=HEARTBEAT_S, heartbeat_stale_trial_callback=RETRY)
    except ImportError:
        driver = make_url(url).get_driver_name()
        install = f"pip install '{DRIVER_PACKAGES.get(driver, driver)}'"
        raise StorageUnusable(f"--storage {subject.place} needs {driver}; `{install}` brings it") from None
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise StorageUnusable(
            f"--storage takes a SQLite file or the URL of a database that answers; {subject.place}: {reason}"
        ) from None
