"""One file of the parts of a cache."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np

from lsmprobe.cache.file import disk_errors, lay_out, pwrite, remove_leftovers, sync_folder
from lsmprobe.cache.labels import labels_path
from lsmprobe.cache.layout import PLANNED, Member, checksums_in, decoded, table_of
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.parts import cache_files, remove_file
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import blocks_of, damaged_in
from lsmprobe.errors import CacheError
from lsmprobe.progress import Progress, automatic


def merge_cache(path: Path, *, remove_parts: bool = False, progress: Progress = automatic) -> Path:
    """Make one file of a cache in parts; a kill leaves the parts as they were.

    Args:
        path: the cache, as if it were one file.
        remove_parts: once the merged file is durable.
        progress: how the blocks that were copied are shown.

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
            dtype=cache.dtype,
            identity=cache.identity,
        )
        hash_before = cache.identity_hash
        with disk_errors(path, plan.nbytes):
            copy = partial(_copy, cache, plan, progress)
            lay_out(path, plan, copy)
        remove_leftovers(labels_path(path))
        assert [file.path for file in FeatureCache(path).files] == [path]
        assert FeatureCache(path).identity_hash == hash_before
        for part in parts if remove_parts else ():
            remove_file(part)
        sync_folder(path.parent)
    return path


def _copy(
    cache: FeatureCache,
    plan: CachePlan,
    progress: Progress,
    descriptor: int,
    members: dict[str, Member],
) -> None:
    """All utterances of a cache into the file of a plan, each where its key says.

    Checksums of means are those of the bytes that were compared, so that parts of before there were
    such need none.
    """
    sums = checksums_in(members)
    keys = plan.columns["key"]
    order = np.argsort(keys)
    for file in cache.files:
        rows = order[np.searchsorted(keys, file.columns["key"], sorter=order)]

        def put(name: str, row: int, values: np.ndarray, rows: np.ndarray = rows) -> None:
            at = plan.columns["offset"][rows[row]] if name.startswith("layers/") else rows[row]
            pwrite(descriptor, values, members[name].offset + int(at) * members[name].row_nbytes)

        for start, stop in progress(list(blocks_of(file, sums)), desc=file.path.name):
            if damaged := damaged_in(file, start, stop, sums, put):
                first = decoded(file.columns["key"][damaged])[0]
                raise CacheError(
                    f"{file.path} has damaged utterances ({first!r} first); nothing was merged. "
                    f"Run: lsmprobe cache verify {cache.path} --repair, then lsmprobe extract."
                )
        for row in range(len(rows)):
            put("utterances/done", row, file.done[row : row + 1])
            put("utterances/skipped", row, file.skipped[row : row + 1])
