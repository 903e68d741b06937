"""All that was measured -> what the report shows, in order: sections of tables, figures and their verdicts."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from convoy.core.params import Section as ParamsSection
from lab.images.space import SpaceParams
from lab.layout import FAMILIES, Kind
from lab.memory import MemoryParams
from lab.report import figures
from lab.report.claims import memory as of_memory
from lab.report.claims import space as of_space
from lab.report.claims import time as of_time
from lab.report.figures import Figure
from lab.report.results import NAMES, Results
from lab.report.verdicts import Verdict
from lab.texts.negation import NegationParams
from lab.texts.order import OrderParams


class ReportParams(ParamsSection):
    """What is too small to matter: of accuracies, of logits, and the factor between gradients."""

    margin: float = Field(ge=0)
    order_margin: float = Field(ge=0)
    gradient_margin: float = Field(ge=1)


@dataclass(frozen=True)
class Asked:
    """Params of the probes, which say what is judged."""

    space: SpaceParams
    order: OrderParams
    negation: NegationParams
    memory: MemoryParams
    report: ReportParams


@dataclass(frozen=True)
class Table:
    """Heads, and rows of cells: what stands there, and what stands small below it."""

    title: str
    heads: list[str]
    rows: list[list[tuple[str, str]]]


@dataclass(frozen=True)
class Probe:
    """Figures of one question, what has to be known to read them, and what they say."""

    figures: list[Figure]
    verdicts: list[Verdict]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: str
    probes: list[Probe]
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def all_verdicts(self) -> list[Verdict]:
        """Those of the section itself and of its probes."""
        return [*self.verdicts, *(verdict for probe in self.probes for verdict in probe.verdicts)]


def sections(results: Results, asked: Asked) -> list[Section]:
    """The whole report."""
    return [_families(results, asked), _space(results, asked), _time(results, asked), _memory(results, asked)]


def _families(results: Results, asked: Asked) -> Section:
    margin = asked.report.margin
    return Section(
        "Six families, two tasks, the same compute",
        "The networks are about equally large by what one answer costs, so that they see about as many items. "
        "The recurrent ones read images row by row, and answer from their last state alone; the convolutional one on "
        "texts is Kim's; the feed-forward one has weights of its own for every pixel and every place of a text; "
        "logistic regression on texts is a bag of words.",
        [],
        [cost_table(results, "image", "Images"), cost_table(results, "text", "Texts")],
        [*of_space.of_accuracy(results, margin), *of_time.of_accuracy(results, margin)],
    )


def _space(results: Results, asked: Asked) -> Section:
    margin, space = asked.report.margin, asked.space
    return Section(
        "Space",
        "The networks of the table above, asked about changed images; for the permuted pixels and the smaller sizes "
        "they were trained anew.",
        [
            Probe(
                [figures.of_shift(results)],
                of_space.of_shift(results, space, margin),
                "To the right, to the left, down and up in turn; what leaves the picture is lost.",
            ),
            Probe([figures.of_hiding(results)], of_space.of_hiding(results, space, margin), "A black square anywhere."),
            Probe([figures.of_permutation(results)], of_space.of_permutation(results, margin)),
            Probe([figures.of_sizes(results)], of_space.of_sizes(results), "All sizes for as many epochs."),
        ],
    )


def _time(results: Results, asked: Asked) -> Section:
    margin, order, report = asked.report.margin, asked.order, asked.report
    probes = [
        Probe([figures.of_shuffling(results)], of_time.of_shuffling(results, order, margin)),
        Probe(
            [figures.of_cutting(results, "front"), figures.of_cutting(results, "back")],
            of_time.of_cutting(results, order, margin),
        ),
    ]
    phrases = Probe(
        [figures.of_phrases(results)],
        of_time.of_phrases(results, margin),
        "Three words that stand most one-sidedly in the texts of a label, put in place of three words of a text of "
        "another label. At the very edges a network also sees where the text begins or ends.",
    )
    sentences = [
        Probe(
            [figures.of_sentences(results, probe)],
            of_time.of_sentences(results, probe, asked.negation, report.order_margin),
            _example(asked.negation, probe),
        )
        for probe in ("negation", "contrast")
    ]
    lengths = Probe([figures.of_lengths(results)], of_time.of_length(results, margin))
    return Section(
        "Time",
        "The networks of the table above, asked about changed texts, which none has learnt from.",
        [each for each in (*probes, phrases, *sentences, lengths) if each.figures[0].series],
    )


def _example(params: NegationParams, probe: str) -> str:
    """The sentences of a probe, so that its number can be understood."""
    good, bad = params.good_words[0], params.bad_words[0]
    if probe == "negation":
        to_bad, to_good = (params.plain.format(fillers="\u2026 ", word=word) for word in (bad, good))
        return (
            f"What \u201cnot\u201d for \u201cnow\u201d does to \u201c{to_bad}\u201d less that of \u201c{to_good}\u201d"
        )
    pairs = ((bad, good), (good, bad))
    up, down = (params.contrast.format(fillers="\u2026 ", first=first, second=second) for first, second in pairs)
    return (
        f"The score of \u201c{up}\u201d less that of \u201c{down}\u201d, less the same with "
        "\u201cand\u201d for \u201cbut\u201d"
    )


def _memory(results: Results, asked: Asked) -> Section:
    params = asked.memory
    return Section(
        "Memory",
        "The first token of a sequence is one of two that decide, all that follow are noise; the network answers after "
        f"the last one. Each distance is learnt anew, from at most {params.steps * params.batch_size:,} sequences.",
        [
            Probe([figures.of_reach(results)], of_memory.of_reach(results, params)),
            Probe(
                [figures.of_gradients(results, "at_start"), figures.of_gradients(results, "trained")],
                of_memory.of_gradients(results, params, asked.report.gradient_margin),
                "How much the loss hangs on a token so far back. Once trained: on the farthest distance that each "
                "solved.",
            ),
        ],
    )


def cost_table(results: Results, kind: Kind, title: str) -> Table:
    """Accuracy and costs of each family."""
    of_kind = results.of(kind)
    any_of = of_kind["cnn"]
    heads = [
        "family",
        "accuracy",
        "weights",
        "multiply-adds per answer",
        "of the training",
        "epochs",
        "seconds of training",
        "ms alone",
        "ms in a batch",
    ]
    counts = f"{any_of['learnt_from']:,} learnt from, {any_of['asked']:,} asked"
    return Table(f"{title}: {counts}", heads, [_cost_row(family, of_kind[family]) for family in FAMILIES])


def _cost_row(family: str, found: dict[str, Any]) -> list[tuple[str, str]]:
    accuracy, cost = found["accuracy"], found["cost"]
    seconds = cost["training_s"]
    return [
        (NAMES[family], ""),
        (f"{100 * accuracy['mean']:.1f} %", f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}"),
        (f"{cost['weights']:,}", ""),
        (_short(cost["multiply_adds"]), ""),
        (_short(cost["multiply_adds_of_training"]), ""),
        (f"{cost['epochs']:.1f}", ""),
        (f"{sum(seconds) / len(seconds):.0f}", f"{min(seconds):.0f} to {max(seconds):.0f}"),
        (f"{cost['alone_ms']:.2f}", ""),
        (f"{cost['batched_ms']:.3f}", ""),
    ]


def _short(value: float) -> str:
    """Three digits of a large number, in words."""
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:g}"
