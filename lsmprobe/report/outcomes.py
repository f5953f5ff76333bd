"""What became of the test utterances: which emotions are mistaken for which, and whose."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lsmprobe.results.measures import truth_column


def with_outcome(predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions with `true`, what was to be said, and `right`, whether it was.

    Args:
        predictions: what `load_predictions` returned, of one run or of several, concatenated.
    """
    true = predictions[truth_column(predictions)]
    return predictions.assign(true=true, right=true == predictions["predicted"])


def by_group(predictions: pd.DataFrame, column: str) -> pd.DataFrame:
    """How many answers are right in each group.

    Args:
        predictions: as for `with_outcome`, with the column.
        column: speaker, gender, ...

    Returns:
        name, clips (answers of all runs), right, share, and low and high of its 95% interval, in
        percent: Wilson's for as many answers as there are different clips, since several runs say
        nothing more of a clip. It does not know that clips of a speaker are alike.
    """
    rows = []
    for name, own in with_outcome(predictions).groupby(column):
        right, clips = int(own["right"].sum()), len(own)
        n = own["key"].nunique() if "key" in own else clips
        ends = binomtest(round(right * n / clips), n).proportion_ci(method="wilson")
        low, high = 100 * ends.low, 100 * ends.high
        rows.append((name or "not known", clips, right, 100 * right / clips, low, high))
    return pd.DataFrame(rows, columns=["name", "clips", "right", "share", "low", "high"])


def confused(counts: pd.DataFrame) -> pd.DataFrame:
    """The pairs of classes that are mistaken, the largest share of a true class first.

    Args:
        counts: what `breakdown.confusion` returned.

    Returns:
        true, predicted, clips (answered so) and share (of the true class's, in percent).
    """
    shares = 100 * counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0)
    rows = [
        (true, predicted, int(counts.loc[true, predicted]), float(shares.loc[true, predicted]))
        for true in counts.index
        for predicted in counts.columns
        if true != predicted and counts.loc[true, predicted]
    ]
    table = pd.DataFrame(rows, columns=["true", "predicted", "clips", "share"])
    return table.sort_values(["share", "clips"], ascending=False, ignore_index=True)
