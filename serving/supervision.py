"""How soon BentoML's supervisor starts a worker anew that has died: it looks every ten seconds by itself."""

from functools import partial

from bentoml._internal.utils import circus

LOOK_EVERY_S = 1.0  # with the two seconds that a worker takes to start, a killed one is back within four


def look_often() -> None:
    """To be called where `bentoml serve` loads the service, before it makes its supervisor."""
    circus.create_standalone_arbiter = partial(circus.create_standalone_arbiter, check_delay=LOOK_EVERY_S)
