"""How far the states of a batch are from those of its utterances alone."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lsmprobe.extraction.encoder import Encoder

EXACT = 1e-5  # of a layer's scale: how far a batch may move the states of an utterance


def largest_difference(
    encoder: Encoder, waveforms: Sequence[Float[np.ndarray, " _samples"]]
) -> list[float]:
    """How far states from one batch lie from those of each waveform alone, for every layer.

    The largest absolute difference, divided by the root mean square of the layer.
    """
    return [relative(*states) for states in together_and_alone(encoder, waveforms)]


def precision_deviation(
    encoder: Encoder, reference: Encoder, waveforms: Sequence[Float[np.ndarray, " _samples"]]
) -> list[float]:
    """How far half precision moves the states, for every layer.

    Args:
        encoder: the model in bfloat16 or float16.
        reference: the same one in float32, which may be freed afterwards.
        waveforms: a few clips.

    Returns:
        The largest absolute difference over all frames, divided by the root mean square of the
        reference's layer.
    """
    half, full = (frames_of_all(each, waveforms) for each in (encoder, reference))
    return [relative(*states) for states in zip(half, full, strict=True)]


def batches_exactly(encoder: Encoder) -> bool:
    """Whether a batch leaves the states as they are, tried on 2 s of noise.

    The difference of a whole layer is measured against the layer, both as root mean squares, since
    rounding is about 1e-6 of it in every model, while single values stray further (to 3e-5 behind
    Whisper's final LayerNorm). Padding that leaks makes 1e-3 and more of the frames it reaches,
    and would have to reach fewer than one in a thousand of them to pass.
    """
    if not encoder.backbone.pads:
        return True
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.1, samples) for samples in (16_000, 9_000, 4_800)]
    return all(
        root_mean_square(together - alone) <= EXACT * root_mean_square(alone)
        for together, alone in together_and_alone(encoder, noise)
    )


def together_and_alone(
    encoder: Encoder, waveforms: Sequence[Float[np.ndarray, " _samples"]]
) -> Iterator[tuple[Float[Tensor, "frames dim"], Float[Tensor, "frames dim"]]]:
    """Layer by layer the frames of all waveforms, from one batch and from one at a time."""
    together = frames_of_all(encoder, waveforms)
    alone = torch.cat([frames_of_all(encoder, [waveform]) for waveform in waveforms], dim=1)
    return zip(together, alone, strict=True)


def frames_of_all(
    encoder: Encoder, waveforms: Sequence[Float[np.ndarray, " _samples"]]
) -> Float[Tensor, "layers frames dim"]:
    """The frames of all waveforms, run as one batch, one after another, in float32."""
    return torch.cat([hidden.cpu() for hidden in encoder.hidden_states(waveforms)], dim=1).float()


def relative(values: Float[Tensor, "frames dim"], expected: Float[Tensor, "frames dim"]) -> float:
    """The largest difference, divided by the scale of what is expected."""
    return float((values - expected).abs().max() / root_mean_square(expected))


def root_mean_square(values: Float[Tensor, "frames dim"]) -> float:
    """The scale of a layer."""
    return float(values.square().mean().sqrt())
