"""The BentoML service, which serves the models in deployed/, and the image that `bentoml build` makes of it."""

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import bentoml
from bentoml import Service
from bentoml.exceptions import BentoMLException
from bentoml.images import Image
from starlette.types import ASGIApp

from convoy.core.paths import DEPLOYED
from convoy.core.tasks import CURRENT
from serving import adapters, json_log, metrics
from serving.admission import Security
from serving.apis import apis_of_deployed
from serving.deployed import deployed_folder, deployed_tasks
from serving.metrics import metrics_buffer
from serving.middleware import Middleware
from serving.models import DeployedModels, Work
from serving.reloading import Reloader
from serving.request import TIMEOUT_S
from serving.request_log import RequestLog
from serving.streams import StateToken, share_key

WORKERS = int(os.environ.get("CONVOY_WORKERS") or 1)  # processes; each has the models in memory
CHECK_EVERY_S = 1.0  # with the two seconds that a worker takes to start, a killed one is back within four
CODE_FOLDER = "/home/bentoml/bento/src"  # where BentoML's own Dockerfile puts the code
models = DeployedModels()
share_key()
try:
    request_log, state_token = RequestLog.from_environment(), StateToken.from_environment()
except ValueError as error:
    raise SystemExit(str(error)) from None  # a wrong setting ends in a sentence, without a traceback
work = Work(models, request_log.state if request_log else None, state_token)
adapters.look_for_dead_workers_every(CHECK_EVERY_S)


class WrappedService(Service[Any]):  # type: ignore[misc]  # bentoml exports it untyped
    """A service whose app is BentoML's, inside Convoy's middleware."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        adapters.take_over_connections(WORKERS)
        adapters.forget_series_of_tasks()
        return Middleware(super().to_asgi(is_main), models, Security.from_environment(), work, request_log)


class BentoImage(Image):  # type: ignore[misc]  # bentoml exports it untyped
    """Adds the deployed bundles: BentoML copies no link to a folder, such as `current`, and would add old ones."""

    def freeze(self, bento_fs: Path, *arguments: Any, **options: Any) -> Any:
        """Called once, when the code is in place. Raises BentoMLException where nothing is deployed, or it is gone."""
        tasks = deployed_tasks(deployed_folder()) if deployed_folder().exists() else []
        if not tasks:
            raise BentoMLException(f"{deployed_folder()} has no task: a Bento takes what is deployed; promote a model")
        for task in tasks:
            current = deployed_folder() / task / CURRENT
            if not current.exists():
                raise BentoMLException(f"{current} leads to no bundle; promote a model of {task} again")
            folder = bento_fs / "src" / DEPLOYED / task
            shutil.copytree(current, folder / current.resolve().name)
            os.symlink(current.resolve().name, folder / CURRENT)
        return super().freeze(bento_fs, *arguments, **options)


class Convoy:
    """Predictions by the models that are deployed, for inputs of any kind, whole or in pieces.

    Each deployed task has a method for each of its routes, such as `fashion_predict` and `reviews_explain`.
    """

    def __init__(self) -> None:
        """Load all models, and reload them as they change. Where one cannot be loaded, /readyz is 503; others serve."""
        json_log.set_up()
        metrics.set_up()
        self._reloader = Reloader(models, deployed_folder())
        self._reloader.start()
        metrics_buffer.start()
        if request_log is not None:
            request_log.start(bentoml.server_context.worker_index or 1)
        # The objects of now stay; each full collection would walk through them and stop the process for 150 ms.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Stop reloading, and write all lines and counts that wait."""
        self._reloader.stop()
        if request_log is not None:
            request_log.stop()
        metrics_buffer.stop()

    async def __is_ready__(self) -> bool:
        return models.ready


for name, api in apis_of_deployed(deployed_folder(), work).items():
    setattr(Convoy, name, api)


def bento_image() -> BentoImage:
    """Python, and this package with what serving needs, in the versions of the lock, as pyproject.toml has it."""
    image = BentoImage(python_version="3.11", lock_python_packages=False)
    image.build_include("pyproject.toml", "requirements.lock", "README.md", "LICENSE", "src")
    image.python_packages(f"convoy[serve] @ file://{CODE_FOLDER}")
    return image


service = bentoml.service(
    name="convoy",
    service_class=WrappedService,
    image=bento_image(),
    http={"host": "127.0.0.1", "port": 3000},
    workers=WORKERS,
    traffic={"timeout": TIMEOUT_S},
    logging={"access": {"enabled": False}},  # a line per request costs more than a prediction; /metrics counts
    # Without an exporter nobody sees the spans, and they cost twice a prediction; BENTOML_CONFIG can turn them on.
    tracing={"excluded_urls": ["."]},
)(Convoy)
