"""A cache for other programs: a NumPy array and a CSV table."""

import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from lsmprobe.cache.file import remove_leftovers
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.errors import CacheError, counted


def export_cache(path: Path, out: Path, *, layer: int | None = None, frames: bool = False) -> str:
    """Write features as OUT.npy and the table of utterances as OUT.csv.

    Whatever reads them has no checksums, so what is exported is verified first, once.

    Args:
        path: the cache, which must be finished.
        out: where to; a folder that is there, and a name, with or without .npy.
        layer: only this one: (utterances, dim); without it (utterances, layers, dim).
        frames: all frames of the layer instead of their mean: (frames, dim); the CSV's `offset` and
            `frames` say which rows are whose.

    Returns:
        What was written, for people.

    Raises:
        CacheError: the cache is unfinished or damaged, or has no such layer or no frames; or the
            disk is full, or the folder missing or read-only.
    """
    cache = FeatureCache(path)
    place = None if layer is None else cache.place(layer)
    if not out.parent.is_dir():
        raise CacheError(f"There is no folder {out.parent}; make it, or choose another OUT.")
    if out.is_dir():
        raise CacheError(f"{out} is a folder; expected a file in it: {out / path.stem}, say.")
    name = out.name.removesuffix(".npy")
    array, csv = (out.with_name(f"{name}{suffix}") for suffix in (".npy", ".csv"))
    verify_once(cache, reads="frames" if frames else "means")
    table = cache.utterances
    shape: tuple[int, ...]
    if frames:
        assert layer is not None
        table = table.assign(offset=np.cumsum(cache.lengths) - cache.lengths)
        shape = int(cache.lengths.sum()), cache.dim
        rows = (cache.frames(i, layer) for i in range(len(table)))
    else:
        pooled = cache.pooled if place is None else cache.pooled[:, place]
        shape, rows = pooled.shape, (row[None] for row in pooled)
    dtype = cache.frames(0, cache.layers[0]).dtype if frames else np.dtype("<f4")
    try:
        with sole_writer(array):
            remove_leftovers(array)
            _write_both(array, csv, shape, dtype, rows, table)
    except OSError as error:
        needed = f"it needs {np.prod(shape) * dtype.itemsize / 1e9:.3g} GB"
        raise CacheError(
            f"{array} cannot be written: {error.strerror or error}; {needed}. Make room, or choose "
            "another OUT."
        ) from error
    return f"{array}: {' x '.join(map(str, shape))} of {dtype}; {csv}: {counted(len(table), 'row')}"


def _write_both(
    array: Path,
    csv: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    rows: Iterable[np.ndarray],
    table: pd.DataFrame,
) -> None:
    """An array, some rows at a time, and its table: both complete, or neither."""
    beside = [array.with_name(f".{array.name}.{secrets.token_hex(4)}.tmp") for _ in range(2)]
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        with beside[0].open("xb") as file:  # not memory-mapped: there a full disk ends the process
            np.lib.format.write_array_header_1_0(file, header)
            for some in rows:
                file.write(some.tobytes())
        table.to_csv(beside[1], index=False, errors="surrogateescape")
        for temporary, target in zip(beside, (array, csv), strict=True):
            temporary.replace(target)
    finally:
        for temporary in beside:
            temporary.unlink(missing_ok=True)
