"""The report: records -> the paper's tables and Figure 2, beside the paper's own numbers.

docs/report.md says how to read it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError, counted
from lsmprobe.probing.table import head_title
from lsmprobe.progress import automatic
from lsmprobe.report.advice import one_voice_advice
from lsmprobe.report.corpora_table import corpora_table
from lsmprobe.report.figures import draw_mean_layer_weights, save_figure
from lsmprobe.report.paper import (
    PROTOCOL,
    SOURCE,
    disagreement,
    known_facts,
    paper_models,
    paper_table,
)
from lsmprobe.report.tables import (
    BASELINE,
    experiments,
    in_order,
    mean_layer_weights,
    on_last_layer,
    pairs,
    shared_corpora,
    table2,
    table3,
    weighing,
)
from lsmprobe.report.typeset import (
    DASH,
    Heading,
    Item,
    Mark,
    Picture,
    Table,
    interval,
    listed,
    named_models,
    number,
    p_value,
    score,
)
from lsmprobe.results.comparison import add_holm, compare_records
from lsmprobe.results.records import Load, load_record

LOSO = "split: loso"  # the block of experiments in which every speaker is tested once
UNITS = (
    "Macro-F1 in percent, mean ± standard deviation over runs (ddof 1); constant: the best "
    "constant answer; shuffled: the runs' own answers shuffled, what guessing scores; -: not run, "
    "or not in the paper; !: has an alarm, told below."
)
HEAD_SIGNS = {"linear": "†", "multilayer": "‡"}  # as in the header of the paper's Table 3
DECIMALS = 2  # of the scores in Tables 2 and 3, as the paper has them


def report_items(
    runs: pd.DataFrame, out: Path, *, load: Load = load_record, only_paper: bool = False
) -> list[Item]:
    """The report, in order; figures are drawn into `out`.

    Raises:
        ResultsError: no run is of the paper's kind.
    """
    usual = on_last_layer(runs)
    if not usual.any():
        raise ResultsError(
            "none of these runs reads the last layer, as the paper's do; probe without --layer."
        )
    cells = experiments(runs[usual], load=load)
    if only_paper:
        cells = cells[cells.block == ""]
        if cells.empty:
            raise ResultsError(f"no run is of the paper's protocol ({PROTOCOL}).")
    blocks = cells.groupby("block").size()  # the paper's protocol has no name and comes first
    one_voice = sorted(set(runs.corpus[usual & (runs.test_speakers == 1)]))
    if one_voice and LOSO in blocks:
        blocks = blocks.loc[[LOSO, *blocks.index.drop(LOSO)]]
    items: list[Item] = [Heading("lsmprobe report"), f"The paper is {SOURCE}."]
    if one_voice:
        tested = sorted(set(cells.corpus[cells.block == LOSO]) & set(one_voice))
        items.append(one_voice_advice(one_voice, tested))
    apart = [f"{block} (experiments: {n})" for block, n in blocks.items() if block]
    if apart:
        items.append(
            "Settings differ, and what differs is neither averaged nor compared. Apart from the "
            f"paper's protocol stand: {'; '.join(apart)}."
        )
    if not usual.all():
        items.append(f"Not shown: {counted(int((~usual).sum()), 'run')} on other layers.")
    items += sorted({f"{text}." for text in runs.likeness if text})
    items += [Heading("Corpora"), corpora_table(runs)]
    for block in blocks.index:
        items += block_items(block, cells[cells.block == block], out, load)
    return items


def block_items(block: str, cells: pd.DataFrame, out: Path, load: Load) -> Iterator[Item]:
    """The tables and the figure of experiments that may stand together."""
    yield Heading(block or "The paper's protocol")
    yield f"Everything here is {PROTOCOL}{f'; but for {block}' if block else ''}."
    if not block or (cells["head"] != BASELINE).any():
        yield table2_item(cells, block)
    yield from table3_items(cells, block)
    yield from difference_items(cells, block, load)
    weights = mean_layer_weights(cells)
    if len(weights):
        yield figure_item(weights, shared_corpora(weighing(cells)), block, out)


def table2_item(cells: pd.DataFrame, block: str) -> Table:
    """Table 2, with a row per model and head."""
    data = table2(cells, paper_table(2), paper_table(3), full=not block)
    lsm = cells[cells["head"] != BASELINE]
    corpora = shared_corpora(lsm)
    notes = [
        UNITS,
        f"Mean over the corpora that every model and head here has: {', '.join(corpora) or DASH}.",
    ]
    for corpus in in_order(set(lsm.corpus) - set(corpora), paper_table(1).corpus):
        without = [
            f"{model} with {head_title(head)}"
            for (model, head), own in lsm.groupby(["model", "head"])
            if corpus not in set(own.corpus)
        ]
        notes.append(f"Left out: {corpus}, not run for {listed(without)}.")
    notes.append(
        "95% interval: of each corpus as in Table 3; over corpora, "
        "combined as those of independent scores. It says nothing of other corpora."
    )
    columns = {
        "model": _named(data),
        "head": data["head"].map(head_title),
        **_scores(data, DECIMALS),
    }
    marks = _best_of_models(data, {"macro-F1": "macro_f1", "paper, nine corpora": "paper"})
    notes.append("Bold (*): the best head of the model.")
    if data.paper.notna().any():
        columns |= {
            "paper, nine corpora": _papers(data),
            "paper, same corpora": [number(value, decimals=DECIMALS) for value in data.paper_same],
            "difference": [number(value, "+", DECIMALS) for value in data.difference],
        }
        apart = disagreement().sort_values()
        notes.append(
            "Difference: from the paper on the same corpora, that is from its Table 2 if they are "
            "all nine, else from the mean over its Table 3, which has one head per model. The two "
            f"do not agree: the means of Table 3's columns are {apart.iloc[0]:+.1f} "
            f"({apart.index[0]}) to {apart.iloc[-1]:+.1f} points ({apart.index[-1]}) from Table 2."
        )
    notes += _notes(cells, data.model, corpora, block)
    caption = _caption("Table 2: mean over corpora", block)
    rows = pd.DataFrame(columns)
    marks = {where: mark for where, mark in marks.items() if where[1] in rows}
    return Table("table2", caption, rows, 2, notes, _plain(data, block), marks)


def _best_of_models(
    data: pd.DataFrame, columns: Mapping[str, str]
) -> dict[tuple[int, str], Sequence[Mark]]:
    """Bold, for the best of several heads of a model; columns as shown -> as they are called."""
    marks: dict[tuple[int, str], Sequence[Mark]] = {}
    data = data.reset_index(drop=True)
    for shown, name in columns.items():
        for _, own in data.groupby("model"):
            values = own[name].dropna()
            if len(values) > 1:
                marks[int(values.idxmax()), shown] = ("bold",)
    return marks


def table3_items(cells: pd.DataFrame, block: str) -> Iterator[Table]:
    """Table 3 in the paper's layout, then every number of it, then the best heads as found."""
    data = table3(cells, paper_table(3), full=not block)
    notes = [
        UNITS,
        "†: Linear; ‡: Multi-Layer. Bold (*): the best of a row; underlined (_): the best of the "
        "English-only and of the multilingual models.",
        *_notes(cells, data.model, data.corpus, block),
    ]
    caption = _caption(
        "Table 3: every corpus, with the head that the paper shows (Linear for Whisper and models "
        "of one layer, Multi-Layer for others)",
        block,
    )
    rows, marks, groups = _beside_the_paper(data)
    yield Table("table3", caption, rows, 2, notes, _plain(data, block), marks, groups)

    run = data[data.runs.notna()]
    columns = {
        "corpus": run.corpus,
        "model": _named(run),
        "head": run["head"].map(head_title),
        **_scores(run, DECIMALS),
        "paper": _papers(run),
        "difference": [number(value, "+", DECIMALS) for value in run.difference],
    }
    caption = _caption("Table 3: every score", block)
    notes = [UNITS, _intervals(cells), *_alarms(cells)]
    rows = pd.DataFrame(columns)
    yield Table("table3-scores", caption, rows, 3, notes, _plain(run, block))

    best = data[["corpus", "model", "random_weights", *data.filter(like="best_")]]
    best = best.rename(columns=lambda name: name.removeprefix("best_")).dropna(subset="head")
    columns = {
        "corpus": best.corpus,
        "model": _named(best),
        "best head": best["head"].map(head_title),
        "validation macro-F1": best.validation_f1.map(number),
        **_scores(best),
    }
    caption = _caption("Table 3: the best head as found", block)
    notes = [
        "The best head is the one with the best validation score, mean over runs; what is shown is "
        "its test score. To choose by the test score would flatter it.",
        *notes,
    ]
    rows = pd.DataFrame(columns)
    yield Table("table3-best", caption, rows, 3, notes, _plain(best, block))


class Layout(NamedTuple):
    """A table as the paper lays it out."""

    rows: pd.DataFrame
    marks: dict[tuple[int, str], Sequence[Mark]]
    groups: dict[str, str]  # column -> what stands above it


def _beside_the_paper(data: pd.DataFrame) -> Layout:
    """The paper's layout; below our scores of a corpus stand the paper's, and the differences."""
    rows: list[dict[str, str]] = []
    marks: dict[tuple[int, str], Sequence[Mark]] = {}
    groups: dict[str, str] = {}
    for corpus, own in data.groupby("corpus", sort=False):
        names = [
            f"{name} {HEAD_SIGNS.get(head, '' if head == BASELINE else head_title(head))}".strip()
            for name, head in zip(_named(own), own["head"], strict=True)
        ]
        known = [paper_models().get(model, {}).get("group", "") for model in own.model]
        groups |= dict(zip(names, known, strict=True))
        lines = {"here": (_scores(own, DECIMALS)["macro-F1"], own.macro_f1)}
        if own.paper.notna().any():
            lines["paper"] = (_papers(own), own.paper)
        if own.difference.notna().any():
            lines["difference"] = ([number(value, "+", DECIMALS) for value in own.difference], None)
        for line, (texts, values) in lines.items():
            if values is not None:
                scored = pd.Series(values.to_numpy(float), names)
                marks |= {(len(rows), name): mark for name, mark in _best_of_row(scored, groups)}
            first = str(corpus) if line == "here" else ""
            rows.append({"corpus": first, "": line} | dict(zip(names, texts, strict=True)))
    return Layout(pd.DataFrame(rows), marks, groups)


def _best_of_row(
    scores: pd.Series, groups: Mapping[str, str]
) -> Iterator[tuple[str, Sequence[Mark]]]:
    """The marks of one row: bold the best of all, underlined the best of each group."""
    scores = scores.dropna()
    of_group = scores.groupby([groups[name] for name in scores.index])
    best = {group: own.idxmax() for group, own in of_group if group}
    for name in scores.index:
        marks: list[Mark] = []
        if len(scores) > 1 and name == scores.idxmax():
            marks.append("bold")
        if len(best) > 1 and name in best.values():
            marks.append("underline")
        if marks:
            yield name, marks


def difference_items(cells: pd.DataFrame, block: str, load: Load) -> Iterator[Table]:
    """Paired differences between heads, and between models, on the same test utterances."""
    todo = pairs(cells)
    bar = automatic(todo.itertuples(), desc="comparing", total=len(todo), leave=False)
    found = pd.DataFrame([_compared(pair, load) for pair in bar], index=todo.index)
    compared = todo.drop(columns=["a_paths", "b_paths"]).join(found)
    whats = {
        "heads": "Differences between the heads of a model",
        "models": "Differences between models, each with the head that is best on validation",
    }
    for between, own in compared.groupby("between"):
        data = add_holm(own)
        columns = {
            "corpus": data.corpus,
            "A": _side(data, "a"),
            "B": _side(data, "b"),
            "A less B": [number(value, "+") for value in data.difference],
            "95% interval": [
                interval(low, high, "+") for low, high in zip(data.low, data.high, strict=True)
            ],
            "p": data.p.map(p_value),
            "p, Holm": data.p_holm.map(p_value),
        }
        notes = [
            "Percentage points of macro-F1 on the same test utterances, mean over the runs of "
            "equal seeds. Interval: paired bootstrap over "
            f"{' or '.join(sorted(set(data.over) - {''})) or DASH}. p: permutation test over "
            "speakers; Holm: corrected for all tests of this table.",
            *sorted({f"{row.corpus}: {row.note}" for row in data.itertuples() if row.note}),
            *_alarms(cells),
        ]
        caption = _caption(whats[between], block)
        rows = pd.DataFrame(columns)
        yield Table(f"differences-{between}", caption, rows, 3, notes, _plain(data, block))


def _compared(pair: Any, load: Load) -> dict[str, Any]:
    """The comparison of two sets of records, or why there is none."""
    a, b = ([load(Path(path)) for path in paths.values()] for paths in (pair.a_paths, pair.b_paths))
    try:
        return asdict(compare_records(a, b))
    except ResultsError as error:
        missing = dict.fromkeys(("difference", "low", "high", "p"), np.nan)
        return {**missing, "over": "", "note": str(error)}


def _side(data: pd.DataFrame, side: str) -> list[str]:
    own = data.filter(regex=f"^{side}_").rename(columns=lambda name: name.removeprefix(f"{side}_"))
    names = zip(_marks(own), _named(own), own["head"].map(head_title), strict=True)
    return [f"{mark}{model} {head}" for mark, model, head in names]


def figure_item(weights: pd.DataFrame, corpora: list[str], block: str, out: Path) -> Picture:
    """Figure 2, drawn into `out` as PNG and PDF."""
    of_models = dict(iter(weights.groupby("model")))
    ordered = [of_models[name] for name in in_order(weights.model, paper_table(2).model)]
    path = out / f"{_file_name('figure2', block)}.png"
    for kind in (".png", ".pdf"):
        save_figure(draw_mean_layer_weights(pd.concat(ordered)), path.with_suffix(kind))
    runs = " or ".join(str(n) for n in sorted(set(weights.runs)))
    caption = _caption(
        "Figure 2: the layer weights of Multi-Layer, and their standard deviation over runs. Mean "
        f"over {', '.join(corpora)}; runs: {runs}. Darker is heavier, relative to an even share",
        block,
    )
    return Picture(caption, path)


def _file_name(name: str, block: str) -> str:
    """Of a block's file: one of its own, and short enough for any disk.

    >>> _file_name("figure2", ""), _file_name("figure2", "split: loso, epochs: 5")
    ('figure2', 'figure2-split-loso-epochs-5')
    """
    words = "-".join([name, *re.findall(r"[a-z0-9_.]+", block)])
    plain = re.sub(r"[^a-z0-9_.: ,]", "", block) == block and len(words) <= 100
    return words if plain else f"{words[:100]}-{hashlib.sha256(block.encode()).hexdigest()[:8]}"


def _papers(data: pd.DataFrame) -> list[str]:
    return [
        score(mean, std, DECIMALS) for mean, std in zip(data.paper, data.paper_std, strict=True)
    ]


def _scores(data: pd.DataFrame, decimals: int = 1) -> dict[str, list[str]]:
    """The columns that every score has."""
    scores = (
        score(mean, std, decimals) for mean, std in zip(data.macro_f1, data["std"], strict=True)
    )
    return {
        "macro-F1": ["".join(both) for both in zip(_marks(data), scores, strict=True)],
        "95% interval": list(map(interval, data.low, data.high)),
        "constant": data.constant_f1.map(number).tolist(),
        "shuffled": data.shuffled_f1.map(number).tolist(),
        "runs": [DASH if pd.isna(n) else f"{n:.0f}" for n in data.runs],
    }


def _marks(data: pd.DataFrame) -> list[str]:
    flagged = (isinstance(alarms, dict | bool) and bool(alarms) for alarms in data.alarms)
    return ["! " * each for each in flagged]  # missing where nothing was run


def _named(data: pd.DataFrame) -> list[str]:
    return named_models(data.model, data.random_weights)


def _caption(text: str, block: str) -> str:
    return f"{text}{f' ({block})' if block else ''}."


def _notes(
    cells: pd.DataFrame, models: Iterable[str], corpora: Iterable[str], block: str
) -> list[str]:
    """What is known of these rows: of the paper, of their splits, and which have an alarm."""
    splits = {f"{row.corpus}: {note}." for row in cells.itertuples() for note in row.split_notes}
    return [*known_facts(set(models), set(corpora), block), *sorted(splits), *_alarms(cells)]


def _alarms(cells: pd.DataFrame) -> list[str]:
    """What single rows are to be taken with care for."""
    return [
        f"! {row.model} on {row.corpus}, {head_title(row.head)}: {sentence.rstrip('.')} "
        f"({counted(n, 'run', of=row.runs)})."
        for row in cells.itertuples()
        for sentence, n in row.alarms.items()
    ] + [
        f"{row.model} on {row.corpus}, {head_title(row.head)}: {row.interval_note}"
        for row in cells.itertuples()
        if row.interval_note
    ]


def _intervals(cells: pd.DataFrame) -> str:
    """What the intervals of these experiments are, which depends on the test speakers."""
    over = cells.groupby("interval_over").corpus.agg(lambda names: ", ".join(sorted(set(names))))
    return (
        "95% interval of the mean over runs: bootstrap over "
        f"{'; '.join(f'{what} ({names})' for what, names in over.items())}."
    )


def _plain(data: pd.DataFrame, block: str) -> pd.DataFrame:
    """The numbers as they go into a file: the settings first, alarms as text."""
    data = data.map(lambda value: "; ".join(value) if isinstance(value, dict) else value)
    data.insert(0, "settings", block)
    return data
