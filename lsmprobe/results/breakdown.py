"""What a score is made of: the confusion matrix, each class or target, each group, each error.

Everything is read off the answers that records keep, of one run or of all runs of an experiment.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError
from lsmprobe.results.bootstrap import N_RESAMPLES
from lsmprobe.results.measures import measure_of, truth_column
from lsmprobe.results.records import load_record, predictions_of, which_run
from lsmprobe.results.scores import STATISTICS, RunAnswers, Statistic, interval_of_runs, score_of

SMALL = 5  # utterances: groups with fewer are taken together
BINS = 4  # of duration, equally many utterances each
NOT_KNOWN = "not known"
Record = Mapping[str, Any]
Runs: TypeAlias = (
    Sequence[Record] | pd.DataFrame
)  # of one experiment: records, or rows of `load_results`


def records_of(runs: Runs) -> list[Record]:
    """The records of the runs of one experiment, each run once.

    Raises:
        ResultsError: there is no run, a record cannot be read, or the runs are of several.
    """
    if isinstance(runs, pd.DataFrame):
        runs = [load_record(Path(path)) for path in runs["path"]]
    records = list({which_run(record): record for record in runs}.values())
    experiments = sorted({record["experiment"] for record in records})
    if len(experiments) != 1:
        raise ResultsError(
            f"the runs are of {len(experiments)} experiments ({', '.join(experiments[:5])}); "
            "expected those of one, such as results[results.experiment == NAME]."
        )
    return records


def answers_of(runs: Runs) -> pd.DataFrame:
    """One row per run and test utterance: what `load_predictions` gives, `seed`, and `wrong_by`.

    `wrong_by` is not a number for a right answer. Of classes it is the chance that the wrong class
    was given, of numbers the absolute error (of several targets the mean, in standard deviations),
    of soft labels the Jensen-Shannon divergence in bits.
    """
    tables = []
    for record in records_of(runs):
        measure = measure_of(record)
        table = predictions_of(record)
        table.insert(0, "seed", record["seed"])
        if measure.classes:
            chances = table[[f"p_{name}" for name in record["classes"]]]
            table = table.assign(sure=chances.max(axis=1))
        tables.append(table.assign(wrong_by=measure.wrong_by(table, record["classes"])))
    return pd.concat(tables, ignore_index=True)


def confusion_of(runs: Runs) -> pd.DataFrame:
    """How often each class (a row) was answered with each class (a column), summed over runs.

    Of soft labels, the most frequent label of utterances that have one.

    Args:
        runs: of one experiment: rows of what `load_results` returned, or records.

    Raises:
        ResultsError: the runs are of numbers, or of several experiments.
    """
    records = records_of(runs)
    if not measure_of(records[0]).classes:
        raise ResultsError("numbers have no confusion matrix; expected a target of classes.")
    return confusion(answers_of(records), list(records[0]["classes"]))


def confusion(predictions: pd.DataFrame, classes: list[str] | None = None) -> pd.DataFrame:
    """Counts: a row per true class, a column per answer.

    Args:
        predictions: what `load_predictions` returned, of one run or of several, concatenated.
        classes: their order; by default those that occur, by name.
    """
    predictions = predictions[predictions[truth_column(predictions)] != ""]
    truth = predictions[truth_column(predictions)]
    names = classes or sorted({*truth, *predictions["predicted"]})
    counts = pd.crosstab(truth, predictions["predicted"])
    counts = counts.reindex(index=names, columns=names, fill_value=0)
    return counts.rename_axis(index="truth", columns="predicted")


def scores_by_output(runs: Runs, *, intervals: bool = True) -> pd.DataFrame:
    """The scores of each class, or of each of several targets: mean over runs, with intervals.

    Args:
        runs: of one experiment: rows of what `load_results` returned, or records.
        intervals: without them it is quick.

    Returns:
        name; n, its test utterances (mean over runs); and for each score S (of classes precision,
        recall and f1 in percent, of numbers ccc, pearson, rmse and mae) the columns S, S_std (over
        runs, ddof 1), S_low and S_high of the 95% interval. Recall is missing for a class that the
        test set lacks, F1 for one that is not answered either.

    Raises:
        ResultsError: the runs are of several experiments.
    """
    records = records_of(runs)
    measure, names = measure_of(records[0]), list(records[0]["classes"])
    tested = [measure.tested(record) for record in records]
    rows = []
    for number, name in enumerate(names):
        counts = [measure.n_of_output(run.labels, number) for run in tested]
        row: dict[str, Any] = {"name": name, "n": float(np.mean(counts))}
        for score, statistic in measure.output_scores(number).items():
            row |= _scored(
                score, statistic, tested, len(names), n_resamples=N_RESAMPLES if intervals else 0
            )
        rows.append(row)
    return pd.DataFrame(rows)


def scores_by_group(
    runs: Runs,
    groups: Mapping[str, Any] | None = None,
    *,
    n_scores: int | None = None,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """The scores of groups of test utterances: mean over runs, with intervals.

    Args:
        runs: of one experiment: rows of what `load_results` returned, or records.
        groups: key of an utterance -> its group; one that is not there, or empty, counts as "not
            known"; by default its speaker. Groups with fewer than 5 utterances are taken together
            as "others".
        n_scores: only the first of a group's scores; by default all.
        n_resamples: of the intervals.

    Returns:
        group; n, its different test utterances; speakers; and for each score S of a group (of
        classes accuracy and uar in percent, of numbers ccc and rmse) S, S_std (over runs, ddof 1),
        S_low and S_high of the 95% interval.

    Raises:
        ResultsError: the runs are of several experiments.
    """
    records = records_of(runs)
    if groups is None:
        groups = {one["key"]: one["speaker"] for r in records for one in r["predictions"]}
    measure, n_outputs = measure_of(records[0]), len(records[0]["classes"])
    tested = [measure.tested(record) for record in records]
    keys = [np.sort([one["key"] for one in record["predictions"]]) for record in records]
    group_of = _enough({key: _text(groups.get(key)) for own in keys for key in own})
    masks = {
        name: [np.array([group_of[key] == name for key in own]) for own in keys]
        for name in dict.fromkeys(sorted(group_of.values(), key=_last))
    }
    rows = []
    for name, of_runs in masks.items():
        own = [RunAnswers(*(a[m] for a in run)) for run, m in zip(tested, of_runs, strict=True)]
        own = [run for run in own if len(run.labels)]
        speakers = np.unique(np.concatenate([run.speakers for run in own]))
        row: dict[str, Any] = {"group": name, "n": sum(g == name for g in group_of.values())}
        row["speakers"] = len(speakers)
        for score in measure.group_scores[:n_scores]:
            row |= _scored(score, STATISTICS[score], own, n_outputs, n_resamples=n_resamples)
        rows.append(row)
    return pd.DataFrame(rows)


def worst_group(table: pd.DataFrame, score: str) -> str | None:
    """The group with the lowest score, of those that are known by name; None of one group."""
    named = table[~table.group.isin((NOT_KNOWN, "others"))]
    if len(named) < 2:
        return None
    return str(named.group[named[score].idxmin()])


def duration_bins(seconds: pd.Series) -> pd.Series:
    """Each duration as one of four bins that hold equally many, such as "0.8 to 1.9 s"."""
    known = seconds.dropna()
    if known.nunique() < 2:
        return pd.Series("", index=seconds.index)
    ends = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    names = [f"{low:.2f} to {high:.2f} s" for low, high in itertools.pairwise(ends)]
    number = np.clip(np.searchsorted(ends[1:-1], seconds, side="left"), 0, len(names) - 1)
    return pd.Series([names[i] for i in number], index=seconds.index).where(seconds.notna(), "")


def largest_errors(runs: Runs, n: int = 10) -> pd.DataFrame:
    """The answers that are most wrong, each utterance once: of classes the most confident errors.

    Args:
        runs: of one experiment: rows of what `load_results` returned, or records.
        n: how many at most.

    Returns:
        The worst first: seed, key, speaker, emotion, what was answered, `wrong_by` (of classes the
        chance that the wrong one was given, of numbers the absolute error; of several targets its
        mean, in standard deviations), and `runs`, how many were wrong on it (of numbers all).

    Raises:
        ResultsError: the runs are of several experiments.
    """
    table = answers_of(runs)
    wrong = table[table.wrong_by.notna()]
    counts = wrong.groupby("key").size()
    ordered = wrong.sort_values(["wrong_by", "key"], ascending=[False, True])
    shown = ordered.drop_duplicates("key").head(n)
    return shown.assign(runs=shown.key.map(counts)).reset_index(drop=True)


def confident_answers(runs: Runs, n: int = 10) -> pd.DataFrame:
    """The right answers with a class that are most confident (`sure`), each utterance once."""
    table = answers_of(runs)
    right = table[table.wrong_by.isna()]
    ordered = right.sort_values(["sure", "key"], ascending=[False, True])
    return ordered.drop_duplicates("key").head(n).reset_index(drop=True)


def _scored(
    score: str,
    statistic: Statistic,
    runs: Sequence[RunAnswers],
    n_outputs: int,
    *,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, float]:
    """Mean, standard deviation and interval of a score over runs, as columns."""
    values = [score_of(run.labels, run.predictions, n_outputs, statistic) for run in runs]
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    row = {score: float(np.mean(values)), f"{score}_std": std}
    if n_resamples:
        found = interval_of_runs(runs, n_outputs, score=statistic, n_resamples=n_resamples)
        row |= {f"{score}_low": found.low, f"{score}_high": found.high}
    return row


def _text(value: Any) -> str:
    return NOT_KNOWN if value is None or pd.isna(value) or value == "" else str(value)


def _enough(group_of: dict[str, str]) -> dict[str, str]:
    """Small groups under one name."""
    counts = pd.Series(group_of).value_counts()
    small = {name for name, n in counts.items() if n < SMALL and name != NOT_KNOWN}
    if len(small) < 2:
        return group_of
    return {key: "others" if name in small else name for key, name in group_of.items()}


def _last(name: str) -> tuple[bool, str]:
    """What has no name of its own comes last."""
    return name in (NOT_KNOWN, "others"), name
