"""Caches as files: which there are, and what each says about itself."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lsmprobe.cache.file import CacheFile
from lsmprobe.cache.labels import further_columns, labels_of
from lsmprobe.cache.parts import (
    PART_NAME,
    cache_files,
    cache_paths,
    names_of,
    part_of,
    part_path,
    replacement_path,
)
from lsmprobe.cache.plan import settings
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.selection import STEP, numbers
from lsmprobe.errors import CacheError, counted

log = logging.getLogger(__name__)


def named_caches(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The caches a user means; none or `all` is every one of a folder.

    Raises:
        CacheError: there is none.
    """
    if paths and Path("all") not in paths:
        return list(paths)
    if not (found := cache_paths(folder)):
        raise CacheError(
            f"{folder} holds no cache; run lsmprobe extract first, or name its --cache-dir."
        )
    return found


def list_caches(folder: Path) -> pd.DataFrame:
    """One row per cache of a folder; `state` says what is wrong with it, or `finished`."""
    return pd.DataFrame([_row(path) for path in cache_paths(folder)])


def cache_info(path: Path) -> dict[str, Any]:
    """Everything a cache says about itself, by name."""
    cache = FeatureCache(path, allow_unfinished=True)
    table, versions = cache.utterances, cache.identity.get("versions", {})
    return (
        _row(path)
        | {
            "files": ", ".join(file.path.name for file in cache.files),
            "frames": int(cache.lengths.sum()),
            "skipped": int(cache.missing.skipped.sum()),
            "speakers": table.speaker.nunique(),
            "emotions": ", ".join(f"{k} {n}" for k, n in table.emotion.value_counts().items()),
            "labels": _where_labels_are(cache),
            "identity": cache.identity_hash,
        }
        | settings(cache)
        | {f"version of {name}": value for name, value in dict(versions).items()}
    )


class Unfinished(NamedTuple):
    """What a cache lacks."""

    files: dict[Path, str]  # what is missing or unfinished, and in words how much of it
    parts: list[int]  # the numbers of such parts
    of: int  # all of its parts; 0: it is one file


def unfinished_caches(folder: Path) -> list[Unfinished]:
    """Every cache of a folder that is not finished; also where no part of it can be opened.

    Raises:
        CacheError: the folder holds none.
    """
    found = [_unfinished(path) for path in named_caches((), folder)]
    return [each for each in found if each.files]


def array_expression(numbers: Sequence[int]) -> str:
    """Numbers as job arrays want them.

    >>> array_expression([3, 7, 8, 9])
    '3,7-9'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _unfinished(path: Path) -> Unfinished:
    """A whole cache counts, and else its parts, as they were cut."""
    names = [PART_NAME.fullmatch(file.name) for file in cache_files(path)]
    counts = {int(name["of"]) for name in names if name and name["of"]}
    if path.exists() or not counts:
        return Unfinished(_lacking([path]), [], 0)
    count = max(counts)
    parts = {part_path(path, number, count): number for number in range(count)}
    files = _lacking(list(parts))
    return Unfinished(files, [parts[file] for file in files], count)


def _lacking(files: Sequence[Path]) -> dict[Path, str]:
    """Those that are not there, cannot be used or are not finished, and why."""
    found = {}
    for path in files:
        if not path.exists():
            found[path] = "not there"
            continue
        try:
            file = CacheFile(path)
        except CacheError as error:
            found[path] = str(error).removeprefix(f"{path} ")
            continue
        done = file.done | file.skipped
        if not done.all():
            found[path] = counted(done.sum(), "clip", of=len(done))
    return found


def _where_labels_are(cache: FeatureCache) -> str:
    """The file that the labels are from, and its further columns."""
    found = labels_of(cache)
    if found is None:
        return cache.path.name
    more = further_columns(found[0])
    return found[1].name + (f", with {', '.join(more)}" if more else "")


def _row(path: Path) -> dict[str, Any]:
    """A cache in the list of all."""
    nbytes = sum(file.stat().st_size for file in cache_files(path))
    model, corpus = names_of(path)
    row = {"model": model, "corpus": corpus, "gigabytes": _rounded(nbytes / 1e9)}
    replaced = _being_replaced(path)
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError as error:
        return row | {"state": f"{error}{replaced}"}
    state = "finished" if cache.is_finished else f"unfinished: {cache.what_is_missing()}"
    if cache.missing_parts:
        count = part_of(cache.files[0])["of"]
        state = f"{counted(count - len(cache.missing_parts), 'part', of=count)}, {state}"
    planned = "?" if cache.missing_parts else len(cache.columns["key"])
    of = cache.selection.n_model_layers
    stored = [cache.store, cache.dtype] if cache.store == "frames" else [cache.store]
    if step := cache.identity.get(STEP):
        stored.append(f"every {step['ms']:g} ms")
    return row | {
        "clips": f"{len(cache.lengths)}/{planned}",
        "hours": _rounded(cache.planned.seconds.sum() / 3600),
        "layers": cache.n_layers if cache.n_layers == of else f"{numbers(cache.layers)} of {of}",
        "dim": cache.dim,
        "store": ", ".join(stored),
        "revision": cache.identity.get("revision"),
        "state": f"{state}{replaced}",
    }


def _being_replaced(path: Path) -> str:
    """How far what is to replace a cache has come; empty if nothing is."""
    try:
        replacement = FeatureCache(replacement_path(path), allow_unfinished=True)
    except CacheError:
        return ""
    return f"; being replaced, {how_much_is_done(replacement)}"


def how_much_is_done(cache: FeatureCache) -> str:
    """How many utterances a cache has of those it is to hold, for a message."""
    if cache.missing_parts:
        return cache.what_is_missing()
    return f"{counted(len(cache.lengths), 'clip', of=len(cache.columns['key']))} done"


def _rounded(value: float) -> float:
    """To three digits that count."""
    return float(f"{value:.3g}")
