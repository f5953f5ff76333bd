"""The runs that a report is of: read once, and chosen by the flags."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.config import ReportConfig
from lsmprobe.corpora.utterances import PARTS
from lsmprobe.errors import ResultsError, counted, nearest
from lsmprobe.layers.curves import load_curves
from lsmprobe.report.current import current_curves
from lsmprobe.report.paper import PROTOCOL, not_the_papers, taken_for
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.score_lines import of_emotions
from lsmprobe.report.tables import cache_choices, unlike_the_paper
from lsmprobe.results.records import Load, is_finished, load_record

FILTERS = {"model": "model", "dataset": "corpus", "target": "target"}
FILTERS |= {name: name for name in ("split", "feature_norm")}
NOT_THE_PAPERS = " (not the paper's)"  # a model that is called as one of the paper's
TRANSFER = "transfer"  # the kind of split of a run that is tested on another corpus
REMEMBERED = 2000  # records: what a report reads, it reads once


class Runs(NamedTuple):
    """The runs asked for, and what reads their records."""

    table: pd.DataFrame  # those of emotions, as `tables.experiments` needs them
    others: pd.DataFrame  # those of other targets, as `load_results` gives them
    transfers: pd.DataFrame  # tested on another corpus than they were trained on; `load_results`
    regressions: pd.DataFrame  # curves of `probe_layers` that were kept, of the labels of now
    old_curves: pd.DataFrame  # those of other labels
    left_out: list[Path]  # damaged records
    load: Load


def read_runs(config: ReportConfig) -> Runs:
    """The runs asked for, each record read once.

    Raises:
        ResultsError: there is no such folder, or no readable record of what was asked for in it.
    """
    load = lru_cache(maxsize=REMEMBERED)(load_record)
    caches = Caches(config.cache_dir)
    results = caches.told_results(config.results_dir, load)
    splits = config.results_dir / "splits"
    there = {p for p in config.results_dir.rglob("*.json") if p.parent != splits}
    others = sorted(there - {Path(path) for path in results.path})
    left_out = [path for path in others if not is_finished(path)]  # the rest are there twice
    transfers = results[results.split == TRANSFER]
    # Trained on another corpus, or on a part of the training set: no cells of these tables.
    results = results[~results.split.isin([TRANSFER, "learning-curve"])]
    if results.empty:
        damaged = f" and {counted(len(left_out), 'damaged one')}" if left_out else ""
        raise ResultsError(
            f"{config.results_dir} holds no readable record of a run{damaged}; expected those of "
            "lsmprobe probe. Run it first."
        )
    results = asked_for(results, config)
    others = results[~of_emotions(results)]
    results = results[of_emotions(results)]
    details = {}
    for row, file in results.path.items():
        try:
            record = load(Path(file))
            details[row] = _details(record) | {"alarms": [(*a,) for a in caches.alarms_of(record)]}
        except (ResultsError, KeyError, IndexError, TypeError, ValueError):
            left_out.append(Path(file))
    told = pd.DataFrame.from_dict(details, orient="index")
    table = results.drop(columns=["alarms", "model"]).join(told, how="inner")
    curves, unreadable = load_curves(config.results_dir)
    current, old = current_curves(_curves_asked_for(curves, config), caches)
    return Runs(
        table,
        others,
        _transfers_asked_for(transfers, config),
        current,
        old,
        left_out + unreadable,
        load,
    )


def asked_for(results: pd.DataFrame, config: ReportConfig) -> pd.DataFrame:
    """The runs that the flags choose, of what `load_results` returned.

    Raises:
        ResultsError: no run is of a value asked for, or none of all of them.
    """
    wanted = pd.Series(True, index=results.index)
    for flag, column in FILTERS.items():
        names = getattr(config, flag)
        for name in names:
            if _meant(column, [name], set(results[column])):
                continue
            raise ResultsError(
                f"no run is of --{flag.replace('_', '-')} {name}; "
                f"{nearest(name, set(results[column]))}"
            )
        meant = _meant(column, names, set(results[column]))
        wanted &= results[column].isin(meant) if names else True
    if config.protocol == "paper":
        wanted &= np.array([_is_the_papers(run) for _, run in results.iterrows()], dtype=bool)
        wanted &= of_emotions(results)
        if not wanted.any():
            raise ResultsError(f"no run is of the paper's protocol ({PROTOCOL}).")
    if not wanted.any():
        raise ResultsError(
            f"{config.results_dir} has no run of all that was asked for: {_asked(config)}."
        )
    return results[wanted]


def _meant(column: str, names: Sequence[str], there: set[str]) -> set[str]:
    """Which values are asked for; a split stands for all of its test sets.

    >>> sorted(_meant("split", ["given"], {"given/Test1", "given/Test2", "loso"}))
    ['given/Test1', 'given/Test2']
    """
    whole = {each for each in there if column == "split" and each.partition("/")[0] in names}
    return whole | (there & set(names))


def _is_the_papers(run: pd.Series) -> bool:
    """Whether a run is of the paper's protocol; those on other layers than its are counted too."""
    split = {"split": run["split"]}
    cache = cache_choices(run.cache_identity, run["head"])
    return not unlike_the_paper(split | run.settings | cache, run["head"])


def _transfers_asked_for(transfers: pd.DataFrame, config: ReportConfig) -> pd.DataFrame:
    """Those that the flags choose; a corpus is asked for as the one trained or tested on."""
    wanted = pd.Series(config.protocol != "paper" and not config.split, index=transfers.index)
    for column, names in (("model", config.model), ("feature_norm", config.feature_norm)):
        wanted &= transfers[column].isin(names) if names else True
    if config.dataset:
        asked = set(config.dataset)
        named = [bool(asked & {*both.split("-to-")}) for both in transfers.corpus]
        wanted &= np.array(named, dtype=bool)
    return transfers[wanted.astype(bool)]


def _curves_asked_for(curves: pd.DataFrame, config: ReportConfig) -> pd.DataFrame:
    wanted = pd.Series(config.protocol != "paper", index=curves.index)
    for flag, column in FILTERS.items():
        if names := getattr(config, flag):
            meant = _meant(column, names, set(curves[column]) if len(curves) else set())
            wanted &= curves[column].isin(meant) if len(curves) else True
    return curves[wanted.astype(bool)]


def _asked(config: ReportConfig) -> str:
    """The flags that choose runs, as they were given."""
    given: dict[str, tuple[str, ...]] = {flag: getattr(config, flag) for flag in FILTERS}
    return ", ".join(
        f"--{flag.replace('_', '-')} {' '.join(names)}" for flag, names in given.items() if names
    )


def _details(record: Mapping[str, Any]) -> dict[str, Any]:
    folds, identity = record["folds"], record["cache"]["identity"]
    validation = [fold["history"][fold["best_epoch"] - 1]["validation_score"] for fold in folds]
    model, n_layers = record["model"], record.get("n_layers")
    differs, unsure = not_the_papers(model, identity, n_layers), taken_for(model, identity)
    return {
        "model": f"{model}{NOT_THE_PAPERS}" if differs else model,
        "likeness": f"not compared with the paper's {model}: {differs}"
        if differs
        else f"taken for the paper's {model} {unsure}"
        if unsure
        else "",
        "split_seed": record["split"]["seed"],
        "split_notes": record["split"]["notes"],
        "validation_f1": float(np.mean(validation)),
        "clips": sum(folds[0][f"n_{part}"] for part in PARTS),
        "emotions": record["classes"],
        "test_speakers": len({each["speaker"] for each in record["predictions"]}),
        "n_folds": len(folds),
        "merged": bool(record["settings"].get("map") or record["settings"].get("emotions")),
    }
