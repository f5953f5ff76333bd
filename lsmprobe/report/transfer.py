"""Cross-lingual transfer as a matrix, as layers, as text and as files."""

import glob
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.errors import SettingsError, counted
from lsmprobe.probing.table import NORMS
from lsmprobe.report.figures import draw_transfer, draw_transfer_layers, save_figure
from lsmprobe.report.shown import file_name
from lsmprobe.report.typeset import Item, Table, as_text, number
from lsmprobe.results.measures import CLASSES, EMOTION, MEASURES, Measure


def transfer_matrix(table: pd.DataFrame, score: str | None = None) -> pd.DataFrame:
    """Scores: a row per corpus trained on, a column per corpus tested on.

    On the diagonal stands the score within a corpus, if it shares the same classes with all its
    partners; if not, no single one is comparable with the rest of its column, and it is missing.
    `--emotions` with those that all corpora have makes every cell comparable.

    Args:
        table: what `transfer` returned, of one model, head and layer.
        score: which column; by default the one that decides: macro_f1 in percent, of numbers ccc.

    Raises:
        SettingsError: the table has several models, heads or layers.
    """
    for column in ("model", "head", "layer", "feature_norm", "target_norm"):
        rows = table if column != "target_norm" else table[table["source"] != table["target"]]
        if len(found := rows[column].drop_duplicates()) > 1:
            raise SettingsError(
                f"the table has several values of {column} ({', '.join(map(str, found))}); "
                f'choose one: table[table["{column}"] == {found.iloc[0]!r}].'
            )
    within = table["source"] == table["target"]
    ambiguous = within & table.duplicated(["source", "target"], keep=False)
    names = sorted({*table["source"], *table["target"]})
    matrix = (
        table[~ambiguous]
        .pivot_table(
            index="source", columns="target", values=score or _measure(table).score, dropna=False
        )
        .reindex(index=names, columns=names)
    )
    matrix.attrs["about"] = _about(table, _which(table))
    return matrix


def transfer_layers(table: pd.DataFrame, score: str | None = None) -> pd.DataFrame:
    """Which layers transfer: scores, a row per pair and a column per layer.

    Below the pairs stand the scores within each corpus; where those are over several sets of
    classes, the classes are named.

    Args:
        table: what `transfer` returned, of one model and head, with `--layer all`.
        score: as for `transfer_matrix`.
    """
    score = score or _measure(table).score
    table = table.dropna(subset="layer")
    within = table["source"] == table["target"]
    sets = table.groupby(["source", "target"])["classes"].transform("nunique")
    names = np.where(within, "within " + table["source"], table["source"] + " → " + table["target"])
    names = np.where(sets > 1, names + " (" + table["classes"] + ")", names)
    order = [*dict.fromkeys(names[~within]), *sorted({*names[within]})]
    wide = table.assign(pair=names).pivot_table(index="pair", columns="layer", values=score)
    wide = wide.reindex(order)
    wide.attrs["about"] = _about(table)
    return wide


def _about(table: pd.DataFrame, *which: str) -> str:
    """What a figure of the table is of; a table of one's own may lack these columns."""
    first = table.iloc[0]
    named = [str(first[name]) for name in ("model", "head") if name in table]
    norm = [f"norm {first['feature_norm']}"] if "feature_norm" in table else []
    return ", ".join([*named, *_target(table), *which, *norm])


def _measure(table: pd.DataFrame) -> Measure:
    """How the target is scored; a table of one's own may not say."""
    return MEASURES[table["measure"].iloc[0]] if "measure" in table else CLASSES


def _target(table: pd.DataFrame) -> list[str]:
    """What is learned, where that is not emotion."""
    learned = table["learned"].iloc[0] if "learned" in table else ",".join(EMOTION)
    return [] if learned == ",".join(EMOTION) else [f"target {learned}"]


def format_transfer(table: pd.DataFrame) -> str:
    """The scores for the terminal: a matrix per model and head, or a table of layers."""
    return "\n\n".join(map(as_text, transfer_items(table)))


def transfer_items(table: pd.DataFrame) -> list[Item]:
    """A matrix per model and head, or where several layers were read, a table of layers."""
    items: list[Item] = []
    measure = _measure(table)
    for (model, head), own in table.groupby(["model", "head"], sort=False):
        sweep = _is_sweep(own)
        shown = transfer_layers(own) if sweep else transfer_matrix(own)
        which = "layer by layer" if sweep else _which(own)
        how = "" if sweep else "from a row's corpus to a column's: "
        rows = pd.DataFrame(
            {
                "pair" if sweep else "trained on": shown.index,
                **{
                    str(name): [number(value, decimals=measure.decimals) for value in shown[name]]
                    for name in shown
                },
            }
        )
        learned = "".join(f"{each}, " for each in _target(own))
        unit = f" in {measure.score_unit}" if measure.score_unit else ""
        caption = f"{model}, {head}, {learned}{which}, {how}{measure.title}{unit}."
        items.append(Table("transfer", caption, rows, 1, (), own))
    return [*items, *_said(table)]


def _said(table: pd.DataFrame) -> list[str]:
    """What all of the matrices share, and what has an alarm."""
    norm = table["feature_norm"].iloc[0]
    if norm in NORMS and NORMS[norm].has_statistics:
        whose = "each corpus' own" if table["target_norm"].any() else "the source's training set's"
        norm = f"{norm} with {whose} statistics"
    measure = _measure(table)
    constant = table[measure.constant]
    ends = [number(each, decimals=measure.decimals) for each in (constant.min(), constant.max())]
    said = [
        f"Means over {counted(int(table['runs'].max()), 'run')}; features: {norm}; tested on the "
        "whole target, and within a corpus on the test set of its own split; the best constant "
        f"answer scores {ends[0]} to {ends[1]}."
    ]
    if flagged := int((table["alarms"].map(len) > 0).sum()):
        said.append(
            f"! {counted(flagged, 'score', 'has', of=len(table))} an alarm: see the column alarms "
            "of the CSV file, and docs/statistics.md."
        )
    return said


def save_transfer(table: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a CSV file and a heat map per model and head, named by what decides them; their paths.

    Names tell the norm, and the corpora by a hash, so that another set of corpora does not
    overwrite them. Figures of an earlier table of the same name that this one does not have go.

    Raises:
        OSError: the folder cannot be written.
    """
    name = _name_of_files(table)
    written = [folder / f"{name}.csv"]
    write_then_rename(written[0], table.to_csv(index=False).encode())
    for (model, head), own in table.groupby(["model", "head"], sort=False):
        sweep = _is_sweep(own)
        path = folder / f"{name}-{model}-{head}{'-layers' if sweep else ''}.png"
        title = _measure(own).title
        ax = (
            draw_transfer_layers(transfer_layers(own), measure=title)
            if sweep
            else draw_transfer(transfer_matrix(own), measure=title)
        )
        save_figure(ax, path)
        written.append(path)
    for old in set(folder.glob(f"{glob.escape(name)}-*.png")) - set(written):
        old.unlink()
    return written


def _name_of_files(table: pd.DataFrame) -> str:
    """What decides the table: target, corpora, classes, the norm and whose statistics it takes."""
    corpora = sorted({*table["source"], *table["target"]})
    aligned = "-target-norm" if table["target_norm"].any() else ""
    chosen = sorted(set(table["classes"])), sorted(set(table["model"])), sorted(set(table["head"]))
    digest = hashlib.sha256(repr((corpora, chosen)).encode()).hexdigest()[:8]
    learned = "".join(f"-{file_name(each.removeprefix('target '))}" for each in _target(table))
    return f"transfer{learned}-{table['feature_norm'].iloc[0]}{aligned}-{digest}"


def _is_sweep(table: pd.DataFrame) -> bool:
    return len(set(table["layer"].dropna())) > 1


def _which(table: pd.DataFrame) -> str:
    layer = table["layer"].iloc[0]
    return "all layers" if pd.isna(layer) else f"layer {layer}"
