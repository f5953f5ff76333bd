"""A manifest, a CSV file of one's own -> its table of utterances."""

import csv
import math
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lsmprobe.corpora.utterances import (
    GENDERS,
    PARTS,
    key_of_part,
    portable,
    utterance_table,
    written_once,
)
from lsmprobe.errors import CorpusError

KNOWN = ("path", "emotion", "speaker", "gender", "sentence", "start", "end", "split")


def read_manifest(manifest: Path, data_dir: str | Path | None) -> pd.DataFrame:
    """A CSV with one line per utterance.

    Args:
        manifest: its columns are path, emotion, speaker and, where known, gender, sentence, start,
            end (both in seconds; empty is where the file starts or ends), split. Any other column
            is a further column of the table of utterances.
        data_dir: where paths are looked for before the manifest's own folder.

    Raises:
        CorpusError: no such CSV, or a line that cannot be meant.
    """
    homes = [Path(os.path.normpath(manifest.parent.absolute()))]
    if data_dir is not None:
        homes.insert(0, Path(os.path.normpath(Path(data_dir).expanduser().absolute())))
    rows = []
    for line, cells in _csv_lines(manifest):
        where = f"{str(manifest)!r}, line {line}"
        for column, allowed in {"gender": GENDERS.values(), "split": PARTS}.items():
            if cells.get(column) and cells[column] not in allowed:
                expected = f"expected {', '.join(allowed)} or nothing"
                raise CorpusError(f"{where}: the {column} is {cells[column]!r}; {expected}.")
        for column in ("path", "emotion", "speaker"):
            if not cells[column]:
                raise CorpusError(f"{where}: the {column} is empty; every utterance needs one.")
        key, path = _locate(cells["path"], where, homes)
        start_s, end_s = _part(cells.get("start", ""), cells.get("end", ""), where)
        rows.append(
            {
                "key": key_of_part(key, start_s, end_s),
                "path": path,
                "emotion": cells["emotion"],
                "speaker": cells["speaker"],
                "gender": cells.get("gender", ""),
                "sentence": cells.get("sentence", ""),
                "start_s": start_s,
                "end_s": end_s,
                "split": cells.get("split", ""),
                "further": {name: cells[name] for name in cells if name not in KNOWN},
                "where": f"line {line}",
            }
        )
    return utterance_table(rows)


def _csv_lines(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of every utterance; only in paths do blanks around a cell count."""
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
            lines = [(reader.line_num, cells) for cells in reader]
    except OSError as error:
        raise CorpusError(
            f"cannot read the manifest {str(manifest)!r}: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        said = f"the manifest {str(manifest)!r} is not UTF-8 (byte {error.start}); save it as that."
        raise CorpusError(said) from error
    except csv.Error as error:
        raise CorpusError(f"the manifest {str(manifest)!r} is no CSV: {error}.") from error
    missing = [column for column in ("path", "emotion", "speaker") if column not in columns]
    if missing or len(set(columns)) < len(columns):
        fault = f"lacks the column {missing[0]}" if missing else "names a column twice"
        raise CorpusError(
            f"the manifest {str(manifest)!r} {fault}; found {columns}, expected path, emotion, "
            "speaker and, where known, gender, sentence, start, end, split, with commas between."
        )
    if not lines:
        raise CorpusError(f"the manifest {str(manifest)!r} names no utterance, only its columns.")
    for line, cells in lines:
        if None in cells or None in cells.values():
            where = f"{str(manifest)!r}, line {line}"
            raise CorpusError(f"{where}: expected {len(columns)} cells, one for each of {columns}.")
    return [
        (line, {name: cell if name == "path" else cell.strip() for name, cell in cells.items()})
        for line, cells in lines
    ]


def _locate(written: str, where: str, homes: Sequence[Path]) -> tuple[str, str]:
    """Key and place of a file that a manifest names; it must lie within one of the homes."""
    # The name may be composed in the manifest and decomposed on the disk, or the other way round.
    forms = dict.fromkeys([written, *(unicodedata.normalize(f, written) for f in ("NFC", "NFD"))])
    places = [(Path(os.path.normpath(base / form)), base) for base in homes for form in forms]
    inside = [
        (place, home)
        for place, base in places
        for home in (base, *homes)
        if place.is_relative_to(home)
    ]
    there = " or ".join(repr(str(home)) for home in homes)
    if not inside:
        raise CorpusError(
            f"{where}: {written!r} leaves the folder; expected a path within {there}."
        )
    for place, home in inside:
        try:
            if place.is_file():
                return portable(place.relative_to(home).as_posix()), str(place)
        except OSError as error:
            raise CorpusError(f"{where}: cannot read {written!r}: {error.strerror}.") from error
    raise CorpusError(f"{where}: there is no file {written!r} in {there}.")


def _part(start: str, end: str, where: str) -> tuple[float, float]:
    """The part of the file in seconds, see `written_once`."""
    try:
        start_s, end_s = float(start or 0), float(end or math.inf)
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < end_s or (end and math.isinf(end_s)):
        raise CorpusError(
            f"{where}: start and end are {start!r} and {end!r}; expected seconds, start before end,"
            " or nothing where the file starts or ends."
        )
    return written_once(start_s, end_s)
