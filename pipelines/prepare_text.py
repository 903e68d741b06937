"""data/raw/text -> tokenizer.json and one Arrow file per split, duplicates out; counts of all kept and dropped."""

from pydantic import Field

from convoy import atomic, layout, stage
from convoy.params import read_section
from convoy.preparation.text import Encoder, look, texts_of
from convoy.prepared.text import write_texts
from convoy.preprocessing.text import TextPreprocessing, TextPreprocessor
from convoy.preprocessing.vocabulary import build_tokenizer
from convoy.raw import RawItems
from convoy.splits import DivisionParams, LabelTooRare, count_labels, divide


class Params(DivisionParams):
    """The section prepare_text of params.yaml."""

    vocabulary_size: int = Field(ge=100)
    preprocessing: TextPreprocessing


def main() -> None:
    """Prepare the texts, each in one split. The vocabulary is built from the training split alone."""
    params = read_section(Params, "prepare_text")
    raw = RawItems(layout.raw("text"))
    usable = look(raw, params.preprocessing)
    division = divide(usable.keys, raw.label_of[usable.rows], raw.given[usable.rows], raw.labels, params)
    rows = {name: usable.rows[indices] for name, indices in division.rows.items()}
    tokenizer_json = build_tokenizer(texts_of(raw, rows["train"]), params.vocabulary_size).encode()
    atomic.write_bytes(layout.TOKENIZER, tokenizer_json)
    encoder = Encoder(raw, TextPreprocessor(params.preprocessing, tokenizer_json))
    counts = {}
    for name in layout.SPLITS:
        write_texts(layout.prepared("text", name), encoder.encode(rows[name], name))
        counts[name] = {**count_labels(raw.label_of[rows[name]], raw.labels), **encoder.shares(rows[name])}
    atomic.write_json(layout.contract("text"), params.preprocessing.model_dump(mode="json"))
    report = {"raw": len(raw), "dropped": division.dropped, "splits": counts, "vocabulary": encoder.vocabulary}
    atomic.write_json(layout.reports("text") / "data.json", report)
    print(f"texts: dropped {division.dropped}, kept { {name: count['n'] for name, count in counts.items()} }")


if __name__ == "__main__":
    stage.run(main, refusals=(LabelTooRare,))
