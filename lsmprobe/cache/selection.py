"""Which of a model's states a cache stores: which of the layers, and how many frames.

It stands in the identity, and only where it is not everything: a cache of everything is what it was
before there was a choice.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsmprobe.errors import counted

LAYERS, OF_LAYERS, STEP = "stored_layers", "model_layers", "frame_step"  # in an identity


@dataclass(frozen=True)
class Selection:
    """What is stored of the states of every utterance."""

    layers: Sequence[int]  # by their numbers in the model, ascending
    n_model_layers: int  # layer 0 counts
    step: float = 1.0  # so many of the model's frames, at most, become one

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return len(self.layers) == self.n_model_layers and self.step == 1

    def identity(self, frame_ms: float) -> dict[str, Any]:
        """What the identity of a cache says of it; of everything nothing.

        Args:
            frame_ms: what lies between two frames of the model.
        """
        found: dict[str, Any] = {}
        if len(self.layers) < self.n_model_layers:
            found |= {LAYERS: list(self.layers), OF_LAYERS: self.n_model_layers}
        if self.step > 1:
            found[STEP] = {"ms": self.step * frame_ms, "frames": self.step}
        return found

    def n_frames(self, n_frames: int) -> int:
        """How many frames are stored of so many of the model's."""
        return math.ceil(n_frames / self.step)

    def of(self, hidden: Float[Tensor, "layers frames dim"]) -> Float[Tensor, "stored frames dim"]:
        """The stored layers of all layers of the model."""
        whole = len(self.layers) == self.n_model_layers
        return hidden if whole else hidden[list(self.layers)]

    def steps(self, frames: Float[Tensor, "layers frames dim"]) -> Float[Tensor, "layers _ dim"]:
        """The stored frames of all frames."""
        return step_means(frames, self.step)


def step_means(
    frames: Float[Tensor, "layers frames dim"], step: float
) -> Float[Tensor, "layers _ dim"]:
    """Means over consecutive spans of time, all equally long, none longer than `step` frames.

    Where a span ends within a frame, the frame counts in both spans, in each by its share. So the
    mean of the means is the mean of the frames, with no weights to carry along.
    """
    if step == 1:
        return frames
    rows, shares = spans(frames.shape[1], math.ceil(frames.shape[1] / step))
    means = torch.zeros_like(frames[:, : len(rows)])
    for nth, share in zip(rows.T, shares.T, strict=True):
        weight = share.to(frames.device, frames.dtype)[:, None]
        means += weight * frames[:, nth.to(frames.device)]
    return means


def spans(n_frames: int, n_spans: int) -> tuple[Tensor, Tensor]:
    """Which frames each span covers, and the share of each in its mean: (spans, covered) both.

    >>> rows, shares = spans(3, 2)  # of one and a half frames each
    >>> rows.tolist(), (3 * shares).round().int().tolist()
    ([[0, 1], [1, 2]], [[2, 1], [1, 2]])
    """
    length = n_frames / n_spans
    starts = torch.arange(n_spans, dtype=torch.float64) * length
    n_covered = math.ceil(length) + 1  # at most, where a span begins within a frame
    rows = starts.floor().long()[:, None] + torch.arange(n_covered)
    ends = torch.minimum(rows + 1, (starts + length)[:, None])
    shares = (ends - torch.maximum(rows.double(), starts[:, None])).clamp(min=0) / length
    needed = (shares > 1e-9).any(0)  # the last column is empty where spans end with frames
    rows, shares = rows[:, needed].clamp(max=n_frames - 1), shares[:, needed]
    return rows, shares / shares.sum(1, keepdim=True)


def selection_of(identity: Mapping[str, Any], n_layers: int) -> Selection:
    """What a cache stores, from its identity.

    Args:
        identity: of a plan, a file or a cache.
        n_layers: that are stored.

    Raises:
        ValueError: the identity makes no sense, or does not go with `n_layers`.
    """
    layers: Sequence[int] = identity.get(LAYERS, range(n_layers))
    count = identity.get(OF_LAYERS, n_layers)
    step = step_of(identity)
    layers = layers if isinstance(layers, range) else tuple(map(int, layers))
    if list(layers) != sorted(set(layers)) or not all(0 <= each < count for each in layers):
        raise ValueError(f"{LAYERS} {list(layers)} are not layers of a model that has {count}")
    if len(layers) != n_layers or not (math.isfinite(step) and step >= 1):
        raise ValueError(
            f"its identity says {counted(len(layers), 'layer')} at a step of {step} frames"
        )
    return Selection(layers, int(count), step)


def step_of(identity: Mapping[str, Any]) -> float:
    """How many of the model's frames became one, at most; 1 where all are stored."""
    return float(identity.get(STEP, {"frames": 1})["frames"])


def numbers(layers: Sequence[int]) -> str:
    """Layers for people: `0 to 12`, or `0, 6, 12`.

    >>> numbers(range(13)), numbers((0, 6, 12)), numbers((12,))
    ('0 to 12', '0, 6, 12', '12')
    """
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))


def layers_of_model(cache: Any) -> int:
    """How many layers the model has of which a cache (`layers`, `identity`) holds all or some."""
    return int(cache.identity.get(OF_LAYERS, len(cache.layers)))
