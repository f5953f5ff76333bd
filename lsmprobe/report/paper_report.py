"""The report: records -> the paper's tables and Figure 2, beside the paper's own numbers.

docs/report.md says how to read it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.config import ReportConfig
from lsmprobe.corpora.table import AS_IN_THE_PAPER, CORPORA
from lsmprobe.corpora.utterances import PARTS
from lsmprobe.errors import ResultsError, nearest
from lsmprobe.probing.table import head_title
from lsmprobe.progress import automatic
from lsmprobe.report.figures import draw_mean_layer_weights, save_figure
from lsmprobe.report.paper import (
    SOURCE,
    by_name_only,
    disagreement,
    known_facts,
    not_the_papers,
    paper_models,
    paper_table,
)
from lsmprobe.report.score_lines import of_emotions, score_items
from lsmprobe.report.table1 import table1
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
    LATEX_PACKAGES,
    Heading,
    Item,
    Mark,
    Picture,
    Table,
    as_latex,
    as_markdown,
    as_text,
    counted,
    interval,
    named_models,
    number,
    score,
)
from lsmprobe.results.comparison import add_holm, compare_records
from lsmprobe.results.records import Load, load_record, load_results

PROTOCOL = (
    "as in the paper: split by whole speakers, features not normalised, the default recipe, "
    "Linear and Non-Linear on the last layer"
)
LOSO = "split: loso"  # the block of experiments in which every speaker is tested once
UNITS = (
    "Macro-F1 in percent, mean ± standard deviation over runs (ddof 1); constant: the best "
    "constant answer; -: not run, or not in the paper; !: has an alarm, told below."
)
HEAD_SIGNS = {"linear": "†", "multilayer": "‡"}  # as in the header of the paper's Table 3
FILTERS = {"model": "model", "dataset": "corpus", "split": "split", "feature_norm": "feature_norm"}
REMEMBERED = 2000  # records: what a report reads, it reads once
DECIMALS = 2  # of the scores in Tables 2 and 3, as the paper has them


def make_report(config: ReportConfig) -> str:
    """Write the report's files; the same as text, and where they are.

    Raises:
        ResultsError: there is no readable record of what was asked for.
    """
    found = read_runs(config)
    out = config.out or config.results_dir / "report"
    only_paper = config.protocol == "paper"
    items: list[Item] = []
    if len(found.table) or only_paper:
        items += report_items(found.table, out, load=found.load, only_paper=only_paper)
    if len(found.others) and not only_paper:
        items += [Heading("Other targets"), *score_items(found.others, load=found.load)]
    if found.left_out:
        named = _some([str(path) for path in found.left_out])
        items.append(f"Damaged records left out: {len(found.left_out)} ({named}). Probe again.")
    written = write_report(items, out)
    return "\n\n".join([*map(as_text, items), "Written:\n" + "\n".join(map(str, written))])


class Runs(NamedTuple):
    """The runs asked for, and what reads their records."""

    table: pd.DataFrame  # those of emotions, as `tables.experiments` needs them
    others: pd.DataFrame  # those of other targets, as `load_results` gives them
    left_out: list[Path]  # damaged records
    load: Load


def read_runs(config: ReportConfig) -> Runs:
    """The runs asked for, each record read once.

    Raises:
        ResultsError: there is no such folder, or no readable record of what was asked for in it.
    """
    load = lru_cache(maxsize=REMEMBERED)(load_record)
    results = load_results(config.results_dir, load=load)
    splits = config.results_dir / "splits"
    there = {p for p in config.results_dir.rglob("*.json") if p.parent != splits}
    left_out = sorted(there - {Path(path) for path in results.path})
    # Trained on another corpus, or on a part of the training set: no cells of these tables.
    results = results[~results.split.isin(["transfer", "learning-curve"])]
    if results.empty:
        damaged = f" and {len(left_out)} damaged ones" if left_out else ""
        raise ResultsError(
            f"{config.results_dir} holds no readable record of a run{damaged}; expected those of "
            "probe.py. Probe first."
        )
    results = _asked_for(results, config)
    others = results[~of_emotions(results)]
    results = results[of_emotions(results)]
    details = {}
    for row, path in results.path.items():
        try:
            details[row] = _details(load(Path(path)))
        except (ResultsError, KeyError, IndexError, TypeError, ValueError):
            left_out.append(Path(path))
    told = pd.DataFrame.from_dict(details, orient="index")
    table = results.drop(columns=["alarms", "model"]).join(told, how="inner")
    return Runs(table, others, left_out, load)


def _asked_for(results: pd.DataFrame, config: ReportConfig) -> pd.DataFrame:
    """The runs that the flags choose.

    Raises:
        ResultsError: no run is of a value asked for, or none of all of them.
    """
    wanted = pd.Series(True, index=results.index)
    for flag, column in FILTERS.items():
        names = getattr(config, flag)
        for name in set(names) - set(results[column]):
            raise ResultsError(
                f"no run is of --{flag.replace('_', '-')} {name}; "
                f"{nearest(name, set(results[column]))}"
            )
        wanted &= results[column].isin(names) if names else True
    if not wanted.any():
        raise ResultsError(
            f"{config.results_dir} has no run of all that was asked for: {_asked(config)}."
        )
    return results[wanted]


def _asked(config: ReportConfig) -> str:
    """The flags that choose runs, as they were given."""
    given = {flag: getattr(config, flag) for flag in FILTERS}
    return ", ".join(
        f"--{flag.replace('_', '-')} {' '.join(names)}" for flag, names in given.items() if names
    )


def _details(record: Mapping[str, Any]) -> dict[str, Any]:
    folds, identity = record["folds"], record["cache"]["identity"]
    validation = [fold["history"][fold["best_epoch"] - 1]["validation_score"] for fold in folds]
    model, n_layers = record["model"], record.get("n_layers")
    differs = not_the_papers(model, identity, n_layers)
    return {
        "model": f"{model} (not the paper's)" if differs else model,
        "likeness": f"not compared with the paper's {model}: {differs}"
        if differs
        else f"taken for the paper's {model} by name only: the record tells no repository"
        if by_name_only(model, identity)
        else "",
        "split_seed": record["split"]["seed"],
        "split_notes": record["split"]["notes"],
        "validation_f1": float(np.mean(validation)),
        "clips": sum(folds[0][f"n_{part}"] for part in PARTS),
        "emotions": record["classes"],
        "test_speakers": len({each["speaker"] for each in record["predictions"]}),
        "merged": bool(record["settings"].get("map") or record["settings"].get("emotions")),
        "alarms": [(alarm["code"], alarm["text"]) for alarm in record.get("alarms", [])],
    }


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


def one_voice_advice(corpora: list[str], tested: list[str]) -> str:
    """What to report for corpora of which a split tests a single speaker.

    Args:
        corpora: all of them.
        tested: those of which every speaker was tested too, with `--split loso`.

    >>> one_voice_advice(["emodb"], [])[-56:]
    'Test every speaker of emodb: lsmprobe probe --split loso'
    """
    advice = (
        f"{', '.join(corpora)}: a split here tests one speaker. Its intervals are about that voice "
        "alone: they hold the score on other speakers in about two of three cases, not in 95% "
        "(docs/statistics.md)."
    )
    if tested:
        advice += f" Every speaker of {', '.join(tested)} was tested too; those results come first."
    if missing := [corpus for corpus in corpora if corpus not in tested]:
        advice += f" Test every speaker of {', '.join(missing)}: lsmprobe probe --split loso"
    return advice


def corpora_table(runs: pd.DataFrame) -> Table:
    """Table 1: what the paper says, what the copies that are here hold, and what was probed."""
    ours = {row.title: row.name for row in CORPORA.values() if not row.variant_of}
    copies = table1().assign(corpus=lambda table: table.dataset.map(ours))
    probed = runs.groupby("corpus").agg(
        probed=("clips", lambda clips: " or ".join(str(n) for n in sorted(set(clips)))),
        probed_emotions=("emotions", lambda lists: ", ".join(sorted(set().union(*lists)))),
    )
    # Merged or chosen labels are another set of the same emotions: they add none to the corpus's.
    plain = (
        runs[~runs.merged]
        .groupby("corpus")
        .emotions.agg(lambda lists: ", ".join(sorted(set().union(*lists))))
    )
    probed["probed_emotions"] = plain.reindex(probed.index)
    sets = (
        runs[runs.merged]
        .groupby("corpus")
        .emotions.agg(
            lambda lists: " or ".join(str(n) for n in sorted({len(names) for names in lists}))
        )
    )
    probed["merged"] = sets.reindex(probed.index)
    data = paper_table(1).merge(copies[["corpus", "clips", "note"]], how="left")
    data = data.merge(probed, on="corpus", how="outer").set_index("corpus")
    data = data.loc[in_order(data.index, paper_table(1).corpus)].reset_index()
    rows = pd.DataFrame(
        {
            "corpus": data.corpus,
            "language": data.language.fillna(DASH),
            "clips, paper": [DASH if pd.isna(n) else f"{n:.0f}" for n in data.samples],
            "clips, copy": [f"{n:.0f}" if n > 0 else DASH for n in data.clips],
            "clips, probed": data.probed.fillna(DASH),
            "emotions, paper": [_counted(names) for names in data.emotions],
            "emotions, probed": [
                ", ".join(
                    filter(
                        None,
                        (
                            "" if pd.isna(names) and not pd.isna(merged) else _counted(names),
                            "" if pd.isna(merged) else f"{merged} after --map or --emotions",
                        ),
                    )
                )
                for names, merged in zip(data.probed_emotions, data.merged, strict=True)
            ],
        }
    )
    differing = data[data.note.notna() & ~data.note.fillna("").str.endswith(AS_IN_THE_PAPER)]
    notes = ["Copy: in the corpus folders that are found here. Probed: by the records."]
    notes += [f"{row.corpus}: {row.note}." for row in differing.itertuples()]
    return Table("table1", "Table 1: the corpora.", rows, 2, notes, data)


def _counted(names: Any) -> str:
    return DASH if pd.isna(names) else str(names.count(",") + 1)


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
        notes.append(f"Left out: {corpus}, not run for {_some(without)}.")
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
            "p": data.p.map(_p),
            "p, Holm": data.p_holm.map(_p),
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


def _p(value: float) -> str:
    return DASH if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


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
    return [
        f"! {row.model} on {row.corpus}, {head_title(row.head)}: {sentence.rstrip('.')} "
        f"({n} of {row.runs} runs)."
        for row in cells.itertuples()
        for sentence, n in row.alarms.items()
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


def _some(names: list[str]) -> str:
    """The first of them, and how many more there are.

    >>> _some(["a", "b"]), _some(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
