"""What a split is, and the JSON file that keeps it; docs/splits.md specifies the file."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from lsmprobe.atomic import write_then_rename
from lsmprobe.corpora.utterances import PARTS as PARTS
from lsmprobe.corpora.utterances import UNUSED
from lsmprobe.errors import SplitError, counted

FORMAT = "lsmprobe split"
PLAIN, VERSION = 1, 2  # 2: clips are left out, or there are named test sets


@dataclass(frozen=True, eq=False)
class Fold:
    """Sorted indices into the utterances, none of them twice; those in no part are unused.

    `test_sets` divides `test` where the corpus has several test sets, by their names.
    """

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    test_sets: Mapping[str, Int[np.ndarray, " some"]] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, eq=False)
class Split:
    """One fold, or several whose test sets hold no utterance twice.

    `kind` is speaker, random, loso, kfold:K, given, file, or the source of an import; `notes` are
    sentences that a reader of the scores must report: what no split of these speakers can give, and
    that a split leaks. `test_set` names the test set where it is one of several. `source` says in
    words where an imported split is from, and `not_found` which of its clips the corpus lacks.
    """

    kind: str
    seed: int
    folds: tuple[Fold, ...]
    notes: tuple[str, ...] = ()
    test_set: str = ""
    source: str = ""
    not_found: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As tables show it: `given/Test1` where it has one test set of several."""
        return f"{self.kind}/{self.test_set}" if self.test_set else self.kind

    @property
    def test_sets(self) -> tuple[str, ...]:
        """The names of its test sets, sorted; empty where there is one without a name."""
        return tuple(sorted({name for fold in self.folds for name in fold.test_sets}))

    def apart(self) -> list["Split"]:
        """A split for each test set, which are scored apart; itself where there is one."""
        return [self.testing(name) for name in self.test_sets] or [self]

    def testing(self, name: str) -> "Split":
        """The same training and validation, with one of the test sets."""
        folds = tuple(Fold(f.train, f.validation, f.test_sets[name]) for f in self.folds)
        others = [f"{other}: " for other in self.test_sets if other != name]
        notes = (note for note in self.notes if not note.startswith(tuple(others)))
        return replace(self, folds=folds, notes=tuple(notes), test_set=name)


def parts_of(fold: Fold) -> dict[str, Int[np.ndarray, " some"]]:
    """The rows of train, validation and test, or of each test set by its name."""
    tests = fold.test_sets or {"test": fold.test}
    return {"train": fold.train, "validation": fold.validation, **tests}


def split_hash(split: Split, keys: Iterable[str]) -> str:
    """SHA-256 (hex) of the folds as keys, whatever the utterances' order: equal means same split.

    It is taken over the JSON of `[[train, validation, test], ...]`, each a sorted list of keys;
    named test sets are a sorted object of such lists.
    """
    folds = [[fold[part] for part in PARTS] for fold in _as_keys(split, keys)]
    return hashlib.sha256(json.dumps(folds, sort_keys=True).encode()).hexdigest()


def training_hash(split: Split, keys: Iterable[str]) -> str:
    """SHA-256 (hex) of training and validation alone: equal means that the same heads come of it.

    It is taken over the JSON of `[[train, validation], ...]`, each a sorted list of keys.
    """
    folds = [[fold[part] for part in PARTS[:2]] for fold in _as_keys(split, keys)]
    return hashlib.sha256(json.dumps(folds).encode()).hexdigest()


def save_split(path: str | Path, split: Split, keys: Iterable[str]) -> None:
    """Write a split file; under its name it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    keys = list(keys)
    folds = _as_keys(split, keys)
    is_plain = all(isinstance(fold["test"], list) and UNUSED not in fold for fold in folds)
    about = {"source": split.source, "not_found": split.not_found}
    record = {
        "format": FORMAT,
        "version": PLAIN if is_plain else VERSION,
        "kind": split.kind,
        "seed": split.seed,
        "notes": split.notes,
        **{name: said for name, said in about.items() if said},
        "hash": split_hash(split, keys),
        "folds": folds,
    }
    content = json.dumps(record, indent=1) + "\n"
    write_then_rename(Path(path), content.encode())


def load_split(path: str | Path, keys: Iterable[str]) -> Split:
    """Read a split file, or one made by hand: `{"train": [...], "validation": ..., "test": ...}`.

    Args:
        path: a file of `save_split`, or JSON with three lists of keys; `test` may be an object of
            named lists, and `unused` lists the keys that are left out.
        keys: the corpus's keys, in the order that the indices of the folds are to follow.

    Raises:
        SplitError: not such a file; a key that is unknown, missing or listed twice; folds that test
            a key again, or whose test sets have other names; a hash that is not that of the lists
            (a file without a hash is taken as it is).
    """
    keys = list(keys)
    index = {key: number for number, key in enumerate(keys)}
    assert len(index) == len(keys), "keys are unique in a corpus"
    record = _read_record(path)
    folds = tuple(
        _fold_of_keys(f"{path}, fold {number}", parts, index)
        for number, parts in enumerate(record.get("folds") or [record])
    )
    if len({tuple(sorted(fold.test_sets)) for fold in folds}) > 1:
        raise SplitError(f"{path}: its folds name different test sets; expected the same in each.")
    split = Split(
        record.get("kind", "file"),
        record.get("seed", 0),
        folds,
        tuple(map(str, record["notes"])),
        source=record.get("source", ""),
        not_found=tuple(map(str, record.get("not_found", ()))),
    )
    if record.get("hash", found := split_hash(split, keys)) != found:
        raise SplitError(f"{path} was changed, its hash is of other lists. If meant, drop `hash`.")
    times = Counter(int(row) for fold in folds for row in fold.test)
    if twice := [keys[row] for row, count in sorted(times.items()) if count > 1]:
        raise SplitError(
            f"{path}: {counted(len(twice), 'key')} in the test sets of several folds, first "
            f"{twice[0]!r}; expected each to be tested once, since all folds are scored together. "
            "Make a file of each fold."
        )
    return split


def _as_keys(split: Split, keys: Iterable[str]) -> list[dict[str, Any]]:
    """The folds as a file holds them: sorted lists of keys by part."""
    named = np.array(list(keys), dtype=object)
    folds = []
    for fold in split.folds:
        lists: dict[str, Any] = {part: sorted(named[getattr(fold, part)]) for part in PARTS}
        sets = fold.test_sets or ({split.test_set: fold.test} if split.test_set else {})
        if sets:
            lists["test"] = {name: sorted(named[rows]) for name, rows in sorted(sets.items())}
        used = np.concatenate([getattr(fold, part) for part in PARTS])
        if len(unused := np.setdiff1d(np.arange(len(named)), used)):
            lists[UNUSED] = sorted(named[unused])
        folds.append(lists)
    return folds


def _read_record(path: str | Path) -> dict[str, Any]:
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SplitError(f"split file {path}: {error.strerror}. Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path} is not JSON ({error}); expected a split file.") from error
    if not isinstance(record, dict):
        raise SplitError(f"{path} holds no JSON object; expected train, validation and test.")
    record = {"format": FORMAT, "version": PLAIN, "notes": [], **record}
    found = record["format"], record["version"]
    if found not in ((FORMAT, PLAIN), (FORMAT, VERSION)):
        expected = f"expected {FORMAT!r} version {PLAIN} or {VERSION}"
        raise SplitError(f"{path} has format {found[0]!r} version {found[1]!r}; {expected}.")
    types = {"kind": str, "seed": int, "notes": list, "folds": list, "hash": str}
    types |= {"source": str, "not_found": list}
    for name, kind in types.items():
        if name in record and not isinstance(record[name], kind):
            raise SplitError(f"{path}: `{name}` is {record[name]!r}; expected a {kind.__name__}.")
    return record


def _fold_of_keys(where: str, parts: Any, index: Mapping[str, int]) -> Fold:
    said: dict[str, Any] = parts if isinstance(parts, dict) else {}
    lists: dict[str, Any] = {part: said.get(part) for part in PARTS}
    sets: dict[str, Any] = {}
    if isinstance(lists["test"], dict):
        sets = lists.pop("test") or {"": None}
        lists |= {f"test set {name!r}": listed for name, listed in sets.items()}
        if odd := [name for name in sets if not is_test_set_name(name)]:
            raise SplitError(
                f"{where}: a test set is called {odd[0]!r}; expected a name without `/`."
            )
    for part, listed in lists.items():
        if not (_is_list_of_keys(listed) and listed):
            raise SplitError(f"{where}: `{part}` is not a list of keys; expected one, not empty.")
    lists[UNUSED] = said.get(UNUSED, [])
    if not _is_list_of_keys(lists[UNUSED]):
        raise SplitError(f"{where}: `{UNUSED}` is not a list of keys.")
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
        rows = {part: np.sort([index[key] for key in lists[part]]) for part in lists if lists[part]}
        named = {name: rows[f"test set {name!r}"] for name in sets}
        test = np.sort(np.concatenate([*named.values()])) if named else rows["test"]
        return Fold(rows["train"], rows["validation"], test, test_sets=named)
    raise SplitError(
        f"{where}: {problem}; expected every key of the corpus once, in train, validation, test or "
        f"{UNUSED}."
    )


def _is_list_of_keys(listed: Any) -> bool:
    return isinstance(listed, list) and all(isinstance(key, str) for key in listed)


def is_test_set_name(name: str) -> bool:
    """Whether a test set may be called so: it follows a `/` where a split is asked for."""
    return bool(name) and name.isprintable() and "/" not in name
