"""Which experiments may be compared, which are best, and how far they are ahead.

Compared are experiments of one corpus that were tested on one split, and were trained by one
recipe. Everything is chosen on validation.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError
from lsmprobe.probing.table import head_title
from lsmprobe.progress import automatic
from lsmprobe.report.current import outdated
from lsmprobe.report.runs import NOT_THE_PAPERS, Runs
from lsmprobe.report.tables import (
    BASELINE,
    CACHE_SETTINGS,
    FREE,
    cache_choices,
    changes,
    in_words,
    stored_as,
    unlike_the_paper,
)
from lsmprobe.report.typeset import head_and_layer, named_models
from lsmprobe.results.alarms import SHARED_SPEAKERS
from lsmprobe.results.comparison import add_holm, compare_records
from lsmprobe.results.records import Load

NO_CLASSES = "no run among these answers with classes; expected some of lsmprobe probe."
MAX_OTHERS = 4  # that the best of a corpus is compared with


class Comparable(NamedTuple):
    """The runs of a report, and what may be compared among them."""

    runs: Runs  # models by their own names, and `papers`, marked where they are not the paper's
    every: pd.DataFrame  # what `experiments_of` returned
    compared: pd.DataFrame  # those of the main comparison
    chosen: pd.DataFrame  # of each corpus, target, model and head the best on validation
    best: pd.DataFrame  # of each corpus and target
    differences: pd.DataFrame  # what `differences_of` returned

    @classmethod
    def of(cls, runs: Runs) -> "Comparable":
        """Raises ResultsError where no run tells emotions apart."""
        if runs.table.empty:
            raise ResultsError(NO_CLASSES)
        plain = [name.removesuffix(NOT_THE_PAPERS) for name in runs.table.model]
        runs = runs._replace(table=runs.table.assign(papers=runs.table.model, model=plain))
        every = experiments_of(runs.table)
        compared = every[every.main]
        chosen = chosen_of(compared, ["corpus", "target", "model", "head"])
        best = best_of_corpora(chosen)
        ahead = differences_of(best, compared, chosen, runs.load)
        return cls(runs, every, compared, chosen, best, ahead)


def experiments_of(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per experiment: its means over runs, and whether it is of the main comparison.

    Args:
        runs: the table of `read_runs`.

    Returns:
        model, random_weights, corpus, target, head, layer, n_layers, split, feature_norm,
        macro_f1, std, validation, uar, constant_f1, shuffled_f1, runs; recipe (what is not the
        default, but for split, normalisation and what the cache stores), store (what is not the
        default in that), changes (all of it that this head's numbers show), settings, split_hash,
        test_speakers; alarms (code -> number of runs), paths, seeds, rows (of `runs`), and `main`:
        of its corpus and target the split with most test speakers, of those that share none with
        train if there are any, the recipe with most experiments, and of several stores the one
        nearest to the default; `outdated`, and so never `main`: see `current.outdated`.

    Raises:
        ResultsError: no run answers with classes.
    """
    runs = runs[runs.macro_f1.notna()]
    if runs.empty:
        raise ResultsError(NO_CLASSES)
    runs = runs.assign(outdated=outdated(runs))
    keys = ["model", "corpus", "target", "head", "experiment"]
    table = pd.DataFrame(
        _experiment(own.drop_duplicates("seed"))
        for _, own in runs.groupby(keys, sort=True, dropna=False)
    ).astype({"layer": "Int64"})
    main = pd.Series(False, index=table.index)
    for _, own in table[~table.outdated].groupby(["corpus", "target"]):
        heard = own.alarms.map(lambda counts: SHARED_SPEAKERS in counts)
        splits = (
            own.assign(new=~heard)
            .groupby("split_hash")
            .agg(new=("new", "all"), speakers=("test_speakers", "max"), size=("macro_f1", "size"))
        )
        split = splits.sort_values(["new", "speakers", "size"], kind="stable").index[-1]
        of_split = own[own.split_hash == split]
        recipes = of_split.groupby("recipe").size()
        recipe = min(recipes.index, key=lambda name: (-recipes[name], len(name)))
        # The baseline has a recipe of its own, and is compared where its split is the same.
        main[of_split.index] = (of_split.recipe == recipe) | (of_split.is_baseline)
    return table.assign(
        main=main & _of_one_store(table[main]).reindex(table.index, fill_value=True)
    )


def _of_one_store(compared: pd.DataFrame) -> pd.Series:
    """Of experiments that differ in what their caches store alone: those nearest to the default."""
    alike = ["model", "random_weights", "corpus", "target", "head", "layer", "feature_norm"]
    ordered = compared.sort_values("created", ascending=False, kind="stable")
    ordered = ordered.sort_values("store", key=lambda stores: stores.str.len(), kind="stable")
    return ordered.store == ordered.groupby(alike, dropna=False).store.transform("first")


def _experiment(runs: pd.DataFrame) -> dict[str, Any]:
    first = runs.iloc[0]
    identity = first.cache_identity
    stored, seen = stored_as(identity), cache_choices(identity, first["head"])
    cache = {name: stored.pop(name) for name in CACHE_SETTINGS}
    settings = {name: value for name, value in first.settings.items() if name not in FREE}
    settings["labels"] = first.labels_file or None
    codes = [{code for code, _ in of_run} for of_run in runs.alarms]
    about = [
        "model",
        "papers",
        "random_weights",
        "corpus",
        "target",
        "head",
        "layer",
        "n_layers",
        "split",
    ]
    return {
        **{name: first[name] for name in (*about, "feature_norm", "settings", "experiment")},
        "macro_f1": runs.macro_f1.mean(),
        "std": runs.macro_f1.std(ddof=1),
        "validation": runs.validation_f1.mean(),
        "uar": runs.uar.mean(),
        "constant_f1": runs.constant_f1.mean(),
        "shuffled_f1": runs.shuffled_f1.mean(),
        "runs": len(runs),
        "changes": changes(settings | seen, first["head"]),
        "recipe": unlike_the_paper(settings | cache, first["head"]),
        "store": unlike_the_paper(stored, first["head"]),
        "split_hash": "+".join(sorted(set(runs.split_hash))),
        **{name: first[name] for name in ("labels_hash", "outdated")},
        "created": runs.created.max(),
        "test_speakers": int(runs.test_speakers.max()),
        "is_baseline": first["head"] == BASELINE,
        "alarms": {code: sum(code in own for own in codes) for code in sorted(set().union(*codes))},
        "paths": list(runs.path),
        "rows": list(runs.index),
    }


def chosen_of(experiments: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Of each group the experiment that is best on validation."""
    ranked = experiments.assign(rank=experiments.validation.fillna(-1.0))
    rows = ranked.groupby(list(keys), sort=True)["rank"].idxmax()
    return experiments.loc[rows]


def best_of_corpora(chosen: pd.DataFrame) -> pd.DataFrame:
    """Of each corpus and target the best on validation; random weights only if all are random."""
    trained = chosen[~chosen.random_weights.astype(bool)]
    found = chosen_of(trained, ["corpus", "target"]) if len(trained) else trained
    known = set(zip(found.corpus, found.target, strict=True))
    rest = chosen[[key not in known for key in zip(chosen.corpus, chosen.target, strict=True)]]
    others = chosen_of(rest, ["corpus", "target"]) if len(rest) else rest
    return pd.concat([found, others]).sort_values(["corpus", "target"])


def differences_of(
    best: pd.DataFrame, compared: pd.DataFrame, chosen: pd.DataFrame, load: Load
) -> pd.DataFrame:
    """The best of each corpus against the next best models and heads, and itself on other norms.

    Returns:
        corpus, target; a, a_head, a_norm (model, head with its layer, normalisation) and likewise
        b; and the fields of `Comparison` with p_holm.
    """
    todo = [(a, b) for a in best.itertuples() for b in _rivals(a, compared, chosen)]
    bar = automatic(todo, desc="comparing", total=len(todo), leave=False)
    rows = [
        {"corpus": a.corpus, "target": a.target, **_sides(a, b)} | _compared(a.paths, b.paths, load)
        for a, b in bar
    ]
    sides = [f"{side}{part}" for side in "ab" for part in ("", "_head", "_norm")]
    names = ["corpus", "target", *sides, "difference", "low", "high", "p", "over", "note"]
    return add_holm(pd.DataFrame(rows, columns=names))


def _rivals(best: Any, compared: pd.DataFrame, chosen: pd.DataFrame) -> list[Any]:
    """The best of each other model, each other head of the same, and the last layer."""
    same = (compared.corpus == best.corpus) & (compared.target == best.target)
    own = compared[same & (compared.index != best.Index)]
    near = own[own.model == best.model]
    others = (
        chosen_of(own[own.model != best.model], ["model"]) if len(own) > len(near) else near[:0]
    )
    heads = chosen[chosen.index.isin(near.index)]
    again = near[(near["head"] == best.head) & (near.layer == near.n_layers - 1)]
    again = again[again.feature_norm == best.feature_norm]
    found = pd.concat([others, heads[heads["head"] != best.head], again])
    found = found.sort_values("validation", ascending=False).head(MAX_OTHERS)
    return list(found.itertuples())


def _compared(a: Sequence[str], b: Sequence[str], load: Load) -> dict[str, Any]:
    """The comparison of two sets of records, or why there is none."""
    try:
        return asdict(compare_records(*([load(Path(p)) for p in paths] for paths in (a, b))))
    except ResultsError as error:
        missing = dict.fromkeys(("difference", "low", "high", "p"), np.nan)
        return {**missing, "over": "", "note": str(error)}


def _sides(a: Any, b: Any) -> dict[str, str]:
    """Who is compared, as text: `a`, `a_head`, `a_norm`, and likewise `b`."""
    found = {}
    for side, row in (("a", a), ("b", b)):
        [found[side]] = named_models([row.model], [row.random_weights])
        found[f"{side}_head"] = head_and_layer(head_title(row.head), row.layer)
        if side == "b":  # who `a` is, is said whole above
            unlike = {name: v for name, v in b.changes.items() if a.changes.get(name) != v}
            found["b_head"] = ", ".join([found["b_head"], *in_words(unlike)])
        found[f"{side}_norm"] = row.feature_norm
    return found
