"""deployed/<task>/current -> a predictor with its release, or the reason why there is none."""

import logging
import os
import stat
import time
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from convoy.bundles.bundle import RELEASE, BundleInvalid, Release, read_release
from convoy.bundles.explanation import Explainer, open_explainer
from convoy.bundles.predictor import Predictor
from convoy.core.paths import DEPLOYED
from convoy.core.tasks import CURRENT, NAME, RESERVED, is_same
from convoy.kinds.registry import module
from serving.errors import RequestError
from serving.metrics import Metrics, metrics_of

if TYPE_CHECKING:
    from serving.routes import Route

DEPLOYED_VARIABLE = "CONVOY_DEPLOYED"
TIMED_RUNS = 5
logger = logging.getLogger("bentoml.convoy")  # below bentoml, whose handlers `bentoml serve` sets up


class Kind(Protocol):
    """What serving/kinds/ has of each kind of inputs: a module with these names."""

    ROUTES: tuple["Route", ...]  # of each of its tasks; `path` is the verb alone
    LARGEST_BATCH: int  # inputs that run together


@dataclass(frozen=True)
class Deployed:
    """What answers for a task: one value, so that predictor and release can only change together."""

    predictor: Predictor
    release: Release
    run_s: float = 0.0  # of one image, or of the longest text in one run, as measured when it was loaded
    task: str = ""  # the name of its folder, where it has one: the card may have the task's former name

    @cached_property
    def kind(self) -> Kind:
        """What the service knows of the kind of its inputs. Raises ModuleNotFoundError where it has none."""
        found: Any = import_module(f"serving.kinds.{self.predictor.card.kind}")
        return found  # type: ignore[no-any-return]

    @cached_property
    def metrics(self) -> Metrics:
        """Its series in Prometheus."""
        card = self.predictor.card
        return metrics_of(self.task or card.task, self.release.version, tuple(card.labels))

    @cached_property
    def explainer(self) -> Explainer | None:
        """None where the bundle has no explanation.onnx; loaded at the first use, by the one thread that explains."""
        refuse_odd_files(self.predictor.folder)
        return open_explainer(self.predictor)

    @cached_property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Version and digest, for clients that do not read the body."""
        return [(b"x-model-version", self.release.version.encode()), (b"x-model-digest", self.release.digest.encode())]

    @cached_property
    def answer_prefix(self) -> bytes:
        """The start of every answer, the same until the next release."""
        release = self.release
        model = {"name": release.name, "version": release.version, "run_id": release.run_id, "digest": release.digest}
        return b'{"model":' + orjson.dumps(model)


@dataclass(frozen=True)
class Unavailable:
    """Why a task has no model; `reason` is for clients, and names no folder outside the deployed one."""

    reason: str
    # The bundle itself; False where the machine failed, such as for want of descriptors, or a file was not there, as
    # while a folder is moved: the next try may well be better.
    invalid: bool = True


class BundleMissing(BundleInvalid):
    """A bundle that is not there, or not whole."""


def require_loaded(model: Deployed | Unavailable | None) -> Deployed:
    """The model of a task. Raises RequestError where it cannot be loaded."""
    if isinstance(model, Deployed):
        return model
    reason = model.reason if model else "there is none"
    raise RequestError("model_unavailable", f"the model of this task is not loaded: {reason}")


def deployed_folder() -> Path:
    """The folder that $CONVOY_DEPLOYED names; deployed/ without it."""
    return Path(os.environ.get(DEPLOYED_VARIABLE) or DEPLOYED)


def deployed_tasks(root: Path) -> list[str]:
    """The tasks that have something deployed, even if it cannot be read. Raises OSError where `root` cannot be read."""
    names = [name for name in os.listdir(root) if NAME.fullmatch(name) and os.path.lexists(root / name / CURRENT)]
    for name in set(names).intersection(RESERVED):
        _tell_reserved(root / name)
    return sorted(set(names).difference(RESERVED))


@cache
def _tell_reserved(folder: Path) -> None:
    logger.error("%s is no task: its name is one of Convoy's own (%s); choose another", folder, ", ".join(RESERVED))


def load_task(root: Path, task: str, logged_reason: str = "") -> Deployed | Unavailable:
    """Load the bundle that `current` points at; a failure for `logged_reason` is not logged again.

    Never raises: one bad bundle must not fail the other tasks.
    """
    folder = root / task / CURRENT
    try:
        # Resolved once: `current` may change while the files are read.
        folder = folder.resolve()
        return _load(folder, task)
    except BundleInvalid as error:
        reason = _reason_for_clients(str(error), root.resolve(), folder, task)
        if reason != logged_reason:
            logger.error("%s cannot be loaded: %s", task, error)
        was_missing = isinstance(error, BundleMissing) or isinstance(error.__context__, FileNotFoundError)
        return Unavailable(reason, invalid=not was_missing)
    except Exception as error:  # onnxruntime, tokenizers and the file system each have their own
        reason = f"{task}/{CURRENT} cannot be loaded ({type(error).__name__}); the log has the details"
        if reason != logged_reason:
            logger.exception("%s cannot be loaded", task)
        return Unavailable(reason, invalid=False)


def _reason_for_clients(reason: str, root: Path, folder: Path, task: str) -> str:
    """Without the folders of this machine: paths start at the deployed folder, or at `current` where it leads out."""
    if not folder.is_relative_to(root):
        reason = reason.replace(str(folder), f"{task}/{CURRENT}")
    return reason.replace(f"{root}{os.sep}", "")


def _load(folder: Path, task: str) -> Deployed:
    if not folder.exists():
        raise BundleMissing(f"{task}/{CURRENT} leads to no bundle: no model is deployed; promote one")
    refuse_odd_files(folder)
    predictor = Predictor(folder, threads=1)
    release = read_release(folder)
    if release is None:
        raise BundleMissing(f"{folder / RELEASE} is missing; promote again")
    if release.digest != predictor.digest:
        raise BundleInvalid(f"{folder / RELEASE} names another bundle (its digest differs); promote again")
    if not is_same(task, predictor.card.task):
        raise BundleInvalid(f"{folder} is a bundle for {predictor.card.task}, not for {task}; deploy the right one")
    logger.info("%s: %s version %s, digest %s", task, release.name, release.version, release.digest[:12])
    model = Deployed(predictor, release, _time_runs(predictor), task)
    assert model.kind  # imported here: later there may be no descriptor left to read a module
    return model


def refuse_odd_files(folder: Path) -> None:
    """Raise BundleInvalid for a file that is none: a pipe would block whoever opens it, a device would never end."""
    try:
        for path in folder.iterdir():
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BundleInvalid(f"{path} is no regular file; deploy the bundle again")
    except FileNotFoundError as error:
        raise BundleMissing(f"{error.filename} is missing: the bundle is incomplete; export it again") from None


def _time_runs(predictor: Predictor) -> float:
    """Seconds of the quickest of some runs of one input of the largest size."""
    batch = module(predictor.card.kind, "items.preprocessing").blank_batch(predictor.card.preprocessing)
    times_s = []
    for _ in range(TIMED_RUNS):
        began_s = time.perf_counter()
        predictor.run(batch)
        times_s.append(time.perf_counter() - began_s)
    return min(times_s)
