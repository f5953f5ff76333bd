"""Further heads: other ways to pool frames, and the weighted sum of layers as s3prl has it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsmprobe.probing.heads import Dropout, LayerWeighting, mean_per_utterance, weighted_sum

LEAST_VARIANCE = 1e-5  # below it the root has no useful gradient, as for one frame


class StatisticsHead(nn.Module):
    """The Non-Linear head with mean and standard deviation over frames instead of the mean.

    With `attentive`, both are weighted by a learned share of each frame.

    Source: Snyder et al. 2018, doi:10.1109/ICASSP.2018.8461375 (mean and standard deviation); Okabe
    et al. 2018, arXiv:1803.10963, equations 1 to 5 (attentive).
    """

    def __init__(
        self, dim: int, n_outputs: int, *, hidden: int, dropout: float, attentive: bool
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
        self.attention = (
            nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
            if attentive
            else None
        )
        self.project = nn.Linear(2 * hidden, hidden)
        self.per_utterance = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.classify = nn.Linear(hidden, n_outputs)

    def forward(
        self, frames: Float[Tensor, "frames dim"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch outputs"]:
        """Logits."""
        hidden = self.per_frame(frames)
        even = hidden.new_zeros(len(hidden), 1)
        scores = even if self.attention is None else self.attention(hidden)
        cut = lengths.tolist()
        pooled = [
            _statistics(own, torch.softmax(score, 0))
            for own, score in zip(hidden.split(cut), scores.split(cut), strict=True)
        ]
        return self.classify(self.per_utterance(self.project(torch.stack(pooled))))


def _statistics(
    frames: Float[Tensor, "frames dim"], shares: Float[Tensor, "frames 1"]
) -> Float[Tensor, " twice_dim"]:
    mean = (shares * frames).sum(0)
    variance = (shares * (frames - mean).square()).sum(0)
    return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt()])


class WeightedMeanHead(LayerWeighting):
    """A learned weighting of the layers, the mean over frames, a projection, a linear map.

    Source: s3prl's emotion task (its `Featurizer`, then `MeanPooling`), Yang et al. 2021,
    arXiv:2105.01051.
    """

    def __init__(self, n_layers: int, dim: int, n_outputs: int, *, hidden: int) -> None:
        super().__init__(n_layers)
        self.project = nn.Linear(dim, hidden)
        self.classify = nn.Linear(hidden, n_outputs)

    def forward(
        self,
        frames: Float[Tensor, "layers frames dim"] | Sequence[Float[Tensor, "layers _ dim"]],
        lengths: Int[Tensor, " batch"],
        norm: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008  it has no state
    ) -> Float[Tensor, "batch outputs"]:
        """Logits; `norm` is applied to the layers before their sum."""
        weighted = weighted_sum(self.layer_weights, norm, frames)
        return self.classify(self.project(mean_per_utterance(weighted, lengths)))
