"""The BentoML service: `bentoml serve serving.service:service` serves what stands in deployed/."""

import gc
from typing import Any

import bentoml
from bentoml import Service
from starlette.types import ASGIApp

from serving.deployed import DeployedModels, deployed_folder
from serving.endpoints import create_app
from serving.reloading import Reloader
from serving.shell import Shell

# From a request's whole body to its answer. 16 million pixels, the most that one may bring, take up to 0.7 s (WebP),
# 20 MB of nothing but empty segments 5 s, in a form of several twice that; the rest is for waiting for a thread.
# Not longer: BentoML keeps a timer for each request until it runs out.
TIMEOUT_S = 10

models = DeployedModels()


class ShelledService(Service[Any]):  # type: ignore[misc]  # bentoml exports it untyped
    """A service whose whole app, BentoML's probes and middlewares included, stands inside the outer layer."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        return Shell(super().to_asgi(is_main), models)


class Convoy:
    """Predictions for images and texts, by the models that are deployed."""

    def __init__(self) -> None:
        """Load both models and follow them; one that cannot be loaded makes /readyz 503, the other answers."""
        self._reloader = Reloader(models, deployed_folder())
        self._reloader.start()
        # What stands now stays; walking through it at each full collection stops the process for 150 ms.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        """Follow the deployed models no longer."""
        self._reloader.stop()

    async def __is_ready__(self) -> bool:
        return models.ready


service = bentoml.service(
    name="convoy",
    service_class=ShelledService,
    http={"host": "127.0.0.1", "port": 3000},
    workers=1,
    traffic={"timeout": TIMEOUT_S},
    logging={"access": {"enabled": False}},  # a line per request costs more than a prediction; /metrics counts
    # Without an exporter nobody sees the spans, and they cost twice a prediction; BENTOML_CONFIG can set it back.
    tracing={"excluded_urls": ["."]},
)(Convoy)
service.mount_asgi_app(create_app(models), name="v1")
