"""A candidate, its data and its space -> an Optuna study in a storage that several processes share and that lasts."""

import copy
import hashlib
import json
import os
import re
import socket
import uuid
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from convoy.core import paths, process
from convoy.core.atomic import sha256_of
from convoy.core.params import read_section
from convoy.operations.tuning.space import METRICS, Tree, TuneParams, read_candidate, read_space

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT_S = 60  # shows other machines that a worker lives; two missing ones fail its trial
UNRECORDED_LIMIT = timedelta(seconds=HEARTBEAT_S)  # a worker records itself at once, or was killed before that

# Drivers whose package has another name.
DRIVER_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "mysqldb": "mysqlclient"}


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


def open_study(subject: Subject, worker: int = 0) -> Study:
    """The study of a subject, created where it is missing.

    Each worker, each start and, in a database, each host draws from a seed of its own: with one seed all would draw the
    same. One worker draws the same again when started at the same number of trials and, in a database, on a host of the
    same name. Several workers also use each other's trials, in the order in which they happen to end.
    Raises StudyChanged, StorageUnusable.
    """
    params, storage = read_section(TuneParams, "tune", path=paths.RELEASE_PARAMS), _open_storage(subject)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=subject.name, storage=storage, direction=METRICS[params.metric], load_if_exists=True
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
    seed = params.seed + 1000 * worker + len(study.get_trials(deepcopy=False))
    if not isinstance(storage, JournalStorage):
        seed += int.from_bytes(hashlib.sha256(socket.gethostname().encode()).digest()[:3])
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=params.random_trials, constant_liar=True)
    study.pruner = optuna.pruners.MedianPruner(params.random_trials, params.prune_after_epochs - 1)
    return study


def record_worker(trial: optuna.Trial) -> None:
    """Record the host and the process of this trial, so that others can see when its worker is dead."""
    pid = os.getpid()
    trial.set_user_attr("host", socket.gethostname())
    trial.set_user_attr("process", [pid, process.began_s(pid)])


def fail_dead(study: Study) -> None:
    """Fail the trials whose worker is dead, and queue each once more.

    A worker of this machine is checked by its process; one of another machine, in a database, by its heartbeat.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _is_dead(trial):
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            _queue_again(study, trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # otherwise only a worker that begins a trial does it


def counts(study: Study) -> tuple[int, int]:
    """How many trials are finished, and how many are running."""
    finished = study.get_trials(deepcopy=False, states=FINISHED)
    return len(finished), len(running(study))


def running(study: Study) -> list[FrozenTrial]:
    """The trials that a live worker may still end.

    In a file, which has no heartbeats, trials of another host are left out: this machine had that name before, as a
    restarted container does, and no worker will ever end them.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if isinstance(study._storage, JournalStorage):
        trials = [trial for trial in trials if "host" not in trial.user_attrs or is_here(trial)]
    return trials


def is_here(trial: FrozenTrial) -> bool:
    """Whether this machine ran it."""
    return bool(trial.user_attrs.get("host") == socket.gethostname())


def _is_dead(trial: FrozenTrial) -> bool:
    if "process" not in trial.user_attrs:
        started = trial.datetime_start
        return started is not None and datetime.now(started.tzinfo) - started > UNRECORDED_LIMIT
    if not is_here(trial):
        return False
    return not process.is_same(*trial.user_attrs["process"])


def _open_storage(subject: Subject) -> optuna.storages.BaseStorage:
    """A journal file, which processes of one machine share, or a database by its URL. Raises StorageUnusable."""
    if "://" not in subject.storage:
        Path(subject.storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(os.path.abspath(subject.storage)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats
            return RDBStorage(
                subject.storage, heartbeat_interval=HEARTBEAT_S, heartbeat_stale_trial_callback=_queue_again
            )
    except ImportError:
        driver = make_url(subject.storage).get_driver_name()
        install = f"pip install '{DRIVER_PACKAGES.get(driver, driver)}'"
        raise StorageUnusable(f"--storage {subject.place} needs {driver}; `{install}` brings it") from None
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise StorageUnusable(
            f"--storage takes a file or the URL of a database that answers; {subject.place}: {reason}"
        ) from None


def _queue_again(study: Study, trial: FrozenTrial) -> None:
    """Queue a failed trial again, once at most, without the record of its worker."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1)
    unrecorded = copy.deepcopy(trial)
    unrecorded.user_attrs = {}
    retry(study, unrecorded)
