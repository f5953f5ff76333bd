"""Caches as files: which there are, and what each says about itself."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.cache.labels import further_columns, labels_of
from lsmprobe.cache.parts import cache_files, cache_paths, part_of, replacement_path
from lsmprobe.cache.plan import settings
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.selection import STEP, numbers
from lsmprobe.errors import CacheError

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
    row = {"model": path.parent.name, "corpus": path.stem, "gigabytes": _rounded(nbytes / 1e9)}
    replaced = _being_replaced(path)
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError as error:
        return row | {"state": f"{error}{replaced}"}
    state = "finished" if cache.is_finished else f"unfinished: {cache.what_is_missing()}"
    if cache.missing_parts:
        count = part_of(cache.files[0])["of"]
        state = f"{count - len(cache.missing_parts)} of {count} parts, {state}"
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
    return f"{len(cache.lengths)} of {len(cache.columns['key'])} clips done"


def _rounded(value: float) -> float:
    """To three digits that count."""
    return float(f"{value:.3g}")
