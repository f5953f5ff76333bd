"""The feature normalisations before a head: a row each."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

ROUNDING = 1e-4  # of the mean; what varies by less is float16's rounding, which keeps three digits


class Standardise(nn.Module):
    """(x - mean) / std per layer and dimension; a dimension that does not vary is only centred.

    Standard deviations below `ROUNDING` of the mean are no features: dividing by them would blow
    float16's rounding up.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Float[Tensor, "*layers dim"], std: Float[Tensor, "*layers dim"]
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > ROUNDING * mean.abs(), std, 1.0))

    def forward(
        self, frames: Float[Tensor, "*layers frames dim"]
    ) -> Float[Tensor, "*layers frames dim"]:
        """The standardised frames."""
        return (frames - self.mean.unsqueeze(-2)) / self.std.unsqueeze(-2)


class NormaliseVectors(nn.Module):
    """Layer normalisation without parameters: each frame gets mean 0, variance 1 over its dims."""

    def forward(
        self, frames: Float[Tensor, "*layers frames dim"]
    ) -> Float[Tensor, "*layers frames dim"]:
        """The normalised frames."""
        return nn.functional.layer_norm(frames, frames.shape[-1:])


def pooled_statistics(
    means: Float[Tensor, "utterances *layers dim"],
) -> tuple[Float[Tensor, "*layers dim"], Float[Tensor, "*layers dim"]]:
    """Mean and standard deviation over utterances, each counted once: for heads that read means."""
    wide = means.double()
    return wide.mean(0).float(), wide.std(0, correction=0).float()


def frame_statistics(
    means: Float[Tensor, "utterances *layers dim"],
    stds: Float[Tensor, "utterances *layers dim"],
    lengths: Int[Tensor, " utterances"],
) -> tuple[Float[Tensor, "*layers dim"], Float[Tensor, "*layers dim"]]:
    """Mean and standard deviation over all frames of utterances, exactly, without reading them.

    With n_i frames, mean m_i and standard deviation s_i of utterance i, and N = sum n_i:
    m = sum n_i m_i / N and s^2 = sum n_i (s_i^2 + (m_i - m)^2) / N.
    """
    share = (lengths.double() / lengths.sum()).view(-1, *[1] * (means.ndim - 1))
    mean = (share * means.double()).sum(0)
    variance = (share * (stds.double() ** 2 + (means.double() - mean) ** 2)).sum(0)
    return mean.float(), variance.sqrt().float()
