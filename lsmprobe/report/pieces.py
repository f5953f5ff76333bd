"""Tables of layers and learning curves as items, for a notebook."""

from typing import NamedTuple

import pandas as pd

from lsmprobe.probing.table import head_title
from lsmprobe.report.shown import mark_notes, marked
from lsmprobe.report.sweep import curve_table
from lsmprobe.report.typeset import Item, Table, as_html, head_and_layer, interval, number, score
from lsmprobe.results.alarms import LEAKS
from lsmprobe.results.records import with_target
from lsmprobe.results.scores import STATISTICS

# A row of the table.
LEARNING = [
    *("model", "corpus", "target", "split", "head", "layer", "feature_norm", "metric", "speakers"),
]


class Pieces(NamedTuple):
    """Items in a notebook: what Jupyter shows in the place of this value."""

    items: list[Item]

    def _repr_html_(self) -> str:
        return "".join(map(as_html, self.items))


def items_of(table: pd.DataFrame) -> list[Item]:
    """What `probe_layers`, `sweep_layers` or `learning_curve` returned, as items; else none."""
    if {"speakers", "clips", "score"} <= {*table}:
        return [learning_table(table)]
    if {"chosen", "choices", "validation"} <= {*table}:
        return [curve_table(table)]
    return []


def learning_table(curve: pd.DataFrame) -> Table:
    """The score by number of training speakers.

    Args:
        curve: what `learning_curve` returned, or several of them, concatenated.
    """
    curve = curve.assign(**{name: False for name in LEAKS if name not in curve})
    groups = with_target(curve).groupby(LEARNING, sort=False, dropna=False)
    means = groups.agg(
        clips=("clips", "mean"),
        score=("score", "mean"),
        std=("score", "std"),
        low=("score", "min"),
        high=("score", "max"),
        constant=("constant", "mean"),
        runs=("seed", "size"),
        **{name: (name, "any") for name in LEAKS},
    ).reset_index()
    decimals = [STATISTICS[metric].digits for metric in means.metric]
    rows = pd.DataFrame(
        {
            "model": means.model,
            "corpus": means.corpus,
            "target": means.target,
            "split": means.split,
            "head": [head_and_layer(head_title(row.head), row.layer) for row in means.itertuples()],
            "norm": means.feature_norm,
            "training speakers": means.speakers.map(str),
            "clips": [number(n, decimals=0) for n in means.clips],
            "of": [STATISTICS[metric].title for metric in means.metric],
            "score": marked(map(score, means.score, means["std"], decimals), means),
            "least to most": [
                interval(row.low, row.high, decimals=n)
                for row, n in zip(means.itertuples(), decimals, strict=True)
            ],
            "constant": [
                number(value, decimals=n) for value, n in zip(means.constant, decimals, strict=True)
            ],
            "runs": means.runs.map(str),
        }
    )
    notes = [
        *mark_notes(means),
        "Scores of classes in percent, mean ± standard deviation over runs (ddof 1), each with its "
        "own order of the training speakers; constant: the best constant answer.",
    ]
    return Table("learning", "Learning curve.", rows, 5, notes, means)
