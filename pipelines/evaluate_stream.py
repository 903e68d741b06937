"""Evaluate the bundle that reads a text in pieces on the test split of texts, through the predictor of the server."""

from pydantic import Field

from convoy.core import stage
from convoy.core.params import Section, read_section
from convoy.evaluation.report import write_report


class Params(Section):
    """The section evaluate_stream of params.yaml."""

    max_probability_difference: float = Field(gt=0)


def main() -> None:
    """Evaluate it on whole texts, as the bundle of `text` is."""
    write_report("text-stream", read_section(Params, "evaluate_stream").max_probability_difference)


if __name__ == "__main__":
    stage.run(main)
