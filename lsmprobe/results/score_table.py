"""Runs as one table of scores."""

from collections import Counter

import pandas as pd

# Runs are averaged only where they are of one experiment, whatever else they share.
KEYS = ["model", "corpus", "split", "feature_norm", "head", "layer", "experiment"]


def score_table(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over the runs of each head, in percent.

    Args:
        results: what `load_results` or `probe` returned.

    Returns:
        One row per experiment (model, corpus, split, feature normalisation, head, layer, and any
        other setting): macro_f1, its std over the runs (ddof 1), the ends of the 95 % interval
        (means of the runs' ends), uar, accuracy, the constant answer's macro-F1, runs, alarms (code
        -> number of runs).
    """
    if "alarms" not in results:
        results = results.assign(alarms=[[]] * len(results))
    groups = results.groupby(KEYS, sort=True, dropna=False)
    return groups.agg(
        macro_f1=("macro_f1", "mean"),
        std=("macro_f1", "std"),
        low=("macro_f1_low", "mean"),
        high=("macro_f1_high", "mean"),
        uar=("uar", "mean"),
        accuracy=("accuracy", "mean"),
        constant_f1=("constant_f1", "mean"),
        runs=("seed", "size"),
        alarms=("alarms", _counted),
    ).reset_index()


def _counted(alarms: pd.Series) -> dict[str, int]:
    """How many runs have each alarm."""
    return dict(Counter(code for of_run in alarms for code in set(of_run)))
