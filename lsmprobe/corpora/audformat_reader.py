"""A database in audformat -> its table of utterances."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from lsmprobe.corpora.utterances import (
    extra,
    key_of_part,
    known_gender,
    portable,
    reason,
    utterance_table,
    within,
    written_once,
)
from lsmprobe.errors import CorpusError


def read_audformat(folder: Path) -> pd.DataFrame:
    """A database with the schemes emotion and speaker; speakers' labels may say their gender.

    Raises:
        CorpusError: no such database, audformat is not installed, or a clip lacks what it needs.

    Source: audeering.github.io/audformat.
    """
    audformat = extra("audformat")
    try:
        with warnings.catch_warnings(), TemporaryDirectory() as plain:
            warnings.simplefilter("ignore")  # the library's own affairs
            _link_plain_files(folder.absolute(), Path(plain))
            database = audformat.Database.load(plain, load_data=True)
            columns = [
                each for table in database.tables.values() for each in table.columns.values()
            ]
            # Database.get would join the two, but it mixes up the speakers of segments.
            emotions, speakers = (
                [
                    item
                    for each in columns
                    if each.scheme_id == scheme
                    for item in each.get().items()
                ]
                for scheme in ("emotion", "speaker")
            )
            people = database.schemes["speaker"].labels
    except Exception as error:
        said = f"{str(folder)!r} is no audformat database with the schemes emotion and speaker"
        raise CorpusError(f"{said}: {reason(error)}.") from error
    speaker_of = {index if isinstance(index, str) else index[0]: name for index, name in speakers}
    rows = []
    for index, emotion in emotions:
        file, start, end = (index, pd.NaT, pd.NaT) if isinstance(index, str) else index
        speaker = speaker_of.get(file)
        path = within(file, [folder], f"the database {str(folder)!r}")
        if pd.isna(emotion) or pd.isna(speaker) or not path.is_file():
            raise CorpusError(
                f"{str(folder)!r} lacks the emotion, the speaker or the file of {file!r}."
            )
        start_s, end_s = written_once(
            *(pd.Timedelta(time).total_seconds() for time in (start, end))
        )
        about = people.get(speaker) if isinstance(people, dict) else None
        rows.append(
            {
                "key": key_of_part(portable(file), start_s, end_s),
                "path": str(path),
                "emotion": str(emotion),
                "speaker": str(speaker),
                "gender": known_gender(about and about.get("gender")),
                "start_s": start_s,
                "end_s": end_s,
            }
        )
    if not rows:
        raise CorpusError(f"{str(folder)!r} labels no file with an emotion.")
    return utterance_table(rows)


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
