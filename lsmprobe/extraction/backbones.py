"""What the families of models do before and in their Transformer blocks."""

import math
from contextlib import ExitStack
from typing import Any, Protocol, cast, runtime_checkable
from warnings import catch_warnings, filterwarnings

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from lsmprobe.config import WhisperContext
from lsmprobe.corpora.audio import SAMPLE_RATE

WHISPER_FRAME = 320  # samples: 20 ms, two frames of the spectrogram


@runtime_checkable
class Backbone(Protocol):
    """What differs between families: the way to the first block, and the blocks themselves."""

    n_layers: int
    dim: int
    pads: bool  # pieces of a batch differ in length

    def n_frames(self, samples: int) -> int:
        """The frames of so many samples."""

    def cost_s(self, samples: int) -> float:
        """The seconds of audio computed for so many samples."""

    def features(
        self, waveform: Float[Tensor, " samples"]
    ) -> list[Float[Tensor, "_frames features"]]:
        """What is padded into a batch for `states`: one piece per waveform, or several in turn."""

    def states(
        self,
        batch: Float[Tensor, "batch frames features"],
        real: Bool[Tensor, "batch frames"] | None,
    ) -> list[Float[Tensor, "batch frames dim"]]:
        """Layers 0 to L; `real` is false on padding, None where there is none."""


class ConvolutionBackbone:
    """wav2vec 2.0 and its kin: convolutions over the waveform, then Transformer blocks.

    The convolutions run on one waveform at a time: base models normalise their first one over all
    its frames, which padding would change, and on a CPU one by one is faster than a padded batch.
    """

    pads = True

    def __init__(self, network: Any) -> None:
        self.network = network
        self.n_layers = len(network.encoder.layers)
        self.dim = network.config.hidden_size

    def n_frames(self, samples: int) -> int:
        """What the convolutions leave, without padding."""
        config = self.network.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(samples, 0)

    def cost_s(self, samples: int) -> float:
        """The audio itself."""
        return samples / SAMPLE_RATE

    def features(
        self, waveform: Float[Tensor, " samples"]
    ) -> list[Float[Tensor, "_frames features"]]:
        """The convolutions' output for this waveform alone."""
        placed = waveform.to(self.network.device, self.network.dtype)
        return [self.network.feature_extractor(placed[None])[0].T]

    def states(
        self,
        batch: Float[Tensor, "batch frames features"],
        real: Bool[Tensor, "batch frames"] | None,
    ) -> list[Float[Tensor, "batch frames dim"]]:
        """The features projected, and what the blocks make of them."""
        return transformer_states(self.network, batch, real)


class FilterbankBackbone:
    """w2v-bert: log-mel filterbanks in pairs of 10 ms frames, then Conformer blocks."""

    pads = True

    def __init__(self, network: Any, extractor: Any, normalise_bins: bool) -> None:
        self.network = network
        self.extractor = extractor
        self.normalise_bins = normalise_bins
        self.n_layers = len(network.encoder.layers)
        self.dim = network.config.hidden_size

    def n_frames(self, samples: int) -> int:
        """Pairs of windows of 400 samples every 160."""
        return max((samples - 400) // 160 + 1, 0) // 2

    def cost_s(self, samples: int) -> float:
        """The audio itself."""
        return samples / SAMPLE_RATE

    def features(
        self, waveform: Float[Tensor, " samples"]
    ) -> list[Float[Tensor, "_frames features"]]:
        """The filterbanks, each bin normalised over the utterance."""
        pairs = self.extractor(
            waveform.numpy(),
            sampling_rate=SAMPLE_RATE,
            do_normalize_per_mel_bins=self.normalise_bins,
            return_tensors="pt",
        ).input_features[0]
        real = pairs[: self.n_frames(len(waveform))]  # a last 10 ms frame alone has been padded
        return [real.to(self.network.device, self.network.dtype)]

    def states(
        self,
        batch: Float[Tensor, "batch frames features"],
        real: Bool[Tensor, "batch frames"] | None,
    ) -> list[Float[Tensor, "batch frames dim"]]:
        """The features projected, and what the blocks make of them."""
        return transformer_states(self.network, batch, real)


class WhisperBackbone:
    """Whisper's encoder: log-mel spectrogram, two convolutions, positions, Transformer blocks.

    Longer audio than a window runs as consecutive windows, whose frames are joined.
    """

    def __init__(self, network: Any, extractor: Any, context: WhisperContext) -> None:
        self.network = network
        self.extractor = extractor
        self.pads = context == "utterance"
        self.window = network.config.max_source_positions * WHISPER_FRAME  # samples; 30 s
        self.n_layers = len(network.layers)
        self.dim = network.config.d_model

    def n_frames(self, samples: int) -> int:
        """Those that hold audio."""
        return math.ceil(samples / WHISPER_FRAME)

    def cost_s(self, samples: int) -> float:
        """Whole windows, unless the context is the utterance."""
        if self.pads:
            return samples / SAMPLE_RATE
        return math.ceil(samples / self.window) * self.window / SAMPLE_RATE

    def features(
        self, waveform: Float[Tensor, " samples"]
    ) -> list[Float[Tensor, "_frames features"]]:
        """What enters the first block, so layer 0 already."""
        return [self._embedded(piece) for piece in waveform.split(self.window)]

    def _embedded(self, piece: Float[Tensor, " samples"]) -> Float[Tensor, "frames dim"]:
        network = self.network
        filled = self.n_frames(len(piece)) * WHISPER_FRAME if self.pads else self.window
        mel = self.extractor(
            piece.numpy(), sampling_rate=SAMPLE_RATE, max_length=filled, return_tensors="pt"
        ).input_features.to(network.device, network.dtype)
        frames = gelu(network.conv2(gelu(network.conv1(mel))))[0].T
        return frames + network.embed_positions.weight[: len(frames)]

    def states(
        self,
        batch: Float[Tensor, "batch frames features"],
        real: Bool[Tensor, "batch frames"] | None,
    ) -> list[Float[Tensor, "batch frames dim"]]:
        """The blocks, without the fixed 30 s of transformers' own forward."""
        assert not self.network.training
        attended = None if real is None else real[:, None, None, :]
        states = [batch]
        for block in self.network.layers:
            states.append(first(block(states[-1], attended)))
        return [*states[:-1], self.network.layer_norm(states[-1])]


def transformer_states(
    network: Any,
    batch: Float[Tensor, "batch frames features"],
    real: Bool[Tensor, "batch frames"] | None,
) -> list[Float[Tensor, "batch frames dim"]]:
    """Layers 0 to L of a model from transformers with a projection and an encoder.

    Captured where they arise, since what transformers calls hidden states changes: of models with
    a final LayerNorm its version 4 gives the last one after it, version 5 before it.
    """
    assert not network.training
    states: list[Tensor] = []

    def entering(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        states.append(args[0])

    def leaving(_: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        states.append(first(output))

    def without_padding(_: nn.Module, args: tuple[Tensor, ...]) -> Tensor:
        """Beyond an utterance's end its positions see zeros, as they do alone.

        Of the convolutions the first one over positions is handed zeros there; those after it
        (data2vec), one behind a BatchNorm (some HuBERT) and those in blocks (Conformer) are not.
        """
        assert real is not None
        return args[0].masked_fill(~real[:, None], 0)

    blocks = network.encoder.layers
    with ExitStack() as hooks, catch_warnings():
        hooks.enter_context(blocks[0].register_forward_pre_hook(entering))
        for block in blocks:
            hooks.enter_context(block.register_forward_hook(leaving))
        for module in network.encoder.modules() if real is not None else ():
            if isinstance(module, nn.Conv1d) and any(
                module.padding
            ):  # those of w2v-bert see a mask
                hooks.enter_context(module.register_forward_pre_hook(without_padding))
        # WavLM adds a boolean mask to its position bias, which is what we want
        filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        projected = first(network.feature_projection(batch))
        last = network.encoder(projected, attention_mask=real).last_hidden_state
    return [*states[:-1], last]


def first(output: Any) -> Tensor:
    """Some modules of transformers give a tensor, some a tuple that begins with it."""
    return cast(Tensor, output[0] if isinstance(output, tuple) else output)
