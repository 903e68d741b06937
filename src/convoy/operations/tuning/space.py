"""The section tune of release.yaml -> the params of a candidate that are tried, their ranges, the command to build."""

import copy
import json
import shlex
from collections.abc import Mapping
from typing import Any, Literal

import optuna
from pydantic import ConfigDict, Field, model_validator

from convoy.core.params import ParamsInvalid, Section, read_section
from convoy.core.paths import PARAMS, RELEASE_PARAMS

METRICS: dict[str, Literal["minimize", "maximize"]] = {"log_loss": "minimize", "accuracy": "maximize"}


class Range(Section):
    """Numbers from low to high, whole ones where both are; log draws 0.001 to 0.01 as often as 0.01 to 0.1."""

    low: int | float
    high: int | float
    log: bool

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not (0 if self.log else float("-inf")) < self.low < self.high:
            raise ValueError(
                f"low {self.low}, high {self.high}: low must be the smaller, and above 0 where log is true"
            )
        return self

    def draw(self, trial: optuna.Trial, name: str) -> Any:
        """This trial's number."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


class Choices(Section):
    """Any of these values."""

    choices: tuple[Any, ...] = Field(min_length=2)

    def draw(self, trial: optuna.Trial, name: str) -> Any:
        """This trial's value; a storage holds text and numbers, so that lists go as JSON."""
        return json.loads(trial.suggest_categorical(name, [json.dumps(choice) for choice in self.choices]))


Space = dict[str, Range | Choices]


class TuneParams(Section):
    """The section tune of release.yaml; the keys of a space are those below candidates.<name> of params.yaml."""

    metric: Literal["log_loss", "accuracy"]
    seed: int
    trials: int = Field(ge=1)
    random_trials: int = Field(ge=1)
    prune_after_epochs: int = Field(ge=1)
    candidates: dict[str, Space]


class Tree(Section):
    """A section whose keys its reader checks."""

    model_config = ConfigDict(frozen=True, extra="allow")


def read_space(candidate: str) -> Space:
    """The params of a candidate that are tried. Raises ParamsInvalid where it names a key that the candidate lacks."""
    space = read_section(TuneParams, "tune", path=RELEASE_PARAMS).candidates.get(candidate, {})
    if not space:
        raise ParamsInvalid(f"{RELEASE_PARAMS}: tune.candidates.{candidate} is missing: there is nothing to try")
    apply_values(read_candidate(candidate), dict.fromkeys(space), candidate)
    return space


def read_candidate(candidate: str) -> dict[str, Any]:
    """The entry of a candidate as it is."""
    return read_section(Tree, "candidates", candidate).model_dump()


def apply_values(candidate: Mapping[str, Any], drawn: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A candidate's params with the values drawn, each under its dotted key."""
    result: dict[str, Any] = copy.deepcopy(dict(candidate))
    for key, value in drawn.items():
        *parents, last = key.split(".")
        section: Any = result
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ParamsInvalid(
                f"{RELEASE_PARAMS}: tune.candidates.{name} names {key}, {PARAMS} has no such key in candidates.{name}"
            )
        section[last] = value
    return result


def values(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The values that a trial drew, from the params that its storage holds."""
    return {key: json.loads(value) if isinstance(space[key], Choices) else value for key, value in params.items()}


def exp_run(candidate: str, drawn: Mapping[str, Any]) -> str:
    """The command line that builds everything with these values, without an edit of params.yaml."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in drawn.items()}
    assignments = [f"candidates.{candidate}.{key}={text}" for key, text in texts.items()]
    return shlex.join(["dvc", "exp", "run", *[word for assignment in assignments for word in ("-S", assignment)]])
