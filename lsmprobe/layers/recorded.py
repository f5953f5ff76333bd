"""Layer curves from records: what `lsmprobe probe --layer all` left behind."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.errors import ResultsError, counted
from lsmprobe.layers.answers import Answers, curve_of
from lsmprobe.layers.targets import labels_of
from lsmprobe.results.alarms import OTHER_LABELS, leaks_in
from lsmprobe.results.measures import CLASSES, NUMBERS, measure_of
from lsmprobe.results.records import Load, load_record, with_target
from lsmprobe.results.scores import ScoreName, Shuffled

CURVE = [
    "model",
    "corpus",
    "target",
    "split",
    "feature_norm",
    "head",
    "alike",
]  # what a sweep shares
CURVES = {CLASSES.name: "", NUMBERS.name: NUMBERS.score}  # measures, and their score if it is one
MIN_LAYERS = 3  # fewer make no curve


def recorded_curves(
    results: pd.DataFrame, score: ScoreName = "macro_f1", *, load: Load = load_record
) -> pd.DataFrame:
    """The score of every layer of each sweep among these runs.

    A sweep is the runs of one head on three layers or more that differ in layer and seed alone.
    Where one seed is missing on a layer, only the seeds that all layers have count.

    Args:
        results: what `load_results` or `probe` returned.
        score: which one of classes; numbers have the CCC.
        load: what reads a record.

    Returns:
        As `sweep_layers`, the sweeps one below the other, and `settings`, the text of what they
        were trained with, and `other_labels`, whether runs have that alarm.

    Raises:
        ResultsError: there is no sweep among them.
    """
    found = [
        curve_of(_about(own.iloc[0], CURVES[own["measure"].iloc[0]] or score), answers).assign(
            settings=alike, **leaks_of(own), other_labels=OTHER_LABELS in _codes(own)
        )
        for (*_, alike), own in sweeps(results)
        if len(answers := recorded_answers(own, load=load)) >= MIN_LAYERS
    ]
    learned = with_target(results)["measure"].unique()
    if not found and len(learned) and not set(learned) & CURVES.keys():
        raise ResultsError(
            f"curves are drawn of {' and '.join(CURVES)}, and these runs learned "
            f"{' and '.join(learned)}; the table of scores compares their layers."
        )
    if not found:
        raise ResultsError(
            f"there is no head on {MIN_LAYERS} layers or more among "
            f"{counted(len(results), 'run')}; expected what lsmprobe probe --layer all leaves."
        )
    return pd.concat(found, ignore_index=True)


def sweeps(results: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The runs of each sweep, by the values of `CURVE`; those of other measures are none."""
    results = with_target(results)
    drawn = results["measure"].isin(CURVES) & results["layer"].notna()
    single = results[drawn & ~results["split"].isin(["transfer", "learning-curve"])]
    single = single.assign(alike=[_alike(run) for _, run in single.iterrows()])
    groups = single.groupby(CURVE, sort=True)
    return [(key, own) for key, own in groups if own["layer"].nunique() >= MIN_LAYERS]


def _alike(run: pd.Series) -> str:
    """What else decides a run than its layer and seed."""
    about = {"settings": run["settings"], "split": run["split_hash"], "cache": run["cache_hash"]}
    about["labels"] = run.get("labels_hash", "")  # a layer of before a correction is no point of it
    return json.dumps(about, sort_keys=True)


def recorded_answers(
    results: pd.DataFrame, *, load: Load = load_record
) -> dict[int, list[Answers]]:
    """Every run on every layer, in the order of seeds; only seeds that all layers have.

    Args:
        results: the runs of one sweep.
        load: what reads a record.
    """
    results = results.drop_duplicates(["layer", "seed"]).sort_values(["layer", "seed"])
    everywhere = set.intersection(*results.groupby("layer")["seed"].agg(set))
    found: dict[int, list[Answers]] = {}
    for row in results[results["seed"].isin(everywhere)].itertuples():
        found.setdefault(int(row.layer), []).append(_answers(load(Path(row.path))))
    return found


def leaks_of(results: pd.DataFrame) -> dict[str, bool]:
    """Which of `alarms.LEAKS` a run among these has."""
    return leaks_in(_codes(results))


def _codes(results: pd.DataFrame) -> set[str]:
    """Of all alarms of these runs."""
    return {code for alarms in results.get("alarms", ()) for code in codes_of(alarms)}


def codes_of(alarms: Iterable[Any]) -> set[str]:
    """The codes of a run's alarms, which may stand with their sentences."""
    return {each if isinstance(each, str) else each[0] for each in alarms}


def _answers(record: Mapping[str, Any]) -> Answers:
    folds, measure = record["folds"], measure_of(record)
    ends = np.cumsum([fold["n_test"] for fold in folds])
    tested = [
        measure.tested({**record, "predictions": record["predictions"][end - fold["n_test"] : end]})
        for fold, end in zip(folds, ends, strict=True)
    ]
    truth, answers, speakers = (list(each) for each in zip(*tested, strict=True))
    return Answers(
        n_outputs=len(record["classes"]),
        validation=[f["history"][f["best_epoch"] - 1]["validation_score"] for f in folds],
        truth=truth,
        answers=answers,
        speakers=speakers,
        levels=_levels(record["scores"]),
    )


def _levels(scores: Mapping[str, Any]) -> tuple[float, Shuffled] | None:
    """What the best constant answer and shuffled answers score; older records tell no second."""
    found = scores.get("shuffled")
    if not found or "constant_f1" not in scores:
        return None
    return float(scores["constant_f1"]), Shuffled(found["mean"], found["point_95"])


def _about(run: pd.Series, score: str) -> dict[str, Any]:
    """The columns that a curve begins with."""
    return {
        "model": run["model"],
        "random_weights": run["random_weights"],
        "corpus": run["corpus"],
        "cache_hash": run["cache_hash"],
        "labels": labels_of(run["settings"], run.get("labels_file")),
        "labels_hash": run.get("labels_hash", ""),
        "target": run["target"],
        "head": run["head"],
        "feature_norm": run["feature_norm"],
        "split": run["split"],
        "metric": score,
    }
