"""A database in audformat -> its table of utterances."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from lsmprobe.corpora.utterances import (
    as_text,
    extra,
    key_of_part,
    portable,
    reason,
    utterance_table,
    within,
    written_once,
)
from lsmprobe.errors import CorpusError


def read_audformat(
    folder: Path,
    *,
    columns: Mapping[str, str] | None = None,
    tables: Sequence[str] = (),
    skip_unlabelled: bool = False,
) -> pd.DataFrame:
    """A database with the schemes emotion and speaker; gender from the labels of its speakers.

    The emotions of all tables are put together: equal ones are one utterance. A table with a split
    says which part of it an utterance belongs to.

    Args:
        folder: where its db.yaml lies.
        columns: emotion or speaker -> the scheme, or the column of a table, that holds it.
        tables: only the emotions and splits of these; speakers are taken from all.
        skip_unlabelled: see `utterance_table`.

    Raises:
        CorpusError: no such database, audformat is not installed, a file has different emotions or
            parts in two tables, or lacks what it needs.

    Source: audeering.github.io/audformat.
    """
    audformat = extra("audformat")
    named = {"emotion": "emotion", "speaker": "speaker"} | dict(columns or {})
    where = f"the database {str(folder)!r}"
    try:
        with warnings.catch_warnings(), TemporaryDirectory() as plain:
            warnings.simplefilter("ignore")  # the library's own affairs
            _link_plain_files(folder.absolute(), Path(plain))
            database = audformat.Database.load(plain, load_data=True)
            found = list(database.tables)
            asked = [name for name in found if name in (tables or found)]
            # Database.get would join them, but it mixes up the speakers of segments.
            emotions = _cells(database, named["emotion"], asked)
            speakers = _cells(database, named["speaker"], found)
            people = _people(database, named["speaker"])
            splits = _splits(database, asked)
    except Exception as error:
        said = f"{str(folder)!r} is not an audformat database"
        raise CorpusError(f"{said}: {reason(error)}.") from error
    for table in tables:
        if table not in found:
            raise CorpusError(
                f"{where} has no table {table!r}, which --table names; it has {found}."
            )
    for what, cells in (("emotion", emotions), ("speaker", speakers)):
        if not cells:
            raise CorpusError(
                f"{where} has no column with the scheme {named[what]!r} in the tables {asked}; its "
                f"schemes are {list(database.schemes)}. Name one: --columns {what}=SCHEME."
            )
    emotion_of = _one_each(emotions, "emotion", where)
    speaker_of = _one_each([(part[:1], *rest) for part, *rest in speakers], "speaker", where)
    split_of = _one_each(splits, "part of the split", where)
    rows = []
    for part, emotion in emotion_of.items():
        file, start_s, end_s = part[0], part[1], part[2]
        path = within(file, [folder], where)
        if not path.is_file():
            raise CorpusError(f"{where} lacks the file {file!r}; copy the whole database.")
        start_s, end_s = written_once(*(math.nan if at is None else at for at in (start_s, end_s)))
        speaker = speaker_of.get((file,))
        rows.append(
            {
                "key": key_of_part(portable(file), start_s, end_s),
                "path": str(path),
                "emotion": emotion,
                "speaker": speaker,
                "gender": people.get(as_text(speaker)),
                "start_s": start_s,
                "end_s": end_s,
                "split": split_of.get(part) or split_of.get((file, None, None)),
                "where": repr(file),
            }
        )
    return utterance_table(rows, skip_unlabelled=skip_unlabelled)


Part = tuple[str, float | None, float | None]  # file, start and end in seconds
Cell = tuple[Any, Any, str]  # of a part, what is said of it, and where that stands


def _part(index: Any) -> Part:
    file, *times = (index,) if isinstance(index, str) else index
    start, end = (
        None if pd.isna(time) else pd.Timedelta(time).total_seconds()
        for time in (*times, None, None)[:2]
    )
    return file, start or None, end


def _cells(database: Any, scheme: str, tables: Sequence[str]) -> list[Cell]:
    """What the columns of a scheme, or of that name, say of files and their parts."""
    every = [
        (f"{table}.{name}", column)
        for table in tables
        for name, column in database[table].columns.items()
    ]
    chosen = [each for each in every if each[1].scheme_id == scheme]
    # A column is asked for by its name where no scheme is called so.
    chosen = chosen or [
        each for each in every if scheme in (each[0], each[0].rpartition(".")[2], each[1]._id)
    ]
    return [
        (_part(index), value, name)
        for name, column in chosen
        for index, value in column.get().items()
    ]


def _splits(database: Any, tables: Sequence[str]) -> list[Cell]:
    """The part of the split that the tables give their files."""
    return [
        (_part(index), database.splits[table.split_id].type or table.split_id, name)
        for name, table in ((name, database[name]) for name in tables)
        if table.split_id
        for index in table.index
    ]


def _people(database: Any, scheme: str) -> dict[str, Any]:
    """Speaker -> gender, from the labels of the scheme or the misc table that holds them."""
    labels = database.schemes[scheme].labels if scheme in database.schemes else None
    if isinstance(labels, str):
        labels = database[labels].get().to_dict("index")
    if not isinstance(labels, dict):
        return {}
    return {
        as_text(speaker): about.get("gender", about.get("sex"))
        for speaker, about in labels.items()
        if isinstance(about, dict)
    }


def _one_each(cells: Sequence[Cell], what: str, where: str) -> dict[Any, str]:
    """The one thing that is said of each part, however often; empty where nothing is.

    Raises:
        CorpusError: different things are said.
    """
    said: dict[Any, dict[str, str]] = {}
    for part, value, place in cells:
        text = as_text(value)
        if text:
            said.setdefault(part, {}).setdefault(text, place)
        else:
            said.setdefault(part, {})
    clashes = {part: texts for part, texts in said.items() if len(texts) > 1}
    if clashes:
        part, texts = next(iter(clashes.items()))
        shown = ", ".join(f"{text!r} in {place!r}" for text, place in texts.items())
        raise CorpusError(
            f"{where} gives {len(clashes)} utterances more than one {what}; the first, "
            f"{part[0]!r}: {shown}. Choose tables with --table, or a column with "
            f"--columns {what.split()[0]}=COLUMN."
        )
    return {part: next(iter(texts), "") for part, texts in said.items()}


def _link_plain_files(folder: Path, plain: Path) -> None:
    """The database without what audformat would run: pickled tables, Python in its header."""
    header = extra("yaml").safe_load((folder / "db.yaml").read_text("utf-8"))
    header = next(iter(header.values())) if len(header) == 1 else header
    for name in (*(header.get("tables") or ()), *(header.get("misc_tables") or ())):
        if Path(name).name != name:
            raise ValueError(f"a table is called {name!r}")
    for file in folder.glob("db.*"):
        if file.suffix in (".yaml", ".csv", ".parquet"):
            (plain / file.name).symlink_to(file)
