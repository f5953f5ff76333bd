"""Stage 2: train heads on a cache, score them on held-out speakers, keep one record per run.

The runs of a seed that read the same features train together. Finished runs are skipped.
"""

import datetime
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from lsmprobe import __version__
from lsmprobe.config import ProbeConfig
from lsmprobe.device import choose_device
from lsmprobe.errors import CacheError, LsmprobeError, SettingsError, SplitError
from lsmprobe.evaluation import bootstrap_interval, macro_f1, scores
from lsmprobe.heads import (
    LinearHead,
    MultiLayerHead,
    NonLinearHead,
    NormaliseVectors,
    Probe,
    Standardise,
    frame_statistics,
    pooled_statistics,
)
from lsmprobe.results import is_finished, record_path, results_table, run_id, save_run
from lsmprobe.splits import Fold, Split, make_split, save_split, split_hash
from lsmprobe.tasks import Task, find_caches, read_task
from lsmprobe.training import Fit, FrameFeatures, Member, PooledFeatures, Recipe, fit

LINEAR = (
    "emotions",
    "map",
    "feature_norm",
    "epochs",
    "batch_size",
    "lr",
    "weight_decay",
    "scheduler",
    "class_weights",
    "epoch_choice",
    "hidden",
)
NON_LINEAR = (*LINEAR, "dropout")
MULTI_LAYER = (*NON_LINEAR, "include_layer_0", "scalar_lr", "scalar_weight_decay")
SETTINGS = {"linear": LINEAR, "nonlinear": NON_LINEAR, "multilayer": MULTI_LAYER}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run that is to be made, and where its record goes."""

    head: str
    layer: int | None  # None for Multi-Layer
    seed: int
    split: Split
    settings: Mapping[str, Any]
    experiment: str  # the same for runs that differ in their seed alone
    path: Path

    @property
    def name(self) -> str:
        """For messages."""
        return self.head if self.layer is None else f"{self.head} on layer {self.layer}"


def probe(config: ProbeConfig) -> pd.DataFrame:
    """Train and score what is not there yet; the results of all runs asked for, one row each.

    Raises:
        LsmprobeError: bad input of any kind; finished runs are kept.
    """
    results, failures = probe_all(config)
    for error in failures.values():
        raise error
    return results


def probe_all(config: ProbeConfig) -> tuple[pd.DataFrame, dict[str, LsmprobeError]]:
    """The results as `probe` gives them, and for each cache that failed its error.

    A cache that fails does not stop the others.
    """
    paths: list[Path] = []
    failures: dict[str, LsmprobeError] = {}
    for model, corpus, path in find_caches(config):
        try:
            paths += probe_cache(config, model, corpus, path)
        except LsmprobeError as error:
            failures[f"{model} on {corpus}"] = error
    return results_table(paths), failures


def probe_cache(config: ProbeConfig, model: str, corpus: str, path: Path) -> list[Path]:
    """Every run asked for on one cache; the paths of their records."""
    task = read_task(config, model, corpus, path)
    runs = planned_runs(config, task)
    todo = [run for run in runs if config.force or not is_finished(run.path)]
    finished = f", {len(runs) - len(todo)} already there" if len(todo) < len(runs) else ""
    log.info("%s on %s: %d runs%s", model, corpus, len(runs), finished)
    n_epochs = sum(len(run.split.folds) * config.epochs for run in todo)
    with tqdm(
        total=n_epochs,
        desc=f"{model} {corpus}",
        unit="epoch",
        disable=not todo,
        mininterval=0.2 if sys.stderr.isatty() else 30,
    ) as bar:
        for together in _reading_alike(todo):
            train_runs(config, task, together, on_epoch=bar.update)
    return [run.path for run in runs]


def planned_runs(config: ProbeConfig, task: Task) -> list[Run]:
    """Every run that the settings ask for on this cache, finished or not."""
    seeds = range(config.seed, config.seed + config.runs)
    fixed = None if config.resplit else _split(config, task, config.split_seed)
    splits = {s: fixed or _split(config, task, config.split_seed + s - config.seed) for s in seeds}
    hashes = {seed: split_hash(split, task.keys) for seed, split in splits.items()}
    runs = []
    for head, layer in _heads_and_layers(config, task):
        settings = _settings(config, head)
        for seed, split in splits.items():
            experiment = {
                "cache": task.cache.identity_hash,
                "labels": task.labels_hash,
                "head": head,
                "layer": layer,
                "split": config.split if config.resplit else hashes[seed],
                "settings": settings,
            }
            run = run_id({**experiment, "seed": seed, "split": hashes[seed]})
            path = record_path(config.results_dir, task.model, task.corpus, head, layer, seed, run)
            runs.append(Run(head, layer, seed, split, settings, run_id(experiment), path))
    return runs


def train_runs(
    config: ProbeConfig, task: Task, runs: Sequence[Run], *, on_epoch: Callable[[], Any]
) -> None:
    """Train runs that share features and split from one read, and write their records."""
    started = time.monotonic()
    device = choose_device(config.device)
    split = runs[0].split
    pooled = runs[0].head == "linear"
    features = (
        PooledFeatures(task.pooled.to(device)) if pooled else FrameFeatures(task.read, task.lengths)
    )
    fits: list[list[Fit]] = []
    for fold in split.folds:
        members = [_member(config, task, run, fold) for run in runs]
        fits.append(
            fit(
                members,
                features,
                task.labels,
                (fold.train, fold.validation, fold.test),
                len(task.classes),
                score=lambda truth, guess: macro_f1(truth, guess, len(task.classes)),
                device=device,
                on_epoch=on_epoch,
            )
        )
    seconds = (time.monotonic() - started) / len(runs)
    for position, run in enumerate(runs):
        own = [of_fold[position] for of_fold in fits]
        heads = {
            f"{number}.{name}": tensor.cpu().contiguous()
            for number, one in enumerate(own)
            for name, tensor in one.member.probe.state_dict().items()
        }
        weights = [
            one.member.probe.head.layer_weights.detach().cpu().tolist()
            for one in own
            if isinstance(one.member.probe.head, MultiLayerHead)
        ]
        record = run_record(
            task,
            run,
            layers=own[0].member.layers,
            layer_weights=weights,
            best_epochs=[one.best_epoch for one in own],
            histories=[one.history for one in own],
            probabilities=[one.probabilities for one in own],
            seconds=seconds,
            device=device,
        )
        save_run(run.path, record, heads)


def _split(config: ProbeConfig, task: Task, seed: int) -> Split:
    """The split, told of and saved, so that it can be given back with --split FILE."""
    split = make_split(config.split, task.utterances, seed=seed)
    for note in split.notes:
        log.warning("%s: %s", task.corpus, note)
    digest = split_hash(split, task.keys)[:12]
    kind = split.kind.replace(":", "")
    path = config.results_dir / "splits" / f"{task.corpus}-{kind}-{digest}.json"
    if not path.exists():
        try:
            save_split(path, split, task.keys)
        except OSError as error:
            raise SplitError(
                f"{path}: the split cannot be written ({error.strerror}); choose another "
                "--results-dir."
            ) from error
    return split


def _heads_and_layers(config: ProbeConfig, task: Task) -> list[tuple[str, int | None]]:
    """(head, layer) of every kind of run; the layer is None for Multi-Layer."""
    last = task.cache.layers[-1]
    if isinstance(config.layer, int) and config.layer not in task.cache.layers:
        raise SettingsError(f"--layer {config.layer}: {task.model} has layers 0 to {last}.")
    layers: Sequence[int] = task.cache.layers
    if config.layer != "all":
        layers = [last if config.layer is None else config.layer]
    heads = ["linear", "nonlinear", "multilayer"] if config.head == "all" else [config.head]
    if task.cache.store == "pooled" and heads != ["linear"]:
        if config.head != "all":
            raise CacheError(
                f"{task.cache.path} holds pooled means only, and --head {config.head} reads "
                "frames; use --head linear, or extract again with --store frames."
            )
        log.warning("%s holds pooled means only: just the Linear head can read it", task.cache.path)
        heads = ["linear"]
    single = [(head, layer) for head in heads if head != "multilayer" for layer in layers]
    return single + ([("multilayer", None)] if "multilayer" in heads else [])


def _settings(config: ProbeConfig, head: str) -> dict[str, Any]:
    """What decides a run's numbers besides cache, split, layer and seed; kept in the record."""
    return {name: getattr(config, name) for name in SETTINGS[head]}


def _reading_alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Group the runs that train from one read: batches in the same order, of means or of frames.

    A seed has its own order of batches, and its records are written when it is through.
    """
    groups: dict[tuple[int, bool, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((id(run.split), run.head == "linear", run.seed), []).append(run)
    return list(groups.values())


def _member(config: ProbeConfig, task: Task, run: Run, fold: Fold) -> Member:
    """A freshly initialised head, with its normalisation fitted to the training set."""
    dim, n_classes = task.cache.dim, len(task.classes)
    layers = [run.layer] if run.layer is not None else list(task.cache.layers)
    if run.layer is None and not config.include_layer_0:
        layers = layers[1:]
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(run.seed)
        head: nn.Module
        if run.head == "linear":
            head = LinearHead(dim, n_classes, hidden=config.hidden)
        elif run.head == "nonlinear":
            head = NonLinearHead(dim, n_classes, hidden=config.hidden, dropout=config.dropout)
        else:
            head = MultiLayerHead(
                len(layers), dim, n_classes, hidden=config.hidden, dropout=config.dropout
            )
    norm = _norm(config, task, run, fold, layers)
    name = f"{run.name}, seed {run.seed}"
    return Member(name, Probe(norm, head), tuple(layers), run.seed, _recipe(config))


def _recipe(config: ProbeConfig) -> Recipe:
    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        scheduler=config.scheduler,
        class_weights=config.class_weights,
        epoch_choice=config.epoch_choice,
        scalar_lr=config.scalar_lr,
        scalar_weight_decay=config.scalar_weight_decay,
    )


def _norm(
    config: ProbeConfig, task: Task, run: Run, fold: Fold, layers: Sequence[int]
) -> nn.Module:
    if config.feature_norm == "none":
        return nn.Identity()
    if config.feature_norm == "layernorm":
        return NormaliseVectors()
    rows = torch.from_numpy(fold.train)
    which = layers[0] if run.layer is not None else torch.tensor(layers)
    means = task.pooled[:, which][rows]
    if run.head == "linear":
        return Standardise(*pooled_statistics(means))
    lengths = torch.from_numpy(task.lengths[fold.train])
    return Standardise(*frame_statistics(means, task.pooled_std[:, which][rows], lengths))


def run_record(
    task: Task,
    run: Run,
    *,
    layers: Sequence[int],
    layer_weights: Sequence[Sequence[float]],
    best_epochs: Sequence[int],
    histories: Sequence[list[dict[str, float]]],
    probabilities: Sequence[np.ndarray],
    seconds: float,
    device: str,
) -> dict[str, Any]:
    """Everything that is known of a finished run, as plain values.

    Args:
        task: what was learned.
        run: how.
        layers: those that the head reads.
        layer_weights: of each fold, if the head weighs layers, else none.
        best_epochs: of each fold, counted from 1.
        histories: of each fold, one entry per epoch.
        probabilities: of each fold, (test utterances, classes).
        seconds: that the run took.
        device: where it ran.
    """
    tested = np.concatenate([fold.test for fold in run.split.folds])
    chances_of_all = np.concatenate(probabilities)
    guesses = chances_of_all.argmax(1)
    truth = task.labels[tested]
    table = task.utterances.iloc[tested]
    n_classes = len(task.classes)
    interval = bootstrap_interval(truth, guesses, table.speaker.to_numpy(), n_classes)
    return {
        "model": task.model,
        "corpus": task.corpus,
        "head": run.head,
        "layer": run.layer,
        "seed": run.seed,
        "experiment": run.experiment,
        "settings": dict(run.settings),
        "split": {
            "kind": run.split.kind,
            "seed": run.split.seed,
            "hash": split_hash(run.split, task.keys),
            "notes": list(run.split.notes),
        },
        "cache": {
            "file": f"{task.model}/{task.corpus}.h5",
            "hash": task.cache.identity_hash,
            "identity": task.cache.identity,
        },
        "versions": {
            "lsmprobe": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "device": device,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "classes": list(task.classes),
        "layers": list(layers),
        "layer_weights": np.mean(layer_weights, 0).tolist() if layer_weights else None,
        "folds": [
            {
                "n_train": len(fold.train),
                "n_validation": len(fold.validation),
                "n_test": len(fold.test),
                "best_epoch": best_epochs[number],
                "layer_weights": layer_weights[number] if layer_weights else None,
                "history": histories[number],
            }
            for number, fold in enumerate(run.split.folds)
        ],
        "scores": {
            **scores(truth, guesses, n_classes),
            "interval": {"low": interval.low, "high": interval.high, "over": interval.over},
        },
        "predictions": [
            {
                "key": row.key,
                "speaker": row.speaker,
                "emotion": row.emotion,
                "predicted": task.classes[guess],
                "probabilities": [round(float(p), 6) for p in chances],
            }
            for row, guess, chances in zip(table.itertuples(), guesses, chances_of_all, strict=True)
        ],
    }
