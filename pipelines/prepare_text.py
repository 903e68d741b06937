"""data/raw/text -> tokenizer.json and one Arrow file per split, duplicates out, and the report of the data."""

from pydantic import Field

from convoy.core import atomic, paths, stage
from convoy.core.params import read_section
from convoy.data.findings import PreflightLimits
from convoy.data.raw import RawItems
from convoy.data.report import DataRefused, rejections_reported, summary, write_report
from convoy.data.splits import DivisionParams, DivisionRefused, divide, require_usable
from convoy.data.text_preparation import Encoder, LazyTexts, build_tokenizer, check_texts, take_census
from convoy.kinds.text.prepared import write_texts
from convoy.kinds.text.preprocessing import TextPreprocessing, TextPreprocessor


class Params(DivisionParams):
    """The section prepare_text of params.yaml."""

    vocabulary_size: int = Field(ge=100)
    preprocessing: TextPreprocessing
    limits: PreflightLimits


def main() -> None:
    """Prepare the texts, each in one split. The vocabulary is built from the training split alone."""
    params = read_section(Params, "prepare_text")
    raw = RawItems(paths.raw("text"))
    usable = check_texts(raw, params.preprocessing)
    with rejections_reported("text", [*raw.rejections, *usable.rejections]):
        require_usable(raw.given, usable.rows)
        division = divide(usable.keys, raw.label_of[usable.rows], raw.given[usable.rows], raw.labels, params)
    rows = {name: usable.rows[indices] for name, indices in division.rows.items()}
    tokenizer_json = build_tokenizer(LazyTexts(raw, rows["train"]), params.vocabulary_size).encode()
    atomic.write_bytes(paths.TOKENIZER, tokenizer_json)
    encoder = Encoder(raw, TextPreprocessor(params.preprocessing, tokenizer_json))
    for name in paths.SPLITS:
        write_texts(paths.prepared("text", name), encoder.encode(rows[name], name))
    census = take_census(raw, usable, division, encoder)
    findings = write_report("text", census, params.limits, LazyTexts(raw, usable.rows).__getitem__)
    atomic.write_json(paths.contract("text"), params.preprocessing.model_dump(mode="json"))
    report = {**summary(findings, len(raw)), "vocabulary": encoder.vocabulary}
    atomic.write_json(paths.reports("text") / "data.json", report)
    print(f"texts: dropped {division.dropped}, kept { {name: len(indices) for name, indices in rows.items()} }")


if __name__ == "__main__":
    stage.run(main, refusals=(DivisionRefused, DataRefused))
