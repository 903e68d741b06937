"""data/raw/text -> tokenizer.json and one Arrow file per split, duplicates out, and the report of the data."""

from pydantic import Field

from convoy import atomic, layout, stage
from convoy.params import read_section
from convoy.preflight.limits import PreflightLimits
from convoy.preflight.report import DataRefused, rejections_told, summary, write_report
from convoy.preparation.text import Encoder, TextsOf, look, take_census
from convoy.prepared.text import write_texts
from convoy.preprocessing.text import TextPreprocessing, TextPreprocessor
from convoy.preprocessing.vocabulary import build_tokenizer
from convoy.raw import RawItems
from convoy.splits import DivisionParams, DivisionRefused, divide, require_usable


class Params(DivisionParams):
    """The section prepare_text of params.yaml."""

    vocabulary_size: int = Field(ge=100)
    preprocessing: TextPreprocessing
    limits: PreflightLimits


def main() -> None:
    """Prepare the texts, each in one split. The vocabulary is built from the training split alone."""
    params = read_section(Params, "prepare_text")
    raw = RawItems(layout.raw("text"))
    usable = look(raw, params.preprocessing)
    with rejections_told("text", [*raw.rejections, *usable.rejections]):
        require_usable(raw.given, usable.rows)
        division = divide(usable.keys, raw.label_of[usable.rows], raw.given[usable.rows], raw.labels, params)
    rows = {name: usable.rows[indices] for name, indices in division.rows.items()}
    tokenizer_json = build_tokenizer(TextsOf(raw, rows["train"]), params.vocabulary_size).encode()
    atomic.write_bytes(layout.TOKENIZER, tokenizer_json)
    encoder = Encoder(raw, TextPreprocessor(params.preprocessing, tokenizer_json))
    for name in layout.SPLITS:
        write_texts(layout.prepared("text", name), encoder.encode(rows[name], name))
    census = take_census(raw, usable, division, encoder)
    findings = write_report("text", census, params.limits, TextsOf(raw, usable.rows).__getitem__)
    atomic.write_json(layout.contract("text"), params.preprocessing.model_dump(mode="json"))
    report = {**summary(findings, len(raw)), "vocabulary": encoder.vocabulary}
    atomic.write_json(layout.reports("text") / "data.json", report)
    print(f"texts: dropped {division.dropped}, kept { {name: len(found) for name, found in rows.items()} }")


if __name__ == "__main__":
    stage.run(main, refusals=(DivisionRefused, DataRefused))
