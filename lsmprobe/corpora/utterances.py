"""The table of utterances: what every reader of a corpus makes, and the checks that it passes.

The walk through a folder, keys that are the same on every machine, the check of the rows. No audio
is opened here.
"""

import importlib
import logging
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.config import NOTHING
from lsmprobe.errors import CorpusError, counted, nearest

COLUMNS = (
    "key",
    "path",
    "emotion",
    "speaker",
    "gender",
    "sentence",
    "start_s",
    "end_s",
    "split",
)
TAKEN = ("samples", "seconds", "frames", "offset", "sha256", "checksum", "done", "skipped", "index")
OWN_LABEL = "own_label"  # a further column that every corpus of the table has
UNLABELLED = "unlabelled"  # of a table of utterances: the keys that were left out
GENDERS = {"f": "female", "m": "male"}
GENDER_WORDS = GENDERS | {"female": "female", "woman": "female", "male": "male", "man": "male"}
PARTS = ("train", "validation", "test")  # of a split
UNUSED = "unused"  # instead of a part: the split leaves the clip out
TEST_SET = re.compile(r"test(?:\d\w*|[ _.-]\w+)", re.IGNORECASE)  # one of several: Test1, test-new
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "dev", "devel", "development"), "validation"),
    "validation": "validation",
    **dict.fromkeys(("test", "testing"), "test"),
    UNUSED: UNUSED,
}
SPLIT_WORDS_EXPECTED = (
    f"{', '.join(PARTS)} (or dev, valid, val), the name of one of several test sets (test1), "
    f"{UNUSED}"
)
ALIASES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "audio", "wav"),
    "emotion": ("label",),
    "speaker": ("speaker_id", "spk"),
    "gender": ("sex",),
    "sentence": ("transcription", "transcript"),
    "start": ("start_s", "start_time"),
    "end": ("end_s", "end_time"),
}
"""What others call our columns."""
SEVERAL = re.compile(r"[;|,/+&]")  # between the emotions of one cell
ODD_WORDS = (
    *(
        (column, word, "if it means that nobody knows, leave the cell empty")
        for column in ("emotion", "speaker")
        for word in ("-", "--", "?", ".")
    ),
    ("emotion", "unknown", "if it means that nobody knows, leave the cell empty"),
    ("emotion", "xxx", "in IEMOCAP it means that the annotators do not agree"),
    ("emotion", "oth", "in IEMOCAP it means another emotion"),
    ("speaker", "NA", "if it means that the speaker is not known, leave the cell empty"),
    ("emotion", "NA", "if it means that the emotion is not known, leave the cell empty"),
)
LEADING_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
UNKNOWN_SPEAKER = "unknown"  # where a corpus does not say who speaks
SHOWN = 3  # of a list, in a message
log = logging.getLogger(__name__)


def written_once(start_s: float, end_s: float) -> tuple[float, float]:
    """One way to write each part, so that it has one key: NaN for the file's end, twice for all."""
    start_s = start_s if start_s > 0 else 0.0  # of -0 and NaN too
    if end_s < math.inf:
        return start_s, end_s
    return start_s or math.nan, math.nan


def key_of_part(key: str, start_s: float, end_s: float) -> str:
    """The key of a part of a file: `#start-end` follows the file's own."""
    if math.isnan(start_s):
        return key
    return f"{key}#{start_s}-" + ("" if math.isnan(end_s) else f"{end_s}")


def within(written: str, homes: Sequence[Path], where: str) -> Path:
    """The place of a file that a corpus names; it must lie within one of the homes."""
    tops = [Path(os.path.normpath(home.absolute())) for home in homes]
    place = Path(os.path.normpath(tops[0] / written))
    if not any(place.is_relative_to(top) for top in tops):
        raise CorpusError(
            f"{where} names {written!r}, which leaves the folder; expected a path within "
            f"{str(tops[0])!r}."
        )
    return place


def extra(package: str) -> Any:
    """A library that only this kind of corpus needs."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise CorpusError(f"{package} is not installed; say: pip install {package}.") from error


def reason(error: Exception) -> str:
    """What another library says, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


def files_below(folder: Path) -> list[tuple[str, str]]:
    """Every file below a folder: its path inside, written as in a key, and its path on the disk.

    Hidden files and `__MACOSX` are left out. Links are followed, after everything else, and no
    folder is entered twice, so links in a circle end.
    """
    top = folder.absolute()
    waiting, entered, found = [top], set(), []
    while waiting:
        place = waiting.pop()
        try:
            status = place.stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(place) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            raise CorpusError(
                f"cannot read {str(place)!r}: {error.strerror}; expected a folder you may enter."
            ) from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(place / entry.name)
            elif entry.is_symlink() and (place / entry.name).is_dir():
                waiting.insert(0, place / entry.name)
            else:
                found.append((portable(os.path.relpath(entry.path, top)), entry.path))
    return found


def portable(path: str) -> str:
    """A path as every machine writes it: composed Unicode, escapes for bytes that are no text."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def columns_called(
    found: Sequence[str], named: Mapping[str, str], needed: Sequence[str], what: str
) -> dict[str, str]:
    """Our column -> the corpus's, by `--columns`, by its name in any case, or by an alias.

    Args:
        found: the columns that are there.
        named: our column -> the corpus's, as the user says; the speaker may be `unknown`, which is
            no column: nobody knows who speaks.
        needed: which of ours must be there.
        what: the corpus, for messages.

    Raises:
        CorpusError: a column that is named or needed is not there.
    """
    known = (*COLUMNS, "start", "end", "fold", "audio")
    if named.get("speaker") == UNKNOWN_SPEAKER and UNKNOWN_SPEAKER not in found:
        named = {ours: theirs for ours, theirs in named.items() if ours != "speaker"}
        rest = [name for name in found if name.casefold() not in ("speaker", *ALIASES["speaker"])]
        return columns_called(rest, named, [each for each in needed if each != "speaker"], what)
    for ours, theirs in named.items():
        if ours not in known:
            raise CorpusError(f"--columns has no column {ours!r}; {nearest(ours, known)}")
        if theirs not in found:
            said = f"{what} has no column {theirs!r}, which --columns names"
            raise CorpusError(f"{said}; {nearest(theirs, found)}")
    folded = {each.casefold(): each for each in found if each not in named.values()}
    called = dict(named)
    for ours in (*needed, *ALIASES, "split", "fold"):
        for name in (ours, *ALIASES.get(ours, ())):
            if ours not in called and name in folded and folded[name] not in called.values():
                called[ours] = folded[name]
                if name != ours:
                    log.info("%s: the column %s is read as %s", what, folded[name], ours)
    for ours in needed:
        if ours not in called:
            raise CorpusError(
                f"{what} lacks the column {ours}; found {[*found]}, expected "
                f"{', '.join(needed)}. Say which column is which: --columns {ours}=THEIRS."
            )
    return called


def is_part(word: str) -> bool:
    """Whether a word of a column `split` means something: a part, a test set's name, unused."""
    return word in (*PARTS, UNUSED) or bool(TEST_SET.fullmatch(word))


def is_chosen(row: Mapping[str, Any], where: Mapping[str, Sequence[str]]) -> bool:
    """Whether every column that `--where` names has one of its values."""
    return all(as_text(row[column]) in allowed for column, allowed in where.items())


def nothing_chosen(
    rows: Sequence[Mapping[str, Any]], where: Mapping[str, Sequence[str]], what: str
) -> CorpusError:
    """The error where `--where` leaves no row: what the columns hold."""
    held = {column: sorted({as_text(row[column]) for row in rows}) for column in where}
    shown = "; ".join(
        f"{column} is {_shown([repr(value) for value in values], 10)}"
        for column, values in held.items()
    )
    return CorpusError(f"no row of {what} is as --where says; there {shown}.")


def as_text(value: Any) -> str:
    """A cell as text; empty if it holds nothing. A whole number has no point: 3.0 is `3`."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    return "" if text in NOTHING else text


def names_alike(speakers: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Names of speakers that differ only in capitals, blanks and zeros before a number."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(map(str, speakers))):
        plain = LEADING_ZEROS.sub("", "".join(name.split()).casefold())
        alike[plain].append(name)
    return (tuple(names) for names in alike.values() if len(names) > 1)


def one_person_notes(speakers: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each voice that may be known by several names.

    >>> [note] = one_person_notes(["s1", "s01", "s10"])
    >>> note[:54]
    "the speakers 's01', 's1' differ only in capitals, blan"
    """
    return tuple(
        f"the speakers {', '.join(map(repr, names))} differ only in capitals, blanks or zeros "
        "before a number: if they are one person, a split by speaker puts that person in two "
        "parts. Write the name one way."
        for names in names_alike(speakers)
    )


def utterance_table(
    rows: Sequence[Mapping[str, Any]], *, skip_unlabelled: bool = False
) -> pd.DataFrame:
    """The rows, checked and sorted by key; what a row does not say is not known.

    Every reader passes here, so that a cell means the same in each kind of corpus.

    Args:
        rows: `COLUMNS` by name, of which key, path, emotion and speaker are needed; `where` says in
            messages where a row comes from, if not its path; `further` holds further
            columns by name, which follow `COLUMNS` in the table, as text.
        skip_unlabelled: leave out rows without an emotion or a speaker, count and name them; the
            table's `attrs` keep their keys, as `UNLABELLED`.

    Raises:
        CorpusError: a row without emotion or speaker, a list where one label is expected, numbers
            for emotions, an unknown part of a split, two rows of one key, a null character.
    """
    for column in ("emotion", "speaker"):
        _refuse_lists(rows, column)
    told = _labelled([_in_our_words(row) for row in rows], skip_unlabelled)
    _refuse_unknown_splits(told)
    _refuse_numbers(told)
    first: dict[str, dict[str, Any]] = {}
    for row in told:
        for column in COLUMNS:
            if "\0" in str(row.get(column, "")):
                found = f"utterance {row['key']!r}: the {column} is {row[column]!r}"
                raise CorpusError(f"{found}; expected text without null characters.")
        other = first.setdefault(row["key"], row)
        if other is not row:
            raise CorpusError(
                f"utterance {row['key']!r} is there twice: {_place(other)} and {_place(row)}; "
                "expected it once, with one label (of several annotators, say, the majority). "
                "Remove one, or name the folder that holds one."
            )
    ordered = [first[key] for key in sorted(first)]
    _say_what_may_be_wrong(ordered)
    columns: dict[str, Any] = {column: [row[column] for row in ordered] for column in COLUMNS}
    # A path may hold bytes that are no text, which not every string column of pandas takes.
    columns["path"] = pd.Series(columns["path"], dtype=object)
    table = pd.DataFrame(columns | _further_columns(ordered))
    if len(told) < len(rows):
        table.attrs[UNLABELLED] = sorted({row["key"] for row in rows} - first.keys())
    return table


def _in_our_words(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every column, with genders and parts of a split as lsmprobe calls them."""
    unknown = {"gender": "", "sentence": "", "start_s": math.nan, "end_s": math.nan, "split": ""}
    row: dict[str, Any] = unknown | dict(given)
    row |= {name: as_text(row[name]) for name in ("emotion", "speaker", "gender", "split")}
    row["sentence"] = as_text(row["sentence"])
    if row["speaker"].casefold() == UNKNOWN_SPEAKER:
        row["speaker"] = UNKNOWN_SPEAKER
    row["said_gender"] = row["gender"]
    row["gender"] = GENDER_WORDS.get(row["gender"].casefold(), "")
    row["split"] = SPLIT_WORDS.get(row["split"].casefold(), row["split"])
    return row


def _place(row: Mapping[str, Any]) -> str:
    return row.get("where", repr(row["path"]))


def _shown(each: Sequence[str], n: int = SHOWN) -> str:
    return ", ".join(each[:n]) + (f" and {len(each) - n} more" if len(each) > n else "")


def _refuse_lists(rows: Sequence[Mapping[str, Any]], column: str) -> None:
    held = [row for row in rows if isinstance(row[column], list | tuple | dict | set | np.ndarray)]
    if held:
        raise CorpusError(
            f"{counted(len(held), 'utterance', 'has', of=len(rows))} several values as {column}; "
            f"the first, {_place(held[0])}: {held[0][column]!r}. Expected one label each: write "
            f"one into a column of its own and name it with --columns {column}=THEIRS."
        )


def _labelled(rows: Sequence[dict[str, Any]], skip: bool) -> list[dict[str, Any]]:
    """The rows that have an emotion and a speaker."""
    lacking = {
        id(row): [column for column in ("emotion", "speaker") if not row[column]] for row in rows
    }
    without = [row for row in rows if lacking[id(row)]]
    if not without:
        return list(rows)
    named = _shown([f"{_place(row)} (no {' and no '.join(lacking[id(row)])})" for row in without])
    found = counted(len(without), "utterance", "has", of=len(rows))
    found += f" no emotion or no speaker: {named}"
    if not skip:
        raise CorpusError(
            f"{found}. Every utterance needs both; --skip-unlabelled leaves them out."
        )
    if len(without) == len(rows):
        raise CorpusError(f"{found}. Nothing is left; expected at least one with both.")
    log.warning("skipping: %s", found)
    return [row for row in rows if not lacking[id(row)]]


def _refuse_unknown_splits(rows: Sequence[dict[str, Any]]) -> None:
    odd = [row for row in rows if row["split"] and not is_part(row["split"])]
    if odd:
        raise CorpusError(
            f"{_place(odd[0])}: the split is {odd[0]['split']!r}, and so in "
            f"{counted(len(odd), 'row')}; expected {SPLIT_WORDS_EXPECTED} or nothing."
        )


def _refuse_numbers(rows: Sequence[dict[str, Any]]) -> None:
    """Ratings on a scale are no classes; codes such as 0, 1, 2 may be."""
    emotions = sorted({row["emotion"] for row in rows})
    if emotions and all(map(_is_number, emotions)) and not all(map(str.isdigit, emotions)):
        raise CorpusError(
            f"the emotions are numbers ({_shown(emotions)}); expected names of classes. Give the "
            "numbers a column of another name, which is kept as well, and name the column of the "
            "classes with --columns emotion=THEIRS."
        )


def _say_what_may_be_wrong(rows: Sequence[dict[str, Any]]) -> None:
    """What is read as it stands, and yet is rarely meant so."""
    strange = [row for row in rows if row["said_gender"] and not row["gender"]]
    if strange:
        words = _shown(sorted({repr(row["said_gender"]) for row in strange}))
        said = "%s a gender other than female or male (%s): taken as not known"
        log.warning(said, counted(len(strange), "utterance", "has"), words)
    for note in one_person_notes(row["speaker"] for row in rows):
        log.warning(note)
    counts = Counter(row["emotion"] for row in rows)
    folded: dict[str, list[str]] = {}
    for emotion in sorted(counts):
        folded.setdefault(emotion.casefold(), []).append(emotion)
    for alike in folded.values():
        if len(alike) > 1:
            said = "emotions that differ only in case: %s; --map %s=%s makes them one"
            found = ", ".join(f"{each!r} ({counts[each]})" for each in alike)
            log.warning(said, found, alike[0], alike[-1])
    several = [emotion for emotion in sorted(counts) if SEVERAL.search(emotion)]
    if several:
        said = (
            "%s several emotions in one cell (%s): each such cell is an emotion of "
            "its own; --map merges them, --emotions leaves them out"
        )
        found = counted(sum(counts[each] for each in several), "utterance", "has")
        log.warning(said, found, _shown([*map(repr, several)]))
    for column, word, meaning in ODD_WORDS:
        n = sum(1 for row in rows if row[column] == word)
        if n:
            said = "%s the %s %r, taken as it stands; %s"
            log.warning(said, counted(n, "utterance", "has"), column, word, meaning)


def _further_columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """What the corpus says besides our columns, as text; a name that a cache uses is changed."""
    names = dict.fromkeys(name for row in rows for name in row.get("further", ()) if name)
    ours = {name: f"own_{name}" if name in (*COLUMNS, *TAKEN) else name for name in names}
    if told := [name for name in ours.values() if name != OWN_LABEL]:
        log.info("further columns of the corpus: %s", ", ".join(told))
    return {
        ours[name]: [_as_written(row.get("further", {}).get(name)) for row in rows] for name in ours
    }


def _as_written(value: Any) -> str:
    """A cell of a further column, where `None` may be a word."""
    return value.strip() if isinstance(value, str) else as_text(value)


def _is_number(text: str) -> bool:
    """Whether text is a number and no code: `007` is one."""
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and not re.match(r"[+-]?0\d", text) and "_" not in text
