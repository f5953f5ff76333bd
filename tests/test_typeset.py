"""The same table for three readers; whatever a name holds, it stays a name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsmprobe.report.typeset import (
    Heading,
    Picture,
    Table,
    as_latex,
    as_markdown,
    as_text,
    interval,
    number,
    score,
)


@pytest.fixture
def table():
    rows = pd.DataFrame(
        {"model": ["my_model--v2 | 100 %", "b"], "macro-F1": ["53.4 ± 1.3", "-"]}, dtype=object
    )
    return Table("t", "Table 2: A & B.", rows, 1, ["A note: 5 < 6."], rows)


def test_latex_is_a_booktabs_table_with_escaped_names(table):
    latex = as_latex(table, "tab:t")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\label{tab:t}"):
        assert rule in latex
    assert r"\begin{longtable}{lr}" in latex
    assert r"my\_model-{}-v2 | 100 \% & 53.4 \ensuremath{\pm} 1.3 \\" in latex
    assert r"\caption{Table 2: A \& B.}" in latex
    assert r"\item A note: 5 \ensuremath{<} 6." in latex
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2


@pytest.mark.parametrize("character", list("&%$#_{}~^\\"))
def test_no_character_of_a_name_is_a_command(table, character):
    rows = table.rows.assign(model=["x", "y"])
    named = rows.assign(model=[f"x{character}", "y"])
    plain = as_latex(table._replace(rows=rows), "tab:t")
    [changed] = set(as_latex(table._replace(rows=named), "tab:t").split("\n")) - set(
        plain.split("\n")
    )
    assert changed.startswith("x\\")


def test_markdown_keeps_its_columns(table):
    lines = as_markdown(table).splitlines()
    [row] = [line for line in lines if "my_model" in line]
    assert row.replace(r"\|", "").count("|") == 3
    assert r"100 %" in row
    assert "- A note: 5 < 6." in lines


def test_text_wraps_what_is_long(table):
    rows = table.rows.assign(model=["whisper-tiny.en-random0 (random weights)", "b"])
    text = as_text(table._replace(rows=rows, notes=["word " * 60]))
    assert max(map(len, text.splitlines())) <= 100
    assert "\n(random weights)" in text
    assert "53.4 ± 1.3" in text


def test_pictures_and_headings():
    picture = Picture("What it is.", Path("results") / "report" / "figure2.png")
    assert as_markdown(picture).startswith("![What it is.](figure2.png)")
    assert str(picture.path) in as_text(picture)
    assert as_text(Heading("Abc")) == "Abc\n==="
    assert as_markdown(Heading("Abc")) == "## Abc"


def test_what_is_missing_is_a_dash_never_a_number():
    assert number(np.nan) == score(np.nan, np.nan) == interval(np.nan, np.nan) == "-"
    assert score(53.42, np.nan) == "53.4"
    assert (score(53.42, 1.27), number(-0.04, "+")) == ("53.4 ± 1.3", "-0.0")
    assert interval(-1.0, 2.25, "+") == "-1.0 to +2.2"
