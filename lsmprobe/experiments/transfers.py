"""Cross-lingual transfer: heads trained on one corpus and tested on another, for every pair.

A stage: a run reads two caches of one model as one cache, and is trained and recorded like any
other. docs/transfer.md says how to read what comes out.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from tqdm.contrib.logging import logging_redirect_tqdm

from lsmprobe.cache.plan import settings
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import TransferConfig, label_map
from lsmprobe.corpora.overlap import shared_sentences, spoken, stated_overlaps
from lsmprobe.errors import CacheError, LsmprobeError, ResultsError, SettingsError, nearest
from lsmprobe.probing.norms import Standardise, frame_statistics, pooled_statistics
from lsmprobe.probing.run import Run, name_runs
from lsmprobe.probing.stage import (
    Failed,
    named_failures,
    planned_runs,
    survivors,
    todo,
    train_survivors,
)
from lsmprobe.probing.task import Task, find_caches, read_task
from lsmprobe.progress import Progress, automatic, silent
from lsmprobe.results.records import is_finished, results_table
from lsmprobe.results.score_table import score_table
from lsmprobe.splits.file import Fold, Split, plural

NAMES = ("corpus", "model", "hub_id", "revision", "store")  # the hash of the weights says more
SHOWN = 3  # sentences that two corpora share
COLUMNS = [  # of the table, what people read first
    *("model", "source", "target", "head", "layer", "macro_f1", "std", "low", "high"),
    *("feature_norm", "target_norm", "emotions", "random_weights", "interval_over", "uar"),
    *("accuracy", "constant_f1", "n_test", "runs", "alarms", "experiment"),
]
log = logging.getLogger(__name__)


def transfer(config: TransferConfig, *, progress: Progress = automatic) -> pd.DataFrame:
    """Train on one corpus and test on another over the emotions they share, for every pair.

    Training and validation are those parts of the source's split by speakers, and its test part is
    not touched; the test set is the whole target. Beside each pair stands the score within the
    target, trained and tested on its own split over the same emotions. What is there already is not
    trained again.

    Returns:
        One row per model, source, target, head and layer, scores in percent: model, random_weights,
        source, target, emotions (those shared), head, layer (missing for Multi-Layer),
        feature_norm, target_norm, macro_f1 (mean over runs), std (over runs, ddof 1), low, high
        (95% interval) and interval_over, uar, accuracy, constant_f1 (the best
        constant answer), n_test, runs, alarms (code -> runs), within_f1 (within the target). Rows
        whose source is their target are the scores within a corpus, one for each set of emotions.

    Raises:
        LsmprobeError: bad input of any kind; finished runs are kept.
    """
    table, failures = transfer_all(config, progress=progress)
    for error in failures.values():
        raise error
    return table


def transfer_all(
    config: TransferConfig,
    *,
    progress: Progress = automatic,
    only: Collection[Path] | None = None,
) -> tuple[pd.DataFrame, dict[str, Exception]]:
    """The table as `transfer` gives it, and by what failed its error; that stops nothing else.

    Args:
        config: what is trained.
        progress: how it is shown.
        only: the records that may be made, where other processes make the others; what is there
            already is in the results all the same.

    Returns:
        One row as `transfer` says, and by what failed its error.
    """
    pairs, failures = planned_pairs(config)
    tables = []
    with logging_redirect_tqdm():
        for pair in progress(pairs, unit="pair"):
            try:
                table, failed = _transfer(config, pair, only)
            except Exception as error:
                if not isinstance(error, LsmprobeError):
                    log.error("%s failed", pair.name, exc_info=error)
                failures[pair.name] = error
                continue
            failures |= failed
            if len(table):
                tables.append(table)
    if not tables:
        return pd.DataFrame(), failures
    table = pd.concat(tables, ignore_index=True)
    within = table["source"] == table["target"]
    return table[~(within & table.duplicated("experiment"))].reset_index(drop=True), failures


@dataclass(frozen=True)
class Pair:
    """Two corpora of one model, and the emotions that both have."""

    model: str
    source: str
    target: str
    paths: tuple[Path, Path]
    merges: tuple[tuple[str, ...], tuple[str, ...]]  # those of --map that concern each
    emotions: tuple[str, ...]
    note: str  # in words: what is shared, what is left out

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model}, {self.source} -> {self.target}"


class _Corpus(NamedTuple):
    """A cache, as far as pairs are concerned."""

    path: Path
    merges: tuple[str, ...]  # those of --map whose label occurs
    emotions: set[str]  # after the merges
    audio: set[str]  # hashes
    sentences: set[str]


def planned_pairs(config: TransferConfig) -> tuple[list[Pair], dict[str, Exception]]:
    """Every ordered pair that can be made, and the caches that cannot be read.

    Pairs that share fewer than two emotions, or audio, are named in the log and left out.

    Raises:
        CacheError: no model has two corpora here, or no pair can be made of them.
        SettingsError: --emotions or --map name what no corpus has.
    """
    held: dict[str, dict[str, _Corpus]] = {}
    failures: dict[str, Exception] = {}
    known: set[str] = set()
    for model, corpus, path in find_caches(config):
        try:
            table = FeatureCache(path).utterances
        except CacheError as error:
            failures[f"{model} on {corpus}"] = error
            continue
        labels, merged = set(table["emotion"]), label_map(config.map)
        own = tuple(merge for merge in config.map if merge.partition("=")[0] in labels)
        emotions = {merged.get(label, label) for label in labels}
        known |= labels | emotions
        held.setdefault(model, {})[corpus] = _Corpus(
            path, own, emotions, set(table["sha256"]), set(table["sentence"])
        )
    if not failures and max(map(len, held.values())) < 2:
        found = "; ".join(f"{model} has {', '.join(corpora)}" for model, corpora in held.items())
        raise CacheError(
            f"transfer needs caches of two corpora by one model; {found}. Run lsmprobe "
            "extract on another corpus."
        )
    for flag, names in (("--map", label_map(config.map)), ("--emotions", config.emotions)):
        for name in names:
            if name not in known:
                raise SettingsError(f"{flag}: no corpus has {name!r}; {nearest(name, known)}")
    pairs = []
    for model, corpora in held.items():
        for source, target in permutations(corpora, 2):
            one, other = corpora[source], corpora[target]
            shared = shared_emotions(one.emotions, other.emotions, config.emotions)
            rest = [", ".join(sorted(each.emotions - {*shared})) or "none" for each in (one, other)]
            note = f"{source} -> {target}: {', '.join(shared)}; left out: {' | '.join(rest)}"
            note += "".join(f"; {said}" for said in in_common(source, one, target, other))
            paths, merges = (one.path, other.path), (one.merges, other.merges)
            pair = Pair(model, source, target, paths, merges, shared, note)
            if same := one.audio & other.audio:
                log.warning("skipping %s: %d clips are in both", pair.name, len(same))
            elif len(shared) < 2:
                count = f"{len(shared)} emotion{'s' * (len(shared) != 1)}"
                hint = merge_hint(one.emotions - {*shared}, other.emotions - {*shared})
                log.warning("skipping %s: they share %s; %s%s", pair.name, count, pair.note, hint)
            else:
                pairs.append(pair)
    if not (pairs or failures):
        raise CacheError(
            "no pair of corpora can be made of these caches, as the lines above say; expected two "
            "that share two emotions or more, and no audio. Merge labels with --map."
        )
    for told in dict.fromkeys(pair.note for pair in pairs):
        log.info(told)
    return pairs, failures


def in_common(source: str, one: _Corpus, target: str, other: _Corpus) -> list[str]:
    """What a reader of the scores must know of two corpora: equal text, and what is published."""
    said = [str(fact) for fact in stated_overlaps(source, target)]
    texts = spoken(source, one.sentences), spoken(target, other.sentences)
    if same := shared_sentences(*texts):
        shown = ", ".join(map(repr, same[:SHOWN])) + (", ..." if len(same) > SHOWN else "")
        said.append(f"{plural(len(same), 'sentence')} in both corpora: {shown}")
    return said


def merge_hint(source: Iterable[str], target: Iterable[str]) -> str:
    """What `--map` would make shared, for a message: emotions that are spelled alike.

    >>> merge_hint({"Angry", "Calm"}, {"anger", "fear"})
    '; --map Angry=anger may be meant'
    """
    known = {each.casefold(): each for each in sorted(target)}
    alike = {each: get_close_matches(each.casefold(), known, n=1, cutoff=0.5) for each in source}
    merges = [f"{each}={known[found[0]]}" for each, found in sorted(alike.items()) if found]
    return f"; --map {' '.join(merges)} may be meant" if merges else ""


def shared_emotions(
    source: Iterable[str], target: Iterable[str], only: Sequence[str] = ()
) -> tuple[str, ...]:
    """The emotions that two corpora share, sorted; of these `only` those, if any are named.

    >>> shared_emotions({"anger", "boredom", "fear"}, {"anger", "fear", "surprise"})
    ('anger', 'fear')
    """
    shared = set(source) & set(target)
    return tuple(sorted(shared & set(only) if only else shared))


def differences(source: Any, target: Any) -> list[str]:
    """Why the hidden states of two caches cannot be compared: settings that are not the same.

    What the model is called does not count, the hash of its weights does.
    """
    one, other = settings(source), settings(target)
    names = sorted((one.keys() | other.keys()) - set(NAMES))
    return [
        f"{name} is {str(one.get(name))[:40]} and {str(other.get(name))[:40]}"
        for name in names
        if one.get(name) != other.get(name)
    ]


class JoinedCache:
    """Some utterances of one cache, then some of another: answers like one cache.

    With `align`, the second one's states are shifted and scaled, per layer and dimension, to the
    mean and standard deviation of the first's training set. Standardising with that set's
    statistics then standardises each corpus with its own: adaptation that reads no label.
    """

    def __init__(
        self, source: Task, rows: np.ndarray, train: np.ndarray, target: Task, *, align: bool
    ) -> None:
        first, second = source.cache, target.cache
        self.path = first.path.with_name(f"{first.path.name}+{second.path.name}")
        self.layers, self.dim = first.layers, first.dim
        self.store = "frames" if {first.store, second.store} == {"frames"} else "pooled"
        self.identity = {**first.identity, "corpus": [source.corpus, target.corpus]}
        self._source, self._rows, self._target = source, rows, target
        self._norms = _norms(source, train, target) if align else None

    @property
    def identity_hash(self) -> str:
        """Equal means same hidden states of the same utterances, but for the choice of rows."""
        both = self._source.cache.identity_hash + self._target.cache.identity_hash
        return hashlib.sha256(both.encode()).hexdigest()

    @cached_property
    def pooled(self) -> Float[np.ndarray, "utterances layers dim"]:
        """The mean over each utterance's frames."""
        means = self._target.pooled
        if self._norms:
            own, other = self._norms["pooled"]
            means = _aligned(means.transpose(0, 1), own, other).transpose(0, 1)
        return np.concatenate([self._source.pooled[self._rows].numpy(), means.numpy()])

    @cached_property
    def pooled_std(self) -> Float[np.ndarray, "utterances layers dim"]:
        """The standard deviation over each utterance's frames, never aligned."""
        kept = self._source.pooled_std[self._rows].numpy()
        return np.concatenate([kept, self._target.pooled_std.numpy()])

    def frames(self, i: int, layer: int) -> Float[np.ndarray, "frames dim"]:
        """The frames of one utterance at one layer, in the type that they are stored in."""
        if i < len(self._rows):
            return self._source.read(int(self._rows[i]), layer)
        frames = self._target.read(i - len(self._rows), layer)
        if not self._norms:
            return frames
        place = self.layers.index(layer)
        own, other = (_of_layer(norm, place) for norm in self._norms["frames"])
        wide = torch.from_numpy(frames.astype(np.float32))
        return _aligned(wide, own, other).numpy().astype(frames.dtype)


def _norms(
    source: Task, train: np.ndarray, target: Task
) -> dict[str, tuple[Standardise, Standardise]]:
    """Standardisation of the training set and of the target: of means, and of frames."""
    rows = torch.from_numpy(train)
    lengths = torch.from_numpy(source.lengths[train])
    of_source = frame_statistics(source.pooled[rows], source.pooled_std[rows], lengths)
    lengths = torch.from_numpy(np.array(target.lengths))
    of_target = frame_statistics(target.pooled, target.pooled_std, lengths)
    return {
        "pooled": (
            Standardise(*pooled_statistics(source.pooled[rows])),
            Standardise(*pooled_statistics(target.pooled)),
        ),
        "frames": (Standardise(*of_source), Standardise(*of_target)),
    }


def _of_layer(norm: Standardise, place: int) -> Standardise:
    return Standardise(norm.mean[place], norm.std[place])


def _aligned(
    states: Float[torch.Tensor, "*layers frames dim"], own: Standardise, other: Standardise
) -> Float[torch.Tensor, "*layers frames dim"]:
    """Standardised as `other` does, then the way back that `own` came."""
    return other(states) * own.std.unsqueeze(-2) + own.mean.unsqueeze(-2)


def joined_task(
    pair: Pair, source: Task, target: Task, split: Split, *, align: bool
) -> tuple[Task, Split]:
    """Both corpora as one task: training and validation of the source, the target as test set.

    Keys and speakers get their corpus as a first folder, so that none is in both.
    """
    [fold] = split.folds
    rows = np.concatenate([fold.train, fold.validation])
    tables = [source.utterances.iloc[rows], target.utterances]
    table = pd.concat(
        [
            own.assign(key=f"{corpus}/" + own["key"], speaker=f"{corpus}/" + own["speaker"])
            for corpus, own in zip((pair.source, pair.target), tables, strict=True)
        ],
        ignore_index=True,
    )
    cache = JoinedCache(source, rows, fold.train, target, align=align)
    name = f"{pair.source}-to-{pair.target}"
    task = Task(cache, pair.model, name, np.arange(len(table)), table, pair.emotions)
    bounds = [len(fold.train), len(rows)]
    parts = Fold(*np.split(np.arange(len(table)), bounds))
    gaps = [note for note in split.notes if note.startswith(("train ", "validation "))]
    return task, Split("transfer", split.seed, (parts,), (pair.note, *gaps))


class Leg(NamedTuple):
    """Runs of one task: across a pair of corpora, or within its target."""

    config: TransferConfig
    task: Task
    runs: list[Run]


def planned_legs(config: TransferConfig, pair: Pair) -> tuple[Leg, Leg]:
    """The runs of a pair, and those within its target.

    Raises:
        LsmprobeError: the caches cannot be read, or not be compared.
    """
    there, here = (replace(config, emotions=pair.emotions, map=own) for own in pair.merges)
    source = read_task(there, pair.model, pair.source, pair.paths[0])
    target = read_task(here, pair.model, pair.target, pair.paths[1])
    assert source.classes == target.classes == pair.emotions
    if found := differences(source.cache, target.cache):
        raise CacheError(
            f"{pair.paths[0]} and {pair.paths[1]} are not of one model with one preprocessing: "
            f"{'; '.join(found)}. Extract one of them again."
        )
    planned = planned_runs(there, source), planned_runs(here, target)
    kinds = [{(run.head, run.layer) for run in runs} for runs in planned]
    both = set.intersection(*kinds)  # one of the caches may hold pooled means only
    like, within = ([run for run in runs if (run.head, run.layer) in both] for runs in planned)
    task, split = joined_task(pair, source, target, like[0].split, align=config.target_norm)
    about = {"source": pair.source, "target": pair.target, "target_norm": config.target_norm}
    heads = {(run.head, run.layer): {**run.settings, **about} for run in like}
    across = name_runs(
        task,
        [(*head, chosen) for head, chosen in heads.items()],
        {run.seed: split for run in like},
        config.results_dir,
    )
    return Leg(there, task, across), Leg(here, target, within)


def train_leg(leg: Leg, only: Collection[Path] | None, bar: Any) -> list[Failed]:
    """Train what is not there yet, as `train_survivors` does; `only` as for `todo`."""
    jobs = [(leg.config, run) for run in todo(leg.runs, leg.config.force, only)]
    return train_survivors(jobs, leg.task, bar)


def _transfer(
    config: TransferConfig, pair: Pair, only: Collection[Path] | None = None
) -> tuple[pd.DataFrame, dict[str, Exception]]:
    """The runs of a pair and those within its target, and by what failed its error."""
    across, within = planned_legs(config, pair)
    table, failures = _scored(across, pair.name, only)
    diagonal, more = _scored(within, f"{pair.model}, within {pair.target}", only)
    tables = [
        rows.assign(
            source=name,
            target=pair.target,
            emotions=", ".join(pair.emotions),
            target_norm=config.target_norm and rows is table,
        )
        for rows, name in ((table, pair.source), (diagonal, pair.target))
    ]
    of_target = diagonal.set_index(["head", "layer"])["macro_f1"]
    both_ways = pd.concat(
        [
            rows[COLUMNS].merge(of_target.rename("within_f1").reset_index(), how="left")
            for rows in tables
            if len(rows)
        ]
        or [tables[0][COLUMNS]],
        ignore_index=True,
    )
    return both_ways, failures | more


def _scored(
    leg: Leg, of: str, only: Collection[Path] | None
) -> tuple[pd.DataFrame, dict[str, Exception]]:
    """Train what is not there yet; the scores, a row per head and layer, and what failed."""
    failed = train_leg(leg, only, silent())
    made = [run for run in survivors(leg.runs, failed) if is_finished(run.path)]
    results = results_table(run.path for run in made)
    told = results.groupby("experiment")[["random_weights", "n_test"]].first()
    table = score_table(results).join(told, on="experiment")
    failures = named_failures(of, failed)
    if only is not None and (n_lacking := len(todo(survivors(leg.runs, failed), only=None))):
        lacking = f"{n_lacking} of {len(leg.runs)} runs have no record; run it again."
        failures |= {of: ResultsError(lacking)}
    return table, failures
