"""The paper's three heads over packed frames.

Nothing is padded: `frames` holds the frames of a batch's utterances one after another, `lengths`
how many each has. An utterance therefore scores the same alone and in any batch. Where frames come
as a sequence, its pieces one after another are the batch's frames.

Source: D'Asaro et al. 2024 (CLiC-it), section 3; after Pepino et al. 2021, arXiv:2104.03502.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

BLOCK = 2**20  # values of all layers: 4 MB in float32, which stay in a processor's cache


def mean_per_utterance(
    frames: Float[Tensor, "frames dim"], lengths: Int[Tensor, " batch"]
) -> Float[Tensor, "batch dim"]:
    """Average the frames of each utterance."""
    if len(frames) == len(lengths):  # one each, as pooled means have it
        return frames
    return torch.stack([utterance.mean(0) for utterance in frames.split(lengths.tolist())])


class LinearHead(nn.Module):
    """Project, average, classify; no activation (eq. 2).

    It scores what one layer holds linearly. As everything before the last map is affine, it sees no
    more than the utterance's mean: given the means as utterances of one frame, it scores the same.
    """

    def __init__(self, dim: int, n_classes: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.project = nn.Linear(dim, hidden)
        self.classify = nn.Linear(hidden, n_classes)

    def forward(
        self, frames: Float[Tensor, "frames dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits."""
        # The mean commutes with an affine map; before it, it leaves one row per utterance to map.
        return self.classify(self.project(mean_per_utterance(frames, lengths)))


class Dropout(nn.Dropout):
    """Dropout with 16 random bits per value on a CPU.

    PyTorch's own draws value by value there, a large part of a small head's step. The share that is
    dropped is p to the nearest 1/65536, and what is kept is scaled by just that.
    """

    generator: torch.Generator | None = None  # on a CPU; None: the global one

    def forward(self, values: Float[Tensor, "frames dim"]) -> Float[Tensor, "frames dim"]:
        """The values, a share of them zero."""
        dropped = round(self.p * 2**16)
        if not self.training or values.device.type != "cpu":
            return super().forward(values)
        if dropped in (0, 2**16):  # nothing to draw
            return values if dropped == 0 else values * 0
        draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(
            -(2**63), None, generator=self.generator
        )
        bits = draws.view(torch.int16)[: values.numel()].view_as(values)
        # 0 below `dropped`, else 1, in whole numbers: comparing takes ten times as long on a CPU.
        kept = bits.to(values.dtype).sub_(dropped - 2**15 - 1).clamp_(0, 1)
        return values * kept.mul_(2**16 / (2**16 - dropped))


def draw_from(probe: nn.Module, generator: torch.Generator | None) -> None:
    """Have all dropout on a CPU draw from a generator; None: from the global one again."""
    for module in probe.modules():
        if isinstance(module, Dropout):
            module.generator = generator


class NonLinearHead(nn.Module):
    """Two hidden layers per frame, average, one hidden layer, classify (eq. 3)."""

    def __init__(
        self, dim: int, n_classes: int, *, hidden: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.per_frame = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Dropout(dropout),
        )
        self.project = nn.Linear(hidden, hidden)
        self.per_utterance = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.classify = nn.Linear(hidden, n_classes)

    def forward(
        self, frames: Float[Tensor, "frames dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits."""
        # As in LinearHead: `project` is affine, so the mean may come before it.
        utterances = self.project(mean_per_utterance(self.per_frame(frames), lengths))
        return self.classify(self.per_utterance(utterances))


class LayerWeighting(nn.Module):
    """What heads share that learn a weighting of the layers: one scalar a layer."""

    weighs_layers = True

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.scalars = nn.Parameter(torch.zeros(n_layers))

    @property
    def layer_weights(self) -> Float[Tensor, " layers"]:
        """w_l of eq. 4: positive, summing to one; all equal before training."""
        return torch.softmax(self.scalars, 0)


class MultiLayerHead(LayerWeighting):
    """A learned weighting of the layers, then the Non-Linear head (eq. 4 and 5)."""

    def __init__(
        self, n_layers: int, dim: int, n_classes: int, *, hidden: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__(n_layers)
        self.nonlinear = NonLinearHead(dim, n_classes, hidden=hidden, dropout=dropout)

    def forward(
        self,
        frames: Float[Tensor, "layers frames dim"] | Sequence[Float[Tensor, "layers _ dim"]],
        lengths: Int[Tensor, " batch"],
        norm: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008  it has no state
    ) -> Float[Tensor, "batch classes"]:
        """Logits; `norm` is applied to the layers before their sum, and has no parameters."""
        return self.nonlinear(weighted_sum(self.layer_weights, norm, frames), lengths)


def weighted_sum(
    weights: Float[Tensor, " layers"],
    norm: Callable[[Tensor], Tensor],
    frames: Float[Tensor, "layers frames dim"] | Sequence[Float[Tensor, "layers _ dim"]],
) -> Float[Tensor, "frames dim"]:
    """The sum over layers of their normalised frames, weighted; only the weights get a gradient."""
    summed: Tensor = _WeightedSum.apply(weights, norm, *_blocks(frames))
    return summed


class _WeightedSum(torch.autograd.Function):
    """h*_t = sum_l w_l norm(h^l_t), block by block; only the weights get a gradient.

    A batch of every layer, widened and normalised, is many times a processor's cache, and on a CPU
    fresh memory of that size costs more than all arithmetic of the step. A block of frames is
    widened where it is needed, forward and backward, and never leaves the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: Float[Tensor, " layers"],
        norm: Callable[[Tensor], Tensor],
        *blocks: Float[Tensor, "layers _ dim"],
    ) -> Float[Tensor, "frames dim"]:
        ctx.save_for_backward(weights, *blocks)
        ctx.norm = norm
        lengths = [block.shape[1] for block in blocks]
        weighted = weights.new_empty(sum(lengths), blocks[0].shape[2])
        for block, place in zip(blocks, weighted.split(lengths), strict=True):
            layers = norm(block.to(weights.dtype)).flatten(1)
            torch.mm(weights[None], layers, out=place.view(1, -1))
        return weighted

    @staticmethod
    def backward(
        ctx: Any, *gradients: Float[Tensor, "frames dim"]
    ) -> tuple[Float[Tensor, " layers"] | None, ...]:
        weights, *blocks = ctx.saved_tensors
        d_weights = torch.zeros_like(weights)
        lengths = [block.shape[1] for block in blocks]
        for block, gradient in zip(blocks, gradients[0].split(lengths), strict=True):
            d_weights += torch.tensordot(ctx.norm(block.to(weights.dtype)), gradient, dims=2)
        return d_weights, None, *(None for _ in blocks)


def _blocks(
    frames: Float[Tensor, "*layers frames dim"] | Sequence[Float[Tensor, "*layers _ dim"]],
) -> list[Tensor]:
    """The frames in order, on a CPU in blocks that fit its cache; elsewhere each costs a call."""
    pieces = [frames] if isinstance(frames, Tensor) else frames
    if pieces[0].device.type != "cpu":
        return list(pieces)
    together: list[list[Tensor]] = []
    room = 0
    for piece in pieces:  # small ones are joined, since each block costs calls
        if piece.numel() > room:
            together.append([])
            room = BLOCK
        together[-1].append(piece)
        room -= piece.numel()
    joined = [torch.cat(some, -2) if len(some) > 1 else some[0] for some in together]
    return [b for j in joined for b in j.tensor_split(-(-j.numel() // BLOCK), dim=-2)]


def _widened(
    frames: Float[Tensor, "frames dim"] | Sequence[Float[Tensor, "_ dim"]],
    norm: nn.Module,
    dtype: torch.dtype,
) -> Float[Tensor, "all dim"]:
    """The frames one after another, widened and normalised; on a CPU each is moved once."""
    pieces = [frames] if isinstance(frames, Tensor) else list(frames)
    if pieces[0].device.type != "cpu":
        return torch.cat([norm(piece.to(dtype)) for piece in pieces])
    lengths = list(map(len, pieces))
    together = pieces[0].new_empty((sum(lengths), pieces[0].shape[1]), dtype=dtype)
    for piece, place in zip(pieces, together.split(lengths), strict=True):
        place.copy_(piece)
    if isinstance(norm, nn.Identity):
        return together
    for block in together.split(max(1, BLOCK // together.shape[1])):
        block.copy_(norm(block))
    return together


def weighs_layers(head: nn.Module) -> bool:
    """Whether a head takes a stack of layers, and applies the normalisation itself."""
    return getattr(head, "weighs_layers", False)


class Probe(nn.Module):
    """Feature normalisation, a head, the scale of its answers: what is trained, scored and saved.

    Frames may come in half precision; they are widened here.
    """

    def __init__(self, norm: nn.Module, head: nn.Module, scale: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm
        self.head = head
        self.scale = nn.Identity() if scale is None else scale

    def forward(
        self,
        frames: Float[Tensor, "*layers frames dim"] | Sequence[Float[Tensor, "*layers _ dim"]],
        lengths: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch outputs"]:
        """Logits, or numbers in the target's unit."""
        if weighs_layers(self.head):
            return self.scale(self.head(frames, lengths, self.norm))
        dtype = next((p.dtype for p in self.head.parameters()), torch.float32)
        return self.scale(self.head(_widened(frames, self.norm, dtype), lengths))
