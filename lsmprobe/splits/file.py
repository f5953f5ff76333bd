"""What a split is, and the JSON file that keeps it; docs/splits.md specifies the file."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from lsmprobe.atomic import write_then_rename
from lsmprobe.corpora.utterances import PARTS as PARTS
from lsmprobe.errors import SplitError, counted

FORMAT, VERSION = "lsmprobe split", 1


@dataclass(frozen=True, eq=False)
class Fold:
    """Sorted indices into the utterances; together they hold every utterance once."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]


@dataclass(frozen=True, eq=False)
class Split:
    """One fold, or several whose test sets hold every utterance once.

    `kind` is speaker, random, loso, kfold:K, given or file; `notes` are sentences that a reader of
    the scores must report: what no split of these speakers can give, and that a split leaks.
    """

    kind: str
    seed: int
    folds: tuple[Fold, ...]
    notes: tuple[str, ...] = ()


def split_hash(split: Split, keys: Iterable[str]) -> str:
    """SHA-256 (hex) of the folds as keys, whatever the utterances' order: equal means same split.

    It is taken over the JSON of `[[train, validation, test], ...]`, each a sorted list of keys.
    """
    folds = [[fold[part] for part in PARTS] for fold in _as_keys(split, keys)]
    return hashlib.sha256(json.dumps(folds).encode()).hexdigest()


def save_split(path: str | Path, split: Split, keys: Iterable[str]) -> None:
    """Write a split file; under its name it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    keys = list(keys)
    record = {
        "format": FORMAT,
        "version": VERSION,
        "kind": split.kind,
        "seed": split.seed,
        "notes": split.notes,
        "hash": split_hash(split, keys),
        "folds": _as_keys(split, keys),
    }
    content = json.dumps(record, indent=1) + "\n"
    write_then_rename(Path(path), content.encode())


def load_split(path: str | Path, keys: Iterable[str]) -> Split:
    """Read a split file, or one made by hand: `{"train": [...], "validation": ..., "test": ...}`.

    Args:
        path: a file of `save_split`, or JSON with three lists of keys.
        keys: the corpus's keys, in the order that the indices of the folds are to follow.

    Raises:
        SplitError: not such a file; a key that is unknown, missing or listed twice; a hash that is
            not that of the lists (a file without a hash is taken as it is).
    """
    keys = list(keys)
    index = {key: number for number, key in enumerate(keys)}
    assert len(index) == len(keys), "keys are unique in a corpus"
    record = _read_record(path)
    folds = tuple(
        _fold_of_keys(f"{path}, fold {number}", parts, index)
        for number, parts in enumerate(record.get("folds") or [record])
    )
    notes = tuple(str(note) for note in record["notes"])
    split = Split(record.get("kind", "file"), record.get("seed", 0), folds, notes)
    if record.get("hash", found := split_hash(split, keys)) != found:
        raise SplitError(f"{path} was changed, its hash is of other lists. If meant, drop `hash`.")
    return split


def _as_keys(split: Split, keys: Iterable[str]) -> list[dict[str, list[str]]]:
    named = list(keys)
    return [
        {part: sorted(named[i] for i in getattr(fold, part)) for part in PARTS}
        for fold in split.folds
    ]


def _read_record(path: str | Path) -> dict[str, Any]:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"split file {path}: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path} is not JSON ({error}); expected a split file.") from error
    if not isinstance(record, dict):
        raise SplitError(f"{path} holds no JSON object; expected train, validation and test.")
    record = {"format": FORMAT, "version": VERSION, "notes": [], **record}
    found = record["format"], record["version"]
    if found != (FORMAT, VERSION):
        expected = f"expected {FORMAT!r} version {VERSION}"
        raise SplitError(f"{path} has format {found[0]!r} version {found[1]!r}; {expected}.")
    types = {"kind": str, "seed": int, "notes": list, "folds": list, "hash": str}
    for name, kind in types.items():
        if name in record and not isinstance(record[name], kind):
            raise SplitError(f"{path}: `{name}` is {record[name]!r}; expected a {kind.__name__}.")
    return record


def _fold_of_keys(where: str, parts: Any, index: Mapping[str, int]) -> Fold:
    lists: dict[str, Any] = dict.fromkeys(PARTS)
    if isinstance(parts, dict):
        lists = {part: parts.get(part) for part in PARTS}
    for part, listed in lists.items():
        if not (isinstance(listed, list) and listed and all(isinstance(k, str) for k in listed)):
            raise SplitError(f"{where}: `{part}` is not a list of keys; expected one, not empty.")
    times = Counter(key for listed in lists.values() for key in listed)
    twice = sorted(key for key, count in times.items() if count > 1)
    unknown = sorted(times.keys() - index.keys())
    missing = sorted(index.keys() - times.keys())
    if twice:
        holders = " and ".join(part for part, listed in lists.items() if twice[0] in listed)
        problem = f"{counted(len(twice), 'key')} listed twice, first {twice[0]!r} in {holders}"
    elif unknown:
        problem = f"{counted(len(unknown), 'key')} not in this corpus, first {unknown[0]!r}"
    elif missing:
        problem = f"{counted(len(missing), 'key')} of the corpus not listed, first {missing[0]!r}"
    else:
        return Fold(*(np.sort([index[key] for key in lists[part]]) for part in PARTS))
    raise SplitError(f"{where}: {problem}; expected every key of the corpus once.")
