"""Stage 2: train heads on a cache, score them on held-out speakers, keep one record per run.

Runs that read the same features train together. Finished runs are skipped, and of a run with many
folds the finished folds.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from lsmprobe.cache.selection import layers_of_model, numbers
from lsmprobe.config import ProbeConfig, merges_told
from lsmprobe.errors import CacheError, LsmprobeError, SettingsError, TrainingError, counted
from lsmprobe.machine import choose_device
from lsmprobe.probing.batches import Features, FrameFeatures, PooledFeatures
from lsmprobe.probing.heads import Probe
from lsmprobe.probing.norms import frame_statistics, pooled_statistics
from lsmprobe.probing.objectives import check_epoch_choice
from lsmprobe.probing.record import run_record
from lsmprobe.probing.run import Run, make_task_split, name_runs
from lsmprobe.probing.seeds import INITIALISATION, seed_of
from lsmprobe.probing.table import (
    BUILT_IN,
    HEADS,
    NORMS,
    Moments,
    build_head,
    heads_asked,
    settings_of,
    unreadable,
    what_is_read,
)
from lsmprobe.probing.task import Task, find_caches, read_task
from lsmprobe.probing.trainer import Member, Recipe
from lsmprobe.probing.training import fit
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.records import (
    TrainedFold,
    is_finished,
    load_fold,
    results_table,
    save_fold,
    save_run,
)
from lsmprobe.splits.file import Fold

Job = tuple[ProbeConfig, Run]  # a run and the settings that it was planned from
Failed = tuple[Sequence[Job], Exception]  # runs that failed together, and why
log = logging.getLogger(__name__)


def probe(config: ProbeConfig, *, progress: Progress = automatic) -> pd.DataFrame:
    """Train and score what is not there yet; the results of all runs asked for, one row each.

    Args:
        config: what is trained.
        progress: how it is shown: a notebook's bar, a terminal's, or `progress.silent`.

    Raises:
        LsmprobeError: bad input of any kind; finished runs are kept.
    """
    results, failures = probe_all(config, progress=progress)
    for error in failures.values():
        raise error
    return results


def probe_all(
    config: ProbeConfig,
    *,
    progress: Progress = automatic,
    only: Collection[Path] | None = None,
) -> tuple[pd.DataFrame, dict[str, Exception]]:
    """The results as `probe` gives them, and by what failed its error.

    What fails, be it a cache or the runs that train together, does not stop the others.

    Args:
        config: what is trained.
        progress: how it is shown.
        only: the records that may be made, where other processes make the others; what is there
            already is in the results all the same.
    """
    cells, failures = plan_grid(config, progress=progress, only=only)
    with (
        logging_redirect_tqdm(),
        progress(
            total=sum(n_epochs(cell.jobs) for cell in cells),
            unit=unit_of([job for cell in cells for job in cell.jobs]),
            disable=not any(cell.jobs for cell in cells),
        ) as bar,
    ):
        for cell in cells:
            if cell.jobs:
                bar.set_postfix({"failed": len(failures)} if failures else {}, refresh=False)
                bar.set_description(cell.name)
                failures |= _probe_cell(config, cell, bar)
    paths = [run.path for cell in cells for run in cell.runs]
    return results_table(path for path in paths if path.exists()), failures


@dataclass(frozen=True)
class Cell:
    """The runs of one cache; not the cache itself, since there may be more than fit in memory."""

    model: str
    corpus: str
    path: Path
    identity_hash: str
    learned: Mapping[str, str]  # the labels that the runs are named by
    runs: list[Run]
    jobs: list[Job]  # those of the runs that are still to be made

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model} on {self.corpus}"


def plan_grid(
    config: ProbeConfig,
    *,
    progress: Progress = automatic,
    only: Collection[Path] | None = None,
) -> tuple[list[Cell], dict[str, Exception]]:
    """What there is to be done, cache by cache, and the caches that cannot be probed."""
    reads = what_is_read(config.head)
    cells: list[Cell] = []
    failures: dict[str, Exception] = {}
    for model, corpus, path in find_caches(config):
        try:
            task = read_task(config, model, corpus, path, reads=reads, progress=progress)
            runs = planned_runs(config, task)
        except Exception as error:
            failures |= _failure(f"{model} on {corpus}", error)
            continue
        jobs = [(config, run) for run in todo(runs, config.force, only)]
        told = task.cache.identity_hash, task.learned
        cells.append(Cell(model, corpus, path, *told, runs, jobs))
        finished = f", {len(runs) - len(jobs)} already there" if len(jobs) < len(runs) else ""
        merged = merges_told(config.map)
        log.info("%s: %s%s%s", cells[-1].name, counted(len(runs), "run"), finished, merged)
    notes = {f"{c.corpus}: {note}": None for c in cells for r in c.runs for note in r.split.notes}
    for note in notes:
        log.warning(note)
    return cells, failures


def _probe_cell(config: ProbeConfig, cell: Cell, bar: Any) -> dict[str, Exception]:
    """Make the runs of one cache that are missing; what failed."""
    try:
        what = config, cell.model, cell.corpus, cell.path
        task = read_task(*what, reads=what_is_read(config.head))
        if task.cache.identity_hash != cell.identity_hash:
            raise CacheError(
                f"{cell.path} was replaced in the meantime; expected the cache that was there at "
                "the start. Run lsmprobe probe again."
            )
        if task.learned != cell.learned:
            raise CacheError(
                f"the labels of {cell.path} were changed in the meantime; expected those that were "
                "there at the start. Run lsmprobe probe again."
            )
    except Exception as error:
        return _failure(cell.name, error)
    return named_failures(cell.name, train_survivors(cell.jobs, task, bar))


def named_failures(of: str, failed: Sequence[Failed]) -> dict[str, Exception]:
    """By what failed its error, for messages; `of` is what the runs belong to."""
    failures: dict[str, Exception] = {}
    for jobs, why in failed:
        others = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
        failures |= _failure(f"{of}, {jobs[0][1].name}{others}", why)
    return failures


def survivors(runs: Iterable[Run], failed: Sequence[Failed]) -> list[Run]:
    """The runs that did not fail; with `force`, one that did may have a record of before."""
    gone = {run.path for jobs, _ in failed for _, run in jobs}
    return [run for run in runs if run.path not in gone]


def _failure(what: str, error: Exception) -> dict[str, Exception]:
    """An error for the end; it is logged now too if it is none that a user can act on."""
    if not isinstance(error, LsmprobeError):
        log.error("%s failed", what, exc_info=error)
    return {what: error}


def todo(
    runs: Sequence[Run], force: bool = False, only: Collection[Path] | None = None
) -> list[Run]:
    """Those whose record is not there yet, or all of them; of these those in `only`, if given."""
    asked = [run for run in runs if only is None or run.path in only]
    return [run for run in asked if force or not is_finished(run.path)]


def planned_runs(config: ProbeConfig, task: Task) -> list[Run]:
    """Every run that the settings ask for on this cache, finished or not.

    Raises:
        LsmprobeError: a layer that is not there, a head that cannot read this cache, a corpus that
            cannot be split, a way to choose the epoch that the target has not.
    """
    check_epoch_choice(config.epoch_choice, task.objective)
    offset = config.split_seed - config.seed if config.resplit else None
    split_seeds = {
        seed: config.split_seed if offset is None else seed + offset
        for seed in range(config.seed, config.seed + config.runs)
    }
    splits = {
        seed: make_task_split(config.split, task, seed=seed, results_dir=config.results_dir)
        for seed in sorted(set(split_seeds.values()))
    }
    heads = [(h, layer, settings_of(config, h)) for h, layer in _heads_and_layers(config, task)]
    by_seed = {seed: splits[split_seed] for seed, split_seed in split_seeds.items()}
    runs = name_runs(task, heads, by_seed, config.results_dir, resplit=offset)
    once = [r for r in runs if HEADS[r.head].draws or config.resplit or r.seed == config.seed]
    if len(once) < len(runs):
        log.info(
            "%s: one run instead of %d for heads that use no random numbers",
            task.corpus,
            config.runs,
        )
    return once


def train_together(jobs: Sequence[Job], task: Task, *, on_epoch: Callable[[], Any]) -> None:
    """Train runs from as few reads as there can be, and write their records.

    Args:
        jobs: each run with the settings that it was planned from.
        task: which all of them were planned for.
        on_epoch: called once per epoch, fold and run, and once per fold and run of a head that is
            solved; at once for folds that an earlier, stopped process left finished.

    Raises:
        TrainingError: a loss that is not finite.
        ResultsError: a record cannot be written.
    """
    for together in reading_alike(jobs):
        _train_group(together, task, on_epoch=on_epoch)


def train_survivors(jobs: Sequence[Job], task: Task, bar: Any) -> list[Failed]:
    """Train runs as `train_together` does, and go on where some of them fail.

    Args:
        jobs: each run with the settings that it was planned from.
        task: which all of them were planned for.
        bar: counts the epochs.

    Returns:
        The runs that failed together, and why. A loss that is not finite is the failure of one.
    """
    failed: list[Failed] = []
    waiting = reading_alike(jobs)
    while waiting:
        together = waiting.pop(0)
        trained = bar.n
        try:
            _train_group(together, task, on_epoch=bar.update)
        except Exception as error:
            if isinstance(error, TrainingError) and len(together) > 1:
                # A head that breaks down must not take the others with it: halve until it is alone.
                half = len(together) // 2
                waiting = [together[:half], together[half:], *waiting]
                bar.n = trained
            else:
                failed.append((together, error))
    return failed


def n_epochs(jobs: Sequence[Job]) -> int:
    """How often `train_together` will call `on_epoch`."""
    return sum(len(run.split.folds) * _n_steps(config, run) for config, run in jobs)


def unit_of(jobs: Sequence[Job]) -> str:
    """What a bar over `n_epochs` counts: fits, where no head is trained in epochs."""
    return "epoch" if any(HEADS[run.head].fit is None for _, run in jobs) else "fit"


def _n_steps(config: ProbeConfig, run: Run) -> int:
    """The epochs of a fold; a head that is solved has none, and counts once."""
    return config.epochs if HEADS[run.head].fit is None else 1


def reading_alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group the runs that train from one read: the same batches, of means or of frames.

    Runs on several test sets of one split are in one group.
    """
    groups: dict[tuple, list[Job]] = {}
    for config, run in jobs:
        reads = run.training_hash, HEADS[run.head].reads, HEADS[run.head].fit
        rhythm = config.epochs, config.batch_size, config.device
        groups.setdefault((*reads, *rhythm), []).append((config, run))
    return list(groups.values())


def _train_group(jobs: Sequence[Job], task: Task, *, on_epoch: Callable[[], Any]) -> None:
    """Train runs that read alike, and write their records."""
    config, first = jobs[0]
    device = choose_device(config.device)
    layers = sorted({layer for config, run in jobs for layer in _layers(config, task, run)})
    features = (
        PooledFeatures(torch.from_numpy(task.cache.means_of(task.rows, layers)).to(device), layers)
        if HEADS[first.head].reads == "means"
        else FrameFeatures(task.read, task.lengths)
    )
    folds: list[list[TrainedFold]] = [[] for _ in jobs]
    for number in range(len(first.split.folds)):
        kept = [None if config.force else load_fold(run.path, number) for config, run in jobs]
        missing = [job for job, one in zip(jobs, kept, strict=True) if one is None]
        trained = iter(_train_fold(missing, task, features, number, device, on_epoch))
        for (config, run), one, of_run in zip(jobs, kept, folds, strict=True):
            if one is None:
                one = next(trained)
                if len(first.split.folds) > 1:
                    save_fold(run.path, number, one)
            else:
                for _ in range(_n_steps(config, run)):
                    on_epoch()
            of_run.append(one)
    for (config, run), of_run in zip(jobs, folds, strict=True):
        record = run_record(
            task,
            run,
            layers=_layers(config, task, run),
            layer_weights=[one.layer_weights for one in of_run if one.layer_weights],
            best_epochs=[one.best_epoch for one in of_run],
            histories=[one.history for one in of_run],
            shared_pools=any(one.shared_pools for one in of_run),
            probabilities=[one.probabilities.numpy() for one in of_run],
            seconds=sum(one.seconds for one in of_run),
            device=device,
        )
        heads = {
            f"{number}.{name}": tensor
            for number, one in enumerate(of_run)
            for name, tensor in one.head.items()
        }
        save_run(run.path, record, heads)


def _train_fold(
    jobs: Sequence[Job],
    task: Task,
    features: Features,
    number: int,
    device: str,
    on_epoch: Callable[[], Any],
) -> list[TrainedFold]:
    """Train the heads of runs that read alike on one fold.

    Runs that differ in their test set alone are of one head, which is trained once and answers all.
    """
    if not jobs:
        return []
    started = time.monotonic()
    fold = jobs[0][1].split.folds[number]
    distinct = {run.training: (config, run) for config, run in reversed(jobs)}
    heads = list(reversed(distinct.values()))
    place = {run.training: at for at, (_, run) in enumerate(heads)}
    tested = np.unique(np.concatenate([run.split.folds[number].test for _, run in jobs]))
    train = HEADS[jobs[0][1].head].fit or fit
    fits = train(
        [_member(config, task, run, number, fold) for config, run in heads],
        features,
        task.labels,
        (fold.train, fold.validation, tested),
        task.n_outputs,
        objective=task.objective,
        device=device,
        on_epoch=on_epoch,
    )
    for _ in range((len(jobs) - len(heads)) * _n_steps(*jobs[0])):
        on_epoch()
    seconds = (time.monotonic() - started) / len(jobs)
    if any(epoch.get("validation_loss", 0.0) is None for one in fits for epoch in one.history):
        log.warning(
            "%s: fold %d has no validation loss, since its training set has none of the emotions "
            "that its validation set has; the epoch is chosen by %s",
            *(task.corpus, number, task.objective.title),
        )
    return [
        TrainedFold(
            one.best_epoch,
            one.history,
            _layer_weights(one.member.probe.head),
            seconds,
            torch.from_numpy(one.probabilities[np.isin(tested, run.split.folds[number].test)]),
            {n: t.cpu().contiguous() for n, t in one.member.probe.state_dict().items()},
            one.shared_pools,
        )
        for _, run in jobs
        for one in [fits[place[run.training]]]
    ]


def _layer_weights(head: torch.nn.Module) -> list[float] | None:
    if not isinstance(weights := getattr(head, "layer_weights", None), torch.Tensor):
        return None
    return weights.detach().cpu().tolist()


def _heads_and_layers(config: ProbeConfig, task: Task) -> list[tuple[str, int | None]]:
    """(head, layer) of every kind of run; the layer is None for a head that weighs layers."""
    layers = task.cache.layers
    last, of = layers[-1], layers_of_model(task.cache)
    if isinstance(config.layer, int) and config.layer not in layers:
        what = f"{task.model} has layers {numbers(layers)}"
        if config.layer in range(of):
            what = f"{task.cache.path} holds layers {numbers(layers)} of {of}"
            what += "; run lsmprobe extract again with --layers and another --cache-dir"
        raise SettingsError(f"--layer {config.layer}: {what}.")
    if config.layer is None and last != of - 1:
        log.info("%s: the last layer that is stored is %d", task.cache.path, last)
    if config.layer != "all":
        layers = [last if config.layer is None else config.layer]
    heads = []
    for row in heads_asked(config.head):
        if config.layer is not None and row.weighs_layers and config.head != "all":
            raise SettingsError(
                f"--layer does not go with --head {row.name}, which reads every layer; drop one."
            )
        if (kind := task.objective.measure.name) not in row.learns:
            able = [other.name for other in HEADS.values() if kind in other.learns]
            raise SettingsError(
                f"--head {row.name} learns {' and '.join(row.learns)}, and the target "
                f"{','.join(task.target)} is of {kind}; expected one of {', '.join(able)}."
            )
        if (why := unreadable(row, task.cache)) is None:
            heads.append(row)
        elif config.head != "all":
            raise CacheError(f"{task.cache.path} {why}")
        else:
            log.warning("skipping %s: %s %s", row.title, task.cache.path, why)
    single = [(row.name, layer) for row in heads if not row.weighs_layers for layer in layers]
    return single + [(row.name, None) for row in heads if row.weighs_layers]


def _member(config: ProbeConfig, task: Task, run: Run, number: int, fold: Fold) -> Member:
    """A freshly initialised head, with its normalisation fitted to the training set."""
    layers = _layers(config, task, run)
    head = build_head(
        HEADS[run.head],
        len(layers),
        task.cache.dim,
        task.n_outputs,
        run.settings,
        seed=seed_of(INITIALISATION, run.seed, number),
    )
    norm = NORMS[config.feature_norm].fit(lambda: _moments(task, run, fold, layers))
    return Member(
        name=run.name,
        probe=Probe(norm, head),
        layers=tuple(layers),
        seed=run.seed,
        recipe=_recipe(config),
        fold=number,
        own_draws=run.head in BUILT_IN,
    )


def _layers(config: ProbeConfig, task: Task, run: Run) -> list[int]:
    """Those that the head reads."""
    if run.layer is not None:
        return [run.layer]
    return [layer for layer in task.cache.layers if layer or config.include_layer_0]


def _recipe(config: ProbeConfig) -> Recipe:
    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        scheduler=config.scheduler,
        class_weights=config.class_weights,
        epoch_choice=config.epoch_choice,
        validation_loss=config.validation_loss,
        scalar_lr=config.scalar_lr,
        scalar_weight_decay=config.scalar_weight_decay,
    )


def _moments(task: Task, run: Run, fold: Fold, layers: Sequence[int]) -> Moments:
    """Mean and standard deviation of what the head reads, over the training set."""
    rows, which = task.rows[fold.train], slice(None) if run.layer is None else 0
    means = torch.from_numpy(task.cache.means_of(rows, layers))[:, which]
    if HEADS[run.head].reads == "means":
        return pooled_statistics(means)
    lengths = torch.from_numpy(task.lengths[fold.train])
    stds = torch.from_numpy(task.cache.stds_of(rows, layers))[:, which]
    return frame_statistics(means, stds, lengths)
