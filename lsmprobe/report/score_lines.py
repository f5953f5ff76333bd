"""Scores as an item: what a command shows when it is done."""

import pandas as pd

from lsmprobe.report.typeset import (
    DASH,
    Item,
    Table,
    as_text,
    counted,
    interval,
    named_models,
    number,
    score,
)
from lsmprobe.results.records import Load, load_record
from lsmprobe.results.score_table import KEYS, score_table


def format_scores(results: pd.DataFrame) -> str:
    """The score table as text for the terminal."""
    return "\n\n".join(map(as_text, score_items(results)))


def score_items(results: pd.DataFrame, *, load: Load = load_record) -> list[Item]:
    """The scores of these runs, one row per experiment.

    Args:
        results: what `load_results` or `probe` returned.
        load: what reads a record.
    """
    table = score_table(results, load=load)
    weighing = set(results["head"][results.layer_weights.notna()])
    random = table.model.isin(results.model[results.random_weights])
    rows = pd.DataFrame(
        {
            "model": named_models(table.model, random),
            "corpus": table.corpus,
            "split": table.split,
            "norm": table.feature_norm,
            "head": table["head"],
            "layer": [
                str(layer) if not pd.isna(layer) else "all" if head in weighing else DASH
                for head, layer in zip(table["head"], table.layer, strict=True)
            ],
            "macro-F1": [
                "! " * bool(row.alarms) + score(row.macro_f1, row.std) for row in table.itertuples()
            ],
            "95% interval": list(map(interval, table.low, table.high)),
            "UAR": table.uar.map(number),
            "accuracy": table.accuracy.map(number),
            "constant": table.constant_f1.map(number),
            "shuffled": table.shuffled_f1.map(number),
            "runs": table.runs.map(str),
        }
    )
    n_names = 6
    if table.duplicated(KEYS[:-1]).any():  # other settings differ; the records say which
        rows.insert(n_names, "experiment", table.experiment)
        n_names += 1
    constant = [name for name in ("split", "norm") if len(set(rows[name])) == 1]
    shared = ", ".join(f"{name} {rows[name].iloc[0]}" for name in constant)
    caption = f"Scores in percent{f' ({shared})' if shared else ''}."
    rows = rows.drop(columns=constant)
    return [Table("scores", caption, rows, n_names - len(constant), _notes(table), table)]


def _notes(table: pd.DataFrame) -> list[str]:
    """What the columns are, and what has to be said of single rows."""
    notes = [
        "macro-F1: mean ± standard deviation (ddof 1) over runs; interval: bootstrap over "
        f"{' / '.join(sorted(set(table.interval_over)))}; constant: macro-F1 of the best "
        "constant answer; shuffled: of the runs' own answers, shuffled (what guessing scores)."
    ]
    for row in table.itertuples():
        on = f"{row.model} on {row.corpus}, {row.head}"
        if row.interval_note:
            notes.append(f"{on}: {row.interval_note}")
        notes += [
            f"! {on}: {code} in {n} of {counted(row.runs, 'run')} (docs/statistics.md)."
            for code, n in row.alarms.items()
        ]
    return notes
