"""What is shown -> text for a terminal, Markdown, LaTeX, HTML.

An item is a sentence, a `Heading`, a `Picture` or a `Table`; what makes one gets all four forms.
"""

import html
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

import pandas as pd

DASH = "-"  # not run, or not there
HEADER_WIDTH, NAME_WIDTH = 9, 24  # characters: longer names of columns and rows are wrapped
LINE_WIDTH = 100  # characters
LATEX_PACKAGES = r"\usepackage{booktabs,longtable}"
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"\ensuremath{\pm}",
        "→": r"\ensuremath{\rightarrow}",
        "†": r"\textsuperscript{\dag}",
        "‡": r"\textsuperscript{\ddag}",
        "²": r"\textsuperscript{2}",
        "[": "{[}",  # at the start of a row it would be an option of the line break before it,
        "]": "{]}",
        "*": "{*}",  # and so would this
        "<": r"\ensuremath{<}",
        ">": r"\ensuremath{>}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
LAST_LATIN = "\u017f"  # beyond it a plain LaTeX has no letters
Mark = Literal["bold", "underline"]


class Form(NamedTuple):
    """How a mark of a cell is written in a format: what stands before and behind."""

    bold: tuple[str, str]
    underline: tuple[str, str]


TEXT_FORM = Form(bold=("", "*"), underline=("", "_"))
MARKDOWN_FORM = Form(bold=("**", "**"), underline=("<u>", "</u>"))
LATEX_FORM = Form(bold=(r"\textbf{", "}"), underline=(r"\underline{", "}"))
HTML_FORM = Form(bold=("<strong>", "</strong>"), underline=("<u>", "</u>"))


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
    marks: Mapping[tuple[int, str], Sequence[Mark]] = MappingProxyType({})  # (row, column): its
    groups: Mapping[str, str] = MappingProxyType({})  # column: what stands above it in the header

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
        one_line = f"{item.caption} {item.path}"
        short = len(one_line) <= LINE_WIDTH
        return one_line if short else f"{textwrap.fill(item.caption, LINE_WIDTH)}\n{item.path}"
    if isinstance(item, str):
        return textwrap.fill(item, LINE_WIDTH)
    rows = _marked(item, item.rows.copy(), TEXT_FORM)
    for column in rows.columns[: item.n_names]:
        rows[column] = [
            textwrap.fill(name, NAME_WIDTH, break_long_words=False, break_on_hyphens=False)
            for name in rows[column]
        ]
    rows.columns = [
        textwrap.fill(name, HEADER_WIDTH, break_long_words=False) for name in _headers(item)
    ]
    drawn = rows.to_markdown(
        index=False, tablefmt="simple", colalign=item.align, disable_numparse=True
    )
    notes = [textwrap.fill(f"- {n}", LINE_WIDTH, subsequent_indent="  ") for n in item.notes]
    return "\n".join([textwrap.fill(item.caption, LINE_WIDTH), drawn, *notes])


def as_markdown(item: Item) -> str:
    """As GitHub and pandoc read it; a picture is looked for beside the file."""
    if isinstance(item, Heading):
        return f"## {item.text}"
    if isinstance(item, Picture):
        return f"![{item.caption}]({item.path.name})\n\n{item.caption}"
    if isinstance(item, str):
        return item
    rows = _marked(item, item.rows.map(_piped), MARKDOWN_FORM)
    rows.columns = [_piped(name) for name in _headers(item)]
    drawn = rows.to_markdown(index=False, colalign=item.align, disable_numparse=True)
    notes = [f"- {note}" for note in item.notes]
    return "\n".join([f"**{item.caption}**", "", drawn, "", *notes])


def as_latex(item: Item, label: str = "") -> str:
    """A table is a longtable with its notes below; the file needs `LATEX_PACKAGES`.

    Args:
        item: what is shown.
        label: of a table or figure, for references.
    """
    if isinstance(item, Heading):
        return f"\\section*{{{_tex(item.text)}}}\n"
    if isinstance(item, Picture):
        name = item.path.with_suffix(".pdf").name
        return (
            f"\\begin{{figure}}\n\\includegraphics[width=\\linewidth]{{{name}}}\n"
            f"\\caption{{{_tex(item.caption)}}}\n\\end{{figure}}\n"
        )
    if isinstance(item, str):
        return f"{_tex(item)}\n"
    rows = _marked(item, item.rows.map(_tex), LATEX_FORM)
    header = [" & ".join(map(_tex, item.rows.columns)) + r" \\"]
    if item.groups:
        header = [*_latex_groups(item), *header]
    lines = [
        f"\\begin{{longtable}}{{{''.join(side[0] for side in item.align)}}}",
        f"\\caption{{{_tex(item.caption)}}}" + (f" \\label{{{label}}}" if label else "") + r" \\",
        *(r"\toprule", *header, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", *header, r"\midrule", r"\endhead", r"\midrule", r"\endfoot"),
        *(r"\bottomrule", r"\endlastfoot"),
        *(" & ".join(row) + r" \\" for row in rows.to_numpy()),
        r"\end{longtable}",
    ]
    if item.notes:
        listed = (f"\\item {_tex(note)}" for note in item.notes)
        lines += [r"\begin{itemize}", *listed, r"\end{itemize}"]
    return "\n".join(lines) + "\n"


def as_html(item: Item) -> str:
    """A piece of a page; whatever a name holds is escaped. A picture is looked for beside it."""
    if isinstance(item, Heading):
        return f"<h2>{html.escape(item.text)}</h2>"
    if isinstance(item, Picture):
        caption = html.escape(item.caption)
        source = html.escape(item.path.name)
        return (
            f'<figure><img src="{source}" alt="{caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    if isinstance(item, str):
        return f"<p>{html.escape(item)}</p>"
    rows = _marked(item, item.rows.map(html.escape), HTML_FORM)
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in item.rows.columns)
    header = f"<tr>{names}</tr>"
    if item.groups:
        header = f"<tr>{_html_groups(item)}</tr>{header}"
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if i < item.n_names else f"<td>{cell}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows.to_numpy()
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in item.notes)
    return (
        f"<table><caption>{html.escape(item.caption)}</caption><thead>{header}</thead>"
        f"<tbody>{body}</tbody></table>" + (f"<ul>{notes}</ul>" if notes else "")
    )


def _marked(table: Table, rows: pd.DataFrame, form: Form) -> pd.DataFrame:
    """The rows with the marks of their cells, as a format writes them."""
    for (row, column), marks in table.marks.items():
        at = rows.columns.get_loc(column)
        for mark in marks:
            before, behind = getattr(form, mark)
            rows.iloc[row, at] = f"{before}{rows.iloc[row, at]}{behind}"
    return rows


def _headers(table: Table) -> list[str]:
    """Names of columns, with that of their group, for formats of one line of headers."""
    return [
        f"{table.groups[name]}: {name}" if table.groups.get(name) else name
        for name in table.rows.columns
    ]


def _spans(table: Table) -> list[tuple[str, int]]:
    """The groups of the header and how many columns each spans, from the left."""
    spans: list[tuple[str, int]] = []
    for name in table.rows.columns:
        group = table.groups.get(name, "")
        if spans and spans[-1][0] == group:
            spans[-1] = group, spans[-1][1] + 1
        else:
            spans.append((group, 1))
    return spans


def _latex_groups(table: Table) -> list[str]:
    cells, rules, first = [], [], 1
    for group, n in _spans(table):
        cells.append(f"\\multicolumn{{{n}}}{{c}}{{{_tex(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{first}-{first + n - 1}}}")
        first += n
    return [" & ".join(cells) + r" \\", *rules]


def _html_groups(table: Table) -> str:
    return "".join(
        f'<th scope="colgroup" colspan="{n}">{html.escape(group)}</th>'
        if group
        else f'<td colspan="{n}"></td>'
        for group, n in _spans(table)
    )


def number(value: float, sign: str = "", decimals: int = 1) -> str:
    """Rounded half up, on the decimals that the number is written with; `sign` "+" for differences.

    >>> number(25.45), number(0.26, "+"), number(float("nan")), number(87.85, decimals=2)
    ('25.5', '+0.3', '-', '87.85')
    """
    if pd.isna(value):
        return DASH
    step = Decimal(1).scaleb(-decimals)
    return f"{Decimal(repr(float(value))).quantize(step, ROUND_HALF_UP):{sign}}"


def score(mean: float, std: float, decimals: int = 1) -> str:
    """A mean with its standard deviation, if it has one.

    >>> score(53.42, 1.27), score(53.42, float("nan")), score(87.85, 0.01, 2)
    ('53.4 ± 1.3', '53.4', '87.85 ± 0.01')
    """
    text = number(mean, decimals=decimals)
    return text if pd.isna(mean) or pd.isna(std) else f"{text} ± {number(std, decimals=decimals)}"


def interval(low: float, high: float, sign: str = "", decimals: int = 1) -> str:
    """Both ends.

    >>> interval(50.1, 60.26), interval(-1.0, 2.0, "+")
    ('50.1 to 60.3', '-1.0 to +2.0')
    """
    if pd.isna(low):
        return DASH
    return f"{number(low, sign, decimals)} to {number(high, sign, decimals)}"


def p_value(value: float) -> str:
    """Three decimals, and no zero.

    >>> p_value(0.0004), p_value(0.04), p_value(float("nan"))
    ('<0.001', '0.040', '-')
    """
    return DASH if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def listed(names: list[str], between: str = ", ") -> str:
    """The first of them, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return between.join(names[:3]) + more


def head_and_layer(title: str, layer: object) -> str:
    """A head's title with the layer that it read, if it read one.

    >>> head_and_layer("Linear", 4), head_and_layer("Multi-Layer", None)
    ('Linear, layer 4', 'Multi-Layer')
    """
    return title if pd.isna(layer) else f"{title}, layer {layer}"


def labels_that_differ(table: pd.DataFrame, alike: pd.Series) -> pd.Series:
    """Which labels a row learned, in words, where rows that are alike learned different ones.

    Args:
        table: with columns labels and labels_hash, or without.
        alike: equal for rows that go by one name.
    """
    table = table.reindex(columns=["labels", "labels_hash"]).astype(object).fillna("")
    words = table.labels.map(lambda text: text if ":" in text else f"labels {text}")
    several = table.labels_hash.groupby([alike, table.labels]).transform("nunique") > 1
    words += (" (" + table.labels_hash.str[:6] + ")").where(several, "")
    return words.where(words.groupby(alike).transform("nunique") > 1, "")


def caches_that_differ(table: pd.DataFrame, alike: pd.Series) -> pd.Series:
    """The cache that a row read, where rows that are alike read different ones.

    Args:
        table: with a column cache_hash, or without.
        alike: equal for rows that go by one name.
    """
    hashes = table.reindex(columns=["cache_hash"]).cache_hash.astype(object).fillna("")
    words = "cache " + hashes.str[:6].where(hashes != "", "not known")
    return words.where(hashes.groupby(alike).transform("nunique") > 1, "")


def named_models(models: Iterable[str], random: Iterable[bool]) -> list[str]:
    """Models, with what is to be said of those whose weights are random.

    >>> named_models(["a", "b"], [False, True])
    ['a', 'b (random weights)']
    """
    return [
        f"{model} (random weights)" if of_chance else model
        for model, of_chance in zip(models, random, strict=True)
    ]


def _piped(text: str) -> str:
    return text.replace("|", r"\|")


def _tex(text: str) -> str:
    """Every character as itself; one that a plain LaTeX has no letter for, by its number."""
    known = (
        c if c <= LAST_LATIN or ord(c) in LATEX else f"[U+{ord(c):04X}]"
        for c in " ".join(text.split("\n"))
    )
    return "".join(known).translate(LATEX).replace("--", "-{}-")
