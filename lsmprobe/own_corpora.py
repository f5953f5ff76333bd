"""A corpus of one's own, however it is kept, -> its table of utterances.

Also what every table of utterances comes from, that of a published corpus too: the walk through a
folder, keys that are the same on every machine, the check of the rows. No audio is opened here.
"""

import csv
import importlib
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
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
GENDERS = {"f": "female", "m": "male"}
SPLITS = ("train", "validation", "test")
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


def read_sorted_folder(folder: Path, speaker_pattern: str) -> pd.DataFrame:
    """A folder with a sub-folder per emotion.

    Args:
        folder: what its sub-folders are called is their clips' emotion.
        speaker_pattern: a regular expression searched in the path inside the folder, with a group
            named speaker.

    Raises:
        CorpusError: the pattern is none, or a clip has no emotion or no speaker.
    """
    try:
        speaker = re.compile(speaker_pattern)
    except re.error as error:
        raise CorpusError(f"the speaker pattern {speaker_pattern!r} is wrong: {error}.") from error
    if "speaker" not in speaker.groupindex:
        raise CorpusError(
            f"the speaker pattern of folder:DIR is {speaker_pattern!r}; expected a regular "
            r"expression with a group named speaker, such as '/(?P<speaker>s\d+)_'."
        )
    rows = []
    for key, path in files_below(folder):
        if Path(key).suffix.lower() not in AUDIO_SUFFIXES:
            continue
        emotion, _, rest = key.partition("/")
        match = speaker.search(key)
        if not rest:
            raise CorpusError(f"{path!r} lies in no emotion's folder; expected DIR/EMOTION/FILE.")
        if not (match and match["speaker"]):
            raise CorpusError(
                f"the speaker pattern {speaker_pattern!r} finds no speaker in {key!r}."
            )
        rows.append({"key": key, "path": path, "emotion": emotion, "speaker": match["speaker"]})
    if not rows:
        raise CorpusError(f"{str(folder)!r} has no audio file; expected DIR/EMOTION/FILE.wav.")
    return utterance_table(rows)


def read_manifest(manifest: Path, data_dir: str | Path | None) -> pd.DataFrame:
    """A CSV with one line per utterance.

    Args:
        manifest: its columns are path, emotion, speaker and, where known, gender, sentence, start,
            end (both in seconds; empty is where the file starts or ends), split.
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
        for column, allowed in {"gender": GENDERS.values(), "split": SPLITS}.items():
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
                "key": _key_of_part(key, start_s, end_s),
                "path": path,
                "emotion": cells["emotion"],
                "speaker": cells["speaker"],
                "gender": cells.get("gender", ""),
                "sentence": cells.get("sentence", ""),
                "start_s": start_s,
                "end_s": end_s,
                "split": cells.get("split", ""),
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
                return _portable(place.relative_to(home).as_posix()), str(place)
        except OSError as error:
            raise CorpusError(f"{where}: cannot read {written!r}: {error.strerror}.") from error
    raise CorpusError(f"{where}: there is no file {written!r} in {there}.")


def _part(start: str, end: str, where: str) -> tuple[float, float]:
    """The part of the file in seconds, see `_written_once`."""
    try:
        start_s, end_s = float(start or 0), float(end or math.inf)
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < end_s or (end and math.isinf(end_s)):
        raise CorpusError(
            f"{where}: start and end are {start!r} and {end!r}; expected seconds, start before end,"
            " or nothing where the file starts or ends."
        )
    return _written_once(start_s, end_s)


def _written_once(start_s: float, end_s: float) -> tuple[float, float]:
    """One way to write each part, so that it has one key: NaN for the file's end, twice for all."""
    start_s = start_s if start_s > 0 else 0.0  # of -0 and NaN too
    if end_s < math.inf:
        return start_s, end_s
    return start_s or math.nan, math.nan


def _key_of_part(key: str, start_s: float, end_s: float) -> str:
    if math.isnan(start_s):
        return key
    return f"{key}#{start_s}-" + ("" if math.isnan(end_s) else f"{end_s}")


def read_audformat(folder: Path) -> pd.DataFrame:
    """A database with the schemes emotion and speaker; speakers' labels may say their gender.

    Raises:
        CorpusError: no such database, audformat is not installed, or a clip lacks what it needs.

    Source: audeering.github.io/audformat.
    """
    audformat = _extra("audformat")
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
        raise CorpusError(f"{said}: {_reason(error)}.") from error
    speaker_of = {index if isinstance(index, str) else index[0]: name for index, name in speakers}
    rows = []
    for index, emotion in emotions:
        file, start, end = (index, pd.NaT, pd.NaT) if isinstance(index, str) else index
        speaker = speaker_of.get(file)
        path = _within(file, [folder], f"the database {str(folder)!r}")
        if pd.isna(emotion) or pd.isna(speaker) or not path.is_file():
            raise CorpusError(
                f"{str(folder)!r} lacks the emotion, the speaker or the file of {file!r}."
            )
        start_s, end_s = _written_once(
            *(pd.Timedelta(time).total_seconds() for time in (start, end))
        )
        about = people.get(speaker) if isinstance(people, dict) else None
        rows.append(
            {
                "key": _key_of_part(_portable(file), start_s, end_s),
                "path": str(path),
                "emotion": str(emotion),
                "speaker": str(speaker),
                "gender": _known_gender(about and about.get("gender")),
                "start_s": start_s,
                "end_s": end_s,
            }
        )
    if not rows:
        raise CorpusError(f"{str(folder)!r} labels no file with an emotion.")
    return utterance_table(rows)


def _link_plain_files(folder: Path, plain: Path) -> None:
    """The database without what audformat would run: pickled tables, Python in its header."""
    header = _extra("yaml").safe_load((folder / "db.yaml").read_text("utf-8"))
    header = next(iter(header.values())) if len(header) == 1 else header
    for name in (*(header.get("tables") or ()), *(header.get("misc_tables") or ())):
        if Path(name).name != name:
            raise ValueError(f"a table is called {name!r}")
    for file in folder.glob("db.*"):
        if file.suffix in (".yaml", ".csv", ".parquet"):
            (plain / file.name).symlink_to(file)


def read_hugging_face(place: str, folder: Path) -> pd.DataFrame:
    """A dataset with the columns audio, emotion (or label), speaker and, where known, gender.

    Audio that lies inside the dataset is written to the folder once.

    Raises:
        CorpusError: no such dataset, datasets is not installed, or it has other columns.
    """
    datasets = _extra("datasets")
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        parts = datasets.load_dataset(place)
    except Exception as error:
        raise CorpusError(f"cannot load the dataset {place!r}: {_reason(error)}.") from error
    homes = [Path(place), *map(Path, (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE))]
    rows = []
    for split, part in parts.items():
        columns = part.column_names
        emotion = next((name for name in ("emotion", "label") if name in columns), None)
        if emotion is None or not {"audio", "speaker"} <= set(columns):
            raise CorpusError(
                f"the dataset {place!r} has the columns {columns}; expected audio, emotion (or "
                "label), speaker. Rename them in a copy of your own, or write a manifest."
            )
        names = getattr(part.features[emotion], "names", None)
        for number, record in enumerate(part.cast_column("audio", datasets.Audio(decode=False))):
            suffix = Path(record["audio"]["path"] or "").suffix.lower()
            key = f"{split}/{number:06}{suffix if suffix in AUDIO_SUFFIXES else '.wav'}"
            label = record[emotion]
            rows.append(
                {
                    "key": key,
                    "path": _written(record["audio"], folder / key, homes),
                    "emotion": names[label] if names else str(label),
                    "speaker": str(record["speaker"]),
                    "gender": _known_gender(record.get("gender")),
                    "split": split if set(SPLITS) <= set(parts) else "",
                }
            )
    return utterance_table(rows)


def _written(audio: Mapping[str, Any], file: Path, homes: Sequence[Path]) -> str:
    """Where the audio lies, after it was written there if it lay inside the dataset."""
    if audio["bytes"] is None:
        return str(_within(str(audio["path"]), homes, "the dataset"))
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f".{file.name}")
            beside.write_bytes(audio["bytes"])
            beside.rename(file)
        except OSError as error:
            raise CorpusError(f"cannot write {str(file)!r}: {error.strerror}.") from error
    return str(file.absolute())


def _within(written: str, homes: Sequence[Path], where: str) -> Path:
    """The place of a file that a corpus names; it must lie within one of the homes."""
    tops = [Path(os.path.normpath(home.absolute())) for home in homes]
    place = Path(os.path.normpath(tops[0] / written))
    if not any(place.is_relative_to(top) for top in tops):
        raise CorpusError(
            f"{where} names {written!r}, which leaves the folder; expected a path within "
            f"{str(tops[0])!r}."
        )
    return place


def _known_gender(written: Any) -> str:
    return written if written in GENDERS.values() else ""


def _extra(package: str) -> Any:
    """A library that only this kind of corpus needs."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise CorpusError(f"{package} is not installed; say: pip install {package}.") from error


def _reason(error: Exception) -> str:
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
                found.append((_portable(os.path.relpath(entry.path, top)), entry.path))
    return found


def _portable(path: str) -> str:
    """A path as every machine writes it: composed Unicode, escapes for bytes that are no text."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def utterance_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows, sorted by key; what a row does not say is not known.

    Args:
        rows: `COLUMNS` by name, of which key, path, emotion and speaker are needed; `where` says in
            messages where a row comes from, if not its path.

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
    ordered = [unknown | dict(first[key]) for key in sorted(first)]
    columns = {column: [row[column] for row in ordered] for column in COLUMNS}
    # A path may hold bytes that are no text, which not every string column of pandas takes.
    return pd.DataFrame(columns | {"path": pd.Series(columns["path"], dtype=object)})
