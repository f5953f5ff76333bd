"""The page: results as ONE file that opens offline, to sort, compare and listen.

Tables, curves and pictures stand in the file as plain HTML and SVG; a script of its own rearranges
them and fetches nothing, which a Content-Security-Policy in the page enforces. The same results
give the same bytes. docs/report.md says how to read it.
"""

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from lsmprobe.atomic import write_then_rename
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.corpora.listening import as_opus
from lsmprobe.corpora.table import CORPORA
from lsmprobe.errors import AudioError, ResultsError, agreeing, counted
from lsmprobe.layers.projection import project_layer
from lsmprobe.layers.weights import WEIGHTS_NAMED_BY
from lsmprobe.probing.run import saved_split
from lsmprobe.report.outcomes import by_group, with_outcome
from lsmprobe.report.pieces import Pieces, items_of
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.runs import REMEMBERED
from lsmprobe.report.score_lines import of_emotions, score_items
from lsmprobe.report.shown import MARKED
from lsmprobe.report.tables import not_default
from lsmprobe.report.typeset import DASH, as_html, interval, number, score
from lsmprobe.results.alarms import MEANINGS
from lsmprobe.results.breakdown import confusion
from lsmprobe.results.measures import EMOTION, MEASURES, Measure
from lsmprobe.results.records import NAMED_BY, load_record, load_results, split_of
from lsmprobe.results.score_table import KEYS, score_table
from lsmprobe.results.scores import STATISTICS
from lsmprobe.splits.kinds import SPECS

SHADES = 5  # of a cell, from nothing to full
CURVE = {"width": 640, "height": 300, "left": 44, "right": 620, "top": 20, "bottom": 250}  # pixels
PREDICTED = ("key", "speaker", "emotion", "predicted")  # of each test utterance
MAX_POINTS = 500  # utterances of a projection
MAX_PICTURES = 4  # caches whose layers are drawn
MAX_CLIPS = 6  # that were answered wrong; half as many that were right
MAX_EMBEDDED_MB = 5.0  # of audio inside the page


class Cell(NamedTuple):
    """One cell of the table of scores."""

    text: str
    value: float | None = None  # by which it is sorted, where that is no text
    link: str = ""
    warn: bool = False
    below: str = ""  # in a line of its own, smaller


@dataclass
class Page:
    """What the page shows; its template puts it in place."""

    title: str
    summary: list[str]
    sections: list[tuple[str, str]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    filters: list[tuple[str, int, list[str]]] = field(default_factory=list)
    others: list[Markup] = field(default_factory=list)
    score_heads: list[str] = field(default_factory=list)
    scores_caption: str = ""
    scores: list[list[Cell]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)  # what those of the table mean
    weights: list[dict[str, Any]] = field(default_factory=list)
    weight_layers: list[int] = field(default_factory=list)
    projections: list[dict[str, Any]] = field(default_factory=list)
    projection_caption: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)


def make_page(
    results_dir: Path,
    out: Path,
    *,
    cache_dir: Path | None = None,
    summary: Sequence[str] = (),
    embed_audio: int = 0,
    choose: Callable[[pd.DataFrame], pd.DataFrame] = lambda results: results,
) -> Path:
    """Write the page of a folder of results.

    Args:
        results_dir: where the records are.
        out: the file to write.
        cache_dir: where the caches are, for pictures of their layers, groups that the records do
            not name (gender, sentence) and the places of clips; without it these are left out.
        summary: sentences to stand on top.
        embed_audio: at most so many clips are put inside the page, 5 MB at most; otherwise clips
            are linked where they lie.
        choose: keeps those of the results that are to be shown.

    Raises:
        ResultsError: there is no readable record.
    """
    results = load_results(results_dir)
    if results.empty:
        raise ResultsError(
            f"{results_dir} holds no readable record of a run. Run lsmprobe probe first."
        )
    results = choose(results)
    title = f"lsmprobe: {results_dir.resolve().name}"
    text = render(
        results,
        title=title,
        cache_dir=cache_dir,
        summary=summary,
        beside=out.parent,
        embed_audio=embed_audio,
    )
    write_then_rename(out, text.encode("utf-8", "backslashreplace"))
    return out


def render(
    results: pd.DataFrame,
    *,
    title: str = "lsmprobe",
    cache_dir: Path | None = None,
    summary: Sequence[str] = (),
    beside: Path | None = None,
    embed_audio: int = 0,
) -> str:
    """The page as text; see `make_page`. `beside` is the folder that links to audio start from."""
    load = lru_cache(maxsize=REMEMBERED)(load_record)
    clips, caches = Clips(beside, embed_audio), Caches(cache_dir)
    results = caches.told(results, load)
    emotions = of_emotions(results)
    others = results[~emotions]
    n_runs, results = len(results), results[emotions]
    table = score_table(results)
    groups = results.groupby(KEYS, sort=True, dropna=False)  # as `score_table` groups them
    runs = [
        _run(row, [load(Path(path)) for path in own.path], caches, clips)
        for row, (_, own) in zip(table.itertuples(), groups, strict=True)
    ]
    opening = _opening(results, table) if len(results) else []
    if len(results) < n_runs:
        opening.append(
            f"{counted(n_runs - len(results), 'run', 'learns', of=n_runs)} other targets."
        )
    page = Page(title, [*summary, *opening, *clips.said()])
    page.others = [
        Markup(as_html(item))  # noqa: S704  it escapes every name
        for item in score_items(others)
    ]
    page.curves = [*_curves(results, table), *_curves(others, score_table(others))]
    page.score_heads, page.scores, page.filters = _scores(table, runs)
    codes = sorted({code for counts in table.alarms for code in counts})
    page.alarms = [f"{code}: {MEANINGS[code]}." for code in codes if code in MEANINGS]
    page.scores_caption = (
        "Percent; mean ± standard deviation over runs (ddof 1). Interval: 95%, bootstrap over "
        f"{' / '.join(sorted(set(table.interval_over.dropna())))}. Constant: the best constant "
        "answer. Shuffled: the runs' own answers shuffled, what guessing scores. Where several "
        "rows have one name, what is not the default stands below the layer. Each row leads to its "
        "experiment."
    )
    page.weight_layers, page.weights = _weights(results)
    page.projections, page.projection_caption = _projections(caches)
    page.runs = runs
    page.sections = [
        (name, said)
        for name, said, there in (
            ("curves", "Layer curves", page.curves),
            ("scores", "Scores", page.scores),
            ("others", "Other targets", page.others),
            ("weights", "Layer weights", page.weights),
            ("projections", "Layers as pictures", page.projections),
            ("runs", "Experiments", page.runs),
        )
        if there
    ]
    return _filled(page)


class Shown(NamedTuple):
    """The page in a notebook: what Jupyter shows in the place of this value."""

    page: str
    height: int

    def _repr_html_(self) -> str:
        # A frame of its own: neither its style nor its script meets the notebook's.
        inside = Markup.escape(self.page)
        return (
            f'<iframe srcdoc="{inside}" width="100%" height="{self.height}" frameborder="0" '
            'title="lsmprobe results"></iframe>'
        )


def show(
    results: pd.DataFrame, *, cache_dir: str | Path | None = None, height: int = 700
) -> Shown | Pieces:
    """The page of these results, in a notebook; or a table of layers, or of a learning curve.

    Args:
        results: what `load_results` or `probe` returned; or what `probe_layers`, `sweep_layers` or
            `learning_curve` did.
        cache_dir: where the caches are, for pictures of their layers and groups by gender.
        height: of the frame, in pixels.

    Raises:
        ResultsError: there is no run in it, or a record cannot be read any more.
    """
    if items := items_of(results):
        return Pieces(items)
    if results.empty:
        raise ResultsError("there is no run to show; expected what load_results returned.")
    return Shown(render(results, cache_dir=Path(cache_dir) if cache_dir else None), height)


# What is on top and in the table


def _opening(results: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """How much is here, and what is best on validation is not told twice."""
    lines = [
        f"{counted(len(results), 'run')} of "
        f"{counted(len(table), 'experiment')}: {_listed(results.model)} on "
        f"{_listed(results.corpus)}."
    ]
    random = sorted(set(results.model[results.random_weights]))
    if random:
        lines.append(f"Random weights: {', '.join(random)}.")
    flagged = int(table.alarms.map(bool).sum())
    if flagged:
        said = counted(flagged, "experiment", "has", of=len(table))
        lines.append(f"{said} an alarm; the rows say so.")
    return lines


def _listed(names: Iterable[str], most: int = 4) -> str:
    known = sorted(set(names))
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def _scores(
    table: pd.DataFrame, runs: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[Cell]], list[tuple[str, int, list[str]]]]:
    heads = ["model", "corpus", "split", "norm", "head", "layer", "macro-F1", "95% interval"]
    heads += ["alarms", "UAR", "accuracy", "constant", "shuffled", "runs"]
    apart = bool(table.duplicated([*NAMED_BY]).any())  # rows that only their settings tell apart
    rows = []
    for row, run in zip(table.itertuples(), runs, strict=True):
        layer = _layer(row.layer)
        rows.append(
            [
                Cell(row.model, link=run["id"]),
                *map(Cell, (row.corpus, row.split, row.feature_norm, row.head)),
                Cell(
                    layer,
                    None if pd.isna(row.layer) else float(row.layer),
                    below=run["not_default"] if apart else "",
                ),
                Cell(score(row.macro_f1, row.std), round(row.macro_f1, 4)),
                Cell(interval(row.low, row.high), round(row.low, 4)),
                Cell(", ".join(sorted(row.alarms)), warn=True),
                *(
                    Cell(number(v), None if pd.isna(v) else round(v, 4))
                    for v in (row.uar, row.accuracy, row.constant_f1, row.shuffled_f1)
                ),
                Cell(str(row.runs), row.runs),
            ]
        )
    filters = []
    for column, name in enumerate(heads[:5]):
        values = sorted({row[column].text for row in rows})
        if len(values) > 1:
            filters.append((name, column, values))
    return heads, rows, filters


def _layer(layer: Any) -> str:
    return "all" if pd.isna(layer) else str(layer)


# Layer curves


def _curves(results: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, Any]]:
    """A figure for each corpus, target, split and normalisation with several layers of one head.

    Each layer is an experiment of its own; those whose settings and splits agree make a line.

    Args:
        results: the runs, of whatever target.
        table: their scores, a row for each experiment.
    """
    alike = {
        row.experiment: json.dumps([row.settings, row.split_hash, row.labels_hash, row.cache_hash])
        for row in results.itertuples()
    }
    several = table[table.layer.notna()].assign(alike=table.experiment.map(alike))
    found = []
    keys = ["corpus", "target", "measure", "split", "feature_norm"]
    for (corpus, target, name, split, norm), own in several.groupby(keys):
        drawn: dict[str, pd.DataFrame] = {}
        for (model, head, _), rows in own.groupby(["model", "head", "alike"]):
            if len(set(rows.layer)) > 2:
                line = f"{model}, {head}"
                again = sum(one.startswith(line) for one in drawn)
                line += f", other settings ({again + 1})" if again else ""
                drawn[line] = rows.sort_values("layer")
        if drawn:
            measure = MEASURES[name]
            learned = "" if target == ",".join(EMOTION) else f"{target}, "
            codes = [code for code in MARKED.values() if any(code in each for each in own.alarms)]
            warning = "".join(f" {code}: {MEANINGS[code]}." for code in codes)
            caption = (
                f"{corpus}, {learned}split {split}, features {norm}: "
                f"{STATISTICS[measure.score].title} of every layer, mean of the runs, with 95% "
                f"intervals.{warning}"
            )
            found.append(_curve(caption, drawn, measure))
    return found


def _curve(caption: str, drawn: Mapping[str, pd.DataFrame], measure: Measure) -> dict[str, Any]:
    last = max(int(rows.layer.max()) for rows in drawn.values())
    left, right, top, bottom = (CURVE[side] for side in ("left", "right", "top", "bottom"))
    best = 100.0 if measure.score_unit else 1.0
    shown = partial(number, decimals=measure.decimals)

    def x(layer: float | int | np.integer) -> float:
        return round(float(left + 12 + (right - left - 24) * layer / max(1, last)), 1)

    def y(score: float | int) -> float:
        return round(bottom - (bottom - top) * min(max(score / best, 0.0), 1.0), 1)

    lines = []
    for name, rows in drawn.items():
        points = [
            {
                "x": x(row.layer),
                "y": y(score),
                "low": y(row.low),
                "high": y(row.high),
                "text": f"{name}, layer {row.layer}: {shown(score)} "
                f"({interval(row.low, row.high, decimals=measure.decimals)})",
            }
            for row, score in zip(rows.itertuples(), rows[measure.score], strict=True)
        ]
        upper = [f"{point['x']},{point['high']}" for point in points]
        lower = [f"{point['x']},{point['low']}" for point in reversed(points)]
        path = " ".join(f"{point['x']},{point['y']}" for point in points)
        lines.append(
            {"name": name, "points": points, "path": path, "band": " ".join(upper + lower)}
        )
    together = pd.concat(list(drawn.values()))
    levels = {measure.constant: "best constant answer", measure.shuffled: "shuffled answers"}
    flats = [
        (y(together[column].mean()), name)
        for column, name in levels.items()
        if together[column].notna().any()
    ]
    step = 1 if last <= 12 else 2 if last <= 24 else 4
    title = STATISTICS[measure.score].title
    return {
        **CURVE,
        "caption": caption,
        "measure": f"{title} (%)" if measure.score_unit else title,
        "lines": lines,
        "flats": flats,
        "y_ticks": [(y(best * share / 5), f"{best * share / 5:g}") for share in range(6)],
        "x_ticks": [(x(layer), str(layer)) for layer in range(0, last + 1, step)],
    }


# Figure 2


def _weights(results: pd.DataFrame) -> tuple[list[int], list[dict[str, Any]]]:
    weighing = results[results.layer_weights.notna()]
    rows, layers = [], sorted({layer for of_run in weighing["layers"] for layer in of_run})
    for (model, corpus, split, norm, _), own in weighing.groupby([*WEIGHTS_NAMED_BY, "experiment"]):
        mean = np.mean(np.array(own.layer_weights.tolist(), dtype=float), axis=0)
        by_layer = dict(zip(own["layers"].iloc[0], mean, strict=True))
        cells = []
        for layer in layers:
            share = by_layer.get(layer)
            if share is None:
                cells.append((DASH, 0))
            else:  # half an even share is white, one and a half of it dark
                shade = round(SHADES * (share * len(mean) - 0.5))
                cells.append((f"{100 * share:.1f}", min(max(shade, 0), SHADES)))
        first = own.iloc[0]
        unlike = not_default(first.settings, first.cache_identity, first["head"])
        how = ", ".join([split, norm, *unlike])
        rows.append({"name": f"{model}, {corpus} ({how})", "cells": cells})
    return layers, rows


# Each experiment


def _run(
    row: Any, records: Sequence[Mapping[str, Any]], caches: "Caches", clips: "Clips"
) -> dict[str, Any]:
    first = records[0]
    table = _predictions(records, caches.table(first))
    layer = "" if pd.isna(row.layer) else f", layer {row.layer}"
    alarms = {alarm for record in records for alarm in caches.alarms_of(record)}
    unlike = _not_default(first)
    how = ", ".join([row.split, row.feature_norm, *unlike])
    return {
        "id": f"e-{row.experiment}",
        "name": f"{row.model} on {row.corpus}, {row.head}{layer}, {how}",
        "not_default": ", ".join(unlike),
        "score": f"{score(row.macro_f1, row.std)} ({interval(row.low, row.high)})",
        "alarms": [f"{code}: {text}" for code, text in sorted(alarms)],
        "notes": [
            *filter(None, [row.interval_note]),
            *sorted({note for r in records for note in r["split"]["notes"]}),
        ],
        "classes": first["classes"],
        "confusion": _confusion(table, first["classes"]),
        "groups": [_group(table, name) for name in ("speaker", "gender") if name in table],
        "clips": _clips(table, clips),
        "provenance": _provenance(first),
        "command": _command(first, len(records)),
    }


def _predictions(records: Sequence[Mapping[str, Any]], known: pd.DataFrame) -> pd.DataFrame:
    """One row per run and test utterance: what was said of it, and how sure."""
    table = pd.DataFrame(
        [
            (
                one["key"],
                one["speaker"],
                one["emotion"],
                one["predicted"],
                max(one["probabilities"]),
            )
            for record in records
            for one in record["predictions"]
        ],
        columns=[*PREDICTED, "sure"],
    )
    table = with_outcome(table)
    if known.empty:
        return table
    places = known[["gender", "sentence", "path", "start_s", "end_s"]]
    return table.join(places.assign(corpus=records[0]["corpus"]), on="key")


def _confusion(table: pd.DataFrame, classes: Sequence[str]) -> list[dict[str, Any]]:
    counts = confusion(table, list(classes))
    rows = []
    for name in classes:
        true, guessed = int(counts.loc[name].sum()), int(counts[name].sum())
        hits = int(counts.loc[name, name])
        f1 = 200 * hits / (true + guessed) if true + guessed else float("nan")
        rows.append(
            {
                "name": name,
                "cells": [
                    (int(n), round(SHADES * n / true) if true else 0) for n in counts.loc[name]
                ],
                "recall": number(100 * hits / true if true else float("nan")),
                "precision": number(100 * hits / guessed if guessed else float("nan")),
                "f1": number(f1),
            }
        )
    return rows


def _group(table: pd.DataFrame, column: str) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "n": row.clips,
            "share": number(row.share),
            "low": number(row.low),
            "high": number(row.high),
        }
        for row in by_group(table, column).itertuples(index=False)
    ]
    worst = min(rows, key=lambda row: float(row["share"]))["name"] if len(rows) > 1 else ""
    return {"name": column, "rows": rows, "worst": worst}


def _clips(table: pd.DataFrame, clips: "Clips") -> list[tuple[str, list[dict[str, str]]]]:
    """The most confident errors, and the most confident right answers, each clip once."""
    lists = []
    for title, right in (("Most confident errors", False), ("Most confident right answers", True)):
        own = table[table.right == right].sort_values(["sure", "key"], ascending=[False, True])
        shown = own.drop_duplicates("key").head(MAX_CLIPS if not right else MAX_CLIPS // 2)
        lists.append(
            (
                title,
                [
                    {
                        "key": row.key,
                        "said": f"{row.emotion} → {row.predicted}, {row.sure:.2f}, {row.speaker}",
                        "source": clips.source(row),
                    }
                    for row in shown.itertuples()
                ],
            )
        )
    return lists


def _not_default(record: Mapping[str, Any]) -> list[str]:
    return not_default(record["settings"], record["cache"]["identity"], record["head"])


def _provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    identity, versions = record["cache"]["identity"], record["versions"]
    rows = [
        ("model", identity.get("hub_id") or identity.get("model")),
        ("revision", identity.get("revision")),
        ("weights", (identity.get("weights_sha256") or "")[:16] or None),
        ("random weights", identity.get("random_init")),
        ("cache", f"{record['cache']['file']}, {record['cache']['hash'][:12]}"),
        ("not the default", ", ".join(_not_default(record)) or None),
        ("split", f"{split_of(record)}, {record['split']['hash'][:12]}"),
        ("split from", record["split"].get("source")),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("device", record["device"]),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def _command(record: Mapping[str, Any], n_runs: int) -> str:
    """The command that makes these runs again; what is at its default is not named."""
    words = ["lsmprobe probe", f"--model {record['model']}", f"--dataset {record['corpus']}"]
    words.append(f"--head {record['head']}")
    if record["layer"] is not None:
        words.append(f"--layer {record['layer']}")
    words += [f"--split {_split_word(record)}", f"--runs {n_runs}"]
    for name, value in record["settings"].items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, list):
            words += [f"{flag} {' '.join(map(str, value))}"] if value else []
        elif value is not None:
            words.append(f"{flag} {value}")
    return " ".join(words)


KEPT_NOWHERE = ("transfer", "learning-curve")  # splits that a command of its own makes


def _split_word(record: Mapping[str, Any]) -> str:
    """The split as `--split` has it: a kind, or the file in which the runs' own was kept."""
    split = record["split"]
    if split["kind"].partition(":")[0] in {*SPECS, *KEPT_NOWHERE}:
        return split_of(record)
    whole = split.get("whole", split["hash"])
    file = saved_split(Path("results"), record["corpus"], split["kind"], whole)
    return "/".join(filter(None, (str(file), split.get("test_set", ""))))


# What lies outside the records: caches and clips


class Clips:
    """Where a clip can be heard: by a link, or inside the page."""

    def __init__(self, beside: Path | None, embedded: int) -> None:
        self.beside = beside
        self.left = embedded
        self.bytes = 0
        self.inside: dict[str, str] = {}
        self.corpora: Counter[str] = Counter()

    def source(self, row: Any) -> str:
        """What an audio element plays; empty where there is nothing to play."""
        path = getattr(row, "path", "")
        if not isinstance(path, str) or not path or not Path(path).is_file():
            return ""
        key = f"{path}#{row.start_s}-{row.end_s}"
        if key in self.inside:
            return self.inside[key]
        if self.left > 0 and self.bytes < MAX_EMBEDDED_MB * 1e6:
            try:
                sound = as_opus(path, row.start_s, row.end_s)
            except AudioError:
                return ""
            self.left -= 1
            self.bytes += len(sound)
            self.corpora[row.corpus] += 1
            self.inside[key] = "data:audio/ogg;base64," + base64.b64encode(sound).decode()
            return self.inside[key]
        if self.beside is None:
            return ""
        link = quote(Path(os.path.relpath(path, self.beside)).as_posix())
        whole = np.isnan(row.start_s) and np.isnan(row.end_s)
        return link if whole else f"{link}#t={0 if np.isnan(row.start_s) else row.start_s:g}"

    def said(self) -> list[str]:
        """What is inside the page, under which licence."""
        lines = []
        for name, n in sorted(self.corpora.items()):
            licence = CORPORA[name].licence if name in CORPORA else "the corpus's own licence"
            lines.append(
                f"{counted(n, 'clip')} of {name} {agreeing(n, 'is')} inside this page "
                f"({licence}): mind it before you pass the page on."
            )
        return lines


def _projections(caches: Caches) -> tuple[list[dict[str, Any]], str]:
    there = dict(sorted(caches.opened.items()))
    pictures = [_projection(name, cache) for name, cache in list(there.items())[:MAX_PICTURES]]
    caption = "Utterances by the first two principal components of their standardised means."
    if len(there) > MAX_PICTURES:
        caption += f" {MAX_PICTURES} of {len(there)} caches are drawn."
    return pictures, caption


def _projection(name: str, cache: FeatureCache) -> dict[str, Any]:
    """Every layer of a cache as points on a plane of 1000 by 600, and what colours them."""
    points, layers = [], list(cache.layers)
    for layer in layers:
        table = project_layer(cache, layer)
        rows = np.unique(np.linspace(0, len(table) - 1, min(len(table), MAX_POINTS)).astype(int))
        xy = table[["x", "y"]].to_numpy()[rows]
        low, span = xy.min(0), np.ptp(xy, axis=0).clip(1e-9)
        places = np.rint((xy - low) / span * (1000, 600)).astype(int)
        points.append(places.ravel().tolist())
    table = table.iloc[rows]
    columns = {
        column: [str(value) for value in table[column]]
        for column in ("emotion", "speaker", "gender", "sentence")
        if len(set(table[column])) > 1
    } or {"emotion": [str(value) for value in table.emotion]}
    shown = next(iter(columns))
    kinds = sorted(set(columns[shown]))
    data = {"points": points, "layers": layers, "keys": list(table.key), "columns": columns}
    dots = [
        (points[-1][2 * i], points[-1][2 * i + 1], kinds.index(kind) % 10, f"{key}: {kind}")
        for i, (key, kind) in enumerate(zip(table.key, columns[shown], strict=True))
    ]
    all_of_them = len(cache.utterances)
    more = (
        f", {counted(len(table), 'utterance', of=all_of_them)}" if len(table) < all_of_them else ""
    )
    return {
        "name": f"{name.removesuffix('.h5')}{more}",
        "last": len(layers) - 1,
        "last_name": layers[-1],
        "columns": list(columns),
        "legend": kinds[:30],
        "dots": dots,
        "data": jinja2.utils.htmlsafe_json_dumps(data, sort_keys=True),
    }


# The file


def _filled(page: Page) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lsmprobe.report", "page_files"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    css, js = (_asset(environment, name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(css)}'; script-src '{_digest(js)}'; "
        "media-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    trusted = {"css": Markup(css), "js": Markup(js)}  # noqa: S704  files of our own
    return environment.get_template("page.html").render(page=page, policy=policy, **trusted)


def _asset(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
