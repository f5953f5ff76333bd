"""The paper's baseline, an AST trained from scratch: same splits, scores and records as probing."""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import BaselineConfig, CorpusConfig, ExtractConfig
from lsmprobe.errors import CacheError, LsmprobeError, counted
from lsmprobe.experiments.spectrogram_transformer import SIZES, Recipe, train
from lsmprobe.extraction.stage import extract
from lsmprobe.machine import choose_device
from lsmprobe.probing.record import run_record
from lsmprobe.probing.run import Run, make_task_split, name_runs
from lsmprobe.probing.stage import todo
from lsmprobe.probing.task import Task, read_task
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.records import is_finished, results_table, save_run

HEAD = "ast"  # as the records name it, of whatever size
log = logging.getLogger(__name__)


def train_baseline(config: BaselineConfig, *, progress: Progress = automatic) -> pd.DataFrame:
    """Train and score what is not there yet; the results of all runs asked for, one row each.

    Raises:
        LsmprobeError: bad input of any kind; finished runs and extracted filterbanks are kept.
    """
    results, failures = baseline_all(config, progress=progress)
    for error in failures.values():
        raise error
    return results


def planned_baseline(config: BaselineConfig) -> tuple[Task, list[Run]]:
    """What is learned, its filterbanks computed where they are not there yet, and a run per seed.

    Raises:
        LsmprobeError: there is nothing to be trained on.
    """
    corpus = config.corpus_name(config.dataset)
    task = read_task(config, config.size, corpus, filterbank_cache(config))
    split = make_task_split(
        config.split, task, seed=config.split_seed, results_dir=config.results_dir
    )
    seeds = range(config.seed, config.seed + config.runs)
    heads = [(HEAD, None, settings(config))]
    return task, name_runs(task, heads, dict.fromkeys(seeds, split), config.results_dir)


def baseline_all(
    config: BaselineConfig,
    *,
    progress: Progress = automatic,
    only: Collection[Path] | None = None,
) -> tuple[pd.DataFrame, dict[str, Exception]]:
    """The results as `train_baseline` gives them, and by what failed its error; it stops no other.

    Args:
        config: what is trained.
        progress: how it is shown.
        only: the records that may be made, where other processes make the others; what is there
            already is in the results all the same.

    Raises:
        LsmprobeError: there is nothing to be trained on.
    """
    task, runs = planned_baseline(config)
    corpus = task.corpus
    missing = todo(runs, config.force, only)
    finished = f", {len(runs) - len(missing)} already there" if len(missing) < len(runs) else ""
    log.info("%s on %s: %s%s", config.size, corpus, counted(len(runs), "run"), finished)
    with progress(
        total=sum(len(run.split.folds) for run in missing) * config.epochs,
        desc=f"{config.size} {corpus}",
        unit="epoch",
        disable=not missing,
    ) as bar:
        failed: dict[Path, Exception] = {}
        for run in missing:
            try:
                train_run(config, task, run, on_epoch=bar.update)
            except Exception as error:
                failed[run.path] = error
                if not isinstance(error, LsmprobeError):
                    log.error("%s on %s, %s failed", config.size, corpus, run.name, exc_info=error)
    names = {run.path: f"{config.size} on {corpus}, {run.name}" for run in runs}
    made = [run.path for run in runs if run.path not in failed and is_finished(run.path)]
    return results_table(made), {names[path]: error for path, error in failed.items()}


def filterbank_cache(config: BaselineConfig) -> Path:
    """The spectrograms, computed once and kept: CACHE_DIR/fbank/CORPUS.h5."""
    read_alike = {field.name: getattr(config, field.name) for field in fields(CorpusConfig)}
    # Emotions are chosen and merged where the filterbanks are read.
    corpus = read_alike | {"emotions": (), "map": ()}
    extraction = ExtractConfig("fbank", config.dataset, cache_dir=config.cache_dir, **corpus)
    try:
        is_there = FeatureCache(extraction.cache_path, allow_unfinished=True).is_finished
    except CacheError:  # none is there, or one that extract says more about
        is_there = False
    if not is_there:
        log.info("%s", extract(extraction))
    return extraction.cache_path


def settings(config: BaselineConfig) -> dict[str, Any]:
    """What decides a run's numbers besides filterbanks, split and seed; kept in the record."""
    return {
        "emotions": config.emotions,
        "map": config.map,
        "feature_norm": "none",  # but for the normalisation of the input, which is in the recipe
        "size": config.size,
        **asdict(SIZES[config.size]),
        **asdict(recipe(config)),
    }


def recipe(config: BaselineConfig) -> Recipe:
    """The published one, but for what flags change."""
    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        frequency_mask=config.frequency_mask,
        time_mask=config.time_mask,
    )


def train_run(
    config: BaselineConfig, task: Task, run: Run, *, on_epoch: Callable[[], object]
) -> None:
    """Train one seed on every fold, and write its record; the weights are not kept."""
    started = time.monotonic()
    device = choose_device(config.device)
    fits = [
        train(
            config.size,
            lambda utterance: task.read(utterance, 0),
            task.labels,
            (fold.train, fold.validation, fold.test),
            task.n_outputs,
            seed=run.seed,
            recipe=recipe(config),
            objective=task.objective,
            device=device,
            on_epoch=on_epoch,
        )
        for fold in run.split.folds
    ]
    record = run_record(
        task,
        run,
        layers=[0],
        layer_weights=[],
        best_epochs=[fit.best_epoch for fit in fits],
        histories=[fit.history for fit in fits],
        probabilities=[fit.probabilities for fit in fits],
        seconds=time.monotonic() - started,
        device=device,
    )
    save_run(run.path, record, {})
