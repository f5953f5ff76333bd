"""Cross-lingual transfer: heads trained on one corpus and tested on another, for every pair.

A stage: a run reads two caches of one model as one cache, and is trained and recorded like any
other. docs/transfer.md says how to read what comes out.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from tqdm.contrib.logging import logging_redirect_tqdm

from lsmprobe.cache.plan import settings
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import TransferConfig, label_map
from lsmprobe.corpora.overlap import shared_sentences, spoken, stated_overlaps
from lsmprobe.errors import CacheError, LsmprobeError, ResultsError, SettingsError, counted, nearest
from lsmprobe.probing.norms import Standardise, frame_statistics, pooled_statistics
from lsmprobe.probing.run import Run, name_runs, one_test_set
from lsmprobe.probing.stage import (
    Failed,
    named_failures,
    planned_runs,
    survivors,
    todo,
    train_survivors,
)
from lsmprobe.probing.table import what_is_read
from lsmprobe.probing.targets import Read, read_target, target_columns
from lsmprobe.probing.task import Task, chosen, find_caches, labelled, read_task
from lsmprobe.progress import Progress, automatic, silent
from lsmprobe.results.measures import EMOTION, Measure
from lsmprobe.results.records import is_finished, results_table, run_id
from lsmprobe.results.score_table import score_table
from lsmprobe.splits.file import Fold, Split

NAMES = ("corpus", "model", "hub_id", "revision", "store")  # the hash of the weights says more
SHOWN = 3  # sentences that two corpora share
ALIKE = 0.75  # of what two ranges of numbers span together; those that share less differ a lot
log = logging.getLogger(__name__)


def transfer(config: TransferConfig, *, progress: Progress = automatic) -> pd.DataFrame:
    """Train on one corpus and test on another over the classes they share, for every pair.

    Training and validation are those parts of the source's split by speakers, and its test part is
    not touched; the test set is the whole target. Beside each pair stands the score within the
    target, trained and tested on its own split over the same classes. What is there already is not
    trained again. Classes are matched by name; numbers are compared as they are, so both corpora
    must have them on one scale.

    Returns:
        One row per model, source, target, head and layer: model, random_weights, source, target,
        learned (the columns that are learned, by default emotion), measure, classes (those shared,
        or the columns of numbers), head, layer (missing for Multi-Layer), feature_norm,
        target_norm, the score that decides (mean over runs), std (over runs, ddof 1), low, high
        (95% interval) and interval_over, the other scores, the best constant answer, n_test, runs,
        alarms (code -> runs), and the score within the target. Of classes, in percent: macro_f1,
        uar, accuracy, constant_f1, within_f1; of numbers ccc, pearson, rmse, mae, constant_ccc,
        within_ccc; of soft labels those of `score_table`. Rows whose source is their target are the
        scores within a corpus, one for each set of classes.

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
    """Two corpora of one model, and the classes that both have."""

    model: str
    source: str
    target: str
    paths: tuple[Path, Path]
    merges: tuple[tuple[str, ...], tuple[str, ...]]  # those of --map that concern each
    emotions: tuple[tuple[str, ...], tuple[str, ...]]  # those of --emotions that concern each
    classes: tuple[str, ...]  # those shared; or the columns of numbers
    note: str  # in words: what is shared, what is left out

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.model}, {self.source} -> {self.target}"


class _Corpus(NamedTuple):
    """A cache, as far as pairs are concerned."""

    path: Path
    merges: tuple[str, ...]  # those of --map whose label occurs
    emotions: tuple[str, ...]  # those of --emotions that occur after the merges
    target: Read
    audio: set[str]  # hashes
    sentences: set[str]


def planned_pairs(config: TransferConfig) -> tuple[list[Pair], dict[str, Exception]]:
    """Every ordered pair that can be made, and the caches that cannot be read.

    Pairs that share fewer than two emotions, or audio, are named in the log and left out.

    Raises:
        CacheError: no model has two corpora here, or no pair can be made of them.
        SettingsError: --emotions or --map name what no corpus has.
    """
    columns = target_columns(config.target)
    held: dict[str, dict[str, _Corpus]] = {}
    failures: dict[str, Exception] = {}
    known: set[str] = set()
    merged = label_map(config.map)
    for model, corpus, path in find_caches(config):
        try:
            table = labelled(FeatureCache(path), corpus, config.labels, columns)
            labels = set(table["emotion"])
            known |= labels | {merged.get(label, label) for label in labels}
            table = chosen(table, merged, () if columns == EMOTION else config.emotions)
            read = read_target(table, columns, corpus=corpus, kind=config.target_kind)
        except (CacheError, SettingsError) as error:
            failures[f"{model} on {corpus}"] = error
            continue
        held.setdefault(model, {})[corpus] = _Corpus(
            path,
            tuple(merge for merge in config.map if merge.partition("=")[0] in labels),
            tuple(each for each in config.emotions if each in set(table["emotion"])),
            read,
            set(table["sha256"]),
            set(table["sentence"]),
        )
    if not failures and max(map(len, held.values())) < 2:
        found = "; ".join(f"{model} has {', '.join(corpora)}" for model, corpora in held.items())
        raise CacheError(
            f"transfer needs caches of two corpora by one model; {found}. Run lsmprobe "
            "extract on another corpus."
        )
    for flag, names in (("--map", merged), ("--emotions", config.emotions)):
        for name in names:
            if name not in known:
                raise SettingsError(f"{flag}: no corpus has {name!r}; {nearest(name, known)}")
    _check_kinds(held, config.target)
    pairs: list[Pair] = []
    loud: set[str] = set()
    for model, corpora in held.items():
        for source, target in permutations(corpora, 2):
            one, other = corpora[source], corpora[target]
            matched = _match(one.target, other.target, columns, config.emotions)
            note = f"{source} -> {target}: {matched.note}"
            note += "".join(f"; {said}" for said in in_common(source, one, target, other))
            paths, merges = (one.path, other.path), (one.merges, other.merges)
            emotions = one.emotions, other.emotions
            if columns == EMOTION:
                emotions = matched.classes, matched.classes
            pair = Pair(model, source, target, paths, merges, emotions, matched.classes, note)
            if same := one.audio & other.audio:
                found = counted(len(same), "clip", "is")
                log.warning("skipping %s: %s in both", pair.name, found)
            elif matched.lacks:
                log.warning("skipping %s: %s", pair.name, matched.lacks.format(note=pair.note))
            else:
                pairs.append(pair)
                loud |= set() if matched.alike else {note}
    if not (pairs or failures):
        raise CacheError(
            "no pair of corpora can be made of these caches, as the lines above say; expected two "
            f"that share {counted(2, _what(columns))} or more, and no audio."
            + (" Merge labels with --map." if columns == EMOTION else "")
        )
    for told in dict.fromkeys(pair.note for pair in pairs):
        (log.warning if told in loud else log.info)(told)
    return pairs, failures


def in_common(source: str, one: _Corpus, target: str, other: _Corpus) -> list[str]:
    """What a reader of the scores must know of two corpora: equal text, and what is published."""
    said = [str(fact) for fact in stated_overlaps(source, target)]
    texts = spoken(source, one.sentences), spoken(target, other.sentences)
    if same := shared_sentences(*texts):
        shown = ", ".join(map(repr, same[:SHOWN])) + (", ..." if len(same) > SHOWN else "")
        said.append(f"{counted(len(same), 'sentence')} in both corpora: {shown}")
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


def _check_kinds(held: Mapping[str, Mapping[str, _Corpus]], target: str) -> None:
    """Refuse a column that is numbers in one corpus and words in another."""
    kinds: dict[str, list[str]] = {}
    for corpora in held.values():
        for corpus, own in corpora.items():
            if corpus not in kinds.setdefault(own.target.kind, []):
                kinds[own.target.kind].append(corpus)
    if len(kinds) > 1:
        found = "; ".join(f"{kind} in {', '.join(names)}" for kind, names in kinds.items())
        raise SettingsError(
            f"--target: {target} is of {found}; expected one kind. Name corpora of one kind with "
            "--dataset, or the kind with --target-kind."
        )


class Matched(NamedTuple):
    """What two corpora share of a target."""

    classes: tuple[str, ...]  # or the columns of numbers
    note: str
    lacks: str = ""  # why nothing can be learned of it; with {note} in its place
    alike: bool = True  # False where numbers are not on one scale


def _match(source: Read, target: Read, columns: Sequence[str], only: Sequence[str] = ()) -> Matched:
    """Classes and votes by name, columns of numbers by their ranges."""
    if source.kind == "numbers":
        ranges = [_ranges(source, target, name) for name in columns]
        note, alike = "; ".join(said for said, _ in ranges), all(alike for _, alike in ranges)
        return Matched(source.names, note, alike=alike)
    if source.kind == "shares":  # the columns themselves are the classes
        return Matched(source.names, f"shares of {', '.join(source.names)}")
    kept = only if columns == EMOTION else ()
    shared = shared_classes(source.names, target.names, kept)
    one, other = (sorted(set(each.names) - {*shared}) for each in (source, target))
    left, also_left = (", ".join(each) or "none" for each in (one, other))
    what = "" if columns == EMOTION else f"{columns[0]}: "
    note = (
        f"{what}{', '.join(shared) or 'nothing shared'}; left out of the source: {left}; of the "
        f"target: {also_left}"
    )
    if len(shared) > 1:
        return Matched(shared, note)
    count = counted(len(shared), _what(columns))
    hint = merge_hint(one, other) if columns == EMOTION else ""
    return Matched(shared, note, f"they share {count}; {{note}}{hint}")


def _what(columns: Sequence[str]) -> str:
    """What is matched by name, as `counted` takes it."""
    of = f" of {','.join(columns)}"
    return "emotion" if columns == EMOTION else f"value{of}|values{of}"


def _ranges(source: Read, target: Read, name: str) -> tuple[str, bool]:
    """The ranges of a column of numbers in two corpora in words, and whether they are alike."""
    (low, high), (other_low, other_high) = (
        (float(each.table[name].min()), float(each.table[name].max())) for each in (source, target)
    )
    said = f"{name}, {low:g} to {high:g} and {other_low:g} to {other_high:g}"
    shared = min(high, other_high) - max(low, other_low)
    if shared >= ALIKE * (max(high, other_high) - min(low, other_low)):
        return said, True
    return (
        f"{said}, which are not one scale: CCC, RMSE and MAE count that as error, Pearson does "
        "not; bring them to one with --labels DIR",
        False,
    )


def shared_classes(
    source: Iterable[str], target: Iterable[str], only: Sequence[str] = ()
) -> tuple[str, ...]:
    """The classes that two corpora share, sorted; of these `only` those, if any are named.

    >>> shared_classes({"anger", "boredom", "fear"}, {"anger", "fear", "surprise"})
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

    def means_of(
        self, rows: Int[np.ndarray, " some"], layers: Sequence[int]
    ) -> Float[np.ndarray, "some layers dim"]:
        """`pooled` of some utterances at some layers."""
        return self.pooled[rows[:, None], [*map(self.layers.index, layers)]]

    def stds_of(
        self, rows: Int[np.ndarray, " some"], layers: Sequence[int]
    ) -> Float[np.ndarray, "some layers dim"]:
        """As `means_of`, of `pooled_std`."""
        return self.pooled_std[rows[:, None], [*map(self.layers.index, layers)]]

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
    aim = source.objective, source.target
    labels = tuple(
        {
            "file": f"{own.cache.path.parent.name}/{own.cache.path.name}",
            "cache": own.cache.identity_hash,
            "hash": run_id(own.learned),
            "settings": {"map": list(merges), "emotions": list(emotions)},
        }
        for own, merges, emotions in zip((source, target), pair.merges, pair.emotions, strict=True)
    )
    of_both = cache, pair.model, name, np.arange(len(table)), table, pair.classes, *aim
    task = Task(*of_both, labels_file=source.labels_file, of=labels)
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
    there, here = (
        replace(config, emotions=own, map=merges)
        for own, merges in zip(pair.emotions, pair.merges, strict=True)
    )
    reads, classes = what_is_read(config.head), pair.classes
    places = pair.paths
    source = read_task(there, pair.model, pair.source, places[0], names=classes, reads=reads)
    target = read_task(here, pair.model, pair.target, places[1], names=classes, reads=reads)
    assert source.classes == target.classes == classes
    if found := differences(source.cache, target.cache):
        raise CacheError(
            f"{places[0]} and {places[1]} are not of one model with one preprocessing: "
            f"{'; '.join(found)}. Extract one of them again."
        )
    planned = planned_runs(there, source), planned_runs(here, target)
    one_test_set(planned[1], f"the score within {pair.target}")
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
            learned=",".join(across.task.target),
            classes=", ".join(pair.classes),
            target_norm=config.target_norm and rows is table,
        )
        for rows, name in ((table, pair.source), (diagonal, pair.target))
    ]
    measure = across.task.objective.measure
    columns = columns_of(measure)
    of_target = (
        diagonal.reindex(columns=["head", "layer", measure.score])
        .set_index(["head", "layer"])[measure.score]
        .rename(measure.within)
    )
    both_ways = pd.concat(
        [rows[columns].merge(of_target.reset_index(), how="left") for rows in tables if len(rows)]
        or [tables[0].reindex(columns=columns)],
        ignore_index=True,
    )
    return both_ways, failures | more


def columns_of(measure: Measure) -> list[str]:
    """The columns of the table, what people read first."""
    score, *others = measure.scores
    return [
        *("model", "source", "target", "head", "layer", score, "std", "low", "high"),
        *("feature_norm", "target_norm", "learned", "measure", "classes", "random_weights"),
        *("interval_over", *others, measure.constant, *measure.references.values()),
        *("n_test", "runs", "alarms", "experiment"),
    ]


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
        lacking = counted(n_lacking, "run", "has", of=len(leg.runs))
        lacking += " no record; run it again."
        failures |= {of: ResultsError(lacking)}
    return table, failures
