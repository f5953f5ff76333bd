"""Scores of predictions, in percent, and how far they can be trusted.

Everything is read off the confusion matrix (true class x predicted class), so that thousands of
resamples cost one pass; the tests hold each score to scikit-learn's.
"""

from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

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
    """Percent; `over` is "speakers, then utterances" or "utterances only": what was drawn anew."""

    low: float
    high: float
    over: str


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


def bootstrap_interval(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: ScoreName = "macro_f1",
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over speakers, then over the utterances of each speaker drawn.

    One or two speakers say nothing about others: then only utterances are drawn, and `over` says
    so. A class that a resample happens to miss is left out of its mean; one that the test set
    itself lacks counts as in `scores`.

    Source: Efron and Tibshirani 1993, chapter 13; Davison and Hinkley 1997, section 3.8.
    """
    resampled, over = resampled_scores(
        labels,
        predictions[None],
        speakers,
        n_classes,
        score=score,
        n_resamples=n_resamples,
        seed=seed,
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(low), float(high), over)


def resampled_scores(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, "runs utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_classes: int,
    *,
    score: ScoreName = "macro_f1",
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "runs resamples"], str]:
    """The scores of several runs on the same bootstrap resamples, and what was drawn anew.

    The resamples are those of `bootstrap_interval`: drawn once, for all runs.
    """
    # Utterances with the same label and the same predictions are one kind; kinds are drawn.
    kinds, kind_of = np.unique(np.vstack([labels, predictions]), axis=1, return_inverse=True)
    drawn, over = _times_drawn(kind_of.ravel(), speakers, n_resamples, seed)
    resampled = np.empty((len(predictions), n_resamples))
    for run, (guesses, of_kind) in enumerate(zip(predictions, kinds[1:], strict=True)):
        cell_of_kind = np.eye(n_classes**2)[kinds[0] * n_classes + of_kind]
        counts = (drawn @ cell_of_kind).astype(np.int64)  # exact: whole numbers below 2^53
        confusion = counts.reshape(-1, n_classes, n_classes)
        if score == "macro_f1":
            present = _occurring(_confusion(labels, guesses, n_classes))
            missed = (present & ~_occurring(confusion)).sum(axis=-1)
            resampled[run] = _per_class_f1(confusion).sum(axis=-1) / (n_classes - missed)
        else:
            resampled[run] = {"uar": _uar, "accuracy": _accuracy}[score](confusion)
    return resampled, over


def macro_f1_of(
    confusion: Int[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices"]:
    """Macro-F1 in percent of each confusion matrix (true class x predicted class)."""
    return _per_class_f1(confusion).mean(axis=-1)


def _times_drawn(
    kind_of: Int[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    n_resamples: int,
    seed: int,
) -> tuple[Float[np.ndarray, "resamples kinds"], str]:
    """How often each resample draws each kind of utterance, and what was drawn anew."""
    rng = np.random.default_rng(seed)
    names, speaker_of = np.unique(speakers, return_inverse=True)
    by_speaker = len(names) > 2
    if not by_speaker:
        names, speaker_of = names[:1], np.zeros_like(speaker_of)
    n_drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    drawn = np.zeros((n_resamples, kind_of.max() + 1))
    for speaker, times in enumerate(n_drawn.T):
        # Utterances of a speaker drawn m times are one multinomial draw of m times as many.
        own, counts = np.unique(kind_of[speaker_of == speaker], return_counts=True)
        drawn[:, own] += rng.multinomial(times * counts.sum(), counts / counts.sum())
    return drawn, "speakers, then utterances" if by_speaker else "utterances only"


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
