"""The table of codecs: how frames are rounded, stored and read back. A new one is a row.

The pooled statistics are always float32, whatever the frames are stored as.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from lsmprobe.errors import CacheError

if TYPE_CHECKING:
    from torch import Tensor

FINITE = 1e15  # beyond it the squares of a float32 that pooling needs do not fit
INT8_LEVELS = 127


@dataclass(frozen=True)
class Codec:
    """A row: `encode` makes of rounded states what is stored, `decode` makes numbers of that."""

    name: str
    stored: str  # NumPy's type of one value in the file
    largest: float  # magnitude that it holds; larger ones stop the extraction
    round: Callable[["Tensor"], "Tensor"]  # on the device of the model
    encode: Callable[["Tensor"], np.ndarray]  # of rounded states on the CPU
    decode: Callable[[np.ndarray], Shaped[np.ndarray, "..."]]
    """Floating-point numbers, exactly those that were rounded to; a view where that is possible."""
    levels: int = 0
    """Where not 0, all this is done to (value - mean) / scale. The mean is that of the utterance,
    per layer and dimension; so is the scale, by which the value farthest from it is `levels`."""

    @property
    def dtype(self) -> np.dtype:
        """Of one stored value."""
        return np.dtype(self.stored)


def _as_it_is(array: np.ndarray) -> np.ndarray:
    return array


def _numpy(states: "Tensor") -> np.ndarray:
    return states.contiguous().numpy()


def _bits(states: "Tensor") -> np.ndarray:
    import torch

    return states.contiguous().view(torch.int16).numpy().view("<u2")  # NumPy has no bfloat16


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Exactly: bfloat16 is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(states: "Tensor") -> "Tensor":
    return states.bfloat16()


def _to_int8(units: "Tensor") -> "Tensor":
    import torch

    return units.float().round().clamp(-INT8_LEVELS, INT8_LEVELS).to(torch.int8)


def _whole_numbers(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.float32)


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec("float16", "<f2", 65504.0, lambda states: states.half(), _numpy, _as_it_is),
        Codec("bfloat16", "<u2", FINITE, _to_bfloat16, _bits, bfloat16_to_float32),
        Codec("float32", "<f4", FINITE, lambda states: states.float(), _numpy, _as_it_is),
        Codec("int8", "i1", FINITE, _to_int8, _numpy, _whole_numbers, levels=INT8_LEVELS),
    )
}


def codec_of(dtype: str) -> Codec:
    """The row of a name that a file holds.

    Raises:
        CacheError: there is none.
    """
    if dtype not in CODECS:
        raise CacheError(
            f"its frames are stored as {dtype!r}; expected one of {', '.join(CODECS)}. A newer "
            "lsmprobe may read it."
        )
    return CODECS[dtype]
