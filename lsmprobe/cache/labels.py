"""Labels are not features: the table of labels beside a cache, `CORPUS.labels.csv`.

It holds what a person may correct or add (emotion, speaker, gender, sentence, split and every
further column), by key, and never decides whether the cache is still good. The copy in the HDF5
file is what was known when it was laid out; it counts only where no table was ever written.

Its column `samples` is no label: it tells a table of other audio with the same keys.
"""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.blocks import BLOCK
from lsmprobe.cache.file import disk_errors
from lsmprobe.cache.layout import LABELS, NUMBERS, TEXT, table_of
from lsmprobe.cache.parts import cache_of, replacement_path
from lsmprobe.config import NOTHING
from lsmprobe.errors import CacheError, agreeing, counted

OWN = {*TEXT, *NUMBERS, "offset", "sha256"} - {"key", *LABELS}  # columns of the cache itself
REQUIRED = ("emotion", "speaker")  # that no utterance goes without
SAMPLES = "samples"  # of each clip, as the cache has them
TOLERANCE = 160  # samples, 10 ms: what another decoder or rounding may make of one file
SHOWN = 3  # changes that are named
# A number, and no name that Python reads as one: 01, 1_2.
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|-?\.\d+", re.ASCII)
INFINITE = {"inf", "-inf"}  # as they are written here
EXACT = 2**53  # integers beyond it are no floating-point numbers; such a name has many digits


class Changed(NamedTuple):
    """What was rewritten in a table of labels."""

    path: Path
    keys: tuple[str, ...]  # of utterances that were there and have other labels now
    columns: tuple[str, ...]  # that are new, or gone
    first: tuple[str, ...]  # some of the changes in words

    def __str__(self) -> str:
        parts = []
        if self.keys:
            more = ", ..." if len(self.keys) > len(self.first) else ""
            clips = counted(len(self.keys), "clip")
            parts.append(f"{clips} changed ({'; '.join(self.first)}{more})")
        if self.columns:
            parts.append(f"columns: {', '.join(self.columns)}")
        return f"{self.path}: {'; '.join(parts)}. The features stay as they are."


def labels_path(cache: Path) -> Path:
    """Where the labels of a cache, or of a part of one, lie."""
    whole = cache_of(cache)
    return whole.with_name(f"{whole.stem}.labels.csv")


def cache_of_labels(path: Path) -> Path:
    """The cache that a table of labels by its name belongs to."""
    return path.with_name(path.name.removesuffix(".labels.csv") + ".h5")


def written_mark(cache: Path) -> Path:
    """Stands beside a cache of before this table was, once its labels were written.

    Then, as for a cache whose identity names the table, a missing one is an error.
    """
    return labels_path(cache).with_name(f".{labels_path(cache).name}.written")


def further_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table of utterances beyond those that every one has."""
    return [name for name in table.columns if name not in {"key", *LABELS, *OWN}]


def write_labels(
    cache: Path, utterances: pd.DataFrame, known: pd.DataFrame | None, *, mark: bool = False
) -> Changed:
    """Write the labels of a corpus beside its cache; what differs from those that were there.

    Labels of utterances that are not in the corpus any more stay, since the cache may hold them.

    Args:
        cache: the cache; its parts have one table.
        utterances: the table of utterances, of all of the corpus.
        known: the labels that count now, by key, or None where there is no cache yet.
        mark: whether the cache itself cannot tell that it has a table, being older than that.

    Raises:
        CacheError: the folder cannot be written.
    """
    columns = [*LABELS, *further_columns(utterances)]
    own = [SAMPLES] if SAMPLES in utterances else []
    table = _by_key(utterances)[[*columns, *own]]
    changed = _changes(labels_path(cache), known, table)
    columns += own
    if known is not None:
        gone = known[~known.index.isin(table.index)]
        table = pd.concat([table, gone.reindex(columns=columns)])
    written = io.StringIO(newline="")
    writer = csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(["key", *columns])
    for key, *values in table.itertuples(name=None):
        writer.writerow([key, *map(_text, values)])
    content = written.getvalue().encode("utf-8", "surrogateescape")
    path = labels_path(cache)
    if not path.exists() or path.read_bytes() != content:
        with disk_errors(path, len(content)):
            write_then_rename(path, content)
    if mark and not written_mark(cache).exists():  # also where a kill came before it
        with disk_errors(written_mark(cache), 0):
            written_mark(cache).touch()
    return changed


def read_labels(path: Path) -> pd.DataFrame:
    """A table of labels: a row per utterance, its key as the index.

    Text stays text in the columns that every table has; a further column whose every value is a
    number, or empty, is numbers. `01` and `1_2` are names, not numbers.

    Raises:
        CacheError: it is not there, is not a CSV table with a column `key`, or names a key twice.
    """
    return _with_numbers(_as_written(path))


def read_own_labels(path: Path, *, wanted: Sequence[str] = ()) -> pd.DataFrame:
    """A table of labels that a user made: as `read_labels`, and it must hold labels.

    Blanks around a cell do not count, and what programs write for nothing is no label.

    Args:
        path: of the CSV file.
        wanted: further columns that count as labels, since they are what is learned.

    Raises:
        CacheError: also where no column is a label, or a column's name is nearly that of one, so
            that its labels would be ignored.
    """
    table = _as_written(path)
    for name in table.columns.difference([*OWN]):  # cells mean what they mean in a manifest
        table[name] = [cell.strip() for cell in table[name]]
    for name in table.columns.intersection(LABELS).drop("sentence", errors="ignore"):
        table[name] = ["" if cell in NOTHING else cell for cell in table[name]]
    table = _with_numbers(table)
    known = ("key", *LABELS)
    for name in table.columns:
        meant = name.strip().casefold()
        if name not in known and meant in known:
            raise CacheError(f"{path} has a column {name!r}; expected {meant!r}. Rename it.")
    if not any(name in table.columns for name in (*LABELS, *wanted)):
        raise CacheError(
            f"{path} has the columns key, {', '.join(table.columns) or 'and no other'}; expected "
            f"at least one of {', '.join(LABELS)}."
        )
    return table


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    for name in further_columns(table):
        table[name] = _numbers(table[name])
    return table


def _as_written(path: Path) -> pd.DataFrame:
    """All columns as text."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            header, columns, odd = _columns(csv.reader(file, strict=True))
    except OSError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise CacheError(f"{path} is not a valid CSV file: {error}.") from error
    if "key" not in header or len(set(header)) < len(header):
        raise CacheError(
            f"{path} has the columns {', '.join(header) or 'none'}; expected each once, and among "
            "them key."
        )
    if odd:
        raise CacheError(
            f"{path}: row {odd[0]} has {counted(odd[1], 'value')}; expected {len(header)}, "
            "one for each column."
        )
    table = _by_key(pd.DataFrame(dict(zip(header, columns, strict=True)), dtype=object))
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()]
        raise CacheError(
            f"{path} has {counted(len(twice), 'key')} twice ({twice[0]!r} first); expected once."
        )
    return table


def _columns(
    rows: Iterator[list[str]],
) -> tuple[list[str], list[list[str]], tuple[int, int] | None]:
    """A CSV file's header, its columns, and the first row of another length: which, and how long.

    Blank lines do not count. Equal cells of a block are one object: labels take no memory.
    """
    header = next(rows, [])
    columns: list[list[str]] = [[] for _ in header]
    odd = None
    n_before = 1
    while block := [*itertools.islice(rows, BLOCK)]:
        places = (at for at, row in enumerate(block) if len(row) not in (0, len(header)))
        if odd is None and (at := next(places, None)) is not None:
            odd = n_before + at + 1, len(block[at])
        known: dict[str, str] = {}
        if odd is None:
            for column, cells in zip(columns, zip(*filter(None, block), strict=True), strict=False):
                column += [known.setdefault(cell, cell) for cell in cells]
        n_before += len(block)
    return header, columns, odd


def labels_of(cache: Any) -> tuple[pd.DataFrame, Path] | None:
    """The table of labels that counts for a cache, and where it lies; None if none was written.

    Args:
        cache: with `path` and `identity`.

    Raises:
        CacheError: a table was written and is not there any more, or it is damaged.
    """
    path = labels_path(cache.path)
    if path.exists():
        return _whole(read_labels(path), path), path
    if "labels" in cache.identity or written_mark(cache.path).exists():
        raise CacheError(
            f"{path} is missing, which holds the labels of {cache.path}. Copy it back, or run "
            "lsmprobe extract again, which writes it from the corpus without extracting anything."
        )
    return None


def labels_that_count(cache: Any) -> pd.DataFrame:
    """The labels of all utterances that a cache is to hold, by key: of its table, or its own.

    As text, so that they can be compared with what a corpus says now.

    Raises:
        CacheError: as `labels_of`.
    """
    if found := labels_of(cache):
        return _as_written(found[1])
    own = table_of({name: cache.columns[name] for name in ("key", *LABELS)})
    return _by_key(own)


def with_labels(
    table: pd.DataFrame, labels: pd.DataFrame, path: Path, *, strict: bool = False
) -> pd.DataFrame:
    """A table of utterances with the labels of another table, joined by key.

    Args:
        table: of a cache.
        labels: by key; columns that it lacks stay as they are.
        path: where the labels are from, for messages.
        strict: whether keys that the cache does not have are an error.

    Raises:
        CacheError: keys are missing, or with `strict` unknown; a clip has no emotion or no
            speaker; or the table is of other audio.
    """
    keys = table["key"]
    missing = keys[~keys.isin(labels.index)]
    unknown = labels.index[~labels.index.isin(keys)] if strict else []
    for found, what in ((missing, "lacks"), (unknown, "has")):
        if len(found):
            first = os.fsdecode(str(next(iter(found))).encode("utf-8", "surrogateescape"))
            but = "" if what == "lacks" else ", which the cache does not have"
            raise CacheError(
                f"{path} {what} {counted(len(found), 'key')}{but} "
                f"({first!r} first); expected one row for each of its {len(keys)} utterances."
            )
    joined = labels.iloc[labels.index.get_indexer(pd.Index(keys, dtype=object))]
    _refuse_other_audio(table, joined, path)
    own = [name for name in joined.columns if name in OWN]
    joined = joined.drop(columns=own)
    for name in [name for name in REQUIRED if name in joined.columns]:
        empty = joined.index[joined[name] == ""]
        if len(empty):
            raise CacheError(
                f"{path} has {counted(len(empty), 'clip')} without "
                f"{name} ({empty[0]!r} first); expected one for each."
            )
    return table.assign(**{name: joined[name].to_numpy() for name in joined.columns})


def _refuse_other_audio(table: pd.DataFrame, labels: pd.DataFrame, path: Path) -> None:
    """Refuse the labels of another corpus with the same keys: most of its clips differ in length.

    Clips may be cut at a length, of which both tables know their longest alone. While a cache is
    being replaced, its table of labels is that of the new audio.

    Raises:
        CacheError: more than half of the clips have another length.
    """
    if SAMPLES not in labels or replacement_path(cache_of_labels(path)).exists():
        return
    own = table[SAMPLES].to_numpy(np.float64)
    told = pd.to_numeric(labels[SAMPLES], errors="coerce").to_numpy(np.float64)
    known = (own > 0) & (told > 0)  # 0: the clip could not be read
    if not known.any():
        return
    longest = min(own[known].max(), told[known].max())
    other = known & (np.abs(np.minimum(own, longest) - np.minimum(told, longest)) > TOLERANCE)
    if other.sum() > known.sum() / 2:
        first = int(np.argmax(other))
        raise CacheError(
            f"{path} is of other audio: {counted(other.sum(), 'clip', of=known.sum())} "
            f"{agreeing(other.sum(), 'has')} another length there ({labels.index[first]!r} first, "
            f"{told[first]:g} samples; expected {own[first]:g}). Put the table of this corpus "
            "there, which lsmprobe extract writes again, or drop its column samples if it is right."
        )


def _whole(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A cache's own table; a label that it lacks must not come from the HDF5 file instead.

    Raises:
        CacheError: a column is missing.
    """
    if lacks := [name for name in LABELS if name not in table.columns]:
        raise CacheError(
            f"{path} lacks the column{'s' if len(lacks) > 1 else ''} {', '.join(lacks)}. Put it "
            "back, or run lsmprobe extract again, which writes the table from the corpus."
        )
    return table


def _by_key(table: pd.DataFrame) -> pd.DataFrame:
    """With the keys as the index: as objects, since other strings of pandas refuse surrogates."""
    keys = pd.Index(table["key"].tolist(), dtype=object, name="key")
    return table.drop(columns="key").set_axis(keys)


def _changes(path: Path, known: pd.DataFrame | None, table: pd.DataFrame) -> Changed:
    if known is None:
        return Changed(path, (), (), ())
    known, table = (own.drop(columns=SAMPLES, errors="ignore") for own in (known, table))
    columns = [f"{name} is new" for name in table.columns if name not in known.columns]
    columns += [f"{name} is gone" for name in known.columns if name not in table.columns]
    shared = [name for name in table.columns if name in known.columns]
    both = table.index.intersection(known.index, sort=False)
    keys: list[str] = []
    first: list[str] = []
    old = {name: list(map(_text, known.loc[both, name])) for name in shared}
    new = {name: list(map(_text, table.loc[both, name])) for name in shared}
    for row, key in enumerate(both):
        moved = [name for name in shared if old[name][row] != new[name][row]]
        if moved:
            keys.append(key)
            if len(first) < SHOWN:
                name = moved[0]
                first.append(f"{key!r} {name} {old[name][row]!r} → {new[name][row]!r}")
    return Changed(path, tuple(keys), tuple(columns), tuple(first))


def _text(value: Any) -> str:
    """A value as it is written: numbers as short as they can be read back, nothing for NaN."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < EXACT else repr(number)


def _numbers(values: Iterable[str]) -> Any:
    """Numbers, if every value is one or empty, and not all are empty; else as they are."""
    texts = list(values)
    there = [text for text in texts if text]
    if not there or not all(map(_is_number, there)):
        return texts
    return np.array([float(text) if text else np.nan for text in texts])


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and int(digits) > EXACT:
        return False
    return NUMBER.fullmatch(text) is not None or text in INFINITE
