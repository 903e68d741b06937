"""Linear models of words and word pairs for texts: NB-SVM, and TF-IDF with logistic regression."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from convoy.core.params import Section
from convoy.kinds.text.items.prepared import Split as TextSplit

Counts = Any  # a sparse matrix (texts, n-grams): how often each n-gram occurs in each text


class CountingParams(Section):
    """Which n-grams are counted: of up to `longest` tokens, found in at least `min_texts` training texts."""

    token_pattern: str
    longest: int = Field(ge=1)
    min_texts: int = Field(ge=1)


class NbSvmParams(Section):
    """alpha, C and beta of Wang & Manning 2012 (aclanthology.org/P12-2018).

    The interpolation pulls the weights to those of naive Bayes, and with `pull_intercept` the intercept to 0.
    """

    smoothing: float = Field(gt=0)
    inverse_regularisation: float = Field(gt=0)
    interpolation: float = Field(ge=0, le=1)
    pull_intercept: bool


class TfidfLrParams(Section):
    """Whether a count n weighs 1 + log n, and C of the logistic regression."""

    sublinear: bool
    inverse_regularisation: float = Field(gt=0)


class Baselines(Section):
    """The section `baselines` of a data set of texts."""

    seed: int
    counting: CountingParams
    nb_svm: NbSvmParams = Field(alias="nb-svm")
    nb_svm_published: NbSvmParams = Field(alias="nb-svm-published")
    tfidf_lr: TfidfLrParams = Field(alias="tfidf-lr")


def predictions(params: Baselines, split: TextSplit, texts: Sequence[str]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Train each baseline on `split` on whole texts and yield its name and the labels (n,) that it gives `texts`."""
    counter = CountVectorizer(
        token_pattern=params.counting.token_pattern,
        ngram_range=(1, params.counting.longest),
        min_df=params.counting.min_texts,
        dtype=np.float64,
    )
    train_counts, counts = counter.fit_transform(split.contents), counter.transform(texts)
    yield "nb-svm", nb_svm(params.nb_svm, train_counts, split.labels, counts, params.seed)
    yield "nb-svm-published", nb_svm(params.nb_svm_published, train_counts, split.labels, counts, params.seed)
    yield "tfidf-lr", _tfidf_lr(params.tfidf_lr, train_counts, split.labels, counts, params.seed)


def nb_svm(
    params: NbSvmParams, train_counts: Counts, labels: NDArray[np.int64], counts: Counts, seed: int
) -> NDArray[np.int64]:
    """The labels (n,) of `counts`, one label against the rest; of two labels, one model scores both."""
    train_presence, presence = train_counts.sign(), counts.sign()
    classes = np.unique(labels)
    against_rest = classes if len(classes) > 2 else classes[1:]
    scores = [_nb_svm_score(params, train_presence, labels == label, presence, seed) for label in against_rest]
    best = np.argmax(scores if len(scores) > 1 else [-scores[0], scores[0]], axis=0)
    predicted: NDArray[np.int64] = classes[best]
    return predicted


def log_count_ratio(present: Counts, positive: NDArray[np.bool_], smoothing: float) -> NDArray[np.float64]:
    """For each n-gram the log of its share in the positive texts over its share in the others, both smoothed."""
    shares = [smoothing + np.asarray(present[rows].sum(axis=0)).ravel() for rows in (positive, ~positive)]
    ratio: NDArray[np.float64] = np.log(shares[0] / shares[0].sum()) - np.log(shares[1] / shares[1].sum())
    return ratio


def _nb_svm_score(
    params: NbSvmParams, train_presence: Counts, positive: NDArray[np.bool_], presence: Counts, seed: int
) -> NDArray[np.float64]:
    """Scores of a linear SVM on n-grams weighted by naive Bayes, pulled to naive Bayes itself (all weights equal)."""
    ratio = log_count_ratio(train_presence, positive, params.smoothing)
    svm = LinearSVC(C=params.inverse_regularisation, random_state=seed)
    svm.fit(train_presence.multiply(ratio).tocsr(), positive)
    weights, beta = svm.coef_[0], params.interpolation
    mixed = (1 - beta) * np.abs(weights).mean() + beta * weights
    intercept = svm.intercept_[0] * (beta if params.pull_intercept else 1)
    scores: NDArray[np.float64] = presence @ (ratio * mixed) + intercept
    return scores


def _tfidf_lr(
    params: TfidfLrParams, train_counts: Counts, labels: NDArray[np.int64], counts: Counts, seed: int
) -> NDArray[np.int64]:
    weighting = TfidfTransformer(sublinear_tf=params.sublinear)
    regression = LogisticRegression(C=params.inverse_regularisation, random_state=seed, max_iter=1000)
    regression.fit(weighting.fit_transform(train_counts), labels)
    predicted: NDArray[np.int64] = regression.predict(weighting.transform(counts))
    return predicted
