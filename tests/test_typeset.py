"""The same table for three readers; whatever a name holds, it stays a name."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from simulated import write_grid

from lsmprobe.config import ReportConfig
from lsmprobe.report.make import make_report
from lsmprobe.report.typeset import (
    LATEX_PACKAGES,
    Heading,
    Picture,
    Table,
    as_html,
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
    assert interval(-1.0, 2.25, "+") == "-1.0 to +2.3"


def test_halves_are_rounded_up_on_decimals():
    """As floats 25.45 and 87.85 lie below the half, 0.25 on it."""
    assert [number(value) for value in (25.45, 87.85, 0.25, 2.35)] == ["25.5", "87.9", "0.3", "2.4"]
    assert score(87.85, 0.01, 2) == "87.85 ± 0.01"
    assert number(np.float64(-25.45), "+") == "-25.5"


def test_marks_and_groups_stand_in_all_four_forms(table):
    marked = table._replace(
        marks={(0, "macro-F1"): ("bold", "underline")}, groups={"macro-F1": "English-only"}
    )
    assert "53.4 ± 1.3*_" in as_text(marked)
    assert "<u>**53.4 ± 1.3**</u>" in as_markdown(marked)
    assert r"\underline{\textbf{53.4 \ensuremath{\pm} 1.3}}" in as_latex(marked)
    assert "<td><u><strong>53.4 ± 1.3</strong></u></td>" in as_html(marked)
    assert "English-only: macro-F1" in as_markdown(marked)
    assert r"\multicolumn{1}{c}{English-only} \\" in as_latex(marked)
    assert '<th scope="colgroup" colspan="1">English-only</th>' in as_html(marked)


def test_whatever_a_name_holds_it_stays_text_in_html(table):
    hostile = '<script>alert("1")</script>'
    rows = table.rows.assign(model=[hostile, "b"])
    for item in (table._replace(rows=rows, caption=hostile, notes=[hostile]), Heading(hostile)):
        assert "<script" not in as_html(item)


def test_a_letter_that_latex_does_not_have_is_its_number(table):
    rows = table.rows.assign(model=["模型 é → †", "b"])
    latex = as_latex(table._replace(rows=rows))
    assert r"{[}U+6A21{]}{[}U+578B{]} é \ensuremath{\rightarrow} \textsuperscript{\dag}" in latex


@pytest.mark.slow
def test_a_small_latex_sets_every_kind_of_table(table, tmp_path, pdflatex):
    odd = [r"a_b~c^d\\e & f % g $ h # {i} < j > k -- é † ‡ → ± ² 模", "[x] * y"]
    marked = table._replace(
        rows=table.rows.assign(model=odd),
        caption=odd[0],
        notes=odd,
        marks={(0, "macro-F1"): ("bold", "underline")},
        groups={"macro-F1": odd[0]},
    )
    items = [table, marked, marked._replace(rows=pd.concat([marked.rows] * 60)), odd[0]]
    body = "\n".join(as_latex(item) for item in items)
    assert set_by(pdflatex, body, tmp_path).read_bytes().startswith(b"%PDF")


@pytest.fixture
def pdflatex():
    """Where it is, with the packages of the tables."""
    found, look = shutil.which("pdflatex"), shutil.which("kpsewhich")
    packages = ("booktabs.sty", "longtable.sty")
    if not found or not look or subprocess.run([look, *packages], capture_output=True).returncode:
        pytest.skip(
            f"no pdflatex here, or not its {' and '.join(packages)}; on Debian: "
            "texlive-latex-base, texlive-latex-recommended"
        )
    return found


def set_by(tex, body, folder):
    """The PDF that a small LaTeX makes of it."""
    (folder / "t.tex").write_text(
        f"\\documentclass{{article}}\n{LATEX_PACKAGES}\n\\begin{{document}}\n{body}\n\\end{{document}}",
        encoding="utf-8",
    )
    done = subprocess.run(
        [tex, "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return folder / "t.pdf"


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_a_small_latex_sets_the_files_of_a_report(tmp_path, full, pdflatex):
    """Names of models and corpora hold what LaTeX takes for commands."""
    results = write_grid(tmp_path / "results", ["a_b~c^d & e%f", "[x] * #y"], ["$c_1", "d{2}"])
    make_report(ReportConfig(results_dir=results, full=full))
    files = sorted((results / "report").glob("*.tex"))
    assert files
    body = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert set_by(pdflatex, body, tmp_path).stat().st_size > 10_000
