"""Splits of a corpus into train, validation and test: whole speakers, every emotion in every part.

A split is found, not drawn: search.py compares the assignments of speakers to parts. What a split
is, and its file, is in file.py. docs/splits.md shows what real corpora allow.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from lsmprobe.corpora.utterances import (
    SHOWN,
    SPLIT_WORDS,
    SPLIT_WORDS_EXPECTED,
    UNKNOWN_SPEAKER,
    UNUSED,
    is_part,
    one_person_notes,
)
from lsmprobe.errors import SplitError, counted, nearest
from lsmprobe.splits.file import PARTS, load_split, parts_of
from lsmprobe.splits.file import Fold as Fold
from lsmprobe.splits.file import Split as Split
from lsmprobe.splits.search import choose, rank_assignments
from lsmprobe.splits.voices import leak_notes

SPECS = ("auto", "speaker", "random", "loso", "kfold:K", "kfold", "given")
VALIDATION_SHARE = 0.1  # of the training utterances, where a corpus brings no validation part
MOST_SHARE_OFF = 0.10  # between an emotion's share of a part and of the corpus


def make_split(spec: str, utterances: pd.DataFrame, *, seed: int = 0) -> Split:
    """The split that `--split` asks for.

    Args:
        spec: `auto` (the corpus's own split, else its own folds, where every utterance has one;
            else `speaker`), `speaker`, `random`, `loso`, `kfold:K`, `kfold` (the column fold),
            `given`, or the path of a split file. Of several test sets one is chosen by its name
            after a slash: `given/Test1`.
        utterances: columns key, emotion, speaker; gender, split and fold where the corpus has them.
        seed: which one of the near-best splits; see `speaker_split`.

    Raises:
        SplitError: the corpus cannot be split so, or `spec` is none of these.
    """
    spec, chosen = _test_set_asked(spec)
    split = _asked(spec, utterances, seed)
    emotions = _as_strings(utterances["emotion"])
    said = [*_unused_notes(split, utterances["key"]), *_share_notes(split, emotions)]
    said += one_person_notes(utterances["speaker"])
    split = replace(split, notes=tuple(dict.fromkeys((*split.notes, *said))))
    if not chosen:
        return split
    if chosen not in split.test_sets:
        known = nearest(chosen, split.test_sets) if split.test_sets else "it has one without a name"
        raise SplitError(f"--split {spec} has no test set {chosen!r}; {known}")
    return split.testing(chosen)


def _test_set_asked(spec: str) -> tuple[str, str]:
    """The split and the test set: `given/Test1`, `split.json/Test1`; no name: all there are."""
    split, slash, test_set = spec.rpartition("/")
    is_one = split in SPECS or (bool(split) and Path(split).is_file())
    return (split, test_set) if slash and is_one else (spec, "")


def _asked(spec: str, utterances: pd.DataFrame, seed: int) -> Split:
    """The split, without a word on its emotions' shares."""
    speakers, emotions = utterances["speaker"], utterances["emotion"]
    uses_given = spec in ("auto", "given") and "split" in utterances
    given = in_our_words(utterances["split"]) if uses_given else [""]
    own_folds = fold_names(utterances["fold"]) if "fold" in utterances else [""]
    if spec == "auto":
        spec = "given" if all(given) else "kfold" if all(own_folds) else "speaker"
    if spec in ("speaker", "loso") or spec.startswith("kfold:"):
        _refuse_unknown_speakers(spec, _as_strings(speakers))
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
        split = given_split(given, speakers, emotions)
    elif spec == "kfold":
        split = fold_split(own_folds, speakers, emotions)
    elif spec.endswith(".json") or Path(spec).is_file():
        split = load_split(spec, utterances["key"].tolist())
    else:
        known = nearest(spec, SPECS)
        raise SplitError(f"--split {spec} is neither a kind of split nor a file; {known}")
    leak = leak_notes(split, _as_strings(speakers))
    return replace(split, notes=tuple(dict.fromkeys((*split.notes, *leak))))


def _refuse_unknown_speakers(spec: str, speakers: np.ndarray) -> None:
    """Voices that nobody can tell apart cannot be kept out of a part."""
    n = int((speakers == UNKNOWN_SPEAKER).sum())
    if n:
        raise SplitError(
            f"the speaker of {n} of {counted(len(speakers), 'utterance')} is not known, so --split "
            f"{spec} cannot keep voices apart. Use --split given where the corpus brings parts, "
            "a split file of your own, or --split random and say that voices are shared."
        )


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
    ranked = rank_assignments(counts, np.array(fractions), trains)
    part_of, again = choose(ranked, ranked == PARTS.index("test"), seed)
    fold = Fold(*(np.flatnonzero(part_of[speaker_of] == part) for part in range(len(PARTS))))
    notes = [
        *_size_notes(fold, speaker_of, genders, fractions, "nearest to" if seed == 0 else "near"),
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
        found = f"`{classes[counts.argmin()]}` has {counted(int(counts.min()), 'utterance')}"
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
    split = Split("random", seed, (fold,))
    return replace(split, notes=leak_notes(split, voices))


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
        raise SplitError(f"{k} folds leave no training set next to validation and test; ask for 3.")
    _check_speakers(len(names), k, f"{k} folds")
    group = np.arange(k)
    trains = (group != group[:, None]) & (group != (group[:, None] + 1) % k)
    ranked = rank_assignments(counts, np.full(k, 1 / k), trains)
    # Turning the groups round changes nothing: let the first speaker always be in the first.
    ranked = (ranked - ranked[:, :1]) % k
    part_of, again = choose(ranked, ranked, seed)
    folds = _rotate(part_of[speaker_of], k)
    return Split(
        f"kfold:{k}", seed, folds, (*_rotation_notes(folds, _as_strings(emotions)), *again)
    )


def in_our_words(splits: Iterable[str]) -> list[str]:
    """The parts as lsmprobe calls them: whoever corrects labels may write dev.

    Raises:
        SplitError: a word that is none of them; it would be ignored otherwise.
    """
    parts = [SPLIT_WORDS.get(str(word).casefold(), str(word)) for word in splits]
    if odd := Counter(part for part in parts if part and not is_part(part)):
        names = ", ".join(f"{name} {count}" for name, count in sorted(odd.items()))
        raise SplitError(
            f"the split column holds {names}; expected {SPLIT_WORDS_EXPECTED} or nothing."
        )
    return parts


def given_split(
    splits: Sequence[str], speakers: ArrayLike | None = None, emotions: ArrayLike | None = None
) -> Split:
    """The split that the corpus brings: `train`, `validation` or `test` for every utterance.

    Args:
        splits: one per utterance; the names of several test sets instead of `test`, and `unused`
            for utterances that are left out.
        speakers: one per utterance; with them, a corpus that brings train and test alone gets a
            tenth of train as validation, whole speakers where there are two.
        emotions: one per utterance.

    Raises:
        SplitError: another name, an utterance without one, or an empty part.
    """
    column = np.array(splits)
    found = Counter(splits)
    names = sorted(set(found) - {"train", "validation", UNUSED, ""})
    if not names or "" in found or "train" not in found or not all(map(is_part, names)):
        holds = ", ".join(f"{name or '(empty)'} {count}" for name, count in sorted(found.items()))
        expected = "train, validation and test, every utterance in one"
        raise SplitError(
            f"the split column holds {holds}; expected {expected}. Or --split speaker."
        )
    sets = {name: np.flatnonzero(column == name) for name in names}
    test = np.sort(np.concatenate([*sets.values()]))
    train, validation = (np.flatnonzero(column == part) for part in ("train", "validation"))
    notes: tuple[str, ...] = ()
    if not len(validation):
        if speakers is None or emotions is None:
            raise SplitError("the split column holds no validation; expected some.")
        train, validation, note = part_from(train, _as_strings(speakers), _as_strings(emotions))
        notes = (f"the corpus brings no validation: {note}",)
    fold = Fold(train, validation, test, test_sets={} if names == ["test"] else sets)
    return Split("given", 0, (fold,), notes)


def fold_split(folds: Sequence[str], speakers: ArrayLike, emotions: ArrayLike) -> Split:
    """The folds that the corpus brings: each is test once, the next one validation.

    Of two folds one is test, and of the other a tenth is validation.

    Raises:
        SplitError: fewer than two folds, or an utterance without one.
    """
    voices, labels = _as_strings(speakers), _as_strings(emotions)
    n_without = sum(1 for fold in folds if not fold)
    if n_without == len(folds) or len(folds) < len(voices):
        raise SplitError(
            "--split kfold reads the column fold of the corpus, which has none. Add one to the "
            "manifest, or say how many folds to make: --split kfold:5."
        )
    if n_without:
        raise SplitError(
            f"{counted(n_without, 'utterance', 'has', of=len(folds))} no fold; expected one for "
            "each. Complete the column fold, or --split kfold:5."
        )
    names = in_order(folds)
    if len(names) < 2:
        raise SplitError(f"the column fold holds {names[0]!r} alone; expected two folds or more.")
    fold_of = np.array([names.index(name) for name in folds])
    if len(names) > 2:
        rotated = _rotate(fold_of, len(names))
        return Split("kfold", 0, rotated, _rotation_notes(rotated, labels))
    made, notes = [], []
    for test in (0, 1):
        rows = np.flatnonzero(fold_of != test)
        train, validation, note = part_from(rows, voices, labels)
        made.append(Fold(train, validation, np.flatnonzero(fold_of == test)))
        notes.append(
            f"two folds leave no third for validation: where {names[test]} is test, {note}"
        )
    return Split("kfold", 0, tuple(made), (*notes, *_rotation_notes(tuple(made), labels)))


def in_order(folds: Iterable[str]) -> list[str]:
    """The names of the folds, sorted; numbers by their size."""
    return sorted(set(folds), key=lambda name: (len(name), name) if name.isdecimal() else (0, name))


def fold_names(folds: ArrayLike) -> list[str]:
    """A name per utterance; empty where there is none. A table may hold numbers: 1.0 is `1`."""
    return [
        ""
        if fold is None or fold != fold
        else f"{fold:g}"
        if isinstance(fold, float)
        else str(fold)
        for fold in np.asarray(folds, dtype=object)
    ]


def part_from(
    rows: Int[np.ndarray, " train"],
    speakers: np.ndarray,
    emotions: np.ndarray,
    *,
    whole_speakers: bool = True,
) -> tuple[np.ndarray, np.ndarray, str]:
    """A tenth of the training rows for validation: whole speakers, where they are known.

    Args:
        rows: to be divided.
        speakers: one per utterance of the corpus.
        emotions: one per utterance of the corpus.
        whole_speakers: False where test has the speakers of train too; then a tenth of the
            utterances of each emotion.

    Returns:
        The rows of train, those of validation, and a note that says which speakers that took.
    """
    known = np.isin(speakers[rows], ("", UNKNOWN_SPEAKER), invert=True)
    names = np.unique(speakers[rows])
    if len(names) < 2 or not known.all() or not whole_speakers:
        # Test is what it was; only the choice of an epoch hears the voice that is trained on.
        held_out = [own[:: round(1 / VALIDATION_SHARE)] for own in _by_emotion(emotions[rows])]
        is_validation = np.isin(np.arange(len(rows)), np.concatenate(held_out))
        note = f"of the one train speaker, {names[0]}" if len(names) < 2 else "of train"
        if not known.all():
            note = "of train, where not every speaker is known"
        note = f"validation is a tenth of the utterances {note}"
        return rows[~is_validation], rows[is_validation], note
    _, speaker_of, counts = _tally(speakers[rows], emotions[rows])
    fractions = np.array([1 - VALIDATION_SHARE, VALIDATION_SHARE])
    part_of = rank_assignments(counts, fractions, np.array([[True, False]]))[0]
    is_validation = part_of[speaker_of] == 1
    note = f"{counted((part_of == 1).sum(), 'train speaker', of=len(names))} became validation"
    return rows[~is_validation], rows[is_validation], note


def _by_emotion(emotions: np.ndarray) -> list[Int[np.ndarray, " utterances"]]:
    """Positions of each emotion that has two utterances or more."""
    every = [np.flatnonzero(emotions == emotion) for emotion in np.unique(emotions)]
    several = [own for own in every if len(own) > 1]
    if not several:
        raise SplitError(
            "the training part has one utterance per emotion; expected two, one for validation."
        )
    return several


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
        facts.append(f"the parts hold {reached}% of the clips, {nearness} {wanted}")
    if len(set(speaker_of[fold.test])) == 1:
        gender = "" if genders is None else str(_as_strings(genders)[fold.test[0]])
        who = {"female": "woman", "male": "man"}.get(gender, "speaker")
        facts.append(f"the test set is one {who}")
    return [f"{counted(n_speakers, 'speaker')}: {'; '.join(facts)}"] if facts else []


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


def _share_notes(split: Split, emotions: np.ndarray) -> list[str]:
    """Where the emotions of a part are not as in the whole, by more than `MOST_SHARE_OFF`.

    The whole is what the split uses. Of several folds nothing is said, since all are tested and
    their answers scored together.
    """
    if len(split.folds) > 1:
        return []
    notes = []
    [fold] = split.folds
    used = emotions[np.concatenate([getattr(fold, part) for part in PARTS])]
    classes, counts = np.unique(used, return_counts=True)
    wanted = counts / len(used)
    for part, rows in parts_of(fold).items():
        if part in fold.test_sets:
            part = f"{part}: the test set"  # the sentence goes with its scores alone
        there = emotions[rows]
        shares = np.array([(there == emotion).mean() for emotion in classes])
        off = np.abs(shares - wanted)
        if off.max() > MOST_SHARE_OFF:
            # Where two are as far off, one of them is there too often: that one is named.
            worst = int(np.argmax(off + 1e-9 * (shares > wanted)))
            notes.append(
                f"{part} is not like the corpus: {100 * shares[worst]:.0f}% of it are "
                f"`{classes[worst]}`, of the corpus {100 * wanted[worst]:.0f}%"
            )
    return notes


def _unused_notes(split: Split, keys: pd.Series) -> list[str]:
    """The utterances that no fold trains on, validates on or tests."""
    used = np.concatenate([getattr(fold, part) for fold in split.folds for part in PARTS])
    unused = np.setdiff1d(np.arange(len(keys)), used)
    if not len(unused):
        return []
    shown = ", ".join(keys.iloc[unused[:SHOWN]])
    count = counted(len(unused), "utterance", of=len(keys))
    return [f"{count} in no part and left out, such as {shown}"]


def _rotation_notes(folds: tuple[Fold, ...], emotions: np.ndarray) -> tuple[str, ...]:
    """Gaps of train and test; those of validation are those of test, one fold earlier."""
    gaps = Counter(
        (part, emotion)
        for part in ("train", "test")
        for fold in folds
        for emotion in _missing(getattr(fold, part), emotions)
    )
    return tuple(
        f"{part} has no `{emotion}` in {counted(count, 'fold', of=len(folds))}"
        for (part, emotion), count in gaps.items()
    )


def _missing(part: np.ndarray, emotions: np.ndarray) -> list[str]:
    return np.setdiff1d(emotions, emotions[part]).tolist()


def _tally(
    speakers: ArrayLike, emotions: ArrayLike
) -> tuple[list[str], Int[np.ndarray, " utterances"], Float[np.ndarray, "speakers classes"]]:
    """Names of the speakers (sorted), the speaker of each utterance, utterances per class."""
    voices, labels = _as_strings(speakers), _as_strings(emotions)
    _check_lengths(voices, labels)
    if (voices == "").any():
        found = counted((voices == "").sum(), "utterance", "has", of=len(voices)) + " no speaker"
        raise SplitError(f"{found}; splitting by speaker needs all. Name them or --split random.")
    names, speaker_of = np.unique(voices, return_inverse=True)
    classes, class_of = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (speaker_of, class_of), 1)
    return names.tolist(), speaker_of, counts


def _as_strings(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=str)


def _check_lengths(speakers: np.ndarray, emotions: np.ndarray) -> None:
    assert speakers.shape == emotions.shape, "one speaker and one emotion per utterance"
    if not len(speakers):
        raise SplitError("there are no utterances to split. Check the folder and the labels kept.")


def _check_speakers(found: int, needed: int, what: str) -> None:
    if found < needed:
        raise SplitError(
            f"found {counted(found, 'speaker')}; {what} of different speakers need {needed}. "
            f"Use {'--split loso or ' if found >= 3 else ''}--split random (speakers are shared)."
        )


def _check_fractions(fractions: tuple[float, float, float]) -> None:
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"fractions {fractions}; expected three above 0 that sum to 1.")
