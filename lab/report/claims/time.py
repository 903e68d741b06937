"""What is said of networks and time -> verdicts, by what was measured on texts."""

from lab.report.results import NAMES, Results
from lab.report.verdicts import Verdict, above, number, percent, points, unfair, within
from lab.texts.negation import NegationParams
from lab.texts.order import OrderParams

EPOCHS = (
    "Texts: the networks learn for about two epochs, and the CNN ends below the bag of words, so that the figures tell "
    "how fast each learns as much as what it sees."
)
TEMPLATES = (
    "Sentences with `not` and `but`: sentences made from the same template count as independent items, so that the "
    f"intervals are too narrow. {EPOCHS}"
)

ALL = 0  # the window of shuffling that is the whole text


def of_accuracy(results: Results, margin: float) -> list[Verdict]:
    """Who suits texts, at the same compute."""
    best = results.best_recurrent("text")
    over_cnn, over_bag, over_mlp = (results.ahead("text", best, family) for family in ("cnn", "linear", "mlp"))
    verdicts = [
        Verdict(
            "Recurrent networks suit texts better than CNNs",
            above(over_cnn, margin),
            f"the {NAMES[best]} has {percent(results.accuracy('text', best))}, {points(over_cnn)} more than the CNN",
        ),
        Verdict(
            "Reading in order beats counting words",
            above(over_bag, margin),
            f"the {NAMES[best]} has {points(over_bag)} more than the bag of words",
        ),
        Verdict(
            "For the same compute, weights that are shared over time beat weights for each place",
            above(over_mlp, margin),
            f"the {NAMES[best]} has {points(over_mlp)} more than the feed-forward network",
        ),
    ]
    return unfair(EPOCHS, verdicts)


def of_shuffling(results: Results, params: OrderParams, margin: float) -> list[Verdict]:
    """Whether order counts, and how far it reaches."""
    window = params.judged_window
    whole = {name: results.at("text", name, "shuffle", ALL) for name in ("lstm", "cnn", "linear")}
    beyond = {name: whole[name].minus(results.at("text", name, "shuffle", window)) for name in ("lstm", "cnn")}
    return [
        *(
            Verdict(
                f"The order of words counts for the {NAMES[name]}",
                above(whole[name], margin),
                f"shuffled texts cost it {points(whole[name])}",
                EPOCHS,
            )
            for name in ("lstm", "cnn")
        ),
        Verdict(
            "To a bag of words order is nothing",
            within(whole["linear"], margin),
            f"shuffled texts cost it {points(whole['linear'])}",
        ),
        Verdict(
            "A CNN sees local order alone",
            within(beyond["cnn"], margin),
            f"shuffling whole texts costs {points(beyond['cnn'])} more than shuffling within {window} words",
            EPOCHS,
        ),
        Verdict(
            "An LSTM sees order beyond that",
            above(beyond["lstm"], margin),
            f"shuffling whole texts costs it {points(beyond['lstm'])} more than shuffling within {window} words",
            EPOCHS,
        ),
    ]


def of_cutting(results: Results, params: OrderParams, margin: float) -> list[Verdict]:
    """Whether the end says more than the start, and whether that is the texts' doing or the network's."""
    words = params.judged_words
    gain = {
        name: results.at("text", name, "front", words).minus(results.at("text", name, "back", words))
        for name in ("linear", "lstm", "rnn")
    }
    return [
        Verdict(
            f"The last {words} words of a text say more than its first {words}",
            above(gain["linear"], margin),
            f"to the bag of words, which knows no order, they are worth {points(gain['linear'])} more",
        ),
        *(
            Verdict(
                f"To the {NAMES[name]}, whose last state answers, the end is worth still more",
                above(gain[name].minus(gain["linear"]), margin),
                f"{points(gain[name])} more than the start",
                EPOCHS,
            )
            for name in ("lstm", "rnn")
        ),
    ]


def of_phrases(results: Results, margin: float) -> list[Verdict]:
    """Whether it counts where a key phrase stands."""
    if not results.text["cnn"]["phrase"]["x"]:
        return []
    places = results.text["cnn"]["phrase"]["x"]
    start = {name: results.at("text", name, "phrase", places[0]) for name in ("cnn", "lstm", "rnn")}
    end = {name: results.at("text", name, "phrase", places[-1]) for name in ("cnn", "lstm", "rnn")}

    def moves(name: str) -> str:
        return f"it moves the probability by {points(start[name])} at the start and {points(end[name])} at the end"

    verdicts = [
        Verdict(
            "A CNN catches a key phrase at the first and the last words alike",
            within(end["cnn"].minus(start["cnn"]), margin),
            moves("cnn"),
        ),
        *(
            Verdict(
                f"The {NAMES[name]} hears a key phrase better at the end than at the start",
                above(end[name].minus(start[name]), margin),
                moves(name),
            )
            for name in ("lstm", "rnn")
        ),
    ]
    return [*_inside(results, places[1:-1], margin), *unfair(EPOCHS, verdicts)]


def _inside(results: Results, places: list[float], margin: float) -> list[Verdict]:
    """The same of a CNN away from the edges of a text, where at least two places were asked about."""
    if len(places) < 2:
        return []
    early, late = (results.at("text", "cnn", "phrase", place) for place in (places[0], places[-1]))
    verdicts = [
        Verdict(
            "A CNN catches a key phrase wherever it stands inside a text",
            within(late.minus(early), margin),
            f"it moves the probability by {points(early)} at {places[0]:g} of the text and {points(late)} "
            f"at {places[-1]:g}",
        )
    ]
    return unfair(EPOCHS, verdicts)


def of_sentences(results: Results, probe: str, params: NegationParams, margin: float) -> list[Verdict]:
    """Whether `not` (negation) turns what comes after, or `but` (contrast) lifts it, nearby and far on; in logits."""
    if probe not in results.text["cnn"]:
        return []
    near = params.distances[0]
    done = "`not` turn what follows" if probe == "negation" else "`but` outweigh what stood before"
    found = {
        (name, distance): results.at("text", name, probe, distance)
        for name in ("cnn", "lstm")
        for distance in (near, params.far)
    }
    where = {near: "at once", params.far: f"{params.far} words on"}
    verdicts = [
        Verdict(
            f"The {NAMES[name]} lets {done} {where[distance]}",
            above(effect, margin),
            f"{number(effect)} in logits, where 0 is that words only add up",
        )
        for (name, distance), effect in found.items()
    ]
    return unfair(TEMPLATES, verdicts)


def of_length(results: Results, margin: float) -> list[Verdict]:
    """Whether long texts are harder to remember than to search."""
    lengths = results.text["cnn"]["length"]["x"]
    lost = {
        name: results.at("text", name, "length", lengths[0]).minus(results.at("text", name, "length", lengths[-1]))
        for name in ("cnn", "lstm")
    }
    verdicts = [
        Verdict(
            "Long texts are harder for an LSTM than for a CNN",
            above(lost["lstm"].minus(lost["cnn"]), margin),
            f"from {lengths[0]:.0f} to {lengths[-1]:.0f} words the LSTM loses {points(lost['lstm'])}, "
            f"the CNN {points(lost['cnn'])}",
        )
    ]
    return unfair(EPOCHS, verdicts)
