"""Waveforms -> the hidden states of every layer of a frozen speech model.

The states of an utterance are what the model gives for it alone, whatever batch it comes in. So
everything before the first Transformer block runs one utterance at a time (a padded batch would
leak into GroupNorm's averages), and only the blocks run as a batch, with the padding masked.
"""

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lsmprobe.corpora.audio import SAMPLE_RATE
from lsmprobe.errors import AudioError, ModelError
from lsmprobe.extraction.backbones import Backbone

MIN_SAMPLES = 400  # 25 ms, one frame of the wav2vec 2.0 convolutions
FRAME_S = 0.02
# What PyTorch's devices say when memory is short: CUDA and MPS, CPU, cuBLAS and cuDNN.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
log = logging.getLogger(__name__)


class Encoder:
    """A frozen speech model: waveforms in, the hidden states of every layer out."""

    def __init__(self, backbone: Backbone, normalise: bool, identity: dict[str, Any]) -> None:
        self.backbone = backbone
        self.normalise = normalise  # each waveform to mean 0 and variance 1
        self.identity = identity  # what runs here, for the cache; it names no folder of the machine
        self.n_layers = backbone.n_layers
        self.dim = backbone.dim
        self.batches_exactly = True
        self.most_frames = math.inf  # of a padded batch, once memory did not hold a larger one
        self.min_samples = next(n for n in itertools.count(MIN_SAMPLES) if self.n_frames(n) > 0)

    def n_frames(self, samples: int) -> int:
        """The frames that `hidden_states` gives for so many samples."""
        return self.backbone.n_frames(samples)

    @property
    def frame_ms(self) -> float | None:
        """What lies between two frames; None where there is one frame for all of an utterance."""
        more = self.n_frames(20 * SAMPLE_RATE) - self.n_frames(10 * SAMPLE_RATE)
        return 10_000 / more if more else None

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
            ModelError: memory does not hold a single waveform, or the model does not run.
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
            longest_s = max(map(len, waveforms)) / SAMPLE_RATE
            raise ModelError(
                self._too_large(longest_s)
                if is_out_of_memory(error)
                else self._does_not_run(longest_s, error)
            ) from error

    def _too_large(self, longest_s: float) -> str:
        context = self.identity.get("whisper_context")
        other = {"window": "utterance", "utterance": "window", None: ""}[context]
        return (
            f"memory does not hold {self.identity['model']} on one clip at a time; the longest in "
            f"this batch lasts {longest_s:.1f} s. Cut clips with --max-seconds, or use another "
            f"--device{other and f' or --whisper-context {other}'}."
        )

    def _does_not_run(self, longest_s: float, error: BaseException) -> str:
        """PyTorch's own words hold the shapes that do not fit, often over many lines."""
        said = " ".join(str(error).split())[:300]
        return (
            f"{self.identity['model']} ({self.n_layers} blocks of dimension {self.dim}) does not "
            f"run on clips of up to {longest_s:.1f} s: {said}"
        )

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


def real_frames(n_frames: int, pieces: Sequence[Float[Tensor, "_frames features"]]) -> list[int]:
    """How many of each piece's frames hold audio: all of them, but for the last piece's."""
    ends = np.minimum(np.cumsum([len(piece) for piece in pieces]), n_frames)
    return np.diff(ends, prepend=0).tolist()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine, has no memory left."""
    said = str(error)
    return isinstance(error, MemoryError) or any(words in said for words in OUT_OF_MEMORY)


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
