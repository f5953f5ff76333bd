"""Scores of predictions and how far they can be trusted.

Every score is read off sums over utterances, so that thousands of resamples cost one pass: those of
classes, in percent, off the confusion matrix (true class x predicted class), those of numbers off
the sums of agreement.py, those of distributions off the labels and divergences of distributions.py.
`STATISTICS` is the table of them; the tests hold each to an independent implementation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from lsmprobe.results import agreement, distributions
from lsmprobe.results.bootstrap import (
    CONFIDENCE,
    N_RESAMPLES,
    interval_ends,
    resampled_over,
    resamples,
    resampling_bias,
)

ScoreName = Literal["macro_f1", "uar", "accuracy"]
Truth = Num[np.ndarray, "utterances *targets"]
Runs = Num[np.ndarray, "runs utterances *targets"]


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

    The mean over many shufflings, and the point that 95% of them do not exceed (of a divergence, do
    not fall below).
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
    return score_of(labels, predictions, n_classes, "macro_f1")


def uar(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> float:
    """Unweighted average recall in percent, as in `scores`."""
    return score_of(labels, predictions, n_classes, "uar")


def score_of(labels: Truth, predictions: Truth, n_outputs: int, score: "str | Statistic") -> float:
    """One score, a row or a name of `STATISTICS`; `n_outputs`: of classes or targets."""
    statistic = _statistic(score)
    return float(statistic.of(statistic.total(labels, predictions, n_outputs)[None])[0])


def bootstrap_interval(
    labels: Truth,
    predictions: Truth,
    speakers: Shaped[np.ndarray, " utterances"],
    n_outputs: int,
    *,
    score: "str | Statistic" = "macro_f1",
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
        n_outputs,
        score=score,
        n_resamples=n_resamples,
        confidence=confidence,
        seed=seed,
    )


def runs_interval(
    labels: Truth,
    predictions: Runs,
    speakers: Shaped[np.ndarray, " utterances"],
    n_outputs: int,
    *,
    score: "str | Statistic" = "macro_f1",
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
        labels, predictions, speakers, n_outputs, score=score, n_resamples=n_resamples, seed=seed
    )
    observed = float(np.mean([score_of(labels, run, n_outputs, score) for run in predictions]))
    if np.isnan(observed):
        return Interval(np.nan, np.nan, over)
    bias = resampling_bias(resampled.mean(0), observed)
    low, high = interval_ends(
        mean_over_drawn_runs(resampled, run_draws(seed)), confidence, bias=bias
    )
    return Interval(low, high, over if len(predictions) == 1 else f"runs; {over}")


class RunAnswers(NamedTuple):
    """What one run was tested on and answered."""

    labels: Truth
    predictions: Truth
    speakers: Shaped[np.ndarray, " utterances"]

    def same_test_set(self, other: "RunAnswers") -> bool:
        """Whether both were asked the same of the same speakers."""
        pairs = (self.labels, other.labels), (self.speakers, other.speakers)
        return all(np.array_equal(one, another) for one, another in pairs)


def interval_of_runs(
    runs: Sequence[RunAnswers],
    n_outputs: int,
    *,
    score: "str | Statistic" = "macro_f1",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The 95% interval of the mean over the runs of one experiment.

    On one test set as `runs_interval`. Where every run has a test set of its own (a new split for
    each), the resamples draw runs, and for each of them its speakers and utterances.
    """
    first = runs[0]
    if all(first.same_test_set(run) for run in runs):
        answers = np.stack([run.predictions for run in runs])
        return runs_interval(
            first.labels,
            answers,
            first.speakers,
            n_outputs,
            score=score,
            n_resamples=n_resamples,
            seed=seed,
        )
    of_runs, observed = [], []
    for number, run in enumerate(runs):
        answers = run.predictions[None]
        values, over = resampled_scores(
            run.labels,
            answers,
            run.speakers,
            n_outputs,
            score=score,
            n_resamples=n_resamples,
            seed=seed + number,
        )
        of_runs.append(values[0])
        observed.append(score_of(run.labels, run.predictions, n_outputs, score))
    resampled, mean = np.stack(of_runs), float(np.mean(observed))
    if np.isnan(mean):
        return Interval(np.nan, np.nan, f"runs, each on its own test set; {over}")
    bias = resampling_bias(resampled.mean(0), mean)
    ends = interval_ends(mean_over_drawn_runs(resampled, run_draws(seed)), bias=bias)
    return Interval(*ends, f"runs, each on its own test set; {over}")


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
    labels: Truth,
    predictions: Runs,
    speakers: Shaped[np.ndarray, " utterances"],
    n_outputs: int,
    *,
    score: "str | Statistic" = "macro_f1",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "runs resamples"], str]:
    """The scores of several runs on the same bootstrap resamples, and what was resampled.

    The resamples are those of `bootstrap_interval`: drawn once, for all runs.
    """
    statistic = _statistic(score)
    labels = statistic.compact(labels)
    predictions = np.stack([statistic.compact_answers(run) for run in predictions])
    # Utterances with the same label and the same predictions are one kind; kinds are drawn.
    said = np.concatenate([_rows(labels), *map(_rows, predictions)])
    _, first, kind_of = np.unique(said, axis=1, return_index=True, return_inverse=True)
    parts = np.stack([statistic.parts(labels, run, n_outputs)[first] for run in predictions])
    parts = parts.astype(np.float64)  # exact for counts: whole numbers below 2^53
    sums = np.zeros((len(predictions), n_resamples, parts.shape[-1]))
    for own, counts in resamples(kind_of.ravel(), speakers, n_resamples=n_resamples, seed=seed):
        sums += counts @ parts[:, own]
    wholes = (statistic.total(labels, run, n_outputs) for run in predictions)
    resampled = [statistic.of(*each) for each in zip(sums, wholes, strict=True)]
    return np.stack(resampled), resampled_over(speakers)


def _statistic(score: "str | Statistic") -> "Statistic":
    return STATISTICS[score] if isinstance(score, str) else score


def _rows(values: Truth) -> Num[np.ndarray, "targets utterances"]:
    return values.reshape(len(values), -1).T


def shuffled_answers(
    labels: Truth,
    predictions: Truth,
    n_outputs: int,
    *,
    score: str = "macro_f1",
    n_shuffles: int = N_RESAMPLES,
    seed: int = 0,
) -> Shuffled:
    """What a run's own answers score when they are dealt out at random to the test utterances.

    So it answers as often with each class, or each number, as before, and knows nothing.

    Source: Ojala and Garriga 2010, "Permutation Tests for Studying Classifier Performance", test 1.
    """
    statistic, rng = STATISTICS[score], np.random.default_rng(seed)
    if statistic.counts_cells:
        sums = [np.bincount(of_all, minlength=n_outputs) for of_all in (labels, predictions)]
        rows, columns = (np.tile(of_all, (n_shuffles, 1)) for of_all in sums)
        dealt = random_tables(rows, columns, rng).reshape(n_shuffles, -1)
    else:
        orders = (rng.permutation(len(labels)) for _ in range(n_shuffles))
        dealt = np.stack([statistic.total(labels, predictions[o], n_outputs) for o in orders])
    values = statistic.of(dealt)
    end = 0.05 if statistic.lower_is_better else 0.95
    return Shuffled(float(values.mean()), float(np.quantile(values, end)))


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
    confusion: Num[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices"]:
    """Macro-F1 in percent of each confusion matrix (true class x predicted class)."""
    return _per_class_f1(confusion).mean(axis=-1)


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
    confusion: Num[np.ndarray, "*matrices classes classes"],
) -> Bool[np.ndarray, "*matrices classes"]:
    return confusion.sum(axis=-1) + confusion.sum(axis=-2) > 0


def _per_class_f1(
    confusion: Num[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices classes"]:
    """2 true positives / (utterances of the class + predictions of it); 0 where there are none."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return 100 * 2 * right / np.maximum(total, 1)


def _uar(
    confusion: Num[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices"]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    return 100 * (right / np.maximum(support, 1)).sum(axis=-1) / (support > 0).sum(axis=-1)


def _accuracy(
    confusion: Num[np.ndarray, "*matrices classes classes"],
) -> Float[np.ndarray, "*matrices"]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1).sum(axis=-1)
    return 100 * right / np.maximum(confusion.sum(axis=(-2, -1)), 1)


@dataclass(frozen=True)
class Statistic:
    """A row: a score that is read off sums over utterances."""

    title: str
    parts: Callable[[Truth, Truth, int], Num[np.ndarray, "utterances parts"]]
    """What each utterance adds, from labels, predictions and the number of outputs."""
    of: Callable[..., Float[np.ndarray, "*draws"]]
    """The score of each draw's sums; as a second argument, if any, the sums of the whole data."""
    counts_cells: bool = False  # its parts are the cells of a confusion matrix
    compact: Callable[[Truth], Truth] = lambda values: values
    """From labels, what `parts` needs of them: where that is little, many utterances are of one
    kind, and resampling them is quick."""
    compact_answers: Callable[[Truth], Truth] = lambda values: values  # likewise
    decimals: int | None = None  # that a table shows, if not those of its measure
    lower_is_better: bool = False
    in_percent: bool = False

    @property
    def axis(self) -> str:
        """The title with its unit, as an axis has it."""
        return f"{self.title} (%)" if self.in_percent else self.title

    @property
    def digits(self) -> int:
        """The decimals of a table whose rows are of several measures."""
        return self.decimals or (1 if self.in_percent else 3)

    def total(self, labels: Truth, predictions: Truth, n_outputs: int) -> Num[np.ndarray, " parts"]:
        """The sums over all utterances."""
        if self.counts_cells:  # without a row for each utterance
            return _confusion(labels, predictions, n_outputs).reshape(-1)
        return self.parts(labels, predictions, n_outputs).sum(0)


def _cells(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> Int[np.ndarray, "utterances cells"]:
    cells = np.zeros((len(labels), n_classes**2), dtype=np.int64)
    cells[np.arange(len(labels)), labels * n_classes + predictions] = 1
    return cells


def _labels_of(values: Truth) -> Int[np.ndarray, " utterances"]:
    """The most frequent label of distributions; labels stay as they are."""
    return distributions.most_frequent(values) if values.ndim == 2 else values


def _answers_of(values: Truth) -> Int[np.ndarray, " utterances"]:
    """The class with the largest probability; answers that are classes stay as they are."""
    return values.argmax(1) if values.ndim == 2 else values


def _cells_of_labels(
    labels: Truth, predictions: Truth, n_classes: int
) -> Int[np.ndarray, "utterances cells"]:
    """As `_cells`, for distributions; nothing for an utterance without a most frequent label."""
    truth = _labels_of(labels)
    cells = _cells(np.maximum(truth, 0), _answers_of(predictions), n_classes)
    return cells * (truth >= 0)[:, None]


def _divergences(
    labels: Truth, predictions: Truth, _: int
) -> Float[np.ndarray, "utterances parts"]:
    found = distributions.jensen_shannon(labels, predictions)
    return np.stack([np.ones_like(found), found], axis=1)


def _mean_part(sums: Num[np.ndarray, "*draws parts"]) -> Float[np.ndarray, "*draws"]:
    return sums[..., 1] / sums[..., 0]


def _square(sums: Num[np.ndarray, "*draws cells"]) -> Num[np.ndarray, "*draws classes classes"]:
    n_classes = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], n_classes, n_classes)


def _macro_f1_of_draws(
    sums: Num[np.ndarray, "*draws cells"], whole: Num[np.ndarray, " cells"] | None = None
) -> Float[np.ndarray, "*draws"]:
    """Macro-F1; a class of the whole data that a draw happens to miss is left out of its mean."""
    confusion = _square(sums)
    if whole is None:
        return macro_f1_of(confusion)
    missed = (_occurring(_square(whole)) & ~_occurring(confusion)).sum(axis=-1)
    # Of soft labels a draw may have no utterance with a label at all, and so no class: that is 0.
    return _per_class_f1(confusion).sum(axis=-1) / np.maximum(confusion.shape[-1] - missed, 1)


def _of_confusion(
    score: Callable[[Any], Float[np.ndarray, "*draws"]],
    sums: Num[np.ndarray, "*draws cells"],
    *_: Any,
) -> Float[np.ndarray, "*draws"]:
    return score(_square(sums))


def _of_sums(
    score: Callable[[Any], Float[np.ndarray, "*draws"]],
    sums: Num[np.ndarray, "*draws parts"],
    *_: Any,
) -> Float[np.ndarray, "*draws"]:
    return score(sums)


def _moments(labels: Truth, predictions: Truth, _: int) -> Float[np.ndarray, "utterances parts"]:
    return agreement.moments(labels, predictions)


def _errors(labels: Truth, predictions: Truth, _: int) -> Float[np.ndarray, "utterances parts"]:
    return agreement.errors(labels, predictions)


def _precision(
    confusion: Num[np.ndarray, "*matrices classes classes"], number: int
) -> Float[np.ndarray, "*matrices"]:
    """Of one class, in percent; 0 where it is never answered."""
    return 100 * confusion[..., number, number] / np.maximum(confusion[..., number].sum(-1), 1)


def _recall(
    confusion: Num[np.ndarray, "*matrices classes classes"], number: int
) -> Float[np.ndarray, "*matrices"]:
    """Of one class, in percent; not a number where it does not occur."""
    support = confusion[..., number, :].sum(-1)
    recall = 100 * confusion[..., number, number] / np.maximum(support, 1)
    return np.where(support > 0, recall, np.nan)


def _f1(
    confusion: Num[np.ndarray, "*matrices classes classes"], number: int
) -> Float[np.ndarray, "*matrices"]:
    """Of one class, in percent; not a number where it neither occurs nor is answered."""
    f1 = _per_class_f1(confusion)[..., number]
    return np.where(_occurring(confusion)[..., number], f1, np.nan)


CLASS_SCORES = {"precision": _precision, "recall": _recall, "f1": _f1}
CLASS_TITLES = {"precision": "precision", "recall": "recall", "f1": "F1"}


def class_statistics(number: int) -> dict[str, Statistic]:
    """Precision, recall and F1 of one class, in percent."""
    return {
        name: Statistic(
            CLASS_TITLES[name],
            _cells,
            partial(_of_confusion, partial(score, number=number)),
            counts_cells=True,
        )
        for name, score in CLASS_SCORES.items()
    }


def label_statistics(number: int) -> dict[str, Statistic]:
    """As `class_statistics`, for the most frequent label of distributions."""
    return {
        name: replace(
            row,
            parts=_cells_of_labels,
            counts_cells=False,
            compact=_labels_of,
            compact_answers=_answers_of,
        )
        for name, row in class_statistics(number).items()
    }


def target_statistics(number: int) -> dict[str, Statistic]:
    """CCC, Pearson, RMSE and MAE of one of several targets."""

    def of_one(
        parts: Callable[..., np.ndarray], labels: Truth, predictions: Truth, n_outputs: int
    ) -> Num[np.ndarray, "utterances parts"]:
        return parts(labels[:, number], predictions[:, number], 1)

    names = ("ccc", "pearson", "rmse", "mae")
    return {n: replace(STATISTICS[n], parts=partial(of_one, STATISTICS[n].parts)) for n in names}


_counted = partial(Statistic, counts_cells=True, in_percent=True)
STATISTICS: dict[str, Statistic] = {
    "macro_f1": _counted("macro-F1", _cells, _macro_f1_of_draws),
    "uar": _counted("UAR", _cells, partial(_of_confusion, _uar)),
    "accuracy": _counted("accuracy", _cells, partial(_of_confusion, _accuracy)),
    "r2": Statistic("R²", _moments, partial(_of_sums, agreement.r2), in_percent=True),
    "ccc": Statistic("CCC", _moments, partial(_of_sums, agreement.ccc)),
    "pearson": Statistic("Pearson", _moments, partial(_of_sums, agreement.pearson)),
    "rmse": Statistic("RMSE", _errors, partial(_of_sums, agreement.rmse)),
    "mae": Statistic("MAE", _errors, partial(_of_sums, agreement.mae)),
    "plurality_f1": Statistic(
        "macro-F1",
        _cells_of_labels,
        _macro_f1_of_draws,
        compact=_labels_of,
        compact_answers=_answers_of,
    ),
    "plurality_accuracy": Statistic(
        "accuracy",
        _cells_of_labels,
        partial(_of_confusion, _accuracy),
        compact=_labels_of,
        compact_answers=_answers_of,
    ),
    "jsd": Statistic(
        "JSD", _divergences, partial(_of_sums, _mean_part), decimals=3, lower_is_better=True
    ),
}
