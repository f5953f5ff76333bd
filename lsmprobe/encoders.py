"""Waveforms -> the hidden states of every layer of a frozen speech model.

The states of an utterance are what the model gives for it alone, whatever batch it comes in. So
everything before the first Transformer block runs one utterance at a time (a padded batch would
leak into GroupNorm's averages), and only the blocks run as a batch, with the padding masked.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, Literal, Protocol, cast
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.nn.utils.rnn import pad_sequence

from lsmprobe.descriptors import DESCRIPTORS, load_descriptor
from lsmprobe.errors import AudioError, ModelError
from lsmprobe.models import (
    SAMPLE_RATE,
    InputNorm,
    find_checkpoint,
    quiet,
    random_network,
    read_config,
    read_extractor,
    read_network,
    weights_sha256,
)

MIN_SAMPLES = 400  # 25 ms, one frame of the wav2vec 2.0 convolutions
WHISPER_FRAME = 320  # samples: 20 ms, two frames of the spectrogram
FRAME_S = 0.02
EXACT = 1e-5  # of a layer's scale: how far a batch may move the states of an utterance
LAYER_CONVENTION = (
    "layer 0 enters the first Transformer block, layer l in 1..L is what block l puts out, "
    "layer L is last_hidden_state (after the final LayerNorm where the model has one)"
)

# What PyTorch's devices say when memory is short: CUDA and MPS, CPU, cuBLAS and cuDNN.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")

Precision = Literal["float32", "bfloat16", "float16"]
WhisperContext = Literal["window", "utterance"]

log = logging.getLogger(__name__)


class Encoder:
    """A frozen speech model: waveforms in, the hidden states of every layer out."""

    def __init__(self, backbone: "Backbone", normalise: bool, identity: dict[str, Any]) -> None:
        self.backbone = backbone
        self.normalise = normalise  # each waveform to mean 0 and deviation 1
        self.identity = identity  # what runs here, for the cache; it names no folder of the machine
        self.n_layers = backbone.n_layers
        self.dim = backbone.dim
        self.batches_exactly = True
        self.most_frames = math.inf  # of a padded batch, once memory did not hold a larger one
        self.min_samples = next(n for n in itertools.count(MIN_SAMPLES) if self.n_frames(n) > 0)

    def n_frames(self, samples: int) -> int:
        """The frames that `hidden_states` gives for so many samples."""
        return self.backbone.n_frames(samples)

    def cost_s(self, samples: int) -> float:
        """The seconds of audio that the model computes for so many samples."""
        return self.backbone.cost_s(samples)

    def hidden_states(
        self, waveforms: Sequence[Float[np.ndarray, " _samples"]]
    ) -> list[Float[Tensor, "layers _frames dim"]]:
        """Hidden states of every layer: 0 is what enters the first block, l what block l puts out.

        Args:
            waveforms: mono, 16 kHz, nominally within [-1, 1]. They run as one batch, which changes
                the states of none; a batch that memory does not hold runs in halves.

        Returns:
            `n_layers + 1` layers for each waveform; frame `t` starts at `0.02 * t` seconds.

        Raises:
            AudioError: a waveform is too short for one frame.
            ModelError: memory does not hold a single waveform.
        """
        for samples in map(len, waveforms):
            if samples < self.min_samples:
                raise AudioError(
                    f"a waveform has {samples} samples at 16 kHz; {self.identity['model']} needs "
                    f"{self.min_samples} ({self.min_samples / SAMPLE_RATE * 1000:g} ms) or more. "
                    "Leave it out."
                )
        groups = [waveforms] if self.batches_exactly and waveforms else [[w] for w in waveforms]
        try:
            return [hidden for group in groups for hidden in self._together(group)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            longest_s = max(map(len, waveforms)) / SAMPLE_RATE
            context = self.identity.get("whisper_context")
            other = {"window": "utterance", "utterance": "window", None: ""}[context]
            raise ModelError(
                f"memory does not hold {self.identity['model']} on one clip at a time; the longest "
                f"in this batch lasts {longest_s:.1f} s. Cut clips with --max-seconds, or use "
                f"another --device{other and f' or --whisper-context {other}'}."
            ) from error

    @torch.no_grad()
    def _together(
        self, waveforms: Sequence[Float[np.ndarray, " _samples"]]
    ) -> list[Float[Tensor, "layers _frames dim"]]:
        lengths = [self.n_frames(len(waveform)) for waveform in waveforms]
        with full_float32():
            features = [self.backbone.features(self._normalised(w)) for w in waveforms]
            kept = [real_frames(n, own) for n, own in zip(lengths, features, strict=True)]
            pieces = iter(self._states([*itertools.chain(*features)], [*itertools.chain(*kept)]))
        hidden = []
        for length, own in zip(lengths, features, strict=True):
            mine = list(itertools.islice(pieces, len(own)))
            hidden.append(torch.cat(mine, dim=1) if len(mine) > 1 else mine[0])
            assert hidden[-1].shape == (self.n_layers + 1, length, self.dim)
        return hidden

    def _states(
        self, pieces: Sequence[Float[Tensor, "_frames features"]], kept: Sequence[int]
    ) -> list[Float[Tensor, "layers _frames dim"]]:
        """Every layer of each piece's first `kept` frames; in halves where memory is too small."""
        n_frames = len(pieces) * max(map(len, pieces))
        if len(pieces) == 1 or n_frames <= self.most_frames:
            try:
                return self._batched(pieces, kept)
            except (RuntimeError, MemoryError) as error:
                if len(pieces) == 1 or not is_out_of_memory(error):
                    raise
            if self.most_frames == math.inf:
                batch_s = n_frames * FRAME_S
                log.warning(
                    "memory does not hold a batch of %.0f s; smaller ones from now", batch_s
                )
            self.most_frames = n_frames / 2
        # Outside of `except`, since an error keeps alive what its batch had allocated.
        middle = len(pieces) // 2
        halves = [(pieces[:middle], kept[:middle]), (pieces[middle:], kept[middle:])]
        return [states.cpu() for half in halves for states in self._states(*half)]

    def _batched(
        self, pieces: Sequence[Float[Tensor, "_frames features"]], kept: Sequence[int]
    ) -> list[Float[Tensor, "layers _frames dim"]]:
        lengths = list(map(len, pieces))
        batch = pad_sequence(list(pieces), batch_first=True)
        ends = torch.tensor(lengths, device=batch.device)[:, None]
        real = torch.arange(max(lengths), device=batch.device) < ends
        states = self.backbone.states(batch, real if min(lengths) < max(lengths) else None)
        return [torch.stack([s[row, :n] for s in states]) for row, n in enumerate(kept)]

    def _normalised(self, waveform: Float[np.ndarray, " samples"]) -> Float[Tensor, " samples"]:
        """In float32, by the formula of Wav2Vec2FeatureExtractor, its epsilon too."""
        waveform = waveform.astype(np.float32)
        if self.normalise:
            waveform = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
        return torch.from_numpy(waveform)


def load_encoder(
    model: str,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    random_init: int | None = None,
    revision: str | None = None,
    input_norm: InputNorm = "checkpoint",
    whisper_context: WhisperContext = "window",
) -> Encoder:
    """A frozen speech model, ready to run.

    Args:
        model: a row of SPEECH_MODELS, a local folder, or a Hugging Face id as `owner/name`, of one
            of the types in EXTRACTORS.
        device: where it runs, for example `cpu`, `cuda` or `mps`.
        precision: what it computes in; the weights are read as float32 first.
        random_init: a seed; the same architecture with random weights, from the config alone.
        revision: a branch, tag or commit on the hub, instead of the table's.
        input_norm: each waveform to mean 0 and deviation 1 where the checkpoint's preprocessor says
            so, never, or always.
        whisper_context: Whisper on windows of 30 s, as it was trained, or on the audio's own length
            (`utterance`): other states, and about ten times less work on 3 s. Others ignore it.

    Raises:
        ModelError: there is no such model, or it cannot be loaded, or not all of its weights.
    """
    if model in DESCRIPTORS:
        return Encoder(*load_descriptor(model, input_norm, random_init, revision, precision))
    checkpoint = find_checkpoint(model, revision, random_init is None, others=DESCRIPTORS)
    seed = 0 if checkpoint.folder is None and random_init is None else random_init
    with quiet():
        config = read_config(checkpoint)
        extractor = read_extractor(checkpoint, config, input_norm)
        network = read_network(checkpoint, config) if seed is None else random_network(config, seed)
    network.eval().requires_grad_(False)
    says_so = bool(getattr(extractor, "do_normalize", False))
    normalise = input_norm == "zscore" or (input_norm == "checkpoint" and says_so)
    identity: dict[str, Any] = {
        "model": checkpoint.name,
        "model_type": config.model_type,
        "hub_id": checkpoint.hub_id,
        "revision": checkpoint.commit,
        "weights_sha256": weights_sha256(network),
        "random_init": seed,
        "precision": precision,
        "input_norm": input_norm,
        "normalised": normalise,  # what the checkpoint said, where it was asked
        "whisper_context": whisper_context if config.model_type == "whisper" else None,
        "layer_convention": LAYER_CONVENTION,
        "versions": {name: version(name) for name in ("transformers", "torch")},
    }
    network.to(device)
    backbone: Backbone
    if config.model_type == "whisper":
        backbone = WhisperBackbone(network, extractor, whisper_context)
    elif config.model_type == "wav2vec2-bert":
        backbone = FilterbankBackbone(network, extractor, input_norm != "none")
    else:
        backbone = ConvolutionBackbone(network)
    encoder = Encoder(backbone, normalise, identity)
    encoder.batches_exactly = batches_exactly(encoder)  # in float32, before the cast
    network.to(getattr(torch, precision))
    return encoder


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


def real_frames(n_frames: int, pieces: Sequence[Float[Tensor, "_frames features"]]) -> list[int]:
    """How many of each piece's frames hold audio: all of them, but for the last piece's."""
    ends = np.minimum(np.cumsum([len(piece) for piece in pieces]), n_frames)
    return np.diff(ends, prepend=0).tolist()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine, has no memory left."""
    said = str(error)
    return isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY)


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

        The first convolution over positions is handed zeros there; those after it (data2vec) and
        one behind a BatchNorm (some HuBERT) are not.
        """
        assert real is not None
        return args[0].masked_fill(~real[:, None], 0)

    blocks = network.encoder.layers
    positional = getattr(network.encoder, "pos_conv_embed", nn.Module())  # w2v-bert has none
    with ExitStack() as hooks, catch_warnings():
        hooks.enter_context(blocks[0].register_forward_pre_hook(entering))
        for block in blocks:
            hooks.enter_context(block.register_forward_hook(leaving))
        for module in positional.modules() if real is not None else ():
            if isinstance(module, nn.Conv1d):
                hooks.enter_context(module.register_forward_pre_hook(without_padding))
        # WavLM adds a boolean mask to its position bias, which is what we want
        filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        projected = first(network.feature_projection(batch))
        last = network.encoder(projected, attention_mask=real).last_hidden_state
    return [*states[:-1], last]


def first(output: Any) -> Tensor:
    """Some modules of transformers give a tensor, some a tuple that begins with it."""
    return cast(Tensor, output[0] if isinstance(output, tuple) else output)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 on NVIDIA GPUs, which rounds what enters a product to 1e-3 of its size."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
