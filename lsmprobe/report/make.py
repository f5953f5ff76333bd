"""The report as files and as text: the short answer, or the paper's tables."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.config import ReportConfig
from lsmprobe.errors import ResultsError, counted
from lsmprobe.report.answer import answer_items, answer_sentences, curve_items
from lsmprobe.report.page import make_page
from lsmprobe.report.paper_report import report_items
from lsmprobe.report.runs import asked_for, read_runs
from lsmprobe.report.score_lines import score_items
from lsmprobe.report.typeset import (
    LATEX_PACKAGES,
    Heading,
    Item,
    Picture,
    Table,
    as_latex,
    as_markdown,
    as_text,
    listed,
)


def make_report(config: ReportConfig) -> str:
    """Write the report's files; the same as text, and where they are.

    Raises:
        ResultsError: there is no readable record of what was asked for.
    """
    found = read_runs(config)
    out = config.out or config.results_dir / "report"
    only_paper = config.protocol == "paper"
    items: list[Item] = []
    if only_paper or (config.full and len(found.table)):
        items += report_items(found.table, out, load=found.load, only_paper=only_paper)
    elif len(found.table):
        items += answer_items(found, out)
    if len(found.others) and not only_paper:
        items += [Heading("Other targets"), *score_items(found.others, load=found.load)]
        if not len(found.table):  # else the answer has drawn them
            items += curve_items(found, [], out)
    if found.left_out:
        named = listed([str(path) for path in found.left_out])
        items.append(
            f"Damaged records left out: {len(found.left_out)} ({named}). Run lsmprobe probe again."
        )
    written = write_report(items, out)
    return "\n\n".join([*map(as_text, items), _said(written, out)])


def write_page(config: ReportConfig) -> Path:
    """Write the page of the runs that the flags choose, OUT/report.html; its path.

    Raises:
        ResultsError: there is no readable record of what was asked for.
    """
    found = read_runs(config)
    summary: list[str] = []
    with suppress(ResultsError):  # none of these answers with classes
        summary = answer_sentences(found)
    return make_page(
        config.results_dir,
        (config.out or config.results_dir / "report") / "report.html",
        cache_dir=config.cache_dir,
        embed_audio=config.embed_audio,
        choose=partial(asked_for, config=config),
        summary=summary,
    )


def _said(written: list[Path], out: Path) -> str:
    """Where everything is."""
    tables = [path.stem for path in written if path.suffix == ".csv"]
    figures = [path.stem for path in written if path.suffix == ".png"]
    said = f"Written into {out}: report.md; {counted(len(tables), 'table')} as .csv and .tex"
    return f"{said}; {counted(len(figures), 'figure')} as .png and .pdf." if figures else f"{said}."


def write_report(items: list[Item], out: Path) -> list[Path]:
    """Everything as one Markdown file; every table as LaTeX, and its numbers as CSV."""
    tables: dict[str, list[Table]] = {}
    for item in items:
        if isinstance(item, Table):
            tables.setdefault(item.name, []).append(item)
    files = {out / "report.md": "\n\n".join(map(as_markdown, items)) + "\n"}
    for name, of_name in tables.items():
        latex = [as_latex(table, f"tab:{name}-{i}") for i, table in enumerate(of_name, start=1)]
        data = pd.concat((table.data for table in of_name), ignore_index=True)
        files[out / f"{name}.tex"] = f"% needs {LATEX_PACKAGES}\n" + "\n".join(latex)
        files[out / f"{name}.csv"] = data.to_csv(index=False)
    for path, content in files.items():
        write_then_rename(path, content.encode(errors="backslashreplace"))
    pictures = [item.path for item in items if isinstance(item, Picture)]
    return [*files, *(path.with_suffix(kind) for path in pictures for kind in (".png", ".pdf"))]
