"""Runs as the paper's tables: DataFrames in, DataFrames out.

An experiment is a set of runs that differ in their seed alone. Experiments stand in one table only
where they share everything but model, corpus and head; `experiments` names the block that each
belongs to. Scores are in percent, deviations are over runs (ddof 1), and what has not been run is
missing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.cache.selection import LAYERS, STEP
from lsmprobe.config import BaselineConfig, ExtractConfig, ProbeConfig
from lsmprobe.probing.table import HEADS, PAPER_HEADS
from lsmprobe.results.records import Load, load_record
from lsmprobe.results.score_table import few_runs, interval_of_experiment

BASELINE = "ast"  # trained from scratch, once per corpus
CACHE_SETTINGS = ("input_norm", "max_seconds", "precision", "whisper_context")
FREE = ("feature_norm",)  # settings in which experiments of one recipe may differ
OF_FRAMES = ("store_dtype", "frame_step")  # means are exact whatever frames are stored
Choices = dict[str, Any]  # name of a setting -> its value
_MEAN = ("macro_f1", "std", "runs", "low", "high", "constant_f1", "shuffled_f1", "alarms")
_BEST = (*_MEAN, "validation_f1")
_SIDE = ("model", "random_weights", "head", "alarms", "paths")


def _defaults(*configs: Any) -> Choices:
    values = {f.name: f.default for config in configs for f in fields(config)}
    found = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    return found | {"split": "speaker"}  # what `auto` is for the corpora of the paper


DEFAULTS = _defaults(ExtractConfig, ProbeConfig)


AST_DEFAULTS = _defaults(BaselineConfig)


def experiments(runs: pd.DataFrame, *, load: Load = load_record) -> pd.DataFrame:
    """One row per experiment; a run that is there twice counts once.

    `block` says what is not as in the paper, as "name: value, ..."; it is empty for the paper's own
    protocol. Where a corpus has two splits in a block, a model two sets of weights (its corpora or
    heads are of two revisions), or a cell of a table two experiments, all of these move to blocks
    of their own, named by what sets them apart: nothing averages them and nothing chooses between
    them.

    Args:
        runs: one row each; the columns of `load_results`, and of each record `validation_f1`,
            `split_seed`, `split_notes`, `n_layers` of the model, and `alarms` as pairs of code and
            sentence.
        load: what reads a record.

    Returns:
        model, random_weights, model_type, n_layers, corpus, head, layer, block; macro_f1, std,
        runs, low and high of the 95% interval, interval_over and interval_note (what it cannot
        show), constant_f1, shuffled_f1, validation_f1;
        alarms (the first run's sentence -> number of runs);
        by_seed, weights, paths (seed -> macro-F1, layer weights, record); layers, split_hash,
        split_notes.
    """
    keys = ["model", "corpus", "head", "experiment"]
    cells = pd.DataFrame(
        _experiment(own.drop_duplicates("seed"), load)
        for _, own in runs.groupby(keys, sort=False, dropna=False)
    )
    for (_, corpus), group in cells.groupby(["block", "corpus"]):
        if len(set(group.split_hash)) > 1:
            apart = f"split of {corpus}: " + group.split_hash.str[:8]
            cells.loc[group.index, "block"] = _named(group.block, apart)
    for _, group in cells.groupby(["block", "model", "corpus", "head"]):
        if len(group) > 1:
            cells.loc[group.index, "block"] = _named(group.block, _apart(group))
    for (_, model), group in cells.groupby(["block", "model"]):
        if len(set(group.weights_sha256)) > 1:
            apart = f"weights of {model}: " + group.weights_sha256.str[:8]
            cells.loc[group.index, "block"] = _named(group.block, apart)
    return cells.drop(columns=["known", "cache_hash", "weights_sha256", "experiment"])


def _experiment(runs: pd.DataFrame, load: Load) -> dict[str, Any]:
    first = runs.iloc[0]
    split_seeds = sorted(set(runs.split_seed))
    split = {
        "split": first["split"],
        "split_seed": split_seeds[0] if len(split_seeds) == 1 else "another one for each run",
    }
    cache = cache_choices(first.cache_identity, first["head"])
    found = interval_of_experiment(runs, load=load)
    same = ["model", "random_weights", "corpus", "head", "layer", "layers", "n_layers"]
    same += ["split_notes", "experiment", "cache_hash"]
    return {
        **{name: first[name] for name in same},
        "model_type": first.cache_identity.get("model_type", ""),
        "weights_sha256": first.cache_identity.get("weights_sha256") or "unknown",
        "block": unlike_the_paper(split | first.settings | cache, first["head"]),
        "macro_f1": runs.macro_f1.mean(),
        "std": runs.macro_f1.std(ddof=1),
        "runs": len(runs),
        "low": found.low,
        "high": found.high,
        "interval_over": found.over,
        "interval_note": few_runs(len(runs), runs.macro_f1.std(ddof=1), found.low, found.high),
        "constant_f1": runs.constant_f1.mean(),
        "shuffled_f1": runs.shuffled_f1.mean() if "shuffled_f1" in runs else np.nan,
        "validation_f1": runs.validation_f1.mean(),
        "alarms": _alarms(runs.alarms),
        "by_seed": dict(zip(runs.seed, runs.macro_f1, strict=True)),
        "weights": dict(zip(runs.seed, runs.layer_weights, strict=True)),
        "paths": dict(zip(runs.seed, runs.path, strict=True)),
        "split_hash": "+".join(sorted(set(runs.split_hash))),
        "known": split | first.settings | first.cache_identity,
    }


def stored_as(identity: Mapping[str, Any]) -> Choices:
    """The settings of extract that a cache's identity tells."""
    told = {name: identity.get(name) for name in (*CACHE_SETTINGS, "store_dtype")}
    step = identity.get(STEP) or {}
    return {**told, "frame_step": step.get("ms"), "layers": identity.get(LAYERS)}


def cache_choices(identity: Mapping[str, Any], head: str) -> Choices:
    """Those of them that this head's numbers show."""
    row = HEADS.get(head)
    hidden: set[str] = set()
    if not (row and row.reads == "frames"):
        hidden |= {*OF_FRAMES}
    if not (row and row.weighs_layers):
        hidden |= {"layers"}
    return {name: value for name, value in stored_as(identity).items() if name not in hidden}


def _alarms(of_runs: Iterable[list[tuple[str, str]]]) -> dict[str, int]:
    """Sentences of equal code are one alarm, though each run has its own numbers in it."""
    found: dict[tuple[str, int], str] = {}
    n_runs: Counter[tuple[str, int]] = Counter()
    for alarms in of_runs:
        times: Counter[str] = Counter()
        for code, sentence in alarms:
            times[code] += 1  # several layers may have the same
            found.setdefault((code, times[code]), sentence)
            n_runs[code, times[code]] += 1
    return {sentence: n_runs[alarm] for alarm, sentence in found.items()}


def unlike_the_paper(choices: Choices, head: str) -> str:
    """What is not as the paper has it, as "name: value, ..."; empty for its own protocol.

    Args:
        choices: settings of the run, its split and split_seed, and those of its cache.
        head: whose defaults they are held against.
    """
    return ", ".join(f"{name}: {value}" for name, value in changes(choices, head).items())


def changes(choices: Choices, head: str) -> Choices:
    """Those of the choices that are not the default of the head's command."""
    defaults = AST_DEFAULTS if head == BASELINE else DEFAULTS
    return {
        name: value
        for name, value in choices.items()
        if name in defaults and name != "size" and value not in (None, defaults[name])
    }  # a size is a model of its own


def in_words(choices: Choices) -> list[str]:
    """Choices as a sentence names them.

    >>> in_words({"lr": 0.001, "map": ["angry=sad", "calm=sad"]})
    ['lr 0.001', 'map angry=sad calm=sad']
    """
    return [
        f"{name.replace('_', '-')} {' '.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in choices.items()
    ]


def not_default(settings: Choices, identity: Mapping[str, Any], head: str) -> list[str]:
    """What is not the default in a run's settings and its cache's, normalisation aside.

    Args:
        settings: of the run.
        identity: of its cache.
        head: whose defaults they are held against.

    Returns:
        As `in_words`.
    """
    own = {name: value for name, value in settings.items() if name not in FREE}
    return in_words(changes(own | stored_as(identity), head))


def _apart(group: pd.DataFrame) -> list[str]:
    """What sets each of these experiments apart from the others, as "name: value, ..."."""
    known = pd.DataFrame({**each, "versions": ""} for each in group.known).map(str)
    hashes = group[["cache_hash", "experiment"]].set_axis(["cache", "experiment"], axis=1)
    told = [name for name in known if len(set(known[name])) > 1]
    if not told or known.duplicated(told).any():  # they differ in their utterances or labels
        known, told = known.join(hashes.reset_index(drop=True)), [*told, *hashes]
    return [
        ", ".join(f"{name}: {value[:12]}" for name, value in row.items())
        for row in known[told].to_dict("records")
    ]


def _named(blocks: Iterable[str], further: Iterable[str]) -> list[str]:
    return [", ".join(filter(None, pair)) for pair in zip(blocks, further, strict=True)]


def on_last_layer(runs: pd.DataFrame) -> pd.Series:
    """Whether each run is of the paper's kind: a head on the last layer, or on all of them."""
    return runs.layer.isna() | (runs.layer == runs.n_layers - 1).fillna(False)


def table2(
    cells: pd.DataFrame, paper2: pd.DataFrame, paper3: pd.DataFrame, *, full: bool
) -> pd.DataFrame:
    """Mean over the corpora of every model and head.

    The corpora are those of `shared_corpora`. A run's mean is over all of them, so only seeds that
    all of them have count. The corpora's intervals are combined as those of independent means: the
    distances of the ends from the scores add up as squares. The interval is about the speakers and
    utterances of these corpora; it says nothing of other corpora.

    Args:
        cells: the experiments of one block.
        paper2: the paper's Table 2.
        paper3: the paper's Table 3, for means over fewer corpora.
        full: with the rows that only the paper has.

    Returns:
        model, random_weights, head; macro_f1, std, runs, low, high, constant_f1 and
        shuffled_f1 (their means), alarms
        (whether there are any); paper and paper_std over the paper's nine corpora; paper_same, its
        score on our corpora, from Table 3 where they are not the nine; difference, ours less that.

    Source: Zou and Donner 2008, doi:10.1002/sim.3095, for the interval of a sum.
    """
    cells = cells[cells["head"] != BASELINE]
    corpora, nine = shared_corpora(cells), sorted(set(paper3.corpus))
    heads = heads_in_order({*cells["head"], *(PAPER_HEADS if full else ())})
    models = in_order(cells.model, paper2.model, full=full)
    table = _product(model=models, head=heads)
    keys = ["model", "head"]
    shared = cells[cells.corpus.isin(corpora)]
    means = [dict(zip(keys, key, strict=True)) | _mean(own) for key, own in shared.groupby(keys)]
    table = table.merge(pd.DataFrame(means, columns=[*keys, *_MEAN]), how="left")
    table = table.merge(_as_papers(paper2[[*keys, "macro_f1", "std"]]), how="left")
    if corpora == nine:
        table["paper_same"] = table.paper
    else:
        same = paper3[paper3.corpus.isin(corpora)].groupby(keys).macro_f1.mean()
        known = same if set(corpora) <= set(nine) else same[:0]
        table = table.merge(known.rename("paper_same").reset_index(), how="left")
    table["difference"] = table.macro_f1 - table.paper_same
    table.insert(1, "random_weights", table.model.isin(cells.model[cells.random_weights]))
    return table


def shared_corpora(cells: pd.DataFrame) -> list[str]:
    """The corpora that every model has with every head that it has at all, sorted."""
    of_columns = cells.groupby(["model", "head"]).corpus.agg(set)
    return sorted(set.intersection(*of_columns)) if len(of_columns) else []


def _mean(cells: pd.DataFrame) -> dict[str, Any]:
    """One experiment per corpus -> the mean over them."""
    means = pd.DataFrame(cells.by_seed.tolist()).dropna(axis="columns").mean()  # per seed
    below, above = cells.macro_f1 - cells.low, cells.high - cells.macro_f1
    values = (
        means.mean(),
        means.std(ddof=1),
        len(means),
        means.mean() - np.sqrt((below**2).sum()) / len(cells),
        means.mean() + np.sqrt((above**2).sum()) / len(cells),
        cells.constant_f1.mean(),
        cells.shuffled_f1.mean(),
        bool(cells.alarms.astype(bool).any()),
    )
    return dict(zip(_MEAN, values, strict=True))


def table3(cells: pd.DataFrame, paper3: pd.DataFrame, *, full: bool) -> pd.DataFrame:
    """Every corpus and model, with the head that the paper shows for the model's family.

    That is Multi-Layer for models of the wav2vec 2.0 kind, and Linear for Whisper and for models of
    one layer. Beside it stands the best head as found: the one with the best validation score; to
    choose by the test score would flatter it.

    Args:
        cells: the experiments of one block.
        paper3: the paper's Table 3.
        full: with the corpora and models that only the paper has.

    Returns:
        corpus, model, random_weights, head; macro_f1, std, runs, low, high, constant_f1,
        shuffled_f1, alarms;
        paper, paper_std, difference; the best head as found: best_head, and its best_macro_f1,
        best_std, best_runs, best_low, best_high, best_constant_f1, best_shuffled_f1, best_alarms
        and best_validation_f1. The paper's corpora and models come first, in its order.
    """
    keys = ["corpus", "model"]
    table = _product(
        corpus=in_order(cells.corpus, paper3.corpus, full=full),
        model=in_order(cells.model, paper3.model, full=full),
    )
    heads = {row.model: _head_of_family(row) for row in cells.itertuples()}
    heads |= dict(zip(paper3.model, paper3["head"], strict=True))
    random = table.model.isin(cells.model[cells.random_weights])
    table = table.assign(random_weights=random, head=table.model.map(heads))
    table = table.merge(cells[[*keys, "head", *_MEAN]], how="left")
    table = table.merge(_as_papers(paper3[[*keys, "macro_f1", "std"]]), how="left")
    table["difference"] = table.macro_f1 - table.paper
    best = cells.loc[cells.groupby(keys).validation_f1.idxmax(), [*keys, "head", *_BEST]]
    names = {name: f"best_{name}" for name in ("head", *_BEST)}
    return table.merge(best.rename(columns=names), how="left")


def heads_in_order(names: Iterable[str]) -> list[str]:
    """The heads of the paper in its order, the baseline, then others by name.

    >>> heads_in_order(["mine", "ast", "multilayer", "linear"])
    ['linear', 'multilayer', 'ast', 'mine']
    """
    first = [*PAPER_HEADS, BASELINE]
    known = set(names)
    return [name for name in first if name in known] + sorted(known - set(first))


def _head_of_family(cell: Any) -> str:
    if cell.head == BASELINE:
        return BASELINE
    one_layer = cell.model_type == "whisper" or cell.n_layers == 1
    return next(h for h in PAPER_HEADS if HEADS[h].weighs_layers != one_layer)


def weighing(cells: pd.DataFrame) -> pd.DataFrame:
    """Those of a head that weighs layers."""
    return cells[[None not in of_seed.values() for of_seed in cells["weights"]]]


def mean_layer_weights(cells: pd.DataFrame) -> pd.DataFrame:
    """The weights that Multi-Layer learned, averaged over the corpora that all models have.

    Returns:
        model, random_weights, layer, weight (mean over corpora, then over runs; those of a model
        sum to 1), std (over the runs' means) and runs; empty without a corpus that all have.
    """
    cells = weighing(cells)
    shared = cells[cells.corpus.isin(shared_corpora(cells))]
    parts = []
    for model, own in shared.groupby("model"):
        seeds = set.intersection(*own.weights.map(set))
        means = np.mean([[of_run[seed] for seed in sorted(seeds)] for of_run in own.weights], 0)
        layers = own.layers.iloc[0]
        assert means.shape == (len(seeds), len(layers)), "one set of layers in a block"
        parts.append(
            pd.DataFrame(
                {
                    "model": model,
                    "random_weights": own.random_weights.iloc[0],
                    "layer": layers,
                    "weight": means.mean(0),
                    "std": means.std(0, ddof=1) if len(seeds) > 1 else np.nan,
                    "runs": len(seeds),
                }
            )
        )
    columns = ["model", "random_weights", "layer", "weight", "std", "runs"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def pairs(cells: pd.DataFrame) -> pd.DataFrame:
    """What is compared with what on the same test utterances, one row per comparison.

    Heads with one another, for every model and corpus; models with one another, for every corpus,
    each with the head that is best on validation.

    Returns:
        between ("heads" or "models"), corpus, a_model, a_head, b_model, b_head, and of
        both random_weights, alarms and paths (seed -> record).
    """
    order = heads_in_order(cells["head"])
    cells = cells.sort_values("head", key=lambda heads: heads.map(order.index))
    best = cells.loc[cells.groupby(["corpus", "model"]).validation_f1.idxmax()]
    groups = [("heads", own) for _, own in cells.groupby(["corpus", "model"])]
    groups += [("models", own) for _, own in best.groupby("corpus")]
    rows = [
        {"between": between, "corpus": a.corpus}
        | {
            f"{side}_{name}": getattr(cell, name)
            for side, cell in (("a", a), ("b", b))
            for name in _SIDE
        }
        for between, own in groups
        for a, b in combinations(own.itertuples(), 2)
    ]
    columns = ["between", "corpus", *(f"{side}_{name}" for side in "ab" for name in _SIDE)]
    return pd.DataFrame(rows, columns=columns)


def in_order(ours: Iterable[str], papers: Iterable[str], *, full: bool = False) -> list[str]:
    """Names in the paper's order, then by the alphabet; `full`: with those that only it has.

    >>> in_order(["zulu", "b", "a"], ["b", "c"]), in_order(["a"], ["b", "c"], full=True)
    (['b', 'a', 'zulu'], ['b', 'c', 'a'])
    """
    first = list(dict.fromkeys(papers))
    there = set(ours)
    return [name for name in first if full or name in there] + sorted(there - set(first))


def _product(**axes: list[str]) -> pd.DataFrame:
    return pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)


def _as_papers(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"macro_f1": "paper", "std": "paper_std"})
