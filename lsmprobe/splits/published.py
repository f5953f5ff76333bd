"""Published splits: the lists that others publish, read where they lie, as splits of a corpus.

A source is a row of `SOURCES`: a function that reads its lists. Their clips are found in the corpus
by the end of a path, since everybody unpacks a corpus elsewhere.
"""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.corpora.table import CORPORA
from lsmprobe.corpora.utterances import SHOWN, UNKNOWN_SPEAKER, UNUSED
from lsmprobe.errors import SplitError, agreeing, counted, nearest
from lsmprobe.splits.file import Fold, Split
from lsmprobe.splits.kinds import fold_names, in_order, in_our_words, part_from

SEPARATORS = re.compile(r"[/_\s-]+")  # JE_n23.wav in one copy is JE/n23.wav in another
EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,3}$")  # a copy may be of another format
EMOBOX_PARTS = r"_(train|valid|test\d*)_fold_"


class Clip(NamedTuple):
    """A clip as a source names it: the end of a path, or a key; a part of a file has a start."""

    path: str
    start_s: float | None = None

    def __str__(self) -> str:
        return self.path if self.start_s is None else f"{self.path} from {self.start_s:g} s"


class Lists(NamedTuple):
    """What a source publishes for one corpus."""

    title: str  # what it is, for records and messages
    folds: Sequence[Mapping[str, Sequence[Clip]]]
    """Of each fold the clips of each part: train, validation where the source has one, and test or
    the names of several test sets."""


@dataclass(frozen=True)
class Source:
    """A row of the table of sources."""

    name: str
    read: Callable[[Path, str, pd.DataFrame, int | None], Lists]
    """From the folder, the corpus's name, its table of utterances and the fold asked for (from 1;
    None: all)."""
    reads_corpus: bool = False  # whether the folder is the corpus's own


def import_split(
    source: str, folder: Path, corpus: str, utterances: pd.DataFrame, *, fold: int | None = None
) -> Split:
    """A published split as one of these utterances.

    Utterances that no list names are unused; clips that are listed and not among the utterances
    are in `not_found`. Where the source has no validation, a tenth of train becomes it.

    Args:
        source: a row of `SOURCES`.
        folder: where the lists lie.
        corpus: as `--dataset` names it.
        utterances: what `read_corpus` gave.
        fold: only this one, from 1; by default all, each tested once.

    Raises:
        SplitError: no such source, fold or list, a list that cannot be read, a part of which
            nothing is in the corpus, a clip in two parts or tested in two folds.
    """
    if source not in SOURCES:
        raise SplitError(f"{source!r} is no source of splits; {nearest(source, SOURCES)}")
    lists = SOURCES[source].read(folder, corpus, utterances, fold)
    listed = list(
        dict.fromkeys(clip for own in lists.folds for part in own.values() for clip in part)
    )
    row_of = find_clips(listed, utterances)
    folds, notes = [], []
    for own in lists.folds:
        rows = {
            part: np.unique([row_of[clip] for clip in clips if clip in row_of]).astype(int)
            for part, clips in own.items()
        }
        made, note = _fold(lists, own, rows, utterances)
        folds.append(made)
        notes += note
    tested = Counter(int(row) for made in folds for row in made.test)
    if twice := [row for row, times in tested.items() if times > 1]:
        raise SplitError(
            f"{lists.title} tests {counted(len(twice), 'clip')} in two folds, first "
            f"{utterances.key.iloc[twice[0]]!r}; expected once. Take one fold with --fold."
        )
    not_found = [str(clip) for clip in listed if clip not in row_of]
    if not_found:
        notes.insert(
            0,
            f"{counted(len(not_found), 'clip', of=len(listed))} of {lists.title} "
            f"{agreeing(len(not_found), 'is')} not in this corpus, such as "
            f"{', '.join(not_found[:SHOWN])}",
        )
    return Split(
        source,
        0,
        tuple(folds),
        tuple(dict.fromkeys(notes)),
        source=lists.title,
        not_found=tuple(not_found),
    )


def _fold(
    lists: Lists,
    listed: Mapping[str, Sequence[Clip]],
    rows: dict[str, np.ndarray],
    utterances: pd.DataFrame,
) -> tuple[Fold, list[str]]:
    """A fold of the corpus, and what is to be said of it."""
    for part, own in rows.items():
        if not len(own):
            clips, keys = listed[part], utterances.key
            raise SplitError(
                f"{lists.title}: of {counted(len(clips), 'clip')} of {part} none is in this corpus "
                f"(listed {', '.join(map(str, clips[:1])) or 'nothing'}; the corpus has "
                f"{keys.iloc[0]}). Check that both are of one corpus."
            )
    times = Counter(int(row) for own in rows.values() for row in own)
    if twice := [row for row, n in times.items() if n > 1]:
        raise SplitError(
            f"{lists.title} has {counted(len(twice), 'clip')} in two parts, first "
            f"{utterances.key.iloc[twice[0]]!r}; expected each in one."
        )
    notes = []
    if "validation" not in rows:
        speakers, emotions = (utterances[c].to_numpy(str) for c in ("speaker", "emotion"))
        train = rows["train"]
        heard = {
            speaker for part, own in rows.items() if part != "train" for speaker in speakers[own]
        }
        apart = heard.isdisjoint(speakers[train])
        made = part_from(train, speakers, emotions, whole_speakers=apart)
        rows["train"], rows["validation"], note = made
        notes.append(f"the source has no validation: {note}")
    sets = {name: own for name, own in rows.items() if name not in ("train", "validation")}
    test = np.sort(np.concatenate([*sets.values()]))
    named = {} if set(sets) == {"test"} else sets
    return Fold(rows["train"], rows["validation"], test, test_sets=named), notes


# Whose clip is whose


def find_clips(listed: Sequence[Clip], utterances: pd.DataFrame) -> dict[Clip, int]:
    """The row of each listed clip that the corpus has.

    A clip is known by the end of its path: the file's name, and as many folders above it as it
    takes until one listed clip and one utterance have that end. Capitals, the form of Unicode and
    the file's format do not count, and `_` or a blank counts as a folder's end.
    """
    keys = {key: row for row, key in enumerate(utterances.key)}
    found = {c: keys[c.path] for c in listed if c.start_s is None and c.path in keys}
    starts = utterances["start_s"] if "start_s" in utterances else [np.nan] * len(utterances)
    paths = utterances["path"] if "path" in utterances else utterances["key"]
    rows_of: dict[str, set[int]] = defaultdict(set)
    for row, (key, path, start_s) in enumerate(zip(utterances.key, paths, starts, strict=True)):
        for place in {key.partition("#")[0], str(path)}:
            for end in _ends(Clip(place, None if np.isnan(start_s) else start_s)):
                rows_of[end].add(row)
    clips_of: Counter[str] = Counter(end for clip in listed for end in _ends(clip))
    for clip in listed:
        for end in _ends(clip):
            if clip not in found and len(rows_of.get(end, ())) == clips_of[end] == 1:
                found[clip] = next(iter(rows_of[end]))
    return found


def _ends(clip: Clip) -> Iterator[str]:
    """Its file's name, then with one more word of the path each time, as far as the path goes."""
    path = unicodedata.normalize("NFC", clip.path).casefold().replace("\\", "/")
    folders, _, name = EXTENSION.sub("", path).rpartition("/")
    part = "" if clip.start_s is None else f"#{clip.start_s:.2f}"
    end = "/".join(SEPARATORS.split(name)) + part
    yield end
    for word in reversed(SEPARATORS.split(folders)):
        if word:
            end = f"{word}/{end}"
            yield end


# The sources


def _emobox(folder: Path, corpus: str, utterances: pd.DataFrame, fold: int | None) -> Lists:
    """The folds of EmoBox, from a clone of emo-box/EmoBox; Ma et al. 2024, arXiv:2406.07162."""
    home, name = _emobox_home(folder, corpus)
    numbers = sorted(
        int(found[1])
        for place in home.iterdir()
        if (found := re.fullmatch(r"fold_(\d+)", place.name))
    )
    chosen = _chosen_folds(numbers, fold, f"EmoBox has of {name}")
    folds = []
    for number in chosen:
        own: dict[str, list[Clip]] = {}
        rule = rf"{re.escape(name)}{EMOBOX_PARTS}{number}\.jsonl"  # emodb has fold1.jsonl as well
        for place in sorted((home / f"fold_{number}").iterdir()):
            if found := re.fullmatch(rule, place.name):
                part = {"valid": "validation"}.get(found[1], found[1])
                own[part] = _emobox_clips(place)
        if "train" not in own or not any(part.startswith("test") for part in own):
            raise SplitError(
                f"{str(home / f'fold_{number}')!r} holds lists of {', '.join(own) or 'nothing'}; "
                f"expected {name}_train_fold_{number}.jsonl and {name}_test_fold_{number}.jsonl."
            )
        several = [set(clips) for part, clips in own.items() if re.fullmatch(r"test\d+", part)]
        if "test" in own and set(own["test"]) in several:
            del own["test"]  # a second name of one of them
        folds.append(own)
    which = f"fold {chosen[0]}" if len(chosen) == 1 else f"folds {chosen[0]} to {chosen[-1]}"
    return Lists(f"EmoBox, {name}, {which}", folds)


def _emobox_home(folder: Path, corpus: str) -> tuple[Path, str]:
    """The folder of a corpus in the clone, and what EmoBox calls the corpus."""
    row = CORPORA.get(corpus)
    called = [corpus, row.variant_of or corpus] if row else [Path(corpus).stem]
    names = list(dict.fromkeys(re.sub(r"[-_ ]", "", each.casefold()) for each in called))
    if (folder / "fold_1").is_dir():
        return folder, folder.name
    for name in names:
        for home in (folder / "data" / name, folder / name):
            if home.is_dir():
                return home, name
    data = folder / "data" if (folder / "data").is_dir() else folder
    there = [place.parent.name for place in sorted(data.glob("*/fold_1"))]
    if not there:
        raise SplitError(
            f"{str(folder)!r} has no data/CORPUS/fold_1; expected a clone of "
            "github.com/emo-box/EmoBox, or its folder of this corpus."
        )
    raise SplitError(
        f"EmoBox has no folds of {corpus}; {nearest(names[0], there)} Or name the folder: "
        f"{data / there[0]}."
    )


def _emobox_clips(place: Path) -> list[Clip]:
    clips: list[Clip] = []
    try:
        for line in place.read_text("utf-8").split("\n"):
            if line.strip():
                said: dict[str, Any] = json.loads(line)
                inside = str(said.get("wav") or said["audio"]).removeprefix(
                    f"downloads/{said['dataset']}/"
                )
                start_s = said.get("start_time")
                clips.append(Clip(inside, None if start_s is None else float(start_s)))
    except OSError as error:
        raise SplitError(f"cannot read {str(place)!r}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SplitError(
            f"{str(place)!r}: after {counted(len(clips), 'clip')} comes a line that is none "
            f"({type(error).__name__}: {error}); expected JSON with wav and dataset. Clone again."
        ) from error
    return clips


def _sessions(folder: Path, corpus: str, utterances: pd.DataFrame, fold: int | None) -> Lists:
    """Leave one session out: each is tested once, the others train."""
    folds = [
        {
            "train": _clips(utterances[sessions != name]),
            "test": _clips(utterances[sessions == name]),
        }
        for sessions in [_session_of(corpus, utterances)]
        for name in in_order(sessions)
    ]
    chosen = _chosen_folds(range(1, len(folds) + 1), fold, f"{corpus} has")
    return Lists(f"sessions of {corpus}", [folds[number - 1] for number in chosen])


def _session_speakers(
    folder: Path, corpus: str, utterances: pd.DataFrame, fold: int | None
) -> Lists:
    """Of the session left out one speaker is tested and the other is validation, in turn."""
    sessions = _session_of(corpus, utterances)
    folds = []
    for name in in_order(sessions):
        own, train = utterances[sessions == name], utterances[sessions != name]
        speakers = sorted(set(own.speaker))
        if len(speakers) != 2 or UNKNOWN_SPEAKER in speakers:
            raise SplitError(
                f"session {name} of {corpus} has the speakers {', '.join(speakers)}; expected two, "
                "one for validation and one for test. Take the source sessions."
            )
        for tested in speakers:
            folds.append(
                {
                    "train": _clips(train),
                    "validation": _clips(own[own.speaker != tested]),
                    "test": _clips(own[own.speaker == tested]),
                }
            )
    chosen = _chosen_folds(range(1, len(folds) + 1), fold, f"{corpus} has")
    title = f"sessions of {corpus}, the second speaker as validation"
    return Lists(title, [folds[number - 1] for number in chosen])


def _session_of(corpus: str, utterances: pd.DataFrame) -> np.ndarray:
    names = fold_names(utterances["fold"]) if "fold" in utterances else [""]
    if not all(names):
        raise SplitError(
            f"{corpus} does not say the session of every clip; expected a column fold, as iemocap "
            "and msp-improv have it."
        )
    if len(set(names)) < 2:
        raise SplitError(f"{corpus} has one session, {names[0]}, here; expected two or more.")
    return np.array(names)


def _partitions(folder: Path, corpus: str, utterances: pd.DataFrame, fold: int | None) -> Lists:
    """The parts that the corpus itself brings; clips without one are unused."""
    _chosen_folds([1], fold, f"{corpus} has")
    words = np.array(in_our_words(utterances["split"]) if "split" in utterances else [""])
    parts = sorted(set(words) - {"", UNUSED})
    if "train" not in parts or not any(part.casefold().startswith("test") for part in parts):
        raise SplitError(
            f"{corpus} brings the parts {', '.join(parts) or '(none)'}; expected train and test. "
            "Those that do are msp-podcast, meld, m3ed and emozionalmente, and manifests with a "
            "column split."
        )
    own = {part: _clips(utterances[words == part]) for part in parts}
    return Lists(f"partitions of {corpus}", [own])


def _clips(utterances: pd.DataFrame) -> list[Clip]:
    return [Clip(key) for key in utterances.key]


def _chosen_folds(there: Sequence[int], fold: int | None, whose: str) -> list[int]:
    if fold is None and there:
        return list(there)
    if fold is None or fold not in there:
        found = f"folds {there[0]} to {there[-1]}" if there else "no folds"
        raise SplitError(f"{whose} {found}; --fold {fold} is none of them.")
    return [fold]


SOURCES: dict[str, Source] = {
    row.name: row
    for row in (
        Source("emobox", _emobox),
        Source("sessions", _sessions, reads_corpus=True),
        Source("session-speakers", _session_speakers, reads_corpus=True),
        Source("partitions", _partitions, reads_corpus=True),
    )
}
