"""What one does with caches beside filling and reading them: list, verify, merge, prune, export."""

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
    open_files,
    replacement_path,
)
from lsmprobe.errors import CacheError

READERS = 4  # threads; a disk likes to be asked for several things at once
BLOCK_BYTES = 8_000_000  # of one layer, read at once
LEFT_BY_A_KILL = re.compile(r"\.(?P<file>.+\.h5)\.(?:[0-9a-f]{8}\.tmp|lock)")


@dataclass(frozen=True)
class Verified:
    """What reading a whole cache found; its text is the line printed for it."""

    path: Path
    n_utterances: int  # that are there
    damaged: tuple[str, ...]  # their keys
    gigabytes: float
    seconds: float

    def __str__(self) -> str:
        speed = self.gigabytes / max(self.seconds, 1e-9)
        read = f"{self.gigabytes:.3f} GB in {self.seconds:.1f} s, {speed:.2f} GB/s"
        if not self.damaged:
            return f"{self.path}: {self.n_utterances} clips, none damaged ({read})"
        names = ", ".join(repr(key)[1:-1] for key in self.damaged)
        found = f"{len(self.damaged)} of {self.n_utterances} clips are damaged ({read})"
        return f"{self.path}: {found}: {names}"


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
        gigabytes=sum(file.size for file in cache.files) / 1e9,
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
            part.unlink()
        sync_folder(path.parent)
    return path


def prunable(path: Path, *, named: bool) -> dict[Path, str]:
    """What may be removed of a cache, and why.

    Args:
        path: the cache.
        named: whether the user named it; then also what is unfinished or unusable of it.
    """
    found = {}
    for entry in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        left = LEFT_BY_A_KILL.fullmatch(entry.name)
        of = path.with_name(left["file"]) if left else None
        if of and cache_of(of) in (path, replacement_path(path)) and not is_being_written(of):
            found[entry] = "left over by a run that was killed"
    files = [file for file in cache_files(path) if not is_being_written(file)]
    try:
        used = [file.path for file in open_files(path)[0]]
        found |= {file: f"its clips are in {path.name}" for file in files if file not in used}
        cache = FeatureCache(path, allow_unfinished=True)
        if named and not cache.is_finished:
            why = f"unfinished: {len(cache.utterances)} of {len(cache.columns['key'])} clips done"
            found |= dict.fromkeys(files, why)
    except CacheError as error:
        if named and not found and not files:
            raise
        found |= dict.fromkeys(files if named else (), f"cannot be used: {error}")
    replacement = replacement_path(path)
    if named and replacement.exists() and not is_being_written(replacement):
        found[replacement] = "an unfinished replacement"
    return found


def prunable_in(folder: Path) -> dict[Path, str]:
    """What is left over in a folder of caches, and why; nothing that holds clips not held twice."""
    left = [(path, LEFT_BY_A_KILL.fullmatch(path.name)) for path in folder.glob("*/*")]
    of = {cache_of(path.with_name(found["file"])) for path, found in left if found}
    paths = sorted(of | set(cache_paths(folder)))
    return {file: why for path in paths for file, why in prunable(path, named=False).items()}


def export_cache(path: Path, out: Path, *, layer: int | None = None, frames: bool = False) -> str:
    """Write features as OUT.npy and the table of utterances as OUT.csv.

    Args:
        path: the cache, which must be finished.
        out: where to; a folder that is there, and a name.
        layer: only this one: (utterances, dim); without it (utterances, layers, dim).
        frames: all frames of the layer instead of their mean: (frames, dim); the CSV's `offset` and
            `frames` say which rows are whose.

    Returns:
        What was written, for people.

    Raises:
        CacheError: the cache is unfinished, or has no such layer or no frames.
    """
    cache = FeatureCache(path)
    if layer is not None and layer not in cache.layers:
        raise CacheError(f"{path} has layers 0 to {cache.layers[-1]}; got layer {layer}.")
    table = cache.utterances
    array, csv = (out.with_name(f"{out.name}{suffix}") for suffix in (".npy", ".csv"))
    beside = [file.with_name(f".{file.name}.tmp") for file in (array, csv)]
    if frames:
        assert layer is not None
        table = table.assign(offset=np.cumsum(cache.lengths) - cache.lengths)
        shape = int(cache.lengths.sum()), cache.dim
        rows = np.lib.format.open_memmap(beside[0], "w+", cache.frames(0, layer).dtype, shape)
        for i, start in enumerate(table.offset):
            rows[start : start + cache.lengths[i]] = cache.frames(i, layer)
        rows.flush()
    else:
        with beside[0].open("wb") as file:
            np.save(file, cache.pooled if layer is None else cache.pooled[:, layer])
    table.to_csv(beside[1], index=False, errors="surrogateescape")
    for temporary, target in zip(beside, (array, csv), strict=True):
        temporary.replace(target)
    made = np.load(array, mmap_mode="r")
    return f"{array}: {' x '.join(map(str, made.shape))} of {made.dtype}; {csv}: {len(table)} rows"


def _row(path: Path) -> dict[str, Any]:
    """A cache in the list of all."""
    gigabytes = sum(file.stat().st_size for file in cache_files(path)) / 1e9
    row = {"model": path.parent.name, "corpus": path.stem, "gigabytes": gigabytes}
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError as error:
        return row | {"state": str(error)}
    return row | {
        "clips": f"{len(cache.lengths)}/{len(cache.columns['key'])}",
        "hours": cache.utterances.seconds.sum() / 3600,
        "layers": cache.n_layers,
        "dim": cache.dim,
        "store": cache.store if cache.store == "pooled" else f"{cache.store}, {cache.dtype}",
        "revision": cache.identity.get("revision"),
        "state": "finished" if cache.is_finished else f"unfinished: {cache.what_is_missing()}",
    }


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
    return int(file.columns["frames"][start:stop].sum()) * sum(layers) + (stop - start) * pooled


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
