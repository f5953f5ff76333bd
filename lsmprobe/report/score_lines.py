"""Scores as an item: what a command shows when it is done."""

from functools import partial

import pandas as pd

from lsmprobe.report.typeset import (
    DASH,
    Item,
    Table,
    as_text,
    interval,
    listed,
    named_models,
    number,
    score,
)
from lsmprobe.results.alarms import explained
from lsmprobe.results.measures import CLASSES, EMOTION, MEASURES, Measure
from lsmprobe.results.records import Load, load_record, with_target
from lsmprobe.results.score_table import KEYS, score_table
from lsmprobe.results.scores import STATISTICS


def format_scores(results: pd.DataFrame) -> str:
    """The score table as text for the terminal."""
    return "\n\n".join(map(as_text, score_items(results)))


def of_emotions(results: pd.DataFrame) -> pd.Series:
    """Which runs tell emotions apart, as the paper's do; other targets have tables of their own."""
    results = with_target(results)
    return (results.target == ",".join(EMOTION)) & (results.measure == CLASSES.name)


def score_items(results: pd.DataFrame, *, load: Load = load_record) -> list[Item]:
    """The scores of these runs, one row per experiment; a table for each measure.

    Args:
        results: what `load_results` or `probe` returned.
        load: what reads a record.
    """
    table = score_table(results, load=load)
    measures = [m for m in MEASURES.values() if (table.measure == m.name).any()]
    return [
        _of_measure(table[table.measure == measure.name], results, measure) for measure in measures
    ]


def _of_measure(table: pd.DataFrame, results: pd.DataFrame, measure: Measure) -> Table:
    """The table of one measure."""
    weighing = set(results["head"][results.layer_weights.notna()])
    random = table.model.isin(results.model[results.random_weights])
    shown = partial(number, decimals=measure.decimals)
    others: dict[str, pd.Series] = {}
    for name in measure.scores[1:]:
        title, own = STATISTICS[name].title, partial(number, decimals=measure.decimals_of(name))
        others[title] = table[name].map(own)
        if reference := measure.references.get(name):
            ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
            others[f"{title}, 95% interval"] = pd.Series(
                [interval(*each, decimals=measure.decimals_of(name)) for each in ends], table.index
            )
            others[f"constant {title}"] = table[reference].map(own)
    rows = pd.DataFrame(
        {
            "model": named_models(table.model, random),
            "corpus": table.corpus,
            "target": table.target,
            "split": table.split,
            "norm": table.feature_norm,
            "head": table["head"],
            "layer": [
                str(layer) if not pd.isna(layer) else "all" if head in weighing else DASH
                for head, layer in zip(table["head"], table.layer, strict=True)
            ],
            measure.title: [
                "! " * bool(alarms) + score(mean, std, measure.decimals)
                for mean, std, alarms in zip(
                    table[measure.score], table["std"], table.alarms, strict=True
                )
            ],
            "95% interval": [
                interval(low, high, decimals=measure.decimals)
                for low, high in zip(table.low, table.high, strict=True)
            ],
            **others,
            "constant": table[measure.constant].map(shown),
            "shuffled": table[measure.shuffled].map(shown),
            "runs": table.runs.map(str),
        }
    )
    n_names = 7
    if table.duplicated(KEYS[:-1]).any():  # other settings differ; the records say which
        rows.insert(n_names, "experiment", table.experiment)
        n_names += 1
    constant = [name for name in ("split", "norm") if len(set(rows[name])) == 1]
    shared = ", ".join(f"{name} {rows[name].iloc[0]}" for name in constant)
    if set(rows.target) == {",".join(EMOTION)}:
        constant = ["target", *constant]
    caption = f"Scores in {measure.unit}{f' ({shared})' if shared else ''}."
    rows = rows.drop(columns=constant)
    name = "scores" if measure is CLASSES else f"scores_{measure.name}"
    return Table(name, caption, rows, n_names - len(constant), _notes(table, measure), table)


def _notes(table: pd.DataFrame, measure: Measure) -> list[str]:
    """What the columns are, and what has to be said of single rows."""
    notes = [
        f"{measure.title}: mean ± standard deviation (ddof 1) over runs; interval: bootstrap over "
        f"{' / '.join(sorted(set(table.interval_over)))}; constant: {measure.title} of the best "
        "constant answer; shuffled: of the runs' own answers, shuffled (what guessing scores)."
    ]
    said: dict[str, list[str]] = {}
    for row in table.itertuples():
        on = f"{row.model} on {row.corpus}, {row.head}"
        if row.interval_note:
            said.setdefault(row.interval_note, []).append(on)
        for code, n in row.alarms.items():
            text = explained(code, n, row.runs)
            said.setdefault(text, []).append(f"! {on}")
    return notes + [f"{listed(names, '; ')}: {text}" for text, names in said.items()]
