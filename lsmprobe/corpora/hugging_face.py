"""A data set in the format of Hugging Face -> its table of utterances."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.corpora.audio import AUDIO_SUFFIXES
from lsmprobe.corpora.utterances import (
    SPLIT_WORDS,
    UNKNOWN_SPEAKER,
    columns_called,
    extra,
    is_chosen,
    nothing_chosen,
    reason,
    utterance_table,
    within,
)
from lsmprobe.errors import CorpusError

NEEDED = ("audio", "emotion", "speaker")
OURS = (*NEEDED, "gender", "sentence")
log = logging.getLogger(__name__)


def read_hugging_face(
    place: str,
    folder: Path,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    split: str = "",
    subset: str = "",
    skip_unlabelled: bool = False,
) -> pd.DataFrame:
    """A dataset with the columns audio, emotion (or label), speaker and, where known, gender.

    Audio that lies inside the dataset is written to the folder, under a name that holds the
    beginning of its SHA-256: the same name is the same audio, whichever version or row it is from.

    Args:
        place: the dataset's id, or a folder.
        folder: where audio is written.
        columns: our column -> the dataset's.
        where: column -> the values that it may have; other rows are not read.
        split: only this one of its splits.
        subset: which of its configurations.
        skip_unlabelled: see `utterance_table`.

    Raises:
        CorpusError: no such dataset, datasets is not installed, it has other columns, or a row
            lacks what it needs.
    """
    datasets = extra("datasets")
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        parts = datasets.load_dataset(place, subset or None, split=split or None)
    except Exception as error:
        raise CorpusError(f"cannot load the dataset {place!r}: {reason(error)}.") from error
    parts = {split: parts} if split else parts
    homes = [Path(place), *map(Path, (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE))]
    what = f"the dataset {place!r}"
    words = {SPLIT_WORDS.get(name.lower(), "") for name in parts}
    is_split = {"train", "test"} <= words and "" not in words and len(words) == len(parts)
    chosen = {name: _chosen(part, where or {}, what) for name, part in parts.items()}
    if not any(numbers for numbers, _ in chosen.values()):
        held = [row for part in parts.values() for row in _cells(part, where or {})]
        raise nothing_chosen(held, where or {}, what)
    rows = []
    for name, (numbers, part) in chosen.items():
        called = columns_called(part.column_names, columns or {}, NEEDED, what)
        further = _further(part, called, what)
        audio = part.cast_column(called["audio"], datasets.Audio(decode=False))
        for number, record in zip(numbers, audio, strict=True):
            said = {ours: _value(part, called[ours], record) for ours in OURS if ours in called}
            said.setdefault("speaker", UNKNOWN_SPEAKER)
            key, path = _file(said.pop("audio"), f"{name}/{number:06}", folder, homes, what)
            cells = {each: _value(part, theirs, record) for each, theirs in further.items()}
            cells |= {"hf_split": name} if len(parts) > 1 and not is_split else {}
            rows.append(
                said
                | {"key": key, "path": path, "split": SPLIT_WORDS[name.lower()] if is_split else ""}
                | {"further": cells, "where": f"row {number} of {name!r}"}
            )
    return utterance_table(rows, skip_unlabelled=skip_unlabelled)


def _chosen(part: Any, where: Mapping[str, Sequence[str]], what: str) -> tuple[Sequence[int], Any]:
    """The numbers of the rows that `--where` asks for, and these rows; no audio is read."""
    for column in where:
        if column not in part.column_names:
            found = f"{what} has no column {column!r}, which --where names"
            raise CorpusError(f"{found}; it has {part.column_names}.")
    if not where:
        return range(len(part)), part
    numbers = [number for number, row in enumerate(_cells(part, where)) if is_chosen(row, where)]
    return numbers, part.select(numbers)


def _cells(part: Any, where: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    cells = part.select_columns(list(where)) if where else ()
    for record in cells:
        yield {column: _value(part, column, record) for column in where}


def _value(part: Any, column: str, record: Mapping[str, Any]) -> Any:
    """A cell; of a class its name, and nothing of a class that is none: -1 is not labelled."""
    value, names = record[column], getattr(part.features[column], "names", None)
    if not names:
        return value
    return names[value] if value is not None and 0 <= value < len(names) else None


def _further(part: Any, called: Mapping[str, str], what: str) -> dict[str, str]:
    """Further columns, kept under which name: those of text, numbers and classes."""
    names = [name for name in part.column_names if name not in called.values()]
    # Of ours, only those of `OURS` are read here; a fold and the like are further columns.
    theirs = {ours: name for ours, name in called.items() if ours not in OURS}
    theirs = {name: name for name in names} | theirs
    plain = {
        ours: name
        for ours, name in theirs.items()
        if hasattr(part.features[name], "dtype")
        and part.features[name].dtype not in ("binary", "dict", "list")
        and not hasattr(part.features[name], "decode_example")
    }
    if left := sorted(set(theirs.values()) - set(plain.values())):
        log.warning("%s: left out the columns %s: not text or numbers", what, ", ".join(left))
    return plain


def _file(
    audio: Mapping[str, Any] | None, name: str, folder: Path, homes: Sequence[Path], what: str
) -> tuple[str, str]:
    """Key and place of a row's audio, after it was written if it lay inside the dataset.

    The key holds the beginning of the content's SHA-256, so that another version of the dataset,
    with its rows in another order, never has the hidden states of other audio.
    """
    if audio is None or (audio["bytes"] is None and not audio["path"]):
        raise CorpusError(f"{what} has no audio in row {name}; expected some in every row.")
    suffix = Path(audio["path"] or "").suffix.lower()
    suffix = suffix if suffix in AUDIO_SUFFIXES else ".wav"
    if audio["bytes"] is None:
        outside = within(str(audio["path"]), homes, what)
        try:
            content = outside.read_bytes()
        except OSError as error:
            raise CorpusError(f"cannot read {str(outside)!r}: {error.strerror}.") from error
        return f"{name}-{_hash(content)}{suffix}", str(outside)
    key = f"{name}-{_hash(audio['bytes'])}{suffix}"
    file = folder / key
    try:
        if not (file.is_file() and file.read_bytes() == audio["bytes"]):
            file.parent.mkdir(parents=True, exist_ok=True)
            beside = file.with_name(f".{file.name}")
            beside.write_bytes(audio["bytes"])
            beside.rename(file)
    except OSError as error:
        raise CorpusError(f"cannot write {str(file)!r}: {error.strerror}.") from error
    return key, str(file.absolute())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
