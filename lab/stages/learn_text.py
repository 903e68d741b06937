"""Prepared texts -> one family trained on them, its costs, and what it sees of time. Argument: family."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from tokenizers import Tokenizer
from torch import nn

from convoy.core import atomic, stage
from convoy.core.params import read_section
from convoy.kinds.text.items.dataset import Dataset
from lab.layout import PARAMS, Family, learnt
from lab.learning import measuring
from lab.learning.families import Families
from lab.learning.items import DataParams
from lab.learning.training import CPU, LearningParams, Trained, ask
from lab.texts import negation, order
from lab.texts.negation import NegationParams
from lab.texts.networks import TextCnnParams, WordParams
from lab.texts.order import OrderParams
from lab.texts.subset import read_text_subset, train_texts, with_texts

Probe = Callable[[NegationParams, int, negation.Score], NDArray[np.float64]]


def main(family: Family) -> None:
    """Train, then ask: the texts as they are, shuffled, cut, with a key phrase; sentences with `not` and `but`."""
    learning = read_section(LearningParams, "learning", path=PARAMS)
    words = read_section(WordParams, "words", path=PARAMS)
    params = read_section(Families[TextCnnParams], "families", "text", path=PARAMS).of(family)
    of_order = read_section(OrderParams, "order", path=PARAMS)
    of_negation = read_section(NegationParams, "negation", path=PARAMS)
    subset = read_text_subset(read_section(DataParams, "data", path=PARAMS))
    trained = train_texts(family, params, words, learning, subset.learn, f"texts, {family}")
    intact = measuring.answers(trained, subset.ask)
    rows = np.random.default_rng(0).permutation(len(subset.learn.labels))[: learning.text.batch_size]
    batch, _ = subset.learn.take(rows, CPU)
    usual = int(subset.ask.lengths.mean())
    report = {
        "seeds": learning.seeds,
        "asked": len(subset.ask.labels),
        "learnt_from": len(subset.learn.labels),
        "chance": 1 / len(subset.ask.names),
        "words": usual,
        "accuracy": measuring.accuracy(intact),
        "cost": measuring.cost(trained, torch.full((1, usual), order.FIRST_WORD), batch),
        "loss": measuring.losses(trained),
        **_ask_changed(trained, subset.ask, intact, of_order),
        "phrase": _ask_phrases(trained, subset.learn, subset.ask, of_order),
        **_ask_sentences(trained, subset.ask, subset.tokenizer, of_negation),
    }
    atomic.write_json(learnt("text", family), report)
    print(f"texts, {family}: accuracy {intact.mean():.4f}", flush=True)


def _ask_changed(
    trained: list[Trained], asked: Dataset, intact: measuring.Right, params: OrderParams
) -> dict[str, Any]:
    """Texts shuffled and cut, and the accuracy by length of those that are whole."""

    def changed(texts: list[order.Tokens]) -> measuring.Right:
        return measuring.answers(trained, with_texts(asked, texts, asked.labels))

    texts = asked.arrays
    cuts = {
        end: measuring.curve(intact, ((words, changed(order.keep(texts, words, end))) for words in params.kept_words))
        for end in ("front", "back")
    }
    windows = ((window, changed(order.shuffle(texts, window, params.seed))) for window in params.windows)
    group, lengths = order.length_groups(texts, params.lengths)
    groups = ((length, intact[:, group == index].astype(float)) for index, length in enumerate(lengths))
    return {"shuffle": measuring.curve(intact, windows), **cuts, "length": measuring.effects(groups)}


def _ask_phrases(trained: list[Trained], learn: Dataset, asked: Dataset, params: OrderParams) -> dict[str, list[Any]]:
    """How far a key phrase of another label moves the probability of that label, by the place that it is put at."""
    hosts = order.draw_hosts((learn.arrays, learn.labels), asked.labels, len(asked.names), params)
    if not hosts:
        return measuring.effects([])
    rows = np.array([host.row for host in hosts])
    wanted = np.array([host.label for host in hosts])

    def probability(network: nn.Module, texts: list[order.Tokens]) -> NDArray[np.float64]:
        logits = ask(network, with_texts(asked, texts, asked.labels[rows])).astype(np.float64)
        found: NDArray[np.float64] = softmax(logits, axis=1)[np.arange(len(rows)), wanted]
        return found

    def moved(place: float) -> NDArray[np.float64]:
        texts = [order.insert(asked.arrays[host.row], host.phrase, place) for host in hosts]
        return measuring.per_network(trained, lambda network: probability(network, texts)) - before

    before = measuring.per_network(trained, lambda network: probability(network, [asked.arrays[row] for row in rows]))
    return measuring.effects((place, moved(place)) for place in params.places)


def _ask_sentences(
    trained: list[Trained], asked: Dataset, tokenizer: Tokenizer, params: NegationParams
) -> dict[str, Any]:
    """What `not` and `but` turn, by their distance; nothing where the labels are not those of params."""
    if not {params.good_label, params.bad_label} <= set(asked.names):
        return {}
    good, bad = asked.names.index(params.good_label), asked.names.index(params.bad_label)

    def encode(sentences: list[str]) -> Dataset:
        encodings = tokenizer.encode_batch(sentences, add_special_tokens=False)
        return with_texts(asked, [np.array(each.ids, np.int32) for each in encodings], np.zeros(len(sentences), int))

    def effects(probe: Probe) -> dict[str, list[Any]]:
        def at(distance: int) -> NDArray[np.float64]:
            return measuring.per_network(trained, lambda network: probe(params, distance, score_by(network)))

        return measuring.effects((distance, at(distance)) for distance in params.distances)

    def score_by(network: nn.Module) -> negation.Score:
        def score(sentences: list[str]) -> NDArray[np.float64]:
            logits = ask(network, encode(sentences)).astype(np.float64)
            found: NDArray[np.float64] = logits[:, good] - logits[:, bad]
            return found

        return score

    return {"negation": effects(negation.negation), "contrast": effects(negation.contrast)}


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # denormal numbers cost a recurrent network twenty times the time
    stage.run(main, *sys.argv[1:])
