"""What the service knows of a kind of inputs: one module a kind in this folder, all with the names of `Kind`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

if TYPE_CHECKING:
    from serving.endpoints import Work
    from serving.request import RequestContext

JSON = "application/json"
Json = dict[str, Any]
QUICK_S = 0.002  # of a run; a slower model would keep the event loop from refusing requests beyond the capacity
QUICK_BYTES = 64 * 1024  # of a body that is read on the event loop; a form is read in 0.1 ms
# What all handlers share, the model of the route's task (None where the route has no task), and the request -> the
# body of a 200. Raises RequestError or InputRejected.
Handler = Callable[["Work", Any, "RequestContext"], Awaitable[bytes]]

# What the document says of sets, whatever they are of.
SETS = (
    "For data like ours a set holds the true label as often as `coverage` says: over all inputs together, or, where "
    "the card has a threshold per label, for the inputs of each label. The most probable label is always in. Several "
    "labels mean that the model cannot tell them apart; a set says nothing about inputs that are unlike the data."
)


@dataclass(frozen=True)
class Endpoint:
    """What the tasks of a kind answer at /v1/<task>/<verb>.

    The body is JSON that `takes` describes, or what `content` says in the words of OpenAPI, by media type. Endpoints
    `in_pieces` are those of models that carry a state, all others those of models that take whole inputs.
    """

    verb: str
    summary: str
    handler: Handler
    answer: Any  # the type of a 200
    error_codes: tuple[str, ...]  # beside those of every body, in routes.py
    takes: type[BaseModel] | None = None
    content: Json | None = None
    parameters: tuple[Json, ...] = ()  # of the query, in the words of OpenAPI
    in_pieces: bool = False  # the same path answers WebSockets
    explains: bool = False  # one input, and several runs of the model: with a capacity of its own
    description: str = ""

    @property
    def media_types(self) -> tuple[str, ...]:
        """The content types that it reads."""
        return (JSON,) if self.content is None else tuple(self.content)


class Kind(Protocol):
    """The names of a kind's module."""

    ENDPOINTS: tuple[Endpoint, ...]
    LARGEST_BATCH: int  # inputs that run together

    def prepare(self, model: Any, raws: Any, **options: Any) -> Any:
        """Raw inputs -> the model's inputs. Raises RequestError that names the first bad one."""

    def predict(self, model: Any, raws: Any, **options: Any) -> bytes:
        """Raw inputs -> the JSON of their predictions. Raises RequestError that names the first bad one."""

    def explain(self, model: Any, raw: Any, *options: Any) -> bytes:
        """One raw input -> the JSON of its explanation. Raises RequestError."""


def find(kind: str) -> Kind:
    """The module of the kind that a card names. Raises ModuleNotFoundError where the service has none."""
    module: Any = import_module(f"serving.kinds.{kind}")
    return module  # type: ignore[no-any-return]
