"""A manifest, a CSV file of one's own -> its table of utterances."""

import codecs
import csv
import io
import logging
import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.corpora.utterances import (
    UNKNOWN_SPEAKER,
    columns_called,
    is_chosen,
    key_of_part,
    nothing_chosen,
    portable,
    utterance_table,
    written_once,
)
from lsmprobe.errors import CorpusError, counted

NEEDED = ("path", "emotion", "speaker")
OURS = (*NEEDED, "gender", "sentence", "start", "end", "split")
SEPARATORS = (",", ";", "\t")
log = logging.getLogger(__name__)


def read_manifest(
    manifest: Path,
    data_dir: str | Path | None,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    skip_unlabelled: bool = False,
) -> pd.DataFrame:
    """A CSV with one line per utterance.

    Args:
        manifest: its columns are path, emotion, speaker and, where known, gender, sentence, start,
            end (both in seconds; empty is where the file starts or ends), split. The separator is a
            comma, a semicolon or a tab; the text UTF-8 or UTF-16. Other columns are kept.
        data_dir: where paths are looked for before the manifest's own folder.
        columns: our column -> the manifest's.
        where: column -> the values that it may have; other rows are not read.
        skip_unlabelled: see `utterance_table`.

    Raises:
        CorpusError: no such CSV, or a line that makes no sense.
    """
    homes = [Path(os.path.normpath(manifest.parent.absolute()))]
    if data_dir is not None:
        homes.insert(0, Path(os.path.normpath(Path(data_dir).expanduser().absolute())))
    found, lines, comma = _csv_lines(manifest)
    what = f"the manifest {str(manifest)!r}"
    called = columns_called(found, columns or {}, NEEDED, what)
    if not lines:
        raise CorpusError(f"{what} names no utterance, only its columns.")
    lines = _chosen(lines, where or {}, found, what)
    further = {name: name for name in found if name not in called.values()}
    further |= {ours: theirs for ours, theirs in called.items() if ours not in OURS}
    rows: list[dict[str, Any]] = []
    for line, cells in lines:
        place = f"{str(manifest)!r}, line {line}"
        ours = {name: cells[called[name]] for name in OURS if name in called}
        if not ours["path"]:  # a file may be called by spaces alone
            raise CorpusError(f"{place}: the path is empty; every utterance needs one.")
        start_s, end_s = _part(ours.get("start", ""), ours.get("end", ""), place, comma)
        key, path = _locate(ours["path"], place, homes)
        said = {name: ours.get(name, "") for name in OURS if name not in ("path", "start", "end")}
        said["speaker"] = ours.get("speaker", UNKNOWN_SPEAKER)
        beside = {name: cells[theirs] for name, theirs in further.items()}
        rows.append(
            said
            | {"file": key, "path": path, "start_s": start_s, "end_s": end_s}
            | {"where": f"line {line}", "further": beside}
        )
    _name_from_common_folder(rows)
    for row in rows:
        row["key"] = key_of_part(row["file"], row["start_s"], row["end_s"])
    return utterance_table(rows, skip_unlabelled=skip_unlabelled)


Lines = list[tuple[int, dict[str, str]]]


def _csv_lines(manifest: Path) -> tuple[list[str], Lines, bool]:
    """The columns, number and cells of every line, whether the decimal mark may be a comma."""
    text = _decoded(manifest)
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise CorpusError(f"{str(manifest)!r} is not a valid CSV file: {error}.") from error
    if len(set(columns)) < len(columns):
        raise CorpusError(f"the manifest {str(manifest)!r} names a column twice: {columns}.")
    for line, cells in lines:
        if None in cells or None in cells.values():
            where = f"{str(manifest)!r}, line {line}"
            raise CorpusError(
                f"{where}: expected {counted(len(columns), 'cell')}, one for each of {columns}."
            )
    return columns, lines, separator == ";"


def _decoded(manifest: Path) -> str:
    """The text of a CSV in UTF-8, or in UTF-16 with its mark, as spreadsheets save it."""
    try:
        content = manifest.read_bytes()
    except OSError as error:
        raise CorpusError(
            f"cannot read the manifest {str(manifest)!r}: {error.strerror}."
        ) from error
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        said = f"the manifest {str(manifest)!r} is not {'UTF-16' if is_utf16 else 'UTF-8'}"
        raise CorpusError(f"{said} (byte {error.start}); save it as UTF-8.") from error


def _chosen(
    lines: Lines, where: Mapping[str, Sequence[str]], found: Sequence[str], what: str
) -> Lines:
    """The lines that `--where` asks for."""
    for column in where:
        if column not in found:
            raise CorpusError(
                f"{what} has no column {column!r}, which --where names; it has {found}."
            )
    chosen = [(line, cells) for line, cells in lines if is_chosen(cells, where)]
    if not chosen:
        raise nothing_chosen([cells for _, cells in lines], where, what)
    return chosen


def _locate(written: str, where: str, homes: Sequence[Path]) -> tuple[str, str]:
    """Key and place of a file that a manifest names.

    A relative path must lie within one of the homes. The key of an absolute one that lies in none
    is empty: `_name_from_common_folder` finds it.
    """
    # The name may be composed in the manifest and decomposed on the disk, or the other way round.
    spellings = [written, *(unicodedata.normalize(form, written) for form in ("NFC", "NFD"))]
    spellings += [each.replace("\\", "/") for each in spellings]  # written on Windows
    forms = dict.fromkeys(spellings)
    places = [(Path(os.path.normpath(base / form)), base) for base in homes for form in forms]
    inside = [
        (place, home)
        for place, base in places
        for home in (base, *homes)
        if place.is_relative_to(home)
    ]
    absolute = [Path(os.path.normpath(form)) for form in forms if Path(form).is_absolute()]
    there = " or ".join(repr(str(home)) for home in homes)
    if not inside and not absolute:
        raise CorpusError(
            f"{where}: {written!r} leaves the folder; expected a path within {there}, or an "
            "absolute one. --data-dir names another folder."
        )
    try:
        for place, home in inside:
            if place.is_file():
                return portable(place.relative_to(home).as_posix()), str(place)
        for place in absolute:
            if place.is_file():
                return "", str(place)
    except OSError as error:
        raise CorpusError(f"{where}: cannot read {written!r}: {error.strerror}.") from error
    if absolute:
        raise CorpusError(f"{where}: there is no file {written!r}.")
    raise CorpusError(
        f"{where}: there is no file {written!r} in {there}; --data-dir names another folder."
    )


def _name_from_common_folder(rows: Sequence[dict[str, Any]]) -> None:
    """Keys of files elsewhere, from the deepest folder that holds all of them."""
    elsewhere = [row for row in rows if not row["file"]]
    if not elsewhere:
        return
    common = Path(os.path.commonpath([Path(row["path"]).parent for row in elsewhere]))
    log.info("absolute paths: keys are relative to their common folder, %s", common)
    for row in elsewhere:
        row["file"] = portable(Path(row["path"]).relative_to(common).as_posix())


def _part(start: str, end: str, where: str, comma: bool) -> tuple[float, float]:
    """The part of the file in seconds, see `written_once`; `0,5` where cells end in semicolons."""
    start, end = start.strip(), end.strip()
    try:
        start_s, end_s = (
            float((cell.replace(",", ".") if comma else cell) or otherwise)
            for cell, otherwise in ((start, 0), (end, math.inf))
        )
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < end_s or (end and math.isinf(end_s)):
        raise CorpusError(
            f"{where}: start and end are {start!r} and {end!r}; expected seconds, start before end,"
            " or nothing where the file starts or ends."
        )
    return written_once(start_s, end_s)
