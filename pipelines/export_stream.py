"""The weights of the candidate that reads a text in pieces -> its bundle, whose graph carries a state."""

from pydantic import Field

from convoy.bundles.bundle import Limits
from convoy.bundles.predictor import Model
from convoy.core import paths, stage
from convoy.core.params import read_section
from convoy.evaluation.parity import Agreement, compare_pieces, require_agreement
from convoy.export.build import BundleParams, build_bundle
from convoy.kinds.text.prepared import read as read_texts
from convoy.kinds.text.preprocessing import StreamPreprocessing, TextPreprocessing


class Params(BundleParams):
    """The section export_stream of params.yaml."""

    max_piece_difference: float = Field(gt=0)
    piece_texts: int = Field(ge=1)
    max_pending_characters: int = Field(ge=1)
    max_words: int = Field(ge=1)
    limits: Limits


def main() -> None:
    """Export it, and check also that texts in pieces get the answers of the same texts at once."""
    params = read_section(Params, "export_stream")

    def check_pieces(model: Model) -> dict[str, Agreement]:
        texts = read_texts(paths.prepared("text-stream", "validation")).contents[: params.piece_texts]
        pieces = compare_pieces(model, texts)
        return {"pieces": require_agreement(pieces, params.max_piece_difference, "texts at once and in pieces")}

    prepared = TextPreprocessing.model_validate_json(paths.contract("text-stream").read_bytes())
    contract = StreamPreprocessing.without_cutting(prepared, params.max_pending_characters, params.max_words)
    build_bundle("text-stream", "lstm", contract.model_dump(mode="json"), params.limits, params, check_pieces)


if __name__ == "__main__":
    stage.run(main)
