"""What one does with caches beside filling and reading them: list, verify, merge, prune."""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from tqdm import tqdm

from lsmprobe.cache import FeatureCache, is_being_written, mark_for_extraction, sole_writer
from lsmprobe.cache_format import (
    PLANNED,
    CacheFile,
    CachePlan,
    Member,
    decoded,
    disk_errors,
    lay_out,
    pwrite,
    settings,
    sync_folder,
    table_of,
)
from lsmprobe.cache_parts import (
    cache_files,
    cache_of,
    cache_paths,
    part_of,
    remove_file,
    replacement_path,
)
from lsmprobe.errors import CacheError, one_line

READERS = 4  # threads; a disk likes to be asked for several things at once
BLOCK_BYTES = 8_000_000  # of one layer, read at once
LEFT_BESIDE = re.compile(
    r"\.(?P<file>.+\.(?:h5|npy))\.(?:[0-9a-f]{8}\.tmp|lock|(?P<mark>verified))"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """What reading a whole cache found; its text is the line printed for it."""

    path: Path
    n_utterances: int  # that are there
    damaged: tuple[str, ...]  # their keys
    unfinished: str  # what is missing, or empty
    gigabytes: float  # that were read
    seconds: float

    def __str__(self) -> str:
        speed = self.gigabytes / max(self.seconds, 1e-9)
        read = f"{self.gigabytes:.3f} GB in {self.seconds:.1f} s, {speed:.2f} GB/s"
        if self.damaged:
            found = f"{len(self.damaged)} of {self.n_utterances} clips are damaged ({read})"
            found += f": {', '.join(self.damaged)}"
        else:
            found = f"{self.n_utterances} clips, none damaged ({read})"
        return one_line(f"{self.path}: {found}{self.unfinished and f'; {self.unfinished}'}")


def named_caches(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The caches a user means; none or `all` is every one of a folder.

    Raises:
        CacheError: there is none.
    """
    if paths and Path("all") not in paths:
        return list(paths)
    if not (found := cache_paths(folder)):
        raise CacheError(f"{folder} holds no cache; run extract.py first, or name its --cache-dir.")
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
            "identity": cache.identity_hash,
        }
        | settings(cache)
        | {f"version of {name}": value for name, value in dict(versions).items()}
    )


def verify_cache(path: Path, *, repair: bool = False) -> Verified:
    """Read everything that a cache holds and compare the checksums.

    Args:
        path: the cache; its parts are read where it has parts.
        repair: mark what is damaged as not done, for extract.py.

    Raises:
        CacheError: it cannot be opened, or not be repaired.
    """
    started = time.monotonic()
    cache = FeatureCache(path, allow_unfinished=True)
    damaged: list[str] = []
    for file in cache.files:
        rows = _damaged_rows(file)
        damaged += decoded(file.columns["key"][rows])
        if repair and rows:
            mark_for_extraction(file, rows)
    return Verified(
        path=path,
        n_utterances=sum(int(file.done.sum()) for file in cache.files),
        damaged=tuple(damaged),
        unfinished="" if cache.is_finished else f"unfinished: {_n_done(cache)}",
        gigabytes=sum(_nbytes(f, *block) for f in cache.files for block in _blocks(f)) / 1e9,
        seconds=time.monotonic() - started,
    )


def merge_cache(path: Path, *, remove_parts: bool = False) -> Path:
    """Make one file of a cache in parts; a kill leaves the parts as they were.

    Args:
        path: the cache, as if it were one file.
        remove_parts: once the merged file is durable.

    Raises:
        CacheError: there is only one file, parts are missing, unfinished, damaged or at work, or
            the disk is too small.
    """
    with ExitStack() as held:
        for file in {path, *cache_files(path)}:
            held.enter_context(sole_writer(file))
        cache = FeatureCache(path)
        parts = [file.path for file in cache.files if file.path != path]
        if not parts:
            raise CacheError(f"{path} is one file already; there is nothing to merge.")
        plan = CachePlan(
            utterances=table_of({name: cache.columns[name] for name in PLANNED}),
            n_layers=cache.n_layers,
            dim=cache.dim,
            store=cast(Literal["frames", "pooled"], cache.store),
            dtype=cast(Literal["float16", "bfloat16", "float32"], cache.dtype),
            identity=cache.identity,
        )
        hash_before = cache.identity_hash
        with disk_errors(path, plan.nbytes):
            lay_out(path, plan, lambda descriptor, members: _copy(cache, plan, descriptor, members))
        assert [file.path for file in FeatureCache(path).files] == [path]
        assert FeatureCache(path).identity_hash == hash_before
        for part in parts if remove_parts else ():
            remove_file(part)
        sync_folder(path.parent)
    return path


def prunable(path: Path, *, named: bool) -> dict[Path, str]:
    """What may be removed of a cache, and why; of what stays though it does not count, a log line.

    Args:
        path: the cache.
        named: whether the user named it; then also what is unfinished of it.

    Raises:
        CacheError: the user named what is not there or cannot be used, and nothing is left over.
    """
    found = _left_beside(path)
    if named:
        found |= _unfinished_replacement(path)
    files = cache_files(path)
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError as error:
        if named and not found:
            raise
        if files:
            _log_kept(error)
        return found
    used = [file.path for file in cache.files]
    if named and not cache.is_finished:
        idle = [file for file in used if not is_being_written(file)]
        return found | dict.fromkeys(idle, f"unfinished: {_n_done(cache)}")
    spare = [file for file in files if file not in used and not is_being_written(file)]
    return found | _held_twice(cache, spare)


def _left_beside(path: Path) -> dict[Path, str]:
    """Hidden files of a cache that serve nobody any more, and why."""
    found = {}
    for entry in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        left = LEFT_BESIDE.fullmatch(entry.name) if entry.is_file() else None
        if not left:
            continue
        of = path.with_name(left["file"])
        if cache_of(of) not in (path, replacement_path(path)):
            continue
        if left["mark"] and not of.exists():
            found[entry] = f"says that {of.name} was verified, which is gone"
        elif not (left["mark"] or is_being_written(of)):
            found[entry] = "left over by a run that was killed"
    return found


def _unfinished_replacement(path: Path) -> dict[Path, str]:
    """What was to replace a cache, if no process works on it and it is a cache."""
    replacement = replacement_path(path)
    if not replacement.exists() or is_being_written(replacement):
        return {}
    try:
        cache = FeatureCache(replacement, allow_unfinished=True)
    except CacheError as error:
        _log_kept(error)
        return {}
    if cache.is_finished:
        _log_kept(f"{replacement} is finished; extract.py --replace puts it in place")
        return {}
    return {replacement: f"an unfinished replacement: {_n_done(cache)}"}


def _held_twice(cache: FeatureCache, spare: Sequence[Path]) -> dict[Path, str]:
    """Those files that do not count and whose every clip the cache holds too, alike and sound."""
    if not spare:
        return {}
    if any(_damaged_rows(file) for file in cache.files):
        _log_kept(f"{cache.path} has damaged clips, so what lies beside it may be needed")
        return {}
    held = {key: value for file in cache.files for key, value in _checksums(file).items()}
    found = {}
    for path in spare:
        try:
            mine = _checksums(CacheFile(path))
        except CacheError as error:
            _log_kept(error)
            continue
        if n_alone := sum(held.get(key) != value for key, value in mine.items()):
            _log_kept(f"{path} has {n_alone} clips that {cache.path.name} does not hold")
        else:
            found[path] = f"its clips are in {cache.path.name}"
    return found


def _checksums(file: CacheFile) -> dict[bytes, int]:
    """Those stored with the utterances that are there, by key."""
    stored = file.array("utterances/checksum")[file.done]
    return dict(zip(file.columns["key"][file.done].tolist(), stored.tolist(), strict=True))


def _log_kept(why: object) -> None:
    log.warning("kept: %s", one_line(str(why)))


def prunable_in(folder: Path) -> dict[Path, str]:
    """What is left over in a folder of caches, and why; nothing that holds clips not held twice."""
    left = [(path, LEFT_BESIDE.fullmatch(path.name)) for path in folder.glob("*/*")]
    of = {cache_of(path.with_name(found["file"])) for path, found in left if found}
    paths = sorted(of | set(cache_paths(folder)))
    return {file: why for path in paths for file, why in prunable(path, named=False).items()}


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
    return row | {
        "clips": f"{len(cache.lengths)}/{planned}",
        "hours": _rounded(cache.utterances.seconds.sum() / 3600),
        "layers": cache.n_layers,
        "dim": cache.dim,
        "store": cache.store if cache.store == "pooled" else f"{cache.store}, {cache.dtype}",
        "revision": cache.identity.get("revision"),
        "state": f"{state}{replaced}",
    }


def _being_replaced(path: Path) -> str:
    """How far what is to replace a cache has come; empty if nothing is."""
    try:
        replacement = FeatureCache(replacement_path(path), allow_unfinished=True)
    except CacheError:
        return ""
    return f"; being replaced, {_n_done(replacement)}"


def _n_done(cache: FeatureCache) -> str:
    if cache.missing_parts:
        return cache.what_is_missing()
    return f"{len(cache.lengths)} of {len(cache.columns['key'])} clips done"


def _rounded(value: float) -> float:
    """To three digits that count."""
    return float(f"{value:.3g}")


def _damaged_rows(file: CacheFile) -> list[int]:
    """The utterances of a file, by row, whose bytes are not those that were written."""
    blocks = list(_blocks(file))
    with (
        ThreadPoolExecutor(READERS) as pool,
        tqdm(
            total=sum(_nbytes(file, *b) for b in blocks),
            unit="B",
            unit_scale=True,
            desc=file.path.name,
        ) as bar,
    ):
        damaged: list[int] = []
        for (start, stop), rows in zip(
            blocks, pool.map(lambda block: _damaged_in(file, *block), blocks), strict=True
        ):
            damaged += rows
            bar.update(_nbytes(file, start, stop))
    return damaged


def _damaged_in(file: CacheFile, start: int, stop: int, then: Any = None) -> list[int]:
    """Those of some consecutive utterances; also where the disk gives nothing."""
    stored = file.array("utterances/checksum")[start:stop]
    try:
        found = np.array(file.checksums(start, stop, then), np.uint64)
    except OSError:
        if stop - start == 1:
            return [start]
        return [row for one in range(start, stop) for row in _damaged_in(file, one, one + 1, then)]
    return (np.flatnonzero(found != stored) + start).tolist()


def _blocks(file: CacheFile) -> Iterator[tuple[int, int]]:
    """Consecutive utterances that are there, to be read at once: first row, one after the last."""
    layer, pooled = file.members.get("layers/00"), file.members["pooled/mean"]
    sizes = file.columns["frames"] * (layer.row_nbytes if layer else 0) + pooled.row_nbytes
    start = nbytes = 0
    for row, (done, size) in enumerate(zip(file.done, sizes, strict=True)):
        if start < row and (not done or nbytes + size > BLOCK_BYTES):
            yield start, row
            start, nbytes = row, 0
        if done:
            nbytes += int(size)
        else:
            start = row + 1
    if start < len(sizes):
        yield start, len(sizes)


def _nbytes(file: CacheFile, start: int, stop: int) -> int:
    """Bytes of some consecutive utterances."""
    layers = [m.row_nbytes for name, m in file.members.items() if name.startswith("layers/")]
    pooled = 2 * file.members["pooled/mean"].row_nbytes
    each = pooled + file.members["utterances/sha256"].row_nbytes
    return int(file.columns["frames"][start:stop].sum()) * sum(layers) + (stop - start) * each


def _copy(
    cache: FeatureCache, plan: CachePlan, descriptor: int, members: dict[str, Member]
) -> None:
    """All utterances of a cache into the file of a plan, each where its key says."""
    place = {key: row for row, key in enumerate(plan.columns["key"].tolist())}
    for file in cache.files:
        rows = np.array([place[key] for key in file.columns["key"].tolist()])

        def put(name: str, row: int, values: np.ndarray, rows: np.ndarray = rows) -> None:
            at = plan.columns["offset"][rows[row]] if name.startswith("layers/") else rows[row]
            pwrite(descriptor, values, members[name].offset + int(at) * members[name].row_nbytes)

        for start, stop in tqdm(list(_blocks(file)), desc=file.path.name):
            if damaged := _damaged_in(file, start, stop, put):
                first = decoded(file.columns["key"][damaged])[0]
                raise CacheError(
                    f"{file.path} has damaged utterances ({first!r} first); nothing was merged. "
                    f"Run: lsmprobe cache verify {cache.path} --repair, then extract.py."
                )
        stored = file.array("utterances/checksum")
        for row in range(len(rows)):
            put("utterances/checksum", row, stored[row : row + 1])
            put("utterances/done", row, file.done[row : row + 1])
            put("utterances/skipped", row, file.skipped[row : row + 1])
