"""The tasks that are deployed now: the model of each, and the routes that they answer."""

from collections.abc import Mapping

from serving import endpoints
from serving.deployed import Deployed, Unavailable
from serving.routes import Route, routes_of

Model = Deployed | Unavailable


class DeployedModels:
    """The model of each task, and the route of each path; a request reads its route once, and keeps its model."""

    def __init__(self, tasks: Mapping[str, Model] | None = None) -> None:
        self.revision = 0  # one more with each change
        self._replace(dict(tasks or {}))

    @property
    def ready(self) -> bool:
        """Whether something is deployed, and every task can answer."""
        return bool(self.by_task) and all(isinstance(model, Deployed) for model in self.by_task.values())

    def put(self, task: str, model: Model) -> None:
        """Let this model, or the reason why there is none, answer for a task from now on."""
        self._replace({**self.by_task, task: model})

    def remove(self, task: str) -> None:
        """Forget a task; its routes are gone."""
        self._replace({name: model for name, model in self.by_task.items() if name != task})

    def _replace(self, by_task: dict[str, Model]) -> None:
        """Replace both tables; neither is ever changed, as requests read them without a lock."""
        self.by_task = dict(sorted(by_task.items()))
        self.by_path = {path: route for route in _routes(self.by_task) for path in route.paths}
        self.revision += 1


def _routes(by_task: Mapping[str, Model]) -> list[Route]:
    of_tasks = [route for task, model in by_task.items() for route in routes_of(task, model)]
    return [*of_tasks, *(endpoints.describe_route(task, model) for task, model in by_task.items()), *endpoints.OWN]
