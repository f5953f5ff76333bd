"""The toy corpus: complete or absent, the same for a seed, like speech, and not trivial."""

import re

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import find_peaks
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lsmprobe.corpora import toy
from lsmprobe.corpora.toy import EMOTIONS, toy_clip, write_toy_corpus
from lsmprobe.errors import CorpusError

RATE = 16_000
SMALL = {"n_speakers": 2, "n_per_emotion": 1}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "data" / "toy"
    write_toy_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def clips(corpus):
    """Waveforms, emotions, speakers."""
    paths = sorted(corpus.glob("*.wav"))
    speakers, emotions, _ = zip(*(path.stem.split("_") for path in paths), strict=True)
    return [soundfile.read(path)[0] for path in paths], np.array(emotions), np.array(speakers)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# On disk.


@pytest.mark.slow
def test_300_clips_of_2_to_4_seconds(corpus):
    names = sorted(path.name for path in corpus.iterdir())
    wavs = [name for name in names if name.endswith(".wav")]
    assert len(wavs) == 15 * 4 * 5 and names == ["README.txt", *wavs]
    pattern = r"s(0[1-9]|1[0-5])_(anger|happiness|neutrality|sadness)_0[1-5]\.wav"
    assert all(re.fullmatch(pattern, name) for name in wavs)
    for name in wavs:
        info = soundfile.info(corpus / name)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 2 <= info.duration <= 4
    assert "Synthetic" in (corpus / "README.txt").read_text()


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_toy_corpus(tmp_path / name, **SMALL, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    a, c = contents(tmp_path / "a"), contents(tmp_path / "c")
    assert a.keys() == c.keys() and all(a[name] != c[name] for name in a)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.slow
def test_a_clip_does_not_depend_on_the_size_of_the_corpus(corpus, tmp_path):
    write_toy_corpus(tmp_path / "toy", **SMALL)
    small, full = contents(tmp_path / "toy"), contents(corpus)
    assert all(full[name] == small[name] for name in small if name != "README.txt")


def test_a_complete_folder_is_left_alone(tmp_path):
    write_toy_corpus(tmp_path / "toy", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_toy_corpus(tmp_path / "toy", **SMALL)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_empty_folder_is_filled(tmp_path):
    write_toy_corpus(tmp_path, **SMALL)
    assert len(list(tmp_path.glob("*.wav"))) == 8


def test_a_folder_with_anything_else_is_refused_and_kept(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.txt").write_text("precious")
    with pytest.raises(CorpusError, match=r"toy cannot take the toy corpus: .* give a new folder"):
        write_toy_corpus(tmp_path / "toy", **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["toy", "thesis.txt"]


def test_a_corpus_from_another_seed_or_with_a_clip_lost_is_refused(tmp_path):
    write_toy_corpus(tmp_path / "toy", **SMALL)
    with pytest.raises(CorpusError, match="give a new folder"):
        write_toy_corpus(tmp_path / "toy", **SMALL, seed=1)
    (tmp_path / "toy" / "s01_anger_01.wav").unlink()
    with pytest.raises(CorpusError, match="give a new folder"):
        write_toy_corpus(tmp_path / "toy", **SMALL)


# As sound.


def semitones(waveform):
    """Median pitch above 100 Hz, from the autocorrelation of the loud frames."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 800)[::160]
    frames = frames[frames.std(axis=1) > 0.5 * frames.std(axis=1).max()]
    frames = frames - frames.mean(axis=1, keepdims=True)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[:, 40:300]
    return np.median(12 * np.log2(RATE / (40 + correlation.argmax(axis=1)) / 100))


def level(waveform):
    return 20 * np.log10(waveform.std())


def syllables_per_second(waveform):
    """Peaks of the loudness below 1 kHz or so, where the vowels are."""
    low = np.convolve(waveform, np.hanning(16), mode="same") ** 2
    envelope = np.convolve(low, np.hanning(1600), mode="same") ** 0.3
    peaks, _ = find_peaks(envelope, prominence=0.03 * envelope.max())
    return len(peaks) / len(waveform) * RATE


def log_mel_statistics(waveform):
    """Mean and standard deviation over time of 40 log mel energies."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 512)[::160] * np.hanning(512)
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hz = np.fft.rfftfreq(512, 1 / RATE)
    bank = np.array([np.interp(hz, edges[i : i + 3], [0, 1, 0]) for i in range(40)])
    log_mel = np.log(np.abs(np.fft.rfft(frames)) ** 2 @ bank.T + 1e-8)
    return np.concatenate([log_mel.mean(axis=0), log_mel.std(axis=0)])


def recall_for_unseen_speakers(features, clips):
    """Unweighted average recall of logistic regression; three speakers at a time are left out."""
    _, emotions, speakers = clips
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    features = features.reshape(len(emotions), -1)
    guesses = cross_val_predict(model, features, emotions, groups=speakers, cv=GroupKFold(5))
    return recall_score(emotions, guesses, average="macro")


MEASURES = {f.__name__: f for f in (semitones, level, syllables_per_second, log_mel_statistics)}


@pytest.fixture(scope="module")
def measured(clips):
    """Every measure of every clip."""
    return {name: np.array([f(w) for w in clips[0]]) for name, f in MEASURES.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "lower", "higher"),
    [
        ("semitones", "sadness", "neutrality"),
        ("semitones", "neutrality", "anger"),
        ("semitones", "neutrality", "happiness"),
        ("level", "sadness", "neutrality"),
        ("level", "neutrality", "happiness"),
        ("level", "happiness", "anger"),
        ("syllables_per_second", "sadness", "neutrality"),
        ("syllables_per_second", "neutrality", "anger"),
    ],
)
def test_emotions_differ_in_the_intended_direction(clips, measured, measure, lower, higher):
    _, emotions, _ = clips
    assert (
        measured[measure][emotions == lower].mean() < measured[measure][emotions == higher].mean()
    )


@pytest.mark.slow
def test_women_have_the_higher_voices(clips, measured):
    female = np.array([int(speaker[1:]) % 2 == 1 for speaker in clips[2]])
    pitch = measured["semitones"]
    assert 5 < pitch[female].mean() - pitch[~female].mean() < 15


@pytest.mark.slow
def test_emotions_of_unseen_speakers_can_be_told_but_not_all(clips, measured):
    assert 0.45 < recall_for_unseen_speakers(measured["log_mel_statistics"], clips) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("cue", ["semitones", "level", "syllables_per_second"])
def test_no_single_cue_gives_the_emotion_away(clips, measured, cue):
    assert recall_for_unseen_speakers(measured[cue], clips) < 0.6


@pytest.mark.slow
def test_clips_are_neither_clipped_nor_silent(clips):
    for waveform in clips[0]:
        assert 0.02 < np.abs(waveform).max() < 0.96


# The synthesiser.


@given(hops=st.integers(8, 40), seed=st.integers(0, 99))
def test_spectra_added_up_are_the_samples(hops, seed):
    samples = np.random.default_rng(seed).standard_normal(hops * toy.HOP)
    again = toy._overlap_add(np.fft.irfft(toy._spectra(samples)))
    inside = slice(toy.FRAME, -toy.FRAME)  # a clip begins and ends with silence
    assert len(again) == len(samples)
    np.testing.assert_allclose(again[inside], samples[inside], atol=1e-12)


@pytest.mark.parametrize("vowel", range(len(toy.VOWELS)))
def test_the_vocal_tract_resonates_at_the_formants(vowel):
    formants = toy.VOWELS[vowel]
    response = np.abs(toy.vocal_tract(toy.MAN, formants[None].astype(float)))[0]
    peaks = toy.HZ[find_peaks(response)[0]]
    for hz in formants[:2]:
        assert np.abs(peaks - hz).min() < 60  # bins are 21 Hz wide, neighbours pull


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_clip_has_the_level_of_its_voice(emotion):
    rng = np.random.default_rng(0)
    voice = toy.MAN.plus(EMOTIONS[emotion])
    assert level(toy.speak(voice, rng)) == pytest.approx(voice.level, abs=0.1)
    assert not np.array_equal(toy_clip(1, emotion, 1), toy_clip(1, emotion, 2))
