"""Where batches come from: pooled means, or frames read into memory ahead of the training.

A training asks for its utterances in pools, and a pool serves every batch of every head and seed
before the next one comes. Frames are held as they are stored: all of them where half of the free
memory is enough, else two pools, of which one is read from the cache while the other trains.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lsmprobe.machine import announce, free_memory


@runtime_checkable
class Batches(Protocol):
    """Features that are at hand."""

    def batch(
        self, utterances: Int[np.ndarray, " batch"], layers: Sequence[int]
    ) -> tuple[list[Float[Tensor, "layers _ dim"]], Int[Tensor, " batch"]]:
        """The frames of some utterances one after another, and how many each has (on the CPU).

        The frames come in pieces, of one utterance or of many; the device decides what is faster.
        """


@runtime_checkable
class Features(Protocol):
    """Features that a training goes through."""

    def all_of(
        self, utterances: Int[np.ndarray, " utterances"], layers: Sequence[int], device: str
    ) -> Batches | None:
        """Batches of any of these utterances, on `device`, if memory holds all of them."""

    def through(
        self, pools: Sequence[np.ndarray], layers: Sequence[int], device: str
    ) -> Iterator[Batches]:
        """For each pool in turn batches of its utterances, on `device`.

        What came for one pool is good until the next is asked for.
        """


@dataclass(frozen=True)
class PooledFeatures:
    """The mean over each utterance's frames, as an utterance of one frame."""

    means: Float[Tensor, "utterances layers dim"]
    layers: Sequence[int] | None = None  # by their numbers in the model; None: from 0 on

    def places(self, layers: Sequence[int]) -> list[int]:
        """Where layers lie in `means`."""
        return list(layers) if self.layers is None else [*map(self.layers.index, layers)]

    def all_of(
        self, utterances: Int[np.ndarray, " utterances"], layers: Sequence[int], device: str
    ) -> "PooledFeatures":
        """All are at hand."""
        return self

    def through(
        self, pools: Sequence[np.ndarray], layers: Sequence[int], device: str
    ) -> Iterator["PooledFeatures"]:
        """All are at hand."""
        return itertools.repeat(self, len(pools))

    def batch(
        self, utterances: Int[np.ndarray, " batch"], layers: Sequence[int]
    ) -> tuple[list[Float[Tensor, "layers batch dim"]], Int[Tensor, " batch"]]:
        """One frame per utterance, all in one piece."""
        rows = self.means[torch.from_numpy(utterances)[:, None], self.places(layers)]
        return [rows.transpose(0, 1)], torch.ones(len(utterances), dtype=torch.long)


@dataclass(frozen=True)
class FrameFeatures:
    """Every frame, from arrays that hold a layer each (memory-mapped or in memory)."""

    read: Callable[[int, int], np.ndarray]  # (utterance, layer) -> (frames, dim)
    lengths: Int[np.ndarray, " utterances"]
    budget: int | None = None  # bytes of frames to hold; None: half of the free memory

    def all_of(
        self, utterances: Int[np.ndarray, " utterances"], layers: Sequence[int], device: str
    ) -> "HeldFrames | None":
        """The frames of all of them, read once, if they fit into the budget."""
        row = self.read(0, layers[0])[:1]
        n_frames = int(self.lengths[utterances].sum())
        budget = free_memory(device) // 2 if self.budget is None else self.budget
        if n_frames * len(layers) * row.nbytes > budget:
            return None
        return HeldFrames(self, layers, n_frames, device).fill(utterances)

    def through(
        self, pools: Sequence[np.ndarray], layers: Sequence[int], device: str
    ) -> Iterator["HeldFrames"]:
        """All of the pools' frames at once if they fit into the budget, else one pool ahead."""
        held = self.all_of(np.unique(np.concatenate(pools)), layers, device)
        if held is not None:
            yield from itertools.repeat(held, len(pools))
            return
        room = max(int(self.lengths[pool].sum()) for pool in pools)
        # Two that take turns: fresh memory for each pool would cost more than reading into it.
        turns = itertools.cycle([HeldFrames(self, layers, room, device) for _ in range(2)])
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
            ahead = reader.submit(next(turns).fill, pools[0])
            for following in pools[1:]:
                held = ahead.result()
                ahead = reader.submit(next(turns).fill, following)
                yield held
            yield ahead.result()


class HeldFrames:
    """The frames of some utterances in memory, as they are stored."""

    def __init__(
        self, features: FrameFeatures, layers: Sequence[int], n_frames: int, device: str
    ) -> None:
        row = features.read(0, layers[0])[:1]
        dtype = torch.from_numpy(np.empty(0, row.dtype)).dtype
        shape = len(layers), n_frames, row.shape[1]
        self._features, self._layers = features, list(layers)
        self._frames = torch.empty(shape, dtype=dtype, device=device)
        if device == "cpu":
            self._places = list(self._frames)  # where each layer is read to
        else:
            pinned = device.startswith("cuda")
            self._places = [torch.empty(shape[1:], dtype=dtype, pin_memory=pinned)] * len(layers)
        self._starts = np.full(len(features.lengths), -1)  # -1: not held

    def fill(self, utterances: Int[np.ndarray, " pool"]) -> "HeldFrames":
        """Read these utterances over those that are held."""
        utterances = np.sort(utterances)  # as they lie in the file
        lengths = self._features.lengths[utterances]
        ends = np.cumsum(lengths)
        self._starts[:] = -1
        self._starts[utterances] = ends - lengths
        for layer, place, frames in zip(self._layers, self._places, self._frames, strict=True):
            arrays = [self._features.read(int(utterance), layer) for utterance in utterances]
            for array in arrays:
                announce(array)
            for array, end, length in zip(arrays, ends, lengths, strict=True):
                place.numpy()[end - length : end] = array
            if place.device != frames.device:
                frames[: ends[-1]].copy_(place[: ends[-1]])
        return self

    def batch(
        self, utterances: Int[np.ndarray, " batch"], layers: Sequence[int]
    ) -> tuple[list[Float[Tensor, "layers _ dim"]], Int[Tensor, " batch"]]:
        """The frames of held utterances, still as they are stored."""
        assert list(layers) == self._layers
        starts, lengths = self._starts[utterances], self._features.lengths[utterances]
        assert (starts >= 0).all()
        pieces = [
            self._frames[:, start : start + length]
            for start, length in zip(starts, lengths, strict=True)
        ]
        if self._frames.device.type != "cpu":  # there a copy costs less than calls for each piece
            pieces = [torch.cat(pieces, 1)]
        return pieces, torch.from_numpy(lengths)
