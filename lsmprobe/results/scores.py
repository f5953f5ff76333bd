"""Scores of predictions, in percent, and how far they can be trusted.

Everything is read off the confusion matrix (true class x predicted class), so that thousands of
resamples cost one pass; the tests hold each score to scikit-learn's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from lsmprobe.results.bootstrap import (
    CONFIDENCE,
    N_RESAMPLES,
    interval_ends,
    resampled_over,
    resamples,
    resampling_bias,
)

ScoreName = Literal["macro_f1", "uar", "accuracy"]


class Scores(TypedDict):
    """Percent, 0 to 100; `confusion[true][predicted]` counts utterances.

    `constant_f1` is the macro-F1 of the best constant answer: what a head scores that learned
    nothing but the most frequent emotion of this test set.
    """

    macro_f1: float
    uar: float
    accuracy: float
    constant_f1: float
    per_class_f1: list[float]
    confusion: list[list[int]]


@dataclass(frozen=True)
class Interval:
    """Percent; `over` says what was resampled.

    "speakers, then utterances" or "utterances only"; of several runs with "runs; " before it.
    """

    low: float
    high: float
    over: str


@dataclass(frozen=True)
class Shuffled:
    """What a run scores by guessing, in percent: its own answers shuffled against the truth.

    The mean over many shufflings, and the point that 95% of them do not exceed.
    """

    mean: float
    point_95: float


def scores(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> Scores:
    """Every score of one set of predictions; classes are numbered 0 to `n_classes - 1`.

    - macro-F1 is the mean over all classes of the corpus. A class that is neither in the test set
      nor predicted counts 0, as scikit-learn's f1_score(labels=range(k), zero_division=0).
    - UAR, unweighted average recall, is the mean over the classes that the test set has.
    """
    confusion = _confusion(labels, predictions, n_classes)
    majority = np.full_like(labels, np.bincount(labels).argmax())
    return Scores(
        macro_f1=float(macro_f1_of(confusion)[0]),
        uar=float(_uar(confusion)[0]),
        accuracy=float(_accuracy(confusion)[0]),
        constant_f1=macro_f1(labels, majority, n_classes),
        per_class_f1=_per_class_f1(confusion)[0].tolist(),
        confusion=confusion[0].tolist(),
    )


def macro_f1(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> float:
    """Macro-F1 in percent, as in `scores`."""
    return float(macro_f1_of(_confusion(labels, predictions, n_classes))[0])


def uar(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> float:
    """Unweighted average recall in percent, as in `scores`."""
    return float(_uar(_confusion(labels, predictions, n_classes))[0])


def bootstrap_interval(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: ScoreName = "macro_f1",
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The interval of one run: a bootstrap over speakers, then over their utterances.

    One or two speakers say nothing about others: then only utterances are resampled, and `over`
    says so. A class that a resample happens to miss is left out of its mean; one that the test set
    itself lacks counts as in `scores`.

    Source: Efron and Tibshirani 1993, chapters 13 and 14; Davison and Hinkley 1997, section 3.8.
    """
    return runs_interval(
        labels,
        predictions[None],
        speakers,
        n_classes,
        score=score,
        n_resamples=n_resamples,
        confidence=confidence,
        seed=seed,
    )


def runs_interval(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, "runs utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: ScoreName = "macro_f1",
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The interval of a mean over runs on one test set: the multi-bootstrap.

    Each resample draws runs and, for all of them together, speakers and then utterances as
    `bootstrap_interval` does; of one run it is the interval of that run.

    Source: Sellam et al. 2022, arXiv:2106.16163.
    """
    resampled, over = resampled_scores(
        labels, predictions, speakers, n_classes, score=score, n_resamples=n_resamples, seed=seed
    )
    confusion = np.concatenate([_confusion(labels, run, n_classes) for run in predictions])
    observed = float(SCORES[score](confusion).mean())
    bias = resampling_bias(resampled.mean(0), observed)
    low, high = interval_ends(
        mean_over_drawn_runs(resampled, run_draws(seed)), confidence, bias=bias
    )
    return Interval(low, high, over if len(predictions) == 1 else f"runs; {over}")


class RunAnswers(NamedTuple):
    """What one run was tested on and answered."""

    labels: Int[np.ndarray, " utterances"]
    predictions: Int[np.ndarray, " utterances"]
    speakers: Shaped[np.ndarray, " utterances"]


def interval_of_runs(
    runs: Sequence[RunAnswers], n_classes: int, *, score: ScoreName = "macro_f1", seed: int = 0
) -> Interval:
    """The 95% interval of the mean over the runs of one experiment.

    On one test set as `runs_interval`. Where every run has a test set of its own (a new split for
    each), the resamples draw runs, and for each of them its speakers and utterances.
    """
    first = runs[0]
    if all(_same_test_set(first, run) for run in runs):
        answers = np.stack([run.predictions for run in runs])
        return runs_interval(
            first.labels, answers, first.speakers, n_classes, score=score, seed=seed
        )
    of_runs, observed = [], []
    for number, run in enumerate(runs):
        answers = run.predictions[None]
        values, over = resampled_scores(
            run.labels, answers, run.speakers, n_classes, score=score, seed=seed + number
        )
        of_runs.append(values[0])
        observed.append(SCORES[score](_confusion(run.labels, run.predictions, n_classes))[0])
    resampled = np.stack(of_runs)
    bias = resampling_bias(resampled.mean(0), float(np.mean(observed)))
    ends = interval_ends(mean_over_drawn_runs(resampled, run_draws(seed)), bias=bias)
    return Interval(*ends, f"runs, each on its own test set; {over}")


def _same_test_set(one: RunAnswers, other: RunAnswers) -> bool:
    return np.array_equal(one.labels, other.labels) and np.array_equal(one.speakers, other.speakers)


def mean_over_drawn_runs(
    resampled: Float[np.ndarray, "runs resamples"], rng: np.random.Generator
) -> Float[np.ndarray, " resamples"]:
    """The mean of each resample over as many runs as there are, drawn with replacement."""
    n_runs, n_resamples = resampled.shape
    share = rng.multinomial(n_runs, np.full(n_runs, 1 / n_runs), size=n_resamples) / n_runs
    return (share.T * resampled).sum(0)


def run_draws(seed: int) -> np.random.Generator:
    """What draws runs: not the stream that speakers are drawn from."""
    return np.random.default_rng([seed, 1])


def resampled_scores(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, "runs utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: ScoreName = "macro_f1",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "runs resamples"], str]:
    """The scores of several runs on the same bootstrap resamples, and what was resampled.

    The resamples are those of `bootstrap_interval`: drawn once, for all runs.
    """
    resampled = np.empty((len(predictions), n_resamples))
    confusions = _resampled_confusions(labels, predictions, speakers, n_classes, n_resamples, seed)
    for run, confusion in enumerate(confusions):
        present = _occurring(_confusion(labels, predictions[run], n_classes))
        resampled[run] = _resampled_score(confusion, present, score)
    return resampled, resampled_over(speakers)


def shuffled_answers(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: ScoreName = "macro_f1",
    n_shuffles: int = N_RESAMPLES,
    seed: int = 0,
) -> Shuffled:
    """What a run's own answers score when they are dealt out at random to the test utterances.

    So it answers as often with each class as before, and knows nothing.

    Source: Ojala and Garriga 2010, "Permutation Tests for Studying Classifier Performance", test 1.
    """
    sums = [np.bincount(of_all, minlength=n_classes) for of_all in (labels, predictions)]
    rows, columns = (np.tile(of_all, (n_shuffles, 1)) for of_all in sums)
    values = SCORES[score](random_tables(rows, columns, np.random.default_rng(seed)))
    return Shuffled(float(values.mean()), float(np.quantile(values, 0.95)))


def random_tables(
    rows: Int[np.ndarray, "tables classes"],
    columns: Int[np.ndarray, "tables classes"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "tables classes classes"]:
    """Confusion matrices with these sums, as random dealing of the answers gives them.

    Row by row and cell by cell, each cell is hypergeometric given those before it.
    """
    n_classes = rows.shape[1]
    tables = np.empty((*rows.shape, n_classes), dtype=np.int64)
    left = columns.copy()  # answers not dealt yet
    for true in range(n_classes):
        to_come = rows[:, true].copy()
        for answer in range(n_classes):
            others = left[:, answer + 1 :].sum(1)
            tables[:, true, answer] = rng.hypergeometric(left[:, answer], others, to_come)
            to_come -= tables[:, true, answer]
        left -= tables[:, true]
    return tables


def macro_f1_of(
    confusion: Int[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices"]:
    """Macro-F1 in percent of each confusion matrix (true class x predicted class)."""
    return _per_class_f1(confusion).mean(axis=-1)


def _resampled_confusions(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, "runs utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_classes: int,
    n_resamples: int,
    seed: int,
) -> Iterator[Int[np.ndarray, "resamples classes classes"]]:
    """Of each run, one confusion matrix per resample."""
    # Utterances with the same label and the same predictions are one kind; kinds are drawn.
    kinds, kind_of = np.unique(np.vstack([labels, predictions]), axis=1, return_inverse=True)
    drawn = np.zeros((n_resamples, kinds.shape[1]))
    for own, counts in resamples(kind_of.ravel(), speakers, n_resamples=n_resamples, seed=seed):
        drawn[:, own] += counts
    for of_kind in kinds[1:]:
        cell_of_kind = np.eye(n_classes**2)[kinds[0] * n_classes + of_kind]
        counts = (drawn @ cell_of_kind).astype(np.int64)  # exact: whole numbers below 2^53
        yield counts.reshape(-1, n_classes, n_classes)


def _resampled_score(
    confusion: Int[np.ndarray, "resamples classes classes"],
    present: Bool[np.ndarray, "1 classes"],
    score: ScoreName,
) -> Float[np.ndarray, " resamples"]:
    """The score of each resample; macro-F1 leaves out present classes that a resample misses."""
    if score != "macro_f1":
        return SCORES[score](confusion)
    missed = (present & ~_occurring(confusion)).sum(axis=-1)
    return _per_class_f1(confusion).sum(axis=-1) / (confusion.shape[-1] - missed)


def _confusion(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> Int[np.ndarray, "1 classes classes"]:
    assert labels.shape == predictions.shape, "one prediction per label"
    assert len(labels), "scores need utterances"
    assert min(labels.min(), predictions.min()) >= 0, "classes are numbered from 0"
    assert max(labels.max(), predictions.max()) < n_classes, "classes end at n_classes - 1"
    cells = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return cells.reshape(1, n_classes, n_classes)


def _occurring(
    confusion: Int[np.ndarray, "matrices classes classes"],
) -> Bool[np.ndarray, "matrices classes"]:
    return confusion.sum(axis=-1) + confusion.sum(axis=-2) > 0


def _per_class_f1(
    confusion: Int[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices classes"]:
    """2 true positives / (utterances of the class + predictions of it); 0 where there are none."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return 100 * 2 * right / np.maximum(total, 1)


def _uar(confusion: Int[np.ndarray, "matrices classes classes"]) -> Float[np.ndarray, " matrices"]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    return 100 * (right / np.maximum(support, 1)).sum(axis=-1) / (support > 0).sum(axis=-1)


def _accuracy(
    confusion: Int[np.ndarray, "matrices classes classes"],
) -> Float[np.ndarray, " matrices"]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1).sum(axis=-1)
    return 100 * right / confusion.sum(axis=(-2, -1))


SCORES = {"macro_f1": macro_f1_of, "uar": _uar, "accuracy": _accuracy}
