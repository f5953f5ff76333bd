"""Low-level descriptors of a waveform, as models of one layer: layer 0, with no block behind it.

They are what a large speech model has to beat, and what the AST baseline learns from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any
from warnings import catch_warnings, filterwarnings

import librosa
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lsmprobe.corpora.audio import SAMPLE_RATE
from lsmprobe.errors import ModelError

WINDOW = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms
LOGMEL_BANDS = 80
LOGMEL_FLOOR = 1e-10  # power: of digital silence too the logarithm is a number
FBANK_BINS = 128
FBANK_FLOOR = float(np.finfo(np.float32).eps)  # as Kaldi's
EGEMAPS_SAMPLES = 960  # 60 ms, the window of the pitch tracker


@dataclass(frozen=True)
class Descriptor:
    """A row of the table: what is computed, and how many frames of how many dimensions."""

    name: str
    dim: int
    n_frames: Callable[[int], int]
    compute: Callable[[Float[np.ndarray, " samples"]], Float[np.ndarray, "frames dim"]]
    settings: str  # for the cache's identity: other settings are another cache
    libraries: tuple[str, ...]
    source: str


def n_windows(samples: int) -> int:
    """Windows of 25 ms every 10 ms that lie within so many samples."""
    return max((samples - WINDOW) // HOP + 1, 0)


def logmel_statistics(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "1 dim"]:
    """The means of 80 log-mel bands over time, then their standard deviations: one frame."""
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=SAMPLE_RATE,
        n_fft=WINDOW,
        hop_length=HOP,
        center=False,
        n_mels=LOGMEL_BANDS,
    )
    bands = np.log(np.maximum(power, LOGMEL_FLOOR))
    return np.concatenate([bands.mean(axis=1), bands.std(axis=1)])[None]


def filterbank(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "frames dim"]:
    """128 log-mel bins every 10 ms, as Kaldi computes them: what an AST sees, not normalised."""
    from transformers.audio_utils import spectrogram

    window, filters = _window_and_filters()
    return spectrogram(
        waveform,
        window,
        frame_length=WINDOW,
        hop_length=HOP,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        log_mel="log",
        mel_floor=FBANK_FLOOR,
        remove_dc_offset=True,
    ).T


def egemaps_functionals(waveform: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "1 dim"]:
    """The 88 functionals of eGeMAPSv02: pitch, loudness, spectrum, formants, rhythm; one frame."""
    return _smile().process_signal(waveform, SAMPLE_RATE).to_numpy(np.float32, copy=True)


DESCRIPTORS: dict[str, Descriptor] = {
    row.name: row
    for row in (
        Descriptor(
            name="logmel",
            dim=2 * LOGMEL_BANDS,
            n_frames=lambda samples: int(n_windows(samples) > 0),
            compute=logmel_statistics,
            settings="mean and deviation over time of the logarithm of 80 Slaney mel bands' power, "
            "0 to 8000 Hz, Hann windows of 25 ms every 10 ms",
            libraries=("librosa",),
            source="Davis and Mermelstein 1980, doi:10.1109/TASSP.1980.1163420",
        ),
        Descriptor(
            name="fbank",
            dim=FBANK_BINS,
            n_frames=n_windows,
            compute=filterbank,
            settings="logarithm of 128 Kaldi mel bins' power, 20 to 8000 Hz, Hann windows of 25 ms "
            "every 10 ms, preemphasis 0.97",
            libraries=("transformers",),
            source="Gong et al. 2021, arXiv:2104.01778, section 2.1",
        ),
        Descriptor(
            name="egemaps",
            dim=88,
            n_frames=lambda samples: int(samples >= EGEMAPS_SAMPLES),
            compute=egemaps_functionals,
            settings="eGeMAPSv02 functionals",
            libraries=("opensmile",),
            source="Eyben et al. 2016, doi:10.1109/TAFFC.2015.2457417",
        ),
    )
}


class DescriptorBackbone:
    """A descriptor where the encoder expects a network: layer 0, and nothing behind it."""

    n_layers = 0
    pads = True

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.dim = descriptor.dim

    def n_frames(self, samples: int) -> int:
        """One for a whole utterance, or one every 10 ms."""
        return self.descriptor.n_frames(samples)

    def cost_s(self, samples: int) -> float:
        """The audio itself."""
        return samples / SAMPLE_RATE

    def features(self, waveform: Float[Tensor, " samples"]) -> list[Float[Tensor, "_frames dim"]]:
        """The descriptors of one waveform."""
        return [torch.from_numpy(self.descriptor.compute(waveform.numpy()))]

    def states(
        self, batch: Float[Tensor, "batch frames dim"], _: Bool[Tensor, "batch frames"] | None
    ) -> list[Float[Tensor, "batch frames dim"]]:
        """Layer 0 alone."""
        return [batch]


def load_descriptor(
    name: str, input_norm: str, random_init: int | None, revision: str | None, precision: str
) -> tuple[DescriptorBackbone, bool, dict[str, Any]]:
    """What an encoder is made of: a backbone, whether waveforms are normalised, the identity.

    Raises:
        ModelError: its package is not installed, or a flag asks for what only networks have.
    """
    for flag, given in (
        ("--random-init", random_init is not None),
        ("--revision", revision is not None),
        ("--precision", precision != "float32"),
    ):
        if given:
            raise ModelError(f"{name} has no weights, so {flag} means nothing to it; leave it out.")
    if name == "egemaps":
        _smile()
    row = DESCRIPTORS[name]
    normalise = input_norm == "zscore"
    identity = {
        "model": name,
        "model_type": "descriptors",
        "settings": row.settings,
        "random_init": None,
        "precision": precision,
        "input_norm": input_norm,
        "normalised": normalise,
        "layer_convention": "layer 0 holds the descriptors; there are no blocks",
        "versions": {library: version(library) for library in (*row.libraries, "numpy")},
    }
    return DescriptorBackbone(row), normalise, identity


@cache
def _window_and_filters() -> tuple[
    Float[np.ndarray, " window"], Float[np.ndarray, "frequencies bins"]
]:
    from transformers.audio_utils import mel_filter_bank, window_function

    with catch_warnings():
        # One of the lowest bins lies between two frequencies of the FFT, in every AST.
        filterwarnings("ignore", message="At least one mel filter has all zero values")
        filters = mel_filter_bank(
            num_frequency_bins=257,
            num_mel_filters=FBANK_BINS,
            min_frequency=20,
            max_frequency=SAMPLE_RATE // 2,
            sampling_rate=SAMPLE_RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return window_function(WINDOW, "hann", periodic=False), filters


@cache
def _smile() -> Any:
    try:
        import opensmile
    except ImportError as error:
        raise ModelError(
            "egemaps needs the package opensmile, which is not installed; "
            "say: pip install opensmile."
        ) from error
    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
