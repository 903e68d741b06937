"""The BentoML service: `bentoml serve serving.service:service` serves what stands in deployed/."""

import gc
import os
from typing import Any

import bentoml
from bentoml import Service
from starlette.types import ASGIApp

from serving import bento, json_log, metrics
from serving.admission import TIMEOUT_S
from serving.connections import take_over_connections
from serving.deployed import DeployedModels, deployed_folder
from serving.endpoints import Front, own_routes
from serving.metrics_buffer import tally
from serving.middleware import Middleware
from serving.reloading import Reloader
from serving.request_log import RequestLog
from serving.security import Security
from serving.sockets import StreamSocket
from serving.stream_state import StateToken, share_key
from serving.supervision import look_often
from serving.threads import Threads
from serving.traffic import Traffic

WORKERS = int(os.environ.get("CONVOY_WORKERS") or 1)  # processes; each has the models in memory
models = DeployedModels()
share_key()
try:
    request_log, seal = RequestLog.of(), StateToken.of()
except ValueError as error:
    raise SystemExit(str(error)) from None  # a wrong setting is a sentence, not a traceback
look_often()


class ShelledService(Service[Any]):  # type: ignore[misc]  # bentoml exports it untyped
    """A service whose whole app stands inside the outer layer, and beside Convoy's own routes."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        take_over_connections(WORKERS)
        app = super().to_asgi(is_main)
        traffic = Traffic(app)
        stream_threads = Threads(name="stream")
        routes = own_routes(models, request_log.state if request_log else None, stream_threads, seal)
        socket = StreamSocket(models, stream_threads, request_log)
        return Middleware(Front(routes, app, socket), models, Security.of(), traffic, request_log)


class Convoy:
    """Predictions for images and texts, whole or in pieces, by the models that are deployed."""

    def __init__(self) -> None:
        """Load all models and follow them; one that cannot be loaded makes /readyz 503, the others answer."""
        json_log.set_up()
        metrics.set_up()
        self._reloader = Reloader(models, deployed_folder())
        self._reloader.start()
        tally.start()
        if request_log is not None:
            request_log.start()
        # What stands now stays; walking through it at each full collection stops the process for 150 ms.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Follow the deployed models no longer, and keep no line and no count back."""
        self._reloader.stop()
        if request_log is not None:
            request_log.stop()
        tally.stop()

    async def __is_ready__(self) -> bool:
        return models.ready


service = bentoml.service(
    name="convoy",
    service_class=ShelledService,
    image=bento.image(),
    http={"host": "127.0.0.1", "port": 3000},
    workers=WORKERS,
    traffic={"timeout": TIMEOUT_S},
    logging={"access": {"enabled": False}},  # a line per request costs more than a prediction; /metrics counts
    # Without an exporter nobody sees the spans, and they cost twice a prediction; BENTOML_CONFIG can set it back.
    tracing={"excluded_urls": ["."]},
)(Convoy)
