"""The table of utterances: what every reader of a corpus makes, and the checks that it passes.

The walk through a folder, keys that are the same on every machine, the check of the rows. No audio
is opened here.
"""

import importlib
import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.errors import CorpusError

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
TAKEN = ("samples", "seconds", "frames", "offset", "sha256")  # columns that a cache adds
GENDERS = {"f": "female", "m": "male"}
PARTS = ("train", "validation", "test")  # of a split


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


def known_gender(written: Any) -> str:
    """`female` or `male` as they are spelled here; anything else is not known."""
    return written if written in GENDERS.values() else ""


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


def utterance_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows, sorted by key; what a row does not say is not known.

    Args:
        rows: `COLUMNS` by name, of which key, path, emotion and speaker are needed; `further` holds
            further columns, text by name; `where` says in messages where a row comes from, if not
            its path.

    Raises:
        CorpusError: two rows have one key, or a text holds a null character.
    """
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        for column in COLUMNS:
            if "\0" in str(row.get(column, "")):
                found = f"utterance {row['key']!r}: the {column} is {row[column]!r}"
                raise CorpusError(f"{found}; expected text without null characters.")
        other = first.setdefault(row["key"], row)
        if other is not row:
            places = [each.get("where", repr(each["path"])) for each in (other, row)]
            raise CorpusError(
                f"utterance {row['key']!r} is there twice: {places[0]} and {places[1]}; expected "
                "it once. Remove one, or name the folder that holds one."
            )
    unknown = {"gender": "", "sentence": "", "start_s": math.nan, "end_s": math.nan, "split": ""}
    ordered: list[dict[str, Any]] = [unknown | dict(first[key]) for key in sorted(first)]
    columns = {column: [row[column] for row in ordered] for column in COLUMNS}
    further = dict.fromkeys(name for row in ordered for name in row.get("further", {}))
    for name in further:
        if name in (*COLUMNS, *TAKEN) or not name:
            raise CorpusError(
                f"the column {name!r} has a name that a cache keeps for itself; rename it."
            )
        columns[name] = [row.get("further", {}).get(name, "") for row in ordered]
    # A path may hold bytes that are no text, which not every string column of pandas takes.
    return pd.DataFrame(columns | {"path": pd.Series(columns["path"], dtype=object)})
