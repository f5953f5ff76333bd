"""A database in audformat -> its table of utterances."""

import math
import warnings
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from lsmprobe.corpora.utterances import (
    ALIASES,
    as_text,
    columns_called,
    extra,
    key_of_part,
    portable,
    reason,
    utterance_table,
    within,
    written_once,
)
from lsmprobe.errors import CorpusError, counted

NEEDED = ("emotion", "speaker")
READ = {each for ours in ("gender", "sentence", "fold") for each in (ours, *ALIASES.get(ours, ()))}
"""Columns that have a meaning here, as a manifest's; any other is a further column."""


def read_audformat(
    folder: Path,
    *,
    columns: Mapping[str, str] | None = None,
    tables: Sequence[str] = (),
    skip_unlabelled: bool = False,
) -> pd.DataFrame:
    """A database with the schemes emotion and speaker.

    The emotions of all tables are put together: equal ones are one utterance. A table with a split
    says which part of it an utterance belongs to. Every other column of a table, and what the
    labels of the speakers say of them, is the gender, the sentence or a further column, as in a
    manifest.

    Args:
        folder: where its db.yaml lies.
        columns: our column -> the scheme, or the column of a table, that holds it.
        tables: only the emotions and splits of these; all else is taken from every table.
        skip_unlabelled: see `utterance_table`.

    Raises:
        CorpusError: no such database, audformat is not installed, a file has different emotions or
            parts in two tables, or lacks what it needs.

    Source: audeering.github.io/audformat.
    """
    audformat = extra("audformat")
    named = {name: (columns or {}).get(name, name) for name in NEEDED}
    others = {ours: theirs for ours, theirs in (columns or {}).items() if ours not in NEEDED}
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
            people = _about_labels(database, named["speaker"])
            splits = _splits(database, asked)
            read = {place for cells in (emotions, speakers) for *_, place in cells}
            further = _further(database, found, read)
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
    of_people = {name: name for said in people.values() for name in said}
    of_people |= {name: f"{named['speaker']}.{name}" for name in of_people if name in further}
    called = _called([*further, *of_people.values()], others, where)
    read_as = {called[name] for name in ("gender", "sentence") if name in called}
    own = {theirs: name for name, theirs in called.items() if theirs not in read_as}
    rows = []
    for part, emotion in emotion_of.items():
        file, start_s, end_s = part[0], part[1], part[2]
        path = within(file, [folder], where)
        if not path.is_file():
            raise CorpusError(f"{where} lacks the file {file!r}; copy the whole database.")
        start_s, end_s = written_once(*(math.nan if at is None else at for at in (start_s, end_s)))
        speaker = speaker_of.get((file,))
        whole: Part = (file, None, None)
        person = people.get(as_text(speaker), {})
        beside = {theirs: as_text(person.get(name)) for name, theirs in of_people.items()}
        beside |= {name: cells.get(part) or cells.get(whole, "") for name, cells in further.items()}
        rows.append(
            {
                "key": key_of_part(portable(file), start_s, end_s),
                "path": str(path),
                "emotion": emotion,
                "speaker": speaker,
                "gender": beside.get(called.get("gender", "")) or person.get("gender"),
                "sentence": beside.get(called.get("sentence", "")),
                "start_s": start_s,
                "end_s": end_s,
                "split": split_of.get(part) or split_of.get(whole),
                "where": repr(file),
                "further": {
                    own.get(name, name): text
                    for name, text in beside.items()
                    if name not in read_as
                },
            }
        )
    return utterance_table(rows, skip_unlabelled=skip_unlabelled)


Part = tuple[str, float | None, float | None]  # file, start and end in seconds
Cell = tuple[Any, Any, str]  # of a part, what is said of it, and where that stands
Said = dict[Part, str]


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


def _further(database: Any, tables: Sequence[str], read: Container[str]) -> dict[str, Said]:
    """What all other columns of tables say of files and their parts, as text.

    A column is called as in its table; where another table has one of that name that says something
    else of a part, both are called `table.column`. What the scheme of a column says of its labels
    is a column `column.property` each.
    """
    held: dict[str, dict[str, Said]] = {}
    for table in tables:
        parts = [_part(index) for index in database[table].index]
        for name, column in database[table].columns.items():
            if f"{table}.{name}" in read:
                continue
            values = zip(parts, map(as_text, column.get()), strict=True)
            cells = {part: text for part, text in values if text}
            held.setdefault(name, {})[table] = cells
            about = _about_labels(database, column.scheme_id)
            for more in dict.fromkeys(each for said in about.values() for each in said):
                held.setdefault(f"{name}.{more}", {})[table] = {
                    part: as_text(about.get(label, {}).get(more)) for part, label in cells.items()
                }
    further: dict[str, Said] = {}
    for name, said in held.items():
        joined: Said = {}
        if all(
            joined.setdefault(*cell) == cell[1] for one in said.values() for cell in one.items()
        ):
            further[name] = joined
        else:
            further |= {f"{table}.{name}": cells for table, cells in said.items()}
    return further


def _called(offered: Sequence[str], named: Mapping[str, str], where: str) -> dict[str, str]:
    """Gender, sentence and fold, and whatever `--columns` names -> what it is called there."""
    ours = [name for name in offered if name.casefold() in READ or name in named.values()]
    return columns_called(ours if {*named.values()} <= {*offered} else offered, named, (), where)


def _about_labels(database: Any, scheme: str | None) -> dict[str, dict[str, Any]]:
    """Label of a scheme -> what the scheme, or the misc table of its labels, says of it."""
    labels = database.schemes[scheme].labels if scheme in database.schemes else None
    if isinstance(labels, str):
        labels = database[labels].get().to_dict("index")
    if not isinstance(labels, dict):
        return {}
    return {as_text(who): about for who, about in labels.items() if isinstance(about, dict)}


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
            f"{where} gives {counted(len(clashes), 'utterance')} more than one {what}; the first, "
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
