"""Splits of a corpus into train, validation and test: whole speakers, every emotion in every part.

A split is found, not drawn: all assignments of speakers to parts are compared where they are few,
and swaps lead to the best ones where they are many. docs/splits.md shows what real corpora allow.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from lsmprobe.errors import SplitError, nearest

PARTS = ("train", "validation", "test")
SPECS = ("auto", "speaker", "random", "loso", "kfold:K", "given")
FORMAT, VERSION = "lsmprobe split", 1
MAX_EXHAUSTIVE = 3**12  # assignments that are all compared: 12 speakers in 3 parts, one second
MAX_STARTS = 576  # over the squared number of parts: 64 descents by swaps where there are 3 parts
MAX_MOVED = 100  # speakers whose swaps one step compares; a random sample where there are more


@dataclass(frozen=True, eq=False)
class Fold:
    """Sorted indices into the utterances; together they hold every utterance once."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


@dataclass(frozen=True, eq=False)
class Split:
    """One fold, or several whose test sets hold every utterance once.

    `kind` is speaker, random, loso, kfold:K, given or file; `notes` are sentences that a reader of
    the scores must be told: what no split of these speakers can give, and that a split leaks.
    """

    kind: str
    seed: int
    folds: tuple[Fold, ...]
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------ kinds of splits


def make_split(spec: str, utterances: pd.DataFrame, *, seed: int = 0) -> Split:
    """The split that `--split` asks for.

    Args:
        spec: `auto` (the manifest's own split where every utterance has one, else `speaker`),
            `speaker`, `random`, `loso`, `kfold:K`, `given`, or the path of a split file.
        utterances: columns key, emotion, speaker; gender and split where the corpus has them.
        seed: which one of the near-best splits; see `speaker_split`.

    Raises:
        SplitError: the corpus cannot be split so, or `spec` is none of these.
    """
    speakers, emotions = utterances["speaker"], utterances["emotion"]
    given = utterances["split"].tolist() if "split" in utterances else [""]
    if spec == "auto":
        spec = "given" if all(given) else "speaker"
    if spec == "speaker":
        return speaker_split(speakers, emotions, genders=utterances.get("gender"), seed=seed)
    if spec == "random":
        return random_split(speakers, emotions, seed=seed)
    if spec == "loso":
        return leave_one_speaker_out(speakers, emotions)
    if spec.startswith("kfold:"):
        k = spec.removeprefix("kfold:")
        if not k.isdecimal():
            raise SplitError(f"--split {spec} has no number of folds. Say for example kfold:5.")
        return k_fold_speakers(speakers, emotions, int(k), seed=seed)
    if spec == "given":
        split = given_split(given)
    elif spec.endswith(".json") or Path(spec).is_file():
        split = load_split(spec, utterances["key"].tolist())
    else:
        known = nearest(spec, SPECS)
        raise SplitError(f"--split {spec} is neither a kind of split nor a file; {known}")
    leak = _leak_notes(split.folds, _as_strings(speakers))
    return replace(split, notes=tuple(dict.fromkeys((*split.notes, *leak))))


def speaker_split(
    speakers: ArrayLike,
    emotions: ArrayLike,
    *,
    genders: ArrayLike | None = None,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Whole speakers to one part each, nearest to `fractions` with each class in its share.

    Args:
        speakers: one per utterance.
        emotions: one per utterance.
        genders: one per utterance, `female`, `male` or empty; only the notes read them.
        fractions: of the utterances in train, validation and test.
        seed: 0 is the best split found, n the best one whose test set is none of the n before it.
            There are at most as many as speakers; then they come round again, and a note says so.

    Raises:
        SplitError: fewer than three speakers, or an utterance without one.
    """
    _check_fractions(fractions)
    names, speaker_of, counts = _tally(speakers, emotions)
    _check_speakers(len(names), 3, "train, validation and test")
    trains = np.array([[True, False, False]])
    ranked = _rank_assignments(counts, np.array(fractions), trains)
    part_of, again = _choose(ranked, ranked == PARTS.index("test"), seed)
    fold = Fold(*(np.flatnonzero(part_of[speaker_of] == part) for part in range(len(PARTS))))
    notes = [
        *_size_notes(fold, speaker_of, genders, fractions, "nearest" if seed == 0 else "near"),
        *_gap_notes(fold, speaker_of, _as_strings(emotions)),
        *again,
    ]
    return Split("speaker", seed, (fold,), tuple(notes))


def random_split(
    speakers: ArrayLike,
    emotions: ArrayLike,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Utterances at random, each emotion divided by `fractions`; speakers are shared, so it leaks.

    Raises:
        SplitError: an emotion with fewer than three utterances.
    """
    _check_fractions(fractions)
    voices, labels = _as_strings(speakers), _as_strings(emotions)
    _check_lengths(voices, labels)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < len(PARTS):
        found = f"`{classes[counts.argmin()]}` has {_plural(int(counts.min()), 'utterance')}"
        raise SplitError(f"{found}; each of 3 parts needs one. Drop the label or add utterances.")
    # Rounding what all classes up to this one should have keeps the parts' sizes within one.
    upto = np.cumsum(counts)[:, None] * np.array(fractions[1:])
    held_out = np.diff(np.floor(upto + 0.5), axis=0, prepend=0).astype(int)
    rng = np.random.default_rng(seed)
    parts = np.zeros(len(labels), dtype=int)
    for label, count, (validation, test) in zip(classes, counts, held_out, strict=True):
        validation = np.clip(validation, 1, count - 2)
        test = np.clip(test, 1, count - 1 - validation)
        shuffled = rng.permutation(np.flatnonzero(labels == label))
        parts[shuffled[:validation]] = 1
        parts[shuffled[validation : validation + test]] = 2
    fold = Fold(*(np.flatnonzero(parts == part) for part in range(len(PARTS))))
    return Split("random", seed, (fold,), _leak_notes((fold,), voices))


def leave_one_speaker_out(speakers: ArrayLike, emotions: ArrayLike) -> Split:
    """One fold per speaker, in sorted order; the next speaker is validation, the others train.

    Raises:
        SplitError: fewer than three speakers, or an utterance without one.
    """
    names, speaker_of, _ = _tally(speakers, emotions)
    _check_speakers(len(names), 3, "train, validation and test")
    folds = _rotate(speaker_of, len(names))
    return Split("loso", 0, folds, _rotation_notes(folds, _as_strings(emotions)))


def k_fold_speakers(speakers: ArrayLike, emotions: ArrayLike, k: int, *, seed: int = 0) -> Split:
    """K groups of whole speakers, as even as can be; each is test once, the next one validation.

    Raises:
        SplitError: fewer than three folds, fewer speakers than folds, an utterance without one.
    """
    names, speaker_of, counts = _tally(speakers, emotions)
    if k < len(PARTS):
        raise SplitError(f"{k} folds leave no training set beside validation and test; ask for 3.")
    _check_speakers(len(names), k, f"{k} folds")
    group = np.arange(k)
    trains = (group != group[:, None]) & (group != (group[:, None] + 1) % k)
    ranked = _rank_assignments(counts, np.full(k, 1 / k), trains)
    # Turning the groups round changes nothing: let the first speaker always be in the first.
    ranked = (ranked - ranked[:, :1]) % k
    part_of, again = _choose(ranked, ranked, seed)
    folds = _rotate(part_of[speaker_of], k)
    return Split(
        f"kfold:{k}", seed, folds, (*_rotation_notes(folds, _as_strings(emotions)), *again)
    )


def given_split(splits: Sequence[str]) -> Split:
    """The split that the corpus brings: `train`, `validation` or `test` for every utterance.

    Raises:
        SplitError: another name, an utterance without one, or an empty part.
    """
    found = Counter(splits)
    if set(found) != set(PARTS):
        names = ", ".join(f"{name or '(empty)'} {count}" for name, count in sorted(found.items()))
        expected = "train, validation and test, every utterance in one"
        raise SplitError(
            f"the split column holds {names}; expected {expected}. Or --split speaker."
        )
    column = np.array(splits)
    return Split("given", 0, (Fold(*(np.flatnonzero(column == part) for part in PARTS)),))


# -------------------------------------------------------------------------------- the optimiser


def _badness(
    totals: Float[np.ndarray, "candidates parts classes"],
    fractions: Float[np.ndarray, " parts"],
    trains: Bool[np.ndarray, "folds parts"],
) -> Float[np.ndarray, "candidates 4"]:
    """What is wrong with each candidate, the gravest first; the smallest row, read in order, wins.

    1. the empty parts;
    2. the classes that training lacks, over all folds (`trains`: the parts that it is made of);
    3. the classes that a part lacks which is validation or test in some fold;
    4. how far the sizes are from `fractions` f, each relative to its own, and how far the classes
       of each part are from the corpus's (total variation):

           sum_p ( |n_p / n - f_p| / f_p  +  1/2 sum_c |n_pc / n_p - n_c / n| )

       with n_pc utterances of class c in part p; an index that is left out is summed over.
    """
    held_out = ~trains.all(axis=0)
    sizes = totals.sum(axis=2)
    wanted = totals[0].sum(axis=0) / totals[0].sum()
    shares = totals / np.maximum(sizes, 1)[:, :, None]
    training = np.einsum("fp,npc->nfc", trains.astype(float), totals)
    size_off = np.abs(sizes / sizes[0].sum() - fractions) / fractions
    share_off = np.abs(shares - wanted).sum(axis=2) / 2
    return np.column_stack(
        [
            (sizes == 0).sum(axis=1),
            (training == 0).sum(axis=(1, 2)),
            (totals[:, held_out] == 0).sum(axis=(1, 2)),
            (size_off + share_off).sum(axis=1).round(9),  # ties are ties on every machine
        ]
    )


def _order(badness: Float[np.ndarray, "candidates 4"]) -> Int[np.ndarray, " candidates"]:
    return np.lexsort(badness.T[::-1])


def _rank_assignments(
    counts: Float[np.ndarray, "speakers classes"],
    fractions: Float[np.ndarray, " parts"],
    trains: Bool[np.ndarray, "folds parts"],
) -> Int[np.ndarray, "candidates speakers"]:
    """The part of each speaker, best first: all assignments with the fewest gaps, or the optima."""
    n_speakers, n_parts = len(counts), len(fractions)
    if n_parts**n_speakers <= MAX_EXHAUSTIVE:
        candidates = _all_assignments(n_speakers, n_parts)
    else:
        rng = np.random.default_rng(0)
        found = []
        for start in range(max(2, MAX_STARTS // n_parts**2)):
            assignment = _random_assignment(counts, fractions, rng)
            # One speaker stays in the last part, another each time: optima with other test sets.
            pinned = start % n_speakers
            assignment[pinned] = n_parts - 1
            found.append(_descend(assignment, pinned, counts, fractions, trains, rng))
        candidates = np.stack(found)
    badness = np.concatenate(
        [
            _badness(_totals(some, counts, n_parts), fractions, trains)
            for some in np.array_split(candidates, len(candidates) // 10_000 + 1)
        ]
    )
    order = _order(badness)
    gaps = badness[order, :3]
    return candidates[order[(gaps == gaps[0]).all(axis=1)]]


def _all_assignments(n_speakers: int, n_parts: int) -> Int[np.ndarray, "candidates speakers"]:
    """Every assignment; among equals the one comes first whose first speakers are held out."""
    codes = np.arange(n_parts**n_speakers)[:, None]
    digits = codes // n_parts ** np.arange(n_speakers)[::-1] % n_parts
    return n_parts - 1 - digits


def _random_assignment(
    counts: Float[np.ndarray, "speakers classes"],
    fractions: Float[np.ndarray, " parts"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " speakers"]:
    """Speakers in random order fill one part after the other."""
    order = rng.permutation(len(counts))
    sizes = counts.sum(axis=1)[order]
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    assignment = np.empty(len(counts), dtype=int)
    assignment[order] = np.searchsorted(np.cumsum(fractions)[:-1], middles)
    return assignment


def _descend(
    assignment: Int[np.ndarray, " speakers"],
    pinned: int,
    counts: Float[np.ndarray, "speakers classes"],
    fractions: Float[np.ndarray, " parts"],
    trains: Bool[np.ndarray, "folds parts"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " speakers"]:
    """Swap or move the speakers that help most, `pinned` aside, until no swap or move helps."""
    n_speakers, n_parts = len(counts), len(fractions)
    # A silent speaker waits in each part: a swap with one is a move.
    voices = np.concatenate([counts, np.zeros((n_parts, counts.shape[1]))])
    totals = _totals(assignment[None], counts, n_parts)
    badness = _badness(totals, fractions, trains)[0]
    while True:
        part_of = np.concatenate([assignment, np.arange(n_parts)])
        free = rng.permutation(n_speakers)
        moved = np.sort(free[free != pinned][:MAX_MOVED])
        partners = np.concatenate([moved, np.arange(n_speakers, n_speakers + n_parts)])
        row, column = np.nonzero(np.triu(part_of[moved, None] != part_of[partners]))
        one, other = moved[row], partners[column]
        swapped = np.repeat(totals, len(one), axis=0)
        swap = np.arange(len(one))
        swapped[swap, part_of[one]] += voices[other] - voices[one]
        swapped[swap, part_of[other]] += voices[one] - voices[other]
        candidates = _badness(swapped, fractions, trains)
        best = _order(candidates)[0]
        if tuple(candidates[best]) >= tuple(badness):
            return assignment
        part_of[[one[best], other[best]]] = part_of[[other[best], one[best]]]
        assignment, totals, badness = part_of[:n_speakers], swapped[[best]], candidates[best]


def _totals(
    assignments: Int[np.ndarray, "candidates speakers"],
    counts: Float[np.ndarray, "speakers classes"],
    n_parts: int,
) -> Float[np.ndarray, "candidates parts classes"]:
    return (assignments[:, None] == np.arange(n_parts)[:, None]).astype(float) @ counts


def _choose(
    ranked: Int[np.ndarray, "candidates speakers"], marks: np.ndarray, seed: int
) -> tuple[Int[np.ndarray, " speakers"], tuple[str, ...]]:
    """The assignment for a seed among those whose rows of `marks` differ; a note if it repeats."""
    distinct: dict[bytes, np.ndarray] = {}
    for assignment, mark in zip(ranked, marks, strict=True):
        distinct.setdefault(mark.tobytes(), assignment)
        if len(distinct) > seed or len(distinct) == ranked.shape[1]:
            break
    same = seed % len(distinct)
    note = f"seed {seed} gives the split of seed {same} again: {len(distinct)} near-best are known"
    return list(distinct.values())[same], () if same == seed else (note,)


def _rotate(part_of: Int[np.ndarray, " utterances"], k: int) -> tuple[Fold, ...]:
    """Each part is test once; the next one is validation, the others train."""

    def fold(test: int) -> Fold:
        validation = (test + 1) % k
        return Fold(
            train=np.flatnonzero((part_of != test) & (part_of != validation)),
            validation=np.flatnonzero(part_of == validation),
            test=np.flatnonzero(part_of == test),
        )

    return tuple(fold(test) for test in range(k))


# ------------------------------------------------------------------------ what a reader is told


def _size_notes(
    fold: Fold,
    speaker_of: Int[np.ndarray, " utterances"],
    genders: ArrayLike | None,
    fractions: tuple[float, float, float],
    nearness: str,
) -> list[str]:
    n_speakers = int(speaker_of.max()) + 1
    sizes = [len(fold.train), len(fold.validation), len(fold.test)]
    wanted = "/".join(f"{100 * fraction:.0f}" for fraction in fractions)
    reached = "/".join(f"{100 * size / sum(sizes):.0f}" for size in sizes)
    facts = []
    if reached != wanted:
        facts.append(f"{nearness} to {wanted} is {reached}")
    if len(set(speaker_of[fold.test])) == 1:
        gender = "" if genders is None else str(_as_strings(genders)[fold.test[0]])
        who = {"female": "woman", "male": "man"}.get(gender, "speaker")
        facts.append(f"the test set is one {who}")
    return [f"{n_speakers} speakers: {'; '.join(facts)}"] if facts else []


def _gap_notes(fold: Fold, speaker_of: np.ndarray, emotions: np.ndarray) -> list[str]:
    notes = []
    for part in PARTS:
        for emotion in _missing(getattr(fold, part), emotions):
            n = len(set(speaker_of[emotions == emotion]))
            why = "no split with fewer gaps was found"
            if n < len(PARTS):
                why = f"no split of these speakers avoids a gap, {n} of them can give `{emotion}`"
            notes.append(f"{part} has no `{emotion}`: {why}")
    return notes


def _rotation_notes(folds: tuple[Fold, ...], emotions: np.ndarray) -> tuple[str, ...]:
    """Gaps of train and test; those of validation are those of test, one fold earlier."""
    gaps = Counter(
        (part, emotion)
        for part in ("train", "test")
        for fold in folds
        for emotion in _missing(getattr(fold, part), emotions)
    )
    return tuple(
        f"{part} has no `{emotion}` in {count} of {len(folds)} folds"
        for (part, emotion), count in gaps.items()
    )


def _missing(part: np.ndarray, emotions: np.ndarray) -> list[str]:
    return np.setdiff1d(emotions, emotions[part]).tolist()


def _leak_notes(folds: tuple[Fold, ...], speakers: np.ndarray) -> tuple[str, ...]:
    tested = {(n, speaker) for n, fold in enumerate(folds) for speaker in speakers[fold.test]}
    trained = {(n, speaker) for n, fold in enumerate(folds) for speaker in speakers[fold.train]}
    known = {speaker for _, speaker in tested if speaker}
    shared = {speaker for _, speaker in tested & trained if speaker}
    if not shared:
        return ()
    found = f"{len(shared)} of {_plural(len(known), 'test speaker')} also in train"
    return (f"{found}: the scores leak, they do not tell how new speakers fare",)


def audit(split: Split, utterances: pd.DataFrame) -> pd.DataFrame:
    """What the parts of each fold share: speakers, sentences, identical audio.

    Args:
        split: any split of these utterances.
        utterances: the columns `speaker`, `sentence` and `sha256` are compared where they are
            there; empty values are not known and so not compared.

    Returns:
        One row per fold, column and pair of parts: `fold`, `column`, `parts` ("train, test"),
        `shared` (how many values), `values` (which, sorted).
    """
    rows = []
    for number, fold in enumerate(split.folds):
        for column in ("speaker", "sentence", "sha256"):
            if column not in utterances:
                continue
            held = {
                part: set(utterances[column].iloc[getattr(fold, part)].dropna()) for part in PARTS
            }
            for one, other in combinations(PARTS, 2):
                values = sorted((held[one] & held[other]) - {""})
                rows.append((number, column, f"{one}, {other}", len(values), values))
    return pd.DataFrame(rows, columns=["fold", "column", "parts", "shared", "values"])


# ------------------------------------------------------------------------------- the split file


def split_hash(split: Split, keys: Iterable[str]) -> str:
    """SHA-256 (hex) of the folds as keys, whatever the utterances' order: equal means same split.

    It is taken over the JSON of `[[train, validation, test], ...]`, each a sorted list of keys.
    """
    folds = [[fold[part] for part in PARTS] for fold in _as_keys(split, keys)]
    return hashlib.sha256(json.dumps(folds).encode()).hexdigest()


def save_split(path: str | Path, split: Split, keys: Iterable[str]) -> None:
    """Write a split file; under its name it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    keys = list(keys)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "kind": split.kind,
        "seed": split.seed,
        "notes": split.notes,
        "hash": split_hash(split, keys),
        "folds": _as_keys(split, keys),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_split(path: str | Path, keys: Iterable[str]) -> Split:
    """Read a split file, or one made by hand: `{"train": [...], "validation": ..., "test": ...}`.

    Args:
        path: a file of `save_split`, or JSON with three lists of keys.
        keys: the corpus's keys, in the order that the indices of the folds are to follow.

    Raises:
        SplitError: not such a file; a key that is unknown, missing or listed twice; a hash that is
            not that of the lists (a file without a hash is taken as it is).
    """
    keys = list(keys)
    index = {key: number for number, key in enumerate(keys)}
    assert len(index) == len(keys), "keys are unique in a corpus"
    record = _read_record(path)
    folds = tuple(
        _fold_of_keys(f"{path}, fold {number}", parts, index)
        for number, parts in enumerate(record.get("folds") or [record])
    )
    notes = tuple(str(note) for note in record["notes"])
    split = Split(record.get("kind", "file"), record.get("seed", 0), folds, notes)
    if record.get("hash", found := split_hash(split, keys)) != found:
        raise SplitError(f"{path} was changed, its hash is of other lists. If meant, drop `hash`.")
    return split


def _as_keys(split: Split, keys: Iterable[str]) -> list[dict[str, list[str]]]:
    named = list(keys)
    return [
        {part: sorted(named[i] for i in getattr(fold, part)) for part in PARTS}
        for fold in split.folds
    ]


def _read_record(path: str | Path) -> dict[str, Any]:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"split file {path}: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path} is not JSON ({error}); expected a split file.") from error
    if not isinstance(record, dict):
        raise SplitError(f"{path} holds no JSON object; expected train, validation and test.")
    record = {"format": FORMAT, "version": VERSION, "notes": [], **record}
    found = record["format"], record["version"]
    if found != (FORMAT, VERSION):
        expected = f"expected {FORMAT!r} version {VERSION}"
        raise SplitError(f"{path} has format {found[0]!r} version {found[1]!r}; {expected}.")
    types = {"kind": str, "seed": int, "notes": list, "folds": list, "hash": str}
    for name, kind in types.items():
        if name in record and not isinstance(record[name], kind):
            raise SplitError(f"{path}: `{name}` is {record[name]!r}; expected a {kind.__name__}.")
    return record


def _fold_of_keys(where: str, parts: Any, index: Mapping[str, int]) -> Fold:
    lists: dict[str, Any] = dict.fromkeys(PARTS)
    if isinstance(parts, dict):
        lists = {part: parts.get(part) for part in PARTS}
    for part, listed in lists.items():
        if not (isinstance(listed, list) and listed and all(isinstance(k, str) for k in listed)):
            raise SplitError(f"{where}: `{part}` is not a list of keys; expected one, not empty.")
    times = Counter(key for listed in lists.values() for key in listed)
    twice = sorted(key for key, count in times.items() if count > 1)
    unknown = sorted(times.keys() - index.keys())
    missing = sorted(index.keys() - times.keys())
    if twice:
        holders = " and ".join(part for part, listed in lists.items() if twice[0] in listed)
        problem = f"{_plural(len(twice), 'key')} listed twice, first {twice[0]!r} in {holders}"
    elif unknown:
        problem = f"{_plural(len(unknown), 'key')} not in this corpus, first {unknown[0]!r}"
    elif missing:
        problem = f"{_plural(len(missing), 'key')} of the corpus not listed, first {missing[0]!r}"
    else:
        return Fold(*(np.sort([index[key] for key in lists[part]]) for part in PARTS))
    raise SplitError(f"{where}: {problem}; expected every key of the corpus once.")


# ------------------------------------------------------------------------------ checks of inputs


def _tally(
    speakers: ArrayLike, emotions: ArrayLike
) -> tuple[list[str], Int[np.ndarray, " utterances"], Float[np.ndarray, "speakers classes"]]:
    """Names of the speakers (sorted), the speaker of each utterance, utterances per class."""
    voices, labels = _as_strings(speakers), _as_strings(emotions)
    _check_lengths(voices, labels)
    if (voices == "").any():
        found = (
            f"{_plural(int((voices == '').sum()), 'utterance')} of {len(voices)} have no speaker"
        )
        raise SplitError(f"{found}; splitting by speaker needs all. Name them or --split random.")
    names, speaker_of = np.unique(voices, return_inverse=True)
    classes, class_of = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (speaker_of, class_of), 1)
    return names.tolist(), speaker_of, counts


def _as_strings(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=str)


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _check_lengths(speakers: np.ndarray, emotions: np.ndarray) -> None:
    assert speakers.shape == emotions.shape, "one speaker and one emotion per utterance"
    if not len(speakers):
        raise SplitError("there are no utterances to split. Check the folder and the labels kept.")


def _check_speakers(found: int, needed: int, what: str) -> None:
    if found < needed:
        raise SplitError(
            f"found {_plural(found, 'speaker')}; {what} of different speakers need {needed}. "
            f"Use {'--split loso or ' if found >= 3 else ''}--split random (speakers are shared)."
        )


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"fractions {fractions}; expected three above 0 that sum to 1.")
