"""What probes answered on every layer, and what that scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError
from lsmprobe.results.bootstrap import N_RESAMPLES
from lsmprobe.results.measures import CLASSES, NUMBERS
from lsmprobe.results.scores import (
    RunAnswers,
    Shuffled,
    interval_of_runs,
    score_of,
    shuffled_answers,
)

ABOUT = [  # what decides a curve
    *("model", "random_weights", "corpus", "cache_hash", "labels", "labels_hash", "target"),
    *("head", "feature_norm", "split", "metric"),
]
READ_FIRST = ["model", "corpus", "target", "head", "layer", "score", "low", "high", "std", "metric"]


@dataclass(frozen=True, eq=False, repr=False)
class Answers:
    """What one run on one layer answers on the test utterances; lists have an entry per fold."""

    n_outputs: int  # of classes, or of columns of numbers
    validation: list[float]  # the score on the fold's validation set
    truth: list[np.ndarray]  # classes as 0 to k - 1, or numbers
    answers: list[np.ndarray]
    speakers: list[np.ndarray]
    levels: tuple[float, Shuffled] | None = None  # of macro-F1, where a record tells them

    @property
    def together(self) -> RunAnswers:
        """Those of all folds."""
        return RunAnswers(*map(np.concatenate, (self.truth, self.answers, self.speakers)))

    def score(self, metric: str) -> float:
        """A row of `STATISTICS`, over the answers of all folds together."""
        truth, answers, _ = self.together
        return score_of(truth, answers, self.n_outputs, metric)


def curve_of(about: Mapping[str, Any], layers: Mapping[int, list[Answers]]) -> pd.DataFrame:
    """One row per layer, with what validation chose among them.

    Args:
        about: the values of `ABOUT`.
        layers: of each layer its runs, in the order of their seeds.
    """
    metric = about["metric"]
    rows = [
        {
            **about,
            "layer": layer,
            **summary(runs, metric),
            "validation": float(np.mean([run.validation for run in runs])),
        }
        for layer, runs in layers.items()
    ]
    n_chosen, chosen = _choose(layers)
    best = summary(chosen, metric)
    table = pd.DataFrame(rows)
    table = table[[*READ_FIRST, *(name for name in table if name not in READ_FIRST)]]
    return table.assign(
        chosen=[n_chosen[layer] for layer in layers],
        choices=sum(n_chosen.values()),
        **{f"best_{name}": best[name] for name in ("score", "std", "low", "high")},
    )


def _choose(layers: Mapping[int, list[Answers]]) -> tuple[dict[int, int], list[Answers]]:
    """How often validation chooses each layer, and the answers of each run by that choice.

    Every fold of every run chooses by its own validation set; the first layer on ties.
    """
    numbers = list(layers)
    n_chosen = dict.fromkeys(numbers, 0)
    chosen = []
    for runs in zip(*layers.values(), strict=True):  # one run: its answers on every layer
        validation = np.nan_to_num([run.validation for run in runs], nan=-np.inf)
        best = validation.argmax(0)
        for row in best:
            n_chosen[numbers[row]] += 1
        given = [runs[row].answers[fold] for fold, row in enumerate(best)]
        chosen.append(replace(runs[0], answers=given, levels=None))
    return n_chosen, chosen


def best_layer(curve: pd.DataFrame) -> pd.DataFrame:
    """The layer that validation chooses, and its score on the test set.

    Every fold of every run chooses by its own validation set, which shares no utterance with its
    test set, and answers with the layer it chose. So where folds choose differently, the score is
    that of the choosing, not of one layer; `layer` is then the one chosen most often.

    Args:
        curve: what `probe_layers` or `sweep_layers` returned; or several of them, concatenated:
            each has its best.

    Returns:
        One row per model, corpus, target, head, normalisation and split: the columns of `curve` up
        to runs, and chosen, as text: in how many folds each layer was, such as "2: 5, 3: 4".

    Raises:
        ResultsError: some layers that validation chose are not among these rows.
    """
    rows = []
    for about, layers in curve.groupby(
        [name for name in ABOUT if name in curve], sort=False, dropna=False
    ):
        if layers["chosen"].sum() != layers["choices"].iloc[0]:
            raise ResultsError(
                f"{about[0]}: validation chose among more layers than the {len(layers)} of this "
                "curve; expected all rows that probe_layers or sweep_layers returned."
            )
        often = layers.loc[layers["chosen"].idxmax()]
        picked = layers[layers["chosen"] > 0]
        chosen = ", ".join(f"{row.layer}: {row.chosen}" for row in picked.itertuples())
        best = {name: often[f"best_{name}"] for name in ("score", "std", "low", "high")}
        rows.append({**often[: curve.columns.get_loc("validation")], **best, "chosen": chosen})
    return pd.DataFrame(rows)


def summary(runs: Sequence[Answers], metric: str) -> dict[str, Any]:
    """Score, interval and what guessing scores, over the answers of all folds together."""
    points = [run.score(metric) for run in runs]
    found = interval_of_runs([run.together for run in runs], runs[0].n_outputs, score=metric)
    levels = [_levels(run, metric) for run in runs]
    return {
        "score": float(np.mean(points)),
        "std": float(np.std(points, ddof=1)) if len(runs) > 1 else np.nan,
        "low": found.low,
        "high": found.high,
        "interval_over": found.over,
        "constant": float(np.mean([constant for constant, _ in levels])),
        "shuffled": float(np.mean([shuffled.mean for _, shuffled in levels])),
        "shuffled_95": float(np.mean([shuffled.point_95 for _, shuffled in levels])),
        "n_test": len(runs[0].together.labels),
        "runs": len(runs),
    }


def _levels(run: Answers, metric: str) -> tuple[float, Shuffled]:
    """What the best constant answer scores, and what the run's own answers do when shuffled."""
    if run.levels and metric == "macro_f1":
        return run.levels
    truth, answers, _ = run.together
    of_numbers = not np.issubdtype(truth.dtype, np.integer)
    measure = NUMBERS if of_numbers else CLASSES
    return (
        measure.constant_answer(truth, metric, run.n_outputs),
        shuffled_answers(
            truth,
            answers,
            run.n_outputs,
            score=metric,
            n_shuffles=500 if of_numbers else N_RESAMPLES,
        ),
    )
