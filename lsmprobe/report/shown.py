"""What the items of the short report share: figures as files, and tables that stay short."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lsmprobe.errors import counted
from lsmprobe.report.figures import save_figure
from lsmprobe.report.typeset import Picture, Table
from lsmprobe.results.alarms import LEAKS, MEANINGS, OTHER_LABELS

MARKED = {**LEAKS, "other_labels": OTHER_LABELS}  # columns of tables -> alarms
MAX_ROWS = 12  # of a table of the short report; its CSV file has all


def drawn(caption: str, path: Path, ax: Axes) -> Picture:
    """The figure written as PNG and PDF, with its caption."""
    for kind in (".pdf", ".png"):
        save_figure(ax, path.with_suffix(kind))
    return Picture(caption, path)


def file_name(*words: str) -> str:
    """Of a file, of words that may hold anything.

    >>> file_name("curve", "my corpus/1")
    'curve-my_corpus_1'
    """
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in w) for w in words)


def marked(scores: Iterable[str], rows: pd.DataFrame) -> list[str]:
    """Scores with `! ` before those of rows that have one of `MARKED`.

    >>> marked(["50.0", "60.0", "70.0"], pd.DataFrame({"shared_audio": [True, False, None]}))
    ['! 50.0', '60.0', '70.0']
    """
    flags = _flags(rows).any(axis=1)
    return ["! " * bool(flag) + each for each, flag in zip(scores, flags, strict=True)]


def mark_notes(rows: pd.DataFrame) -> list[str]:
    """The sentences below a table with such marks."""
    flags = _flags(rows).any()
    return [f"! {MEANINGS[code]}." for name, code in MARKED.items() if flags[name]]


def _flags(rows: pd.DataFrame) -> pd.DataFrame:
    """Which of `MARKED` each row has; not every table has all of the columns."""
    return rows.reindex(columns=[*MARKED]).eq(True)


def shortened(table: Table) -> Table:
    """Its first rows, and how many more there are; a column of one value moves to the caption."""
    rows = table.rows.reset_index(drop=True)
    names = list(rows.columns[: table.n_names])
    shared = [name for name in names[1:] if len(set(rows[name])) == 1 and len(names) > 2]
    caption = table.caption
    if shared and len(rows) > 1:
        said = ", ".join(f"{name} {rows[name].iloc[0]}" for name in shared)
        caption = f"{caption.removesuffix('.')} ({said})."
        rows = rows.drop(columns=shared)
        names = [name for name in names if name not in shared]
    notes = list(table.notes)
    if (more := len(rows) - MAX_ROWS) > 0:
        notes.append(f"{counted(more, 'more row')}: {table.name}.csv.")
    return table._replace(
        caption=caption, rows=rows.head(MAX_ROWS), n_names=len(names), notes=notes
    )
