"""The section `publish` of params.yaml: what a challenger must reach to take the champion's place by itself."""

from typing import Literal

from pydantic import Field

from convoy.core.params import Section


class PublishParams(Section):
    """How a challenger is judged; the reason of each number stands beside it in params.yaml."""

    promote: Literal["automatic", "asked"]
    significance: float = Field(gt=0, lt=0.5)
    min_accuracy_difference: float = Field(ge=-1, le=1)
    max_slice_drop: float = Field(ge=0, le=1)
    max_log_loss_rise: float = Field(ge=0)
    max_probability_difference: float = Field(gt=0)
    rest_rows: int = Field(ge=0)
    max_calibration_error: float = Field(ge=0, le=1)
    max_bundle_bytes: int = Field(ge=1)
    latency_pairs: int = Field(ge=5)
    max_latency_ratio: float = Field(gt=0)
