"""Which conclusions depend on a choice that the paper leaves open?

One choice of the recipe is flipped at a time, on one cache, and what reads alike trains from one
read. Every run is an ordinary record, so that what `probe` has trained is not trained again.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.config import ProbeConfig, SensitivityConfig, merges_told
from lsmprobe.errors import LsmprobeError, counted
from lsmprobe.probing.objectives import OBJECTIVES
from lsmprobe.probing.run import Run, name_runs, one_test_set
from lsmprobe.probing.stage import (
    Failed,
    Job,
    n_epochs,
    planned_runs,
    todo,
    train_survivors,
    unit_of,
)
from lsmprobe.probing.table import NORMS, settings_of, what_is_read
from lsmprobe.probing.task import Task, find_caches, read_task
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.alarms import LEAKS, leaks_in
from lsmprobe.results.comparison import add_holm, compare_records
from lsmprobe.results.measures import CLASSES, EMOTION, NUMBERS, Measure
from lsmprobe.results.records import is_finished, load_record, results_table

CHOICES: dict[str, tuple[Any, ...]] = {
    "feature_norm": tuple(NORMS),
    "class_weights": ("balanced", "none"),
    "scheduler": ("plateau", "none", "cosine"),
    "epoch_choice": ("best", "uar", "jsd", "last", "loss"),
    "validation_loss": ("utterances", "batches"),
    "include_layer_0": (False, True),
    "scalar_weight_decay": (None, 0.0),
    "regression_loss": ("ccc", "mse"),
}
CURVE = "linear"  # the head whose layers are compared: it reads one, and is the quickest
OTHER_TEST_SET = "The test set is another one, so that nothing can be paired."
NOTHING_TO_PAIR = "Too many runs failed, so that nothing can be paired."
log = logging.getLogger(__name__)


class Flip(NamedTuple):
    """A recipe with one choice flipped (none, in the first of a list), and its runs."""

    choice: str
    value: str
    config: SensitivityConfig
    heads: list[Run]  # those asked for
    curve: list[Run]  # Linear on every layer, if Linear was asked for


class Sensitivity(NamedTuple):
    """What the flips moved on one cache; what does not apply is missing.

    `scores` has a row per flip and head: choice, value, head, layer, the score that decides (of
    classes macro_f1, in percent; of numbers ccc), std (ddof 1), runs, and against the recipe
    without a flip difference, low, high, p, p_holm, over, note.
    `conclusions` has a row per flip: choice, value, best_head, best_layer (of Linear) and its
    best_layer_score, heaviest_layer (of Multi-Layer) and its weight, and turned: which of
    best_head, best_layer and heaviest_layer are not as without a flip. `failures` has what could
    not be trained, by name; it is left out of both.
    """

    model: str
    corpus: str
    scores: pd.DataFrame
    conclusions: pd.DataFrame
    failures: dict[str, Exception]
    measure: Measure = CLASSES
    target: tuple[str, ...] = EMOTION


def flip_choices(
    config: SensitivityConfig,
    *,
    progress: Progress = automatic,
    only: Collection[Path] | None = None,
) -> list[Sensitivity]:
    """Train what is not there yet and compare; one result per cache asked for.

    A run that breaks down does not stop the others; the result names it.

    Args:
        config: what is trained.
        progress: how it is shown.
        only: the records that may be made, where other processes make the others; what is there
            already is in the results all the same.

    Raises:
        LsmprobeError: bad input of any kind; finished runs are kept.
    """
    found = []
    for model, corpus, path in find_caches(config):
        task = read_task(config, model, corpus, path, reads=what_is_read(config.head))
        flips = planned_flips(config, task)
        jobs = flipped_jobs(flips, force=config.force, only=only)
        log.info("%s on %s: %s flipped", model, corpus, counted(len(flips) - 1, "choice"))
        failed, failures = _train(jobs, flips, task, progress=progress)
        measure = task.objective.measure
        tables = _scores(flips, failed, measure.score), _conclusions(flips, failed, measure.score)
        found.append(Sensitivity(model, corpus, *tables, failures, measure, task.target))
    return found


def planned_flips(config: SensitivityConfig, task: Task) -> list[Flip]:
    """The recipe as it is, then every flip that changes a run of the heads asked for.

    Raises:
        LsmprobeError: as `probing.planned_runs`.
    """
    here = planned_runs(config, task)
    one_test_set(here, "sensitivity")
    flips = [_flip("", "", config, here, task)]
    for choice, values in CHOICES.items():
        for value in values:
            flippable = task.objective.can_flip(choice, value)
            if flippable and value != getattr(config, choice):
                said = "as the rest" if value is None else str(value)
                flipped = replace(config, **{choice: value})
                flips.append(_flip(choice, said, flipped, here, task))
    elsewhere = replace(config, split_seed=config.split_seed + 1)
    there = planned_runs(elsewhere, task)
    flips.append(_flip("split_seed", str(elsewhere.split_seed), elsewhere, there, task))
    unflipped = {run.path for run in flips[0].heads}
    return flips[:1] + [f for f in flips[1:] if {run.path for run in f.heads} != unflipped]


def _flip(
    choice: str, value: str, config: SensitivityConfig, like: Sequence[Run], task: Task
) -> Flip:
    """The same heads, seeds and splits as these runs, with the settings of `config`."""
    splits = {run.seed: run.split for run in like}
    heads = list(dict.fromkeys((run.head, run.layer) for run in like))
    curve = [(CURVE, layer) for layer in task.cache.layers if CURVE in dict(heads)]

    def runs(kinds: Sequence[tuple[str, int | None]]) -> list[Run]:
        named = [(head, layer, settings_of(config, head)) for head, layer in kinds]
        return name_runs(_as_learned(task, config), named, splits, config.results_dir)

    return Flip(choice, value, config, runs(heads), runs(curve))


def _as_learned(task: Task, config: ProbeConfig) -> Task:
    """The task with the loss for numbers that these settings name."""
    if task.objective.measure is not NUMBERS:
        return task
    return replace(task, objective=OBJECTIVES[config.regression_loss])


def train_flips(jobs: Sequence[Job], task: Task, bar: Any) -> list[Failed]:
    """As `train_survivors`; what is learned with one loss trains together."""
    by_loss: dict[str, list[Job]] = {}
    for config, run in jobs:
        by_loss.setdefault(config.regression_loss, []).append((config, run))
    return [
        failure
        for alike in by_loss.values()
        for failure in train_survivors(alike, _as_learned(task, alike[0][0]), bar)
    ]


def flipped_jobs(
    flips: Sequence[Flip], *, force: bool = False, only: Collection[Path] | None = None
) -> list[Job]:
    """Every run that is not there yet, each once; `force` and `only` as for `todo`."""
    # Of equal paths the last flip's settings: where it is equal, they decide the same numbers.
    jobs = {run.path: (flip.config, run) for flip in flips for run in flip.heads + flip.curve}
    missing = {run.path for run in todo([run for _, run in jobs.values()], force, only)}
    return [job for path, job in jobs.items() if path in missing]


def _train(
    waiting: Sequence[Job], flips: Sequence[Flip], task: Task, *, progress: Progress
) -> tuple[set[Path], dict[str, Exception]]:
    """Train these runs, from as few reads as there can be.

    Returns:
        The records that there are not, of runs that failed or that others were to make; the errors,
        by what failed together.
    """
    runs = {run.path: run for flip in flips for run in flip.heads + flip.curve}
    there = len(runs) - len(waiting)
    n_runs = counted(len(runs), "run")
    told = f"{n_runs}, {there} already there{merges_told(flips[0].config.map)}"
    log.info("%s on %s: %s", task.model, task.corpus, told)
    for note in dict.fromkeys(note for run in runs.values() for note in run.split.notes):
        log.warning("%s: %s", task.corpus, note)
    with progress(
        total=n_epochs(waiting),
        desc=f"{task.model} {task.corpus}",
        unit=unit_of(waiting),
        disable=not waiting,
    ) as bar:
        failed = train_flips(waiting, task, bar)
    names: dict[Path, str] = {}
    for flip in flips:
        for run in flip.heads + flip.curve:
            names.setdefault(run.path, f"{run.name}, {flag_of(flip.choice)} {flip.value}".strip())
    failures: dict[str, Exception] = {}
    for group, error in failed:
        others = f" and {len(group) - 1} more" if len(group) > 1 else ""
        failures[names[group[0][1].path] + others] = error
        if not isinstance(error, LsmprobeError):
            log.error("%s failed", names[group[0][1].path], exc_info=error)
    broken = {run.path for group, _ in failed for _, run in group}
    return broken | {path for path in runs if not is_finished(path)}, failures


def _scores(flips: Sequence[Flip], failed: Collection[Path], score: str) -> pd.DataFrame:
    rows = []
    unflipped = _by_kind(flips[0].heads)
    for flip in flips:
        for kind, planned in _by_kind(flip.heads).items():
            head, layer = kind
            results = results_table(_finished(planned, failed))
            scored = results.reindex(columns=[score])[score]
            row = {
                "choice": flip.choice,
                "value": flip.value,
                "head": head,
                "layer": layer,
                score: scored.mean(),
                "std": scored.std(ddof=1),
                "runs": len(scored),
                **leaks_in({code for codes in results.alarms for code in codes}),
            }
            if planned[0].split_hash != unflipped[kind][0].split_hash:
                row["note"] = OTHER_TEST_SET
            elif [run.path for run in planned] != [run.path for run in unflipped[kind]]:
                row |= _difference(planned, unflipped[kind], failed)
            rows.append(row)
    measured = ["choice", "value", "head", "layer", score, "std", "runs", *LEAKS]
    compared = ["difference", "low", "high", "p", "p_holm", "over", "note"]
    numbers = dict.fromkeys(compared[:5], "float64")
    table = pd.DataFrame(rows, columns=[*measured, *compared]).astype({"layer": "Int64", **numbers})
    return add_holm(table)


def _difference(
    flipped: Sequence[Run], unflipped: Sequence[Run], failed: Collection[Path]
) -> dict[str, Any]:
    """Over the seeds of which neither run failed."""
    sides = [
        [load_record(path) for path in _finished(runs, failed)] for runs in (flipped, unflipped)
    ]
    if not set.intersection(*({record["seed"] for record in side} for side in sides)):
        return {"note": NOTHING_TO_PAIR}
    return vars(compare_records(*sides))


def _conclusions(flips: Sequence[Flip], failed: Collection[Path], score: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for flip in flips:
        heads, curve = (
            (found if score in found else found.assign(**{score: np.nan}))
            for found in (results_table(_finished(r, failed)) for r in (flip.heads, flip.curve))
        )
        by_layer = curve.groupby("layer")[score].mean()
        row: dict[str, Any] = {"choice": flip.choice, "value": flip.value}
        means = heads.groupby("head")[score].mean()
        if len(means) > 1:
            row["best_head"] = means.idxmax()
        if len(by_layer):
            row |= {"best_layer": by_layer.idxmax(), "best_layer_score": by_layer.max()}
        weighing = heads[heads.layer_weights.notna()]
        if len(weighing):
            weights = pd.Series(
                np.mean(weighing.layer_weights.tolist(), 0), weighing.layers.iloc[0]
            )
            row |= {"heaviest_layer": weights.idxmax(), "weight": weights.max()}
        first = rows[0] if rows else row
        turned = [
            name
            for name in ("best_head", "best_layer", "heaviest_layer")
            if name in row and name in first and row[name] != first[name]
        ]
        rows.append({**row, "turned": " ".join(turned)})
    names = ["best_head", "best_layer", "best_layer_score", "heaviest_layer", "weight"]
    table = pd.DataFrame(rows, columns=["choice", "value", *names, "turned"])
    return table.astype({"best_layer": "Int64", "heaviest_layer": "Int64"})


def _finished(runs: Sequence[Run], failed: Collection[Path]) -> list[Path]:
    """The records of those that did not fail; with --force one of before may still be there."""
    return [run.path for run in runs if run.path not in failed]


def _by_kind(runs: Sequence[Run]) -> dict[tuple[str, int | None], list[Run]]:
    """The runs of each head and layer, by seed."""
    kinds: dict[tuple[str, int | None], list[Run]] = {}
    for run in runs:
        kinds.setdefault((run.head, run.layer), []).append(run)
    return kinds


def flag_of(choice: str) -> str:
    """A choice as its flag, for text."""
    return f"--{choice.replace('_', '-')}" if choice else "no flip"
