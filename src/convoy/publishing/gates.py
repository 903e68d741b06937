"""Figures of a champion and a challenger -> the reasons, if any, why the challenger must not serve by itself."""

from dataclasses import dataclass

from pydantic import Field

from convoy.params import Section


class PublishParams(Section):
    """The section `publish` of params.yaml: how much worse a challenger may be and still serve by itself."""

    max_validation_accuracy_drop: float = Field(ge=0, le=1)
    max_validation_log_loss_rise: float = Field(ge=0)


@dataclass(frozen=True)
class Evidence:
    """What is known of a version: its validation figures and the md5 of the data they were measured on."""

    figures: dict[str, float]
    data: str


def objections(champion: Evidence, challenger: Evidence, limits: PublishParams) -> list[str]:
    """Why the challenger does not take the champion's place by itself, in plain words; empty where it does."""
    if not champion.data or champion.data != challenger.data:
        return ["it was not validated on the same data as the champion, so their figures cannot be compared"]
    return [
        *_worse(champion, challenger, "accuracy", -1, limits.max_validation_accuracy_drop),
        *_worse(champion, challenger, "log_loss", 1, limits.max_validation_log_loss_rise),
    ]


def _worse(champion: Evidence, challenger: Evidence, figure: str, sign: int, limit: float) -> list[str]:
    old, new = champion.figures.get(figure), challenger.figures.get(figure)
    if old is None or new is None:
        return [f"the validation {figure} of {'the champion' if old is None else 'it'} is not known"]
    if sign * (new - old) <= limit + 1e-12:
        return []
    return [f"its validation {figure} is {new:.4f}, the champion's {old:.4f}; at most {limit} worse is allowed"]
