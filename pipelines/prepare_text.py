"""data/raw/text -> tokenizer.json and one Arrow file per split, duplicates out; counts of all kept and dropped."""

import numpy as np
from pydantic import Field

from convoy import atomic, layout, stage
from convoy.params import Section, read_section
from convoy.prepared.text import TextSplit, write_texts
from convoy.preprocessing.text import PreparedText, TextPreprocessing, TextPreprocessor
from convoy.preprocessing.vocabulary import build_tokenizer
from convoy.sources import imdb_reviews
from convoy.splits import count_labels, cut, digests, distinct, held_out, stratified


class Params(Section):
    """The section prepare_text of params.yaml; a max of null is all."""

    seed: int
    validation_share: float = Field(gt=0, lt=1)
    calibration_share: float = Field(gt=0, lt=1)
    test_share: float = Field(gt=0, lt=1)
    max_train: int | None
    max_validation: int | None
    max_calibration: int | None
    max_test: int | None
    vocabulary_size: int = Field(ge=100)
    preprocessing: TextPreprocessing


def main() -> None:
    """Prepare the texts. The vocabulary is built from the training split alone."""
    params = read_section(Params, "prepare_text")
    texts, labels = imdb_reviews.read(layout.raw("text"))
    kept, dropped = distinct(digests(text.encode() for text in texts), labels)
    rest, test = stratified(labels[kept], params.test_share, params.seed)
    left = 1 - params.test_share
    train, validation, calibration = held_out(
        labels[kept[rest]], params.validation_share / left, params.calibration_share / left, params.seed
    )
    aside = {"train": train, "validation": validation, "calibration": calibration}
    whole = {**{name: kept[rest[rows]] for name, rows in aside.items()}, "test": kept[test]}
    rows, dropped["over_max"] = cut(whole, {name: getattr(params, f"max_{name}") for name in layout.SPLITS})
    tokenizer_json = build_tokenizer([texts[row] for row in rows["train"]], params.vocabulary_size).encode()
    atomic.write_bytes(layout.TOKENIZER, tokenizer_json)
    preprocessor = TextPreprocessor(params.preprocessing, tokenizer_json)
    counts = {}
    for name in layout.SPLITS:
        chosen = [texts[row] for row in rows[name]]
        prepared = preprocessor.prepare_all(chosen)
        split_labels = labels[rows[name]]
        write_texts(
            layout.prepared("text", name),
            TextSplit(
                texts=chosen,
                tokens=[text.array.astype(np.int32) for text in prepared],
                labels=split_labels,
                names=imdb_reviews.LABELS,
                vocabulary=preprocessor.tokenizer.get_vocab_size(),
                pad_id=params.preprocessing.pad_id,
            ),
        )
        shares = _shares(prepared, params.preprocessing.unknown_id)
        counts[name] = {**count_labels(split_labels, imdb_reviews.LABELS), **shares}
        print(f"texts {name}: {len(chosen)} encoded", flush=True)
    atomic.write_json(layout.contract("text"), params.preprocessing.model_dump(mode="json"))
    report = {"raw": len(texts), "dropped": dropped, "splits": counts}
    report["vocabulary"] = preprocessor.tokenizer.get_vocab_size()
    atomic.write_json(layout.reports("text") / "data.json", report)
    print(f"texts: dropped {dropped}")


def _shares(prepared: list[PreparedText], unknown_id: int) -> dict[str, float]:
    """How many texts were cut, and how many of the words kept are not in the vocabulary."""
    tokens = np.concatenate([text.array for text in prepared])
    return {
        "truncated_share": round(float(np.mean([text.truncated for text in prepared])), 4),
        "unknown_share": round(float(np.mean(tokens == unknown_id)), 4),
    }


if __name__ == "__main__":
    stage.run(main)
