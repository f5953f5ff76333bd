"""What a report is made of -> text for a terminal, Markdown, LaTeX."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pandas as pd

DASH = "-"  # not run, or not there
HEADER_WIDTH, NAME_WIDTH = 9, 24  # characters: longer names of columns and rows are wrapped
LINE_WIDTH = 100  # characters
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"\ensuremath{\pm}",
        "<": r"\ensuremath{<}",
        ">": r"\ensuremath{>}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)


class Heading(NamedTuple):
    """What follows, in a few words."""

    text: str


class Picture(NamedTuple):
    """A figure that lies beside the report."""

    caption: str
    path: Path


class Table(NamedTuple):
    """A table as people read it."""

    name: str  # of its files
    caption: str
    rows: pd.DataFrame  # of text
    n_names: int  # columns, from the left, that say what a row is of
    notes: Sequence[str]  # below it
    data: pd.DataFrame  # what the rows were made of, for programs

    @property
    def align(self) -> list[str]:
        """Names to the left, numbers to the right."""
        return ["left"] * self.n_names + ["right"] * (len(self.rows.columns) - self.n_names)


Item: TypeAlias = str | Heading | Picture | Table


def as_text(item: Item) -> str:
    """For a terminal: whatever is long is wrapped."""
    if isinstance(item, Heading):
        return f"{item.text}\n{'=' * len(item.text)}"
    if isinstance(item, Picture):
        return f"{textwrap.fill(item.caption, LINE_WIDTH)}\n{item.path}"
    if isinstance(item, str):
        return textwrap.fill(item, LINE_WIDTH)
    rows = item.rows.copy()
    for column in rows.columns[: item.n_names]:
        rows[column] = [
            textwrap.fill(name, NAME_WIDTH, break_long_words=False, break_on_hyphens=False)
            for name in rows[column]
        ]
    rows = rows.rename(
        columns=lambda name: textwrap.fill(name, HEADER_WIDTH, break_long_words=False)
    )
    drawn = rows.to_markdown(
        index=False, tablefmt="simple", colalign=item.align, disable_numparse=True
    )
    notes = [textwrap.fill(f"- {n}", LINE_WIDTH, subsequent_indent="  ") for n in item.notes]
    return "\n".join([textwrap.fill(item.caption, LINE_WIDTH), "", drawn, *notes])


def as_markdown(item: Item) -> str:
    """As GitHub and pandoc read it; a picture is looked for beside the file."""
    if isinstance(item, Heading):
        return f"## {item.text}"
    if isinstance(item, Picture):
        return f"![{item.caption}]({item.path.name})\n\n{item.caption}"
    if isinstance(item, str):
        return item
    rows = item.rows.map(_piped).rename(columns=_piped)
    drawn = rows.to_markdown(index=False, colalign=item.align, disable_numparse=True)
    notes = [f"- {note}" for note in item.notes]
    return "\n".join([f"**{item.caption}**", "", drawn, "", *notes])


def as_latex(table: Table, label: str) -> str:
    """A longtable with its notes below; needs the packages booktabs and longtable."""
    rows = table.rows.map(_tex).rename(columns=_tex)
    drawn = rows.to_latex(
        index=False,
        escape=False,  # it does not know all that has to be
        longtable=True,
        caption=_tex(table.caption),
        label=label,
        column_format="".join(side[0] for side in table.align),
    )
    notes = "".join(f"\\item {_tex(note)}\n" for note in table.notes)
    return f"{drawn}\\begin{{itemize}}\n{notes}\\end{{itemize}}\n" if notes else drawn


def number(value: float, sign: str = "") -> str:
    """With one decimal; `sign` "+" for differences.

    >>> number(5.43), number(0.26, "+"), number(float("nan"))
    ('5.4', '+0.3', '-')
    """
    return DASH if pd.isna(value) else f"{value:{sign}.1f}"


def score(mean: float, std: float) -> str:
    """A mean with its deviation, if it has one.

    >>> score(53.42, 1.27), score(53.42, float("nan"))
    ('53.4 ± 1.3', '53.4')
    """
    return number(mean) if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"


def interval(low: float, high: float, sign: str = "") -> str:
    """Both ends.

    >>> interval(50.1, 60.26), interval(-1.0, 2.0, "+")
    ('50.1 to 60.3', '-1.0 to +2.0')
    """
    return DASH if pd.isna(low) else f"{low:{sign}.1f} to {high:{sign}.1f}"


def _piped(text: str) -> str:
    return text.replace("|", r"\|")


def _tex(text: str) -> str:
    return text.translate(LATEX).replace("--", "-{}-")
