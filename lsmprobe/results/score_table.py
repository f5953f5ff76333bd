"""Runs as one table of scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError
from lsmprobe.results.measures import MEASURES, Measure, measure_of
from lsmprobe.results.records import NAMED_BY, Load, load_record, once, with_target
from lsmprobe.results.scores import Interval, interval_of_runs

# Runs are averaged only where they are of one experiment, whatever else they share.
KEYS = [*NAMED_BY, "experiment"]


def score_table(results: pd.DataFrame, *, load: Load = load_record) -> pd.DataFrame:
    """Mean and spread over the runs of each head.

    Args:
        results: what `load_results` or `probe` returned.
        load: what reads a record.

    Returns:
        One row per experiment (model, corpus, target, split, feature normalisation, head, layer,
        and any other setting). Of classes, in percent: macro_f1, its std over the runs (ddof 1),
        low and high of the 95% interval, what that is over (interval_over) and what it cannot show
        (interval_note), uar, accuracy, macro-F1 of the best constant answer (constant_f1) and of
        shuffled answers (shuffled_f1, and shuffled_f1_95, which 95% of them do not exceed), runs,
        alarms (code -> number of runs). Of numbers likewise, with ccc, pearson, rmse, mae; of
        soft labels with plurality_f1, plurality_accuracy, jsd (bits) with its jsd_low, jsd_high and
        constant_jsd.
    """
    results = once(with_target(results))
    if "alarms" not in results:
        results = results.assign(alarms=[[]] * len(results))
    there = [m for m in MEASURES.values() if (results.measure == m.name).any()]
    tables = [
        _of_measure(results[results.measure == measure.name], measure, load) for measure in there
    ]
    return pd.concat(tables or [_of_measure(results, MEASURES["classes"], load)], ignore_index=True)


def _of_measure(results: pd.DataFrame, measure: Measure, load: Load) -> pd.DataFrame:
    """The rows of one measure."""
    first, *others = measure.scores
    levels = [measure.constant, measure.shuffled, f"{measure.shuffled}_95"]
    levels += measure.references.values()
    results = results.assign(**{name: np.nan for name in levels if name not in results})
    groups = results.groupby(KEYS, sort=True, dropna=False)
    means = {name: (name, "mean") for name in (*others, *levels)}
    table = groups.agg(
        **{first: (first, "mean")},
        std=(first, "std"),
        **means,
        runs=("seed", "size"),
        alarms=("alarms", _counted),
    ).reset_index()
    ends = pd.DataFrame(asdict(interval_of_experiment(runs, load=load)) for _, runs in groups)
    for at, name in enumerate(("low", "high", "over"), start=table.columns.get_loc("std") + 1):
        table.insert(at, "interval_over" if name == "over" else name, ends.get(name))
    for score in measure.references:
        found = [interval_of_experiment(runs, score=score, load=load) for _, runs in groups]
        table[f"{score}_low"] = [each.low for each in found]
        table[f"{score}_high"] = [each.high for each in found]
    table["interval_note"] = [
        few_runs(int(row.runs), row.std, row.low, row.high) for row in table.itertuples()
    ]
    table["experiment"] = table.pop("experiment")  # a hash, behind what is read
    return table


def interval_of_experiment(
    runs: pd.DataFrame, *, score: str | None = None, load: Load = load_record
) -> Interval:
    """The 95% interval of the mean score of these runs, which differ in their seed alone.

    Of one run it is its own; of several it is the multi-bootstrap of their recorded answers. Where
    a record cannot be read any more, it is the mean of the runs' ends, and `over` says so.

    Args:
        runs: rows of what `load_results` returned, all of one measure.
        score: the one that decides, or one of the measure's `references`.
        load: what reads a record.
    """
    first = runs.iloc[0]
    score = score or MEASURES[first.get("measure", "classes")].score
    low, high = f"{score}_low", f"{score}_high"
    if len(runs) == 1:
        return Interval(first[low], first[high], first["interval_over"])
    try:
        records = [load(Path(path)) for path in runs["path"]]
    except (KeyError, ResultsError):
        own = f"mean of the runs' own: {first['interval_over']}"
        return Interval(runs[low].mean(), runs[high].mean(), own)
    return interval_of_records(records, score=score)


def interval_of_records(
    records: Sequence[Mapping[str, Any]], *, score: str | None = None
) -> Interval:
    """The 95% interval of the mean score of some runs; each a record as `load_record` gives.

    Args:
        records: of the runs.
        score: by default the one that decides.
    """
    measure, n_outputs = measure_of(records[0]), len(records[0]["classes"])
    return interval_of_runs(
        [measure.tested(r) for r in records], n_outputs, score=score or measure.score
    )


def few_runs(n_runs: int, std: float, low: float, high: float) -> str:
    """What an interval over so few runs cannot show; empty where runs matter little in it.

    Two or three runs know little of how runs vary. That is said where a third or more of the
    interval's variance is theirs.

    >>> few_runs(3, 6.0, 40.0, 55.0), few_runs(3, 1.0, 40.0, 55.0), few_runs(5, 6.0, 40.0, 55.0)
    ('3 runs that differ much: take the interval as too narrow.', '', '')
    """
    of_runs, of_all = std**2 / n_runs, ((high - low) / (2 * 1.96)) ** 2
    if 2 <= n_runs <= 3 and of_runs > of_all / 3:
        return f"{n_runs} runs that differ much: take the interval as too narrow."
    return ""


def _counted(alarms: pd.Series) -> dict[str, int]:
    """How many runs have each alarm."""
    return dict(Counter(code for of_run in alarms for code in set(of_run)))
