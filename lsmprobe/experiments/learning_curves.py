"""Learning curves: the score against the number of training speakers and their clips.

A stage: it reads a cache and trains heads on ever more speakers of its training set.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from lsmprobe.arguments import checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import SettingsError, counted
from lsmprobe.probing.run import Run, name_runs, one_test_set
from lsmprobe.probing.stage import (
    n_epochs,
    named_failures,
    planned_runs,
    survivors,
    todo,
    train_survivors,
    unit_of,
)
from lsmprobe.probing.table import what_is_read
from lsmprobe.probing.task import Task, read_task
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.alarms import leaks_in
from lsmprobe.results.records import results_table
from lsmprobe.splits.file import Fold

log = logging.getLogger(__name__)


@checked
def learning_curve(
    cache: FeatureCache | str | Path,
    *,
    sizes: Sequence[int] | None = None,
    head: str = "linear",
    layer: int | Literal["all"] | None = None,
    runs: int = 5,
    split: str = "auto",
    split_seed: int = 0,
    score: str | None = None,
    results_dir: str | Path = "results",
    progress: Progress = automatic,
    **settings: Any,
) -> pd.DataFrame:
    """Scores of heads trained on ever more speakers; validation and test set stay the same.

    Every run has its own order of the training speakers, and is trained on the first few of them:
    a run's smaller training sets lie within its larger ones. With all speakers the runs are those
    of `probe`, and differ in their initialisation alone. Runs are kept as records. A run that fails
    stops no other: the log names it, and it is not in the table.

    Args:
        cache: whose utterances, or its path.
        sizes: numbers of training speakers; by default 1, 2, 4, ... and all.
        head: what is trained.
        layer: that Linear and Non-Linear read: by default the last; `all` makes a curve of each.
        runs: orders of the speakers, with seeds 0, 1, ...
        split: as `--split` of lsmprobe probe, with one test set: not loso or kfold.
        split_seed: as `--split-seed`.
        score: of classes macro_f1 (the default), uar or accuracy; of numbers ccc (the default),
            pearson, rmse or mae.
        results_dir: where records are kept.
        progress: how the epochs are shown.
        settings: as `ProbeConfig` names them: target, labels, feature_norm, epochs, seed, ...

    Returns:
        One row per head, layer, size and run, scores of classes in percent: model, corpus, target,
        split (which the validation and test set are of), head, layer (missing for Multi-Layer),
        feature_norm, metric, speakers, clips (those trained
        on), seed, score, macro_f1_low and macro_f1_high (95% interval; of numbers ccc_low and
        ccc_high), interval_over, constant (what the best constant answer scores; for UAR one over
        the emotions tested), n_test.

    Raises:
        LsmprobeError: a score that the target has not, a split with several test sets, a size that
            cannot be, or as `probe`; or every run fails.
    """
    cache = FeatureCache.of(cache)
    config = ProbeConfig(
        model=(cache.model,),
        dataset=(cache.corpus,),
        head=head,
        layer=layer,
        runs=runs,
        split=split,
        split_seed=split_seed,
        cache_dir=cache.path.parents[1],
        results_dir=Path(results_dir),
        **settings,
    )
    task = read_task(config, cache.model, cache.corpus, cache.path, reads=what_is_read(head))
    measure = task.objective.measure
    if score is not None and score not in measure.scores:
        raise SettingsError(
            f"score is {score!r}, and {','.join(task.target)} is {measure.name}; expected "
            f"{', '.join(measure.scores)}."
        )
    full = planned_runs(config, task)
    one_test_set(full, "a learning curve")
    base = full[0].split
    if len(base.folds) > 1 or config.resplit:
        raise SettingsError(
            f"a learning curve needs one test set, and split {split} has "
            f"{len(base.folds) if not config.resplit else 'one per run'}; take speaker or a file."
        )
    for note in base.notes:
        log.warning("%s: %s", task.corpus, note)
    by_size = _planned(config, task, full, sizes)
    jobs = [(config, run) for own in by_size.values() for run in todo(own, config.force)]
    with progress(total=n_epochs(jobs), unit=unit_of(jobs), disable=not jobs) as bar:
        failed = train_survivors(jobs, task, bar)
    failures = named_failures(f"{task.model} on {task.corpus}", failed)
    for what, error in failures.items():
        log.warning("skipping %s: %s", what, error)
    kept = {n: survivors(own, failed) for n, own in by_size.items()}
    scored = score or measure.score
    tables = [_rows(task, own, n, scored, base.name) for n, own in kept.items() if own]
    if not tables:
        raise next(iter(failures.values()))
    return pd.concat(tables, ignore_index=True)


def doubling(n_speakers: int) -> list[int]:
    """1, 2, 4, ... and all.

    >>> doubling(8), doubling(10)
    ([1, 2, 4, 8], [1, 2, 4, 8, 10])
    """
    return sorted({2**power for power in range(n_speakers.bit_length())} | {n_speakers})


def _planned(
    config: ProbeConfig, task: Task, full: Sequence[Run], sizes: Sequence[int] | None
) -> dict[int, list[Run]]:
    """The runs for every number of training speakers."""
    base = full[0].split
    [fold] = base.folds
    speakers = task.utterances["speaker"].to_numpy()
    names = np.unique(speakers[fold.train])
    by_size = {}
    for n in doubling(len(names)) if sizes is None else sorted(set(sizes)):
        if not 1 <= n <= len(names):
            raise SettingsError(
                f"sizes: {counted(n, 'training speaker')}; {task.corpus} has 1 to {len(names)} in "
                "this split."
            )
        if n == len(names):
            by_size[n] = list(full)
            continue
        splits = {}
        for seed in sorted({run.seed for run in full}):
            chosen = np.random.default_rng(seed).permutation(names)[:n]
            train = fold.train[np.isin(speakers[fold.train], chosen)]
            found = counted(n, "training speaker", of=len(names))
            note = f"{found}: {', '.join(sorted(chosen))}"
            parts = Fold(train, fold.validation, fold.test)
            notes = (*base.notes, note)
            splits[seed] = replace(
                base, kind="learning-curve", folds=(parts,), notes=notes, test_set=""
            )
        heads = {(run.head, run.layer): run.settings for run in full}
        named = [(*which, chosen) for which, chosen in heads.items()]
        by_size[n] = name_runs(task, named, splits, config.results_dir)
    return by_size


def _rows(task: Task, runs: Sequence[Run], n_speakers: int, score: str, split: str) -> pd.DataFrame:
    """One row per run of a size."""
    results, measure = results_table(run.path for run in runs), task.objective.measure
    [test] = {tuple(run.split.folds[0].test) for run in runs}
    recorded = {measure.score: measure.constant, **measure.references}
    constant = (
        results[recorded[score]]
        if score in recorded
        else measure.constant_answer(task.labels[list(test)], score, task.n_outputs)
    )
    same = ["model", "corpus", "target", "head", "layer", "feature_norm"]
    told = [f"{measure.score}_low", f"{measure.score}_high", "interval_over"]
    leaks = pd.DataFrame([leaks_in(codes) for codes in results["alarms"]], index=results.index)
    return results[same].assign(
        split=split,
        metric=score,
        speakers=n_speakers,
        clips=[len(run.split.folds[0].train) for run in runs],
        seed=results["seed"],
        score=results[score],
        **{name: results[name] for name in told},
        constant=constant,
        n_test=results["n_test"],
        **leaks,
    )
