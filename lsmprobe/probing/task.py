"""The caches that are asked for, as tasks: which utterances, and what is learned of them."""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from lsmprobe.cache.labels import read_own_labels, with_labels
from lsmprobe.cache.layout import Reads
from lsmprobe.cache.parts import cache_paths, names_of
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.config import ProbeConfig, TargetFlags, dataset_name, label_map, model_name
from lsmprobe.errors import CacheError, SettingsError, nearest
from lsmprobe.probing.objectives import CLASSIFICATION, Objective
from lsmprobe.probing.table import heads_asked, unreadable, what_is_read
from lsmprobe.probing.targets import Learned, kind_of, learned, target_columns, told_of
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.measures import EMOTION
from lsmprobe.results.records import run_id

NO_MODELS = {"fbank"}  # what a baseline learns from; probed only where it is named
log = logging.getLogger(__name__)


@runtime_checkable
class HiddenStates(Protocol):
    """What a task is learned from: a cache, or whatever answers like one."""

    path: Path
    layers: Sequence[int]  # those that are stored, by their numbers in the model
    dim: int
    store: str  # frames or pooled
    identity: dict

    @property
    def identity_hash(self) -> str:
        """Equal means same hidden states of the same utterances."""

    def means_of(
        self, rows: Int[np.ndarray, " some"], layers: Sequence[int]
    ) -> Float[np.ndarray, "some layers dim"]:
        """The mean over the frames of each of some utterances, at some layers; a copy."""

    def stds_of(
        self, rows: Int[np.ndarray, " some"], layers: Sequence[int]
    ) -> Float[np.ndarray, "some layers dim"]:
        """The standard deviation over the frames, likewise."""

    def frames(self, i: int, layer: int) -> Float[np.ndarray, "frames dim"]:
        """The frames of one utterance at one layer."""


@dataclass(frozen=True, eq=False)
class Task:
    """A cache and what is learned from it: which utterances, which target, with what aim."""

    cache: HiddenStates
    model: str
    corpus: str
    rows: np.ndarray  # positions in the cache
    utterances: pd.DataFrame  # those rows, labels merged
    classes: tuple[str, ...]  # or whatever names the outputs of another objective
    objective: Objective = CLASSIFICATION
    target: tuple[str, ...] = EMOTION  # columns of the utterances
    labels_file: str = ""  # the name of the table that --labels put in place of the cache's own
    of: tuple[Mapping[str, Any], ...] = ()  # of a task of several caches: the labels of each
    reads: Reads = "frames"  # what of the cache was verified

    @cached_property
    def labels(self) -> np.ndarray:
        """The target of every utterance; for classification an index into `classes`."""
        return self.objective.targets(self.utterances[list(self.target)], self.classes)

    @property
    def n_outputs(self) -> int:
        """How many values a head puts out for an utterance."""
        return len(self.classes)

    @property
    def balanced(self) -> pd.DataFrame:
        """The utterances as a split sees them: it balances `emotion`, here the target's classes."""
        if self.objective.name != CLASSIFICATION.name or self.target == EMOTION:
            return self.utterances
        return self.utterances.assign(emotion=self.utterances[self.target[0]])

    @cached_property
    def learned(self) -> dict[str, str]:
        """What a run's name says of what is learned."""
        return told_of(Learned(self.utterances, self.classes, self.objective), self.target)

    @property
    def keys(self) -> list[str]:
        """The key of every utterance."""
        return list(self.utterances.key)

    @cached_property
    def pooled(self) -> torch.Tensor:
        """Mean over the frames: (utterances, layers, dim)."""
        return torch.from_numpy(self.cache.means_of(self.rows, self.cache.layers))

    @cached_property
    def pooled_std(self) -> torch.Tensor:
        """Standard deviation over the frames: (utterances, layers, dim)."""
        return torch.from_numpy(self.cache.stds_of(self.rows, self.cache.layers))

    @cached_property
    def lengths(self) -> np.ndarray:
        """Frames of every utterance."""
        return self.utterances.frames.to_numpy()

    def read(self, utterance: int, layer: int) -> np.ndarray:
        """The frames of one utterance at one layer."""
        assert self.reads == "frames"
        return self.cache.frames(int(self.rows[utterance]), layer)


def find_caches(config: ProbeConfig) -> list[tuple[str, str, Path]]:
    """(model, corpus, file) of every cache asked for.

    Named ones must be there; with `all`, or nothing named, it is whatever the folder holds that is
    finished and that the head can read.

    Raises:
        CacheError: a named cache is missing, or the folder holds none.
    """
    there = {names_of(path): path for path in cache_paths(config.cache_dir)}
    if not there:
        raise CacheError(
            f"{config.cache_dir} holds no cache; run lsmprobe extract first, or name its "
            "--cache-dir."
        )
    every_model = sorted({model for model, _ in there})
    probed = [model for model in every_model if model not in NO_MODELS]
    every_corpus = sorted({corpus for _, corpus in there})
    models = _named(config.model, model_name) or probed
    corpora = _named(config.dataset, dataset_name) or every_corpus
    for kind, names, known in (
        ("model", models, every_model),
        ("corpus", corpora, every_corpus),
    ):
        for name in names:
            if name not in known:
                raise CacheError(
                    f"{config.cache_dir} holds no cache of {kind} {name!r}; run lsmprobe "
                    f"extract first. Of what is there, {nearest(name, known)}"
                )
    pairs = list(itertools.product(models, corpora))
    if _named(config.model, str) and _named(config.dataset, str):
        for model, corpus in pairs:
            if (model, corpus) not in there:
                raise CacheError(
                    f"{config.cache_dir / model / corpus}.h5 is not there; run "
                    f"lsmprobe extract --model {model} --dataset {corpus}"
                    f"{_what_suffices(config)} first."
                )
    else:
        pairs = [pair for pair in pairs if pair in there and _is_ready(config, there[pair])]
    if not pairs:
        raise CacheError(
            f"{config.cache_dir} holds no finished cache that --head {config.head} can read; "
            "finish lsmprobe extract first."
        )
    return [(model, corpus, there[model, corpus]) for model, corpus in pairs]


def _what_suffices(config: ProbeConfig) -> str:
    """The flag of extract with which a cache holds what these heads read, and no more."""
    return " --store pooled" if what_is_read(config.head) == "means" else ""


def _is_ready(config: ProbeConfig, path: Path) -> bool:
    """Whether a cache that nobody named can be probed; says why not. Damaged ones fail later."""
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError:
        return True
    if not cache.is_finished:
        log.warning("skipping %s: not finished", path)
        return False
    if config.head != "all":
        [row] = heads_asked(config.head)
        if why := unreadable(row, cache):
            log.warning("skipping %s: it %s", path, why)
            return False
    return True


def read_task(
    flags: TargetFlags,
    model: str,
    corpus: str,
    path: Path,
    *,
    names: Sequence[str] = (),
    reads: Reads = "frames",
    progress: Progress = automatic,
) -> Task:
    """Open a cache and keep the utterances and labels that are asked for.

    Args:
        flags: what is learned of whom.
        model: for messages and records.
        corpus: for messages and records, and to find its table in a folder of labels.
        path: of the cache.
        names: of classes, only these, as `targets.learned` has it.
        reads: what of the cache is verified, and may be read, as `what_is_read` says of heads.
        progress: how the comparison of checksums is shown.

    Raises:
        CacheError: the cache is unfinished, damaged (see `verify_once`) or foreign.
        SettingsError: --emotions or --map name what the corpus does not have, or its target cannot
            be learned, see `targets.learned`.
    """
    cache = FeatureCache(path)
    verify_once(cache, progress, reads=reads)
    merged = label_map(flags.map)
    target = target_columns(flags.target)
    table = labelled(cache, corpus, flags.labels, target)
    for flag, asked in (("--map", merged), ("--emotions", flags.emotions)):
        known = sorted(
            set(table.emotion) | (set(merged.values()) if flag == "--emotions" else set())
        )
        for name in asked:
            if name not in known:
                raise SettingsError(
                    f"{flag}: {corpus} has no emotion {name!r}; {nearest(name, known)}"
                )
    table = chosen(table, merged, flags.emotions)
    found = learned(
        table,
        target,
        corpus=corpus,
        kind=flags.target_kind,
        loss=flags.regression_loss,
        names=names,
    )
    rows, utterances = found.table.index.to_numpy(), found.table.reset_index(drop=True)
    file = flags.labels.name if flags.labels else ""
    aim = found.names, found.objective, target
    return Task(cache, model, corpus, rows, utterances, *aim, labels_file=file, reads=reads)


def labelled(
    cache: FeatureCache, corpus: str, labels: Path | None, target: Sequence[str]
) -> pd.DataFrame:
    """The utterances of a cache with the labels that count.

    Args:
        cache: of the corpus.
        corpus: its name.
        labels: a table, or a folder with CORPUS.csv, in place of what lies beside the cache.
        target: columns that are learned, and so count as labels.

    Raises:
        CacheError: the table is not there, is damaged, or is not of these utterances.
    """
    if labels is None:
        return cache.utterances
    path = labels / f"{corpus}.csv" if labels.is_dir() else labels
    own = read_own_labels(path, wanted=target)
    return with_labels(cache.planned, own, path, strict=True)


def labels_hash_now(
    cache: FeatureCache,
    target: Sequence[str],
    objective: Objective,
    settings: Mapping[str, Any],
    names: Sequence[str] = (),
) -> str:
    """The hash that a record of these labels, as the cache's table holds them now, would have.

    Args:
        cache: whose labels.
        target: columns that are learned.
        objective: how.
        settings: of the run, as its record has them: `map` and `emotions`.
        names: as for `read_task`.

    Returns:
        As `results.records.labels_hash_of`; empty where they can no longer be learned.

    Raises:
        CacheError: the table of labels is missing or damaged.
    """
    merged, emotions = (settings.get(name) or () for name in ("map", "emotions"))
    table = chosen(cache.utterances, label_map(tuple(merged)), emotions)
    kind = kind_of(objective, table, target)
    try:
        found = learned(table, target, corpus=cache.corpus, kind=kind, names=names, tell=False)
    except SettingsError:
        return ""
    return run_id(told_of(found._replace(objective=objective), target))


def chosen(table: pd.DataFrame, merged: Mapping[str, str], emotions: Sequence[str]) -> pd.DataFrame:
    """Utterances with their emotions merged; of these only those asked for, if any are."""
    table = table.assign(emotion=table.emotion.replace(merged))
    return table[table.emotion.isin(emotions)] if emotions else table


def _named(names: Sequence[str], name: Callable[[str], str]) -> list[str]:
    """The names asked for, or nothing where `all` or nothing was asked for."""
    return [] if "all" in names else [name(n) for n in names]
