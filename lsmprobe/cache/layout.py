"""What a cache file looks like: its datasets, their types, how a table becomes bytes.

docs/cache-format.md is the specification.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xxhash

from lsmprobe.blocks import in_blocks
from lsmprobe.cache.codecs import codec_of
from lsmprobe.cache.selection import LAYERS, STEP

FORMAT = "lsmprobe-cache"
VERSIONS = (1, 2, 3)  # 2: of some layers, of means of frames, or with scales; 3: MEANS_CHECKSUM
# UTF-8, as wide as the longest
TEXT = ("key", "path", "emotion", "speaker", "gender", "sentence", "split")
LABELS = ("emotion", "speaker", "gender", "sentence", "split")  # may be corrected: labels.py
NUMBERS = {"start_s": "<f8", "end_s": "<f8", "seconds": "<f8", "samples": "<i8", "frames": "<i8"}
PLANNED = (*TEXT, *NUMBERS, "offset")  # columns that never change in the file
STATISTICS = ("pooled/mean", "pooled/std", "pooled/scale")  # a row per utterance
WRITTEN = {"sha256": "S64", "checksum": "<u8", "done": "u1", "skipped": "u1"}  # with each utterance
CHECKSUM = "utterances/checksum"  # of everything that is stored of an utterance
MEANS_CHECKSUM = "utterances/means_checksum"  # of all but its frames, for who reads means alone
PAGE = 4096  # bytes
HEAD_BYTES = 1_000_000  # in which the attributes lie
Reads = Literal["means", "frames"]  # what is read of a cache; who reads frames may read means too


class Member(NamedTuple):
    """A dataset: what it holds, and its first byte in the file once that is laid out."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Exact however large the shape, which NumPy's product is not."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def row_nbytes(self) -> int:
        """Bytes of one utterance, or of one frame."""
        return self.dtype.itemsize * math.prod(self.shape[1:])


def version_of(dtype: str, identity: Mapping[str, Any], names: Collection[str]) -> int:
    """The version of the format that a cache needs, the lowest that will do; `names`: members."""
    if MEANS_CHECKSUM in names:
        return 3
    return 2 if codec_of(dtype).levels or {LAYERS, STEP} & identity.keys() else 1


def checksums_in(names: Collection[str]) -> list[str]:
    """The columns of checksums among the names of members."""
    return [name for name in (CHECKSUM, MEANS_CHECKSUM) if name in names]


def members(
    n: int,
    n_frames: int,
    layers: Sequence[int],
    dim: int,
    dtype: str,
    widths: Iterable[int],
    *,
    means_checksum: bool,
) -> dict[str, Member]:
    """Every dataset of a cache of `n` utterances, in the order in which they are laid out.

    No frames: pooled only, whose checksum is one of means already. `widths` are of TEXT.
    """
    text = {name: f"S{width}" for name, width in zip(TEXT, widths, strict=True)}
    columns = text | NUMBERS | {"offset": "<i8"} | WRITTEN
    statistics = Member(np.dtype("<f4"), (n, len(layers), dim))
    layer = Member(codec_of(dtype).dtype, (n_frames, dim))
    scaled = n_frames and codec_of(dtype).levels
    return (
        {f"utterances/{name}": Member(np.dtype(kind), (n,)) for name, kind in columns.items()}
        | {"pooled/mean": statistics, "pooled/std": statistics}
        | ({"pooled/scale": statistics} if scaled else {})
        | {f"layers/{number:02d}": layer for number in (layers if n_frames else ())}
        # The last, so that all others lie where they lie in a file without it; see `read_from`.
        | ({MEANS_CHECKSUM: Member(np.dtype("<u8"), (n,))} if n_frames and means_checksum else {})
    )


def raw_bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array, in the order of its elements."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def checksum(arrays: Iterable[np.ndarray]) -> int:
    """xxh3_64 of their bytes, one after another."""
    state = xxhash.xxh3_64()
    for array in arrays:
        state.update(raw_bytes(array))
    return state.intdigest()


def as_bytes(values: Sequence[str] | np.ndarray) -> np.ndarray:
    """Text as fixed-width UTF-8; what could not be decoded in a path becomes its bytes again."""
    return np.concatenate([np.empty(0, "S1"), *map(_block_as_bytes, in_blocks(values))])


def _block_as_bytes(values: Iterable[str]) -> np.ndarray:
    encoded = [value.encode("utf-8", "surrogateescape") for value in values]
    assert not any(b"\0" in value for value in encoded)  # which is the padding
    return np.array(encoded, f"S{max(1, *map(len, encoded))}")


def table_of(columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Columns as a table; text as objects, since Arrow's strings refuse surrogates."""
    return pd.DataFrame(
        {
            name: pd.Series(decoded(values), dtype=object) if values.dtype.kind == "S" else values
            for name, values in columns.items()
        }
    )


def decoded(text: np.ndarray) -> list[str]:
    """A column of text, in which equal values of a block are one object: labels take no memory."""
    found: list[str] = []
    for block in in_blocks(text):
        values = block.tolist()
        distinct = list(dict.fromkeys(values))
        names = dict(zip(distinct, _decoded(distinct), strict=True))
        found += [names[value] for value in values]
    return found


def _decoded(values: list[bytes]) -> list[str]:
    """All values at once, which is faster, unless one holds a null byte."""
    split = b"\0".join(values).decode("utf-8", "surrogateescape").split("\0")
    if len(split) == len(values):
        return split
    return [value.decode("utf-8", "surrogateescape") for value in values]
