import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import get_window

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ExtractConfig
from lsmprobe.corpora.audio import read_audio
from lsmprobe.errors import AudioError, ModelError
from lsmprobe.extraction import descriptors
from lsmprobe.extraction.descriptors import (
    DESCRIPTORS,
    egemaps_functionals,
    filterbank,
    logmel_statistics,
)
from lsmprobe.extraction.exactness import largest_difference
from lsmprobe.extraction.load import load_encoder
from lsmprobe.extraction.stage import extract


def has_opensmile():
    try:
        import opensmile  # noqa: F401
    except ImportError:
        return False
    return True


without_opensmile = pytest.mark.skipif(not has_opensmile(), reason="opensmile is not installed")
NAMES = [
    pytest.param(name, marks=without_opensmile if name == "egemaps" else ()) for name in DESCRIPTORS
]


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_fbank_is_what_the_published_ast_computes():
    t = np.arange(16_000) / 16_000
    chirp = 0.3 * np.sin(2 * np.pi * (200 * t + 700 * t**2))
    waveform = (chirp + 0.02 * np.sin(2 * np.pi * 3000 * t) + 0.01).astype(np.float32)
    # torchaudio.compliance.kaldi.fbank of torchaudio 2.11, called as AST's dataloader calls it:
    # htk_compat, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0
    published = [
        [-5.8265, -11.3053, -10.1056, -15.9424, -15.9424, -11.3621, -15.9424, -15.9424],
        [-13.0861, -15.9424, -13.4929, 4.0722, -14.8066, -11.3782, -15.9424, -15.9424],
        [-9.6302, -15.9424, -15.9424, -13.7249, 3.2416, -11.4135, -15.9424, -15.9424],
    ]
    ours = filterbank(waveform)
    assert ours.shape == (98, 128)
    bins = [0, 5, 20, 40, 60, 80, 100, 127]
    np.testing.assert_allclose(ours[[0, 50, 97]][:, bins], published, atol=2e-3)


def test_logmel_by_hand_from_the_fourier_transform():
    import librosa

    waveform = noise(8000)
    windows = np.lib.stride_tricks.sliding_window_view(waveform, 400)[::160]
    spectra = np.abs(np.fft.rfft(windows * get_window("hann", 400))) ** 2
    bands = np.log(spectra @ librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80).T)
    expected = np.concatenate([bands.mean(0), bands.std(0)])
    np.testing.assert_allclose(logmel_statistics(waveform)[0], expected, atol=1e-4)


@given(gain=st.floats(0.1, 10), seed=st.integers(0, 100))
def test_louder_audio_moves_the_means_of_logmel_alone(gain, seed):
    waveform = noise(4000, seed)
    before = logmel_statistics(waveform)[0]
    after = logmel_statistics(waveform * np.float32(gain))[0]
    np.testing.assert_allclose(after[:80], before[:80] + 2 * np.log(gain), atol=1e-3)
    np.testing.assert_allclose(after[80:], before[80:], atol=1e-3)


@without_opensmile
def test_egemaps_hears_a_voice_of_220_hz_as_36_semitones():
    t = np.arange(32_000) / 16_000
    voice = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 12)) * 0.1
    functionals = egemaps_functionals(voice.astype(np.float32))
    assert functionals.shape == (1, 88)
    assert functionals[0, 0] == pytest.approx(12 * np.log2(220 / 27.5), abs=0.1)  # the mean of F0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("waveform", [np.zeros(16_000, np.float32), noise(48_123)])
def test_there_is_one_layer_of_as_many_frames_as_promised(name, waveform):
    encoder = load_encoder(name)
    [hidden] = encoder.hidden_states([waveform])
    assert hidden.shape == (1, encoder.n_frames(len(waveform)), DESCRIPTORS[name].dim)
    assert hidden.dtype == torch.float32
    assert hidden.isfinite().all()
    assert len(hidden[0]) == (1 + (len(waveform) - 400) // 160 if name == "fbank" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_shortest_waveform_gives_a_frame_and_a_shorter_one_an_error(name):
    encoder = load_encoder(name)
    [hidden] = encoder.hidden_states([noise(encoder.min_samples)])
    assert hidden.shape[1] == 1
    assert hidden.isfinite().all()
    with pytest.raises(AudioError, match=f"{name} needs {encoder.min_samples}"):
        encoder.hidden_states([noise(encoder.min_samples - 1)])


@pytest.mark.parametrize("name", NAMES)
def test_other_utterances_of_a_batch_change_nothing(name):
    waveforms = [noise(n, seed=n) for n in (16_000, 9_000, 2_000)]
    assert largest_difference(load_encoder(name), waveforms) == [0.0]


def test_zscored_waveforms_have_no_loudness():
    encoder = load_encoder("logmel", input_norm="zscore")
    quiet, loud = encoder.hidden_states([noise(16_000), 5 * noise(16_000)])
    torch.testing.assert_close(quiet, loud, atol=1e-3, rtol=0)
    assert encoder.identity["normalised"]


@pytest.mark.parametrize(
    "settings", [{"random_init": 0}, {"revision": "main"}, {"precision": "bfloat16"}]
)
def test_what_only_networks_have_is_refused(settings):
    flag = f"--{next(iter(settings)).replace('_', '-')}"
    with pytest.raises(ModelError, match=f"logmel has no weights, so {flag}"):
        load_encoder("logmel", **settings)


def test_without_its_package_egemaps_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    descriptors._smile.cache_clear()
    with pytest.raises(ModelError, match="pip install opensmile"):
        load_encoder("egemaps")


@pytest.mark.parametrize("store", ["frames", "pooled"])
@pytest.mark.parametrize("name", NAMES)
def test_extraction_writes_an_ordinary_cache(tmp_path, write_wav, name, store):
    for number in range(4):
        write_wav(tmp_path / f"{number}.wav", noise(5000 + 1000 * number, seed=number))
    rows = [(f"{n}.wav", ["anger", "sadness"][n % 2], f"s{n // 2}") for n in range(4)]
    manifest = tmp_path / "own.csv"
    pd.DataFrame(rows, columns=["path", "emotion", "speaker"]).to_csv(manifest, index=False)
    settings = ExtractConfig(
        model=name,
        dataset=str(manifest),
        cache_dir=tmp_path / "cache",
        store=store,
        store_dtype="float32",
        device="cpu",
    )
    cache = FeatureCache(extract(settings).path)
    assert cache.layers == range(1)
    [alone] = load_encoder(name).hidden_states([read_audio(tmp_path / "3.wav").waveform])
    np.testing.assert_allclose(cache.pooled[3, 0], alone[0].mean(0), rtol=1e-4, atol=1e-4)
    if store == "frames":
        np.testing.assert_array_equal(cache.frames(3, 0), alone[0])
    assert cache.identity["settings"] == DESCRIPTORS[name].settings
