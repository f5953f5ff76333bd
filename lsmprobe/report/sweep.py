"""Layer curves: a figure for each corpus, and the layers that validation chooses."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lsmprobe.errors import ResultsError, counted
from lsmprobe.layers.answers import best_layer
from lsmprobe.layers.recorded import recorded_curves
from lsmprobe.probing.table import head_title
from lsmprobe.report.figures import draw_layer_curve
from lsmprobe.report.shown import drawn, file_name, mark_notes, marked, shortened
from lsmprobe.report.typeset import (
    Item,
    Table,
    as_text,
    caches_that_differ,
    interval,
    labels_that_differ,
    named_models,
    number,
    score,
)
from lsmprobe.results.scores import STATISTICS

MAX_CORPORA = 6  # that have figures of their own


def format_sweeps(results: pd.DataFrame, results_dir: Path) -> str:
    """The end of a sweep as text; its figures are drawn into RESULTS_DIR/curves.

    Args:
        results: what `probe` returned.
        results_dir: where its records are.
    """
    try:
        curves = recorded_curves(results)
    except ResultsError as error:  # a cache of one layer, or of two
        return f"No curve: {error}"
    return "\n\n".join(["", *map(as_text, sweep_items(curves, results_dir / "curves"))])


def sweep_items(curves: pd.DataFrame, out: Path) -> Iterator[Item]:
    """A figure per corpus, target and score, and a table of the layers that validation chooses.

    Args:
        curves: what `probe_layers`, `sweep_layers` or `recorded_curves` returned, concatenated.
        out: where figures are written.
    """
    apart = list(curves.groupby(["corpus", "target", "metric"], sort=True))
    for (corpus, target, metric), own in apart[:MAX_CORPORA]:
        path = out / f"{file_name('curve', corpus, target, metric)}.png"
        caption = f"Layer curves of {corpus}, {target}."
        yield drawn(caption, path, draw_layer_curve(own))
    yield curve_table(curves, len(apart))


def curve_table(curves: pd.DataFrame, n_figures: int = 0) -> Table:
    """A row per model and head: the layer that validation chooses, and the score of choosing.

    Args:
        curves: as for `sweep_items`.
        n_figures: how many figures these would fill.
    """
    every = curves
    keys = ["corpus", "target", "model", "head", "split", "metric"]
    top = curves.groupby([*keys, "feature_norm"])["validation"].max().reset_index()
    chosen = top.loc[top.groupby(keys)["validation"].idxmax(), [*keys, "feature_norm"]]
    curves = curves.merge(chosen, on=[*keys, "feature_norm"])
    found = pd.concat(
        [
            best_layer(own)
            for _, own in curves.groupby(_sweep_keys(curves), sort=True, dropna=False)
        ],
        ignore_index=True,
    )
    ends = curves.groupby(_sweep_keys(curves), sort=True, dropna=False)
    last = [own.sort_values("layer").iloc[-1] for _, own in ends]
    decimals = [STATISTICS[metric].digits for metric in found.metric]
    rows = pd.DataFrame(
        {
            "corpus": found.corpus,
            "target": found.target,
            "model": named_models(found.model, found.random_weights),
            "head": found["head"].map(head_title),
            "norm": found.feature_norm,
            "split": found.split,
            "measure": [STATISTICS[metric].title for metric in found.metric],
            "chosen layer": [_most_chosen(text) for text in found.chosen],
            "its score": marked(
                map(score, found.score, found["std"], decimals), pd.DataFrame(last)
            ),
            "95% interval": [
                interval(row.low, row.high, decimals=n)
                for row, n in zip(found.itertuples(), decimals, strict=True)
            ],
            "last layer": [
                f"{row.layer}: {number(row.score, decimals=n)}"
                for row, n in zip(last, decimals, strict=True)
            ],
        }
    )
    n_names = 7
    names = ["corpus", "target", "model", "head", "feature_norm", "split"]
    alike = found.groupby(names, dropna=False).ngroup()
    for name, words in (
        ("labels", labels_that_differ(found, alike)),
        ("cache", caches_that_differ(found, alike).str.removeprefix("cache ")),
    ):
        if words.any():
            rows.insert(n_names, name, words)
            n_names += 1
    notes = [
        *mark_notes(pd.DataFrame(last)),
        "Each fold of each run chooses by validation; shown is the layer chosen most often. The "
        "score is what these choices reach on the test set; a curve's highest point would flatter.",
    ]
    if (n := len(top) - len(chosen)) > 0:
        notes.append(f"With another normalisation, and drawn only: {counted(n, 'curve')}.")
    if n_figures > MAX_CORPORA:
        notes.append(f"{MAX_CORPORA} of {n_figures} curves are drawn.")
    return shortened(Table("layers", "Which layer.", rows, n_names, notes, every))


def _sweep_keys(curves: pd.DataFrame) -> list[str]:
    keys = ["corpus", "target", "model", "head", "feature_norm", "split", "metric"]
    further = ("cache_hash", "labels", "labels_hash", "settings")
    return [*keys, *(name for name in further if name in curves)]


def _most_chosen(text: str) -> str:
    """`"2: 5, 3: 4"` -> `"2 (5 of 9)"`.

    >>> _most_chosen("2: 5, 3: 4"), _most_chosen("4: 3")
    ('2 (5 of 9)', '4 (3 of 3)')
    """
    counts = {layer: int(n) for layer, n in (part.split(": ") for part in text.split(", "))}
    layer = max(counts, key=lambda name: counts[name])
    return f"{layer} ({counts[layer]} of {sum(counts.values())})"
