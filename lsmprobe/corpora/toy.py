"""The embedded corpus: speech-like clips made from a seed, so that lsmprobe runs without a corpus.

A glottal source through formant resonances, syllable by syllable, as in a speech synthesiser of the
1980s. There are no words. The emotions differ as acted ones do on average, in pitch, tempo,
loudness and voice quality, and the speakers differ about as much among themselves.
Source: Klatt and Klatt 1990, doi:10.1121/1.398894, for the synthesis; Juslin and Laukka 2003,
doi:10.1037/0033-2909.129.5.770, for the direction in which each emotion departs.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Complex, Float
from numpy.random import Generator

from lsmprobe.corpora.audio import SAMPLE_RATE
from lsmprobe.errors import CorpusError

FRAME, HOP, FFT = 384, 128, 768  # samples: the mouth moves every 8 ms
HZ = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
VOWELS = np.array(  # formants of a man's /a e i o u/ in Hz; the first three: Peterson, Barney 1952
    [
        [730, 1090, 2440, 3500],
        [530, 1840, 2480, 3500],
        [270, 2290, 3010, 3600],
        [570, 840, 2410, 3400],
        [300, 870, 2240, 3300],
    ]
)
README = """\
Synthetic clips, made by lsmprobe: nobody speaks here, and there are no words. Scores on them show
that the software works; they say nothing about speech or about emotions.

SPEAKER_EMOTION_CLIP.wav: {n_speakers} speakers, 4 emotions, {n_per_emotion} clips, seed {seed}.
Speakers with odd numbers have female voices.
"""


class Voice(NamedTuple):
    """How a clip is spoken; every quantity on a scale on which differences add up."""

    pitch: float  # semitones above 100 Hz
    melody: float  # log2 of the pitch range, 0 is that of calm speech
    tempo: float  # log2 of the syllables per second
    level: float  # dB relative to full scale, root mean square
    brightness: float  # log2 of the corner of the source's spectrum in Hz
    breath: float  # dB, aspiration noise relative to the pulses
    roughness: float  # log2 of the jitter in percent
    tract: float  # log2 of the formants relative to a man's

    def plus(self, other: "Voice", weight: float = 1.0) -> "Voice":
        """This voice changed by `weight` times the other."""
        return Voice(*(a + weight * b for a, b in zip(self, other, strict=True)))

    def drawn(self, rng: Generator) -> "Voice":
        """Independent normal deviates; this voice's entries are their standard deviations."""
        return Voice(*(float(scale * rng.standard_normal()) for scale in self))


# fmt: off
#                            pitch melody tempo  level bright breath rough  tract
MAN = Voice(                   2.0,  0.0,  2.15, -27.0, 10.8, -22.0, -0.6,  0.0)
WOMAN = Voice(                11.5,  0.0,  2.15, -27.0, 10.6, -19.0, -0.8,  0.22)
SPEAKERS_DIFFER_BY = Voice(    2.0,  0.3,  0.15,   3.0,  0.5,   3.0,  0.4,  0.05)
CLIPS_DIFFER_BY = Voice(       1.2,  0.2,  0.10,   1.5,  0.2,   1.5,  0.3,  0.01)
EMOTIONS = {
    "anger": Voice(            3.0,  0.4,  0.20,   5.0,  1.0,  -4.0,  0.9,  0.00),
    "happiness": Voice(        4.0,  0.9,  0.12,   3.0,  0.3,   2.0,  0.0,  0.08),
    "neutrality": Voice(       0.0,  0.0,  0.00,   0.0,  0.0,   0.0,  0.0,  0.00),
    "sadness": Voice(         -1.0, -0.7, -0.30,  -4.5, -0.9,   5.0,  0.2, -0.03),
}
# fmt: on


def write_toy_corpus(
    folder: str | Path, *, n_speakers: int = 15, n_per_emotion: int = 5, seed: int = 0
) -> None:
    """Write `s01_anger_01.wav` and so on: 16 kHz mono PCM16, 2 to 4 s; s01, s03, .. are women.

    A folder under its final name is complete; where it is there already, nothing is done.

    Raises:
        CorpusError: `folder` cannot be written, or holds something else.
    """
    folder = Path(folder)
    readme = README.format(n_speakers=n_speakers, n_per_emotion=n_per_emotion, seed=seed)
    clips = {
        f"s{speaker:02}_{emotion}_{clip:02}.wav": (speaker, emotion, clip)
        for speaker in range(1, n_speakers + 1)
        for emotion in EMOTIONS
        for clip in range(1, n_per_emotion + 1)
    }
    if _holds(folder, readme, clips):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as aside:
            corpus = Path(aside) / "corpus"
            corpus.mkdir()
            for name, (speaker, emotion, clip) in clips.items():
                waveform = toy_clip(speaker, emotion, clip, seed)
                soundfile.write(corpus / name, waveform, SAMPLE_RATE, subtype="PCM_16")
            (corpus / "README.txt").write_text(readme)
            corpus.rename(folder)
    except OSError as error:
        if not _holds(folder, readme, clips):  # else another process has just written it
            raise CorpusError(
                f"{folder} cannot take the toy corpus: {error.strerror}; give a new folder."
            ) from error


def _holds(folder: Path, readme: str, clips: Iterable[str]) -> bool:
    complete = all((folder / name).is_file() for name in ("README.txt", *clips))
    return complete and (folder / "README.txt").read_text() == readme


def toy_clip(speaker: int, emotion: str, clip: int, seed: int = 0) -> Float[np.ndarray, " samples"]:
    """One clip within [-1, 1]; a speaker's voice is the same in all of theirs."""
    voice = (WOMAN if speaker % 2 else MAN).plus(
        SPEAKERS_DIFFER_BY.drawn(np.random.default_rng([seed, speaker]))
    )
    rng = np.random.default_rng([seed, speaker, list(EMOTIONS).index(emotion), clip])
    intensity = rng.uniform(0.6, 1.4)
    voice = voice.plus(EMOTIONS[emotion], intensity).plus(CLIPS_DIFFER_BY.drawn(rng))
    return speak(voice, rng)


class Controls(NamedTuple):
    """What the voice and the mouth do, frame by frame (8 ms)."""

    semitones: Float[np.ndarray, " frames"]  # pitch above 100 Hz
    voicing: Float[np.ndarray, " frames"]  # amplitude of the glottal source
    formants: Float[np.ndarray, "frames formants"]  # Hz
    friction: Float[np.ndarray, " frames"]  # amplitude of the noise made by a consonant
    friction_hz: Float[np.ndarray, " frames"]  # where its spectrum peaks


def speak(voice: Voice, rng: Generator) -> Float[np.ndarray, " samples"]:
    """2 to 4 s of syllables in that voice, in a quiet room."""
    controls = plan(voice, rng)
    peak = controls.friction_hz
    hiss = _per_sample(controls.friction) * rng.standard_normal(len(controls.friction) * HOP)
    spectra = _spectra(glottal_source(voice, controls, rng)) * vocal_tract(voice, controls.formants)
    spectra += _spectra(hiss) * (HZ / 4000) ** 2 / _damping(peak, 0.5 * peak)
    waveform = _overlap_add(np.fft.irfft(spectra))
    waveform *= 10 ** (voice.level / 20) / np.sqrt(np.mean(waveform**2))
    waveform += 10 ** (-66 / 20) * rng.standard_normal(len(waveform))
    return waveform * min(1.0, 0.95 / np.abs(waveform).max())


def plan(voice: Voice, rng: Generator) -> Controls:
    """Syllables, each a consonant and a vowel, with accents in pitch and loudness."""
    seconds = rng.uniform(1.9, 3.6)
    n = round(seconds * 2**voice.tempo)
    lengths = rng.lognormal(0, 0.25, n)
    lengths[-1] *= 1.5  # speech slows down before it ends
    edges = 0.1 + np.concatenate([[0], np.cumsum(lengths)]) * seconds / lengths.sum()
    times = np.arange(0, seconds + 0.25, HOP / SAMPLE_RATE)
    syllable = np.searchsorted(edges[1:-1], times, side="right")
    phase = (times - edges[syllable]) / np.diff(edges)[syllable]  # outside 0..1 there is silence
    consonant, vowel = (phase > 0) & (phase < 0.3), (phase > 0.3) & (phase < 1)

    kind = rng.choice(["fricative", "plosive", "voiced"], n)[syllable]
    noisy = (kind == "fricative") | ((kind == "plosive") & (phase > 0.25))
    accents = rng.standard_normal(n)
    loudness = 10 ** ((2.5 * accents[syllable] - 4 * times / seconds) / 20)
    melody = 2.0 * accents + 1.5 * rng.standard_normal(n)
    formants = VOWELS[rng.integers(len(VOWELS), size=n)] * rng.normal(1, 0.04, (n, 4))
    return Controls(
        semitones=voice.pitch
        + 2**voice.melody * (1.5 - 3 * times / seconds + _smooth(melody[syllable], 12)),
        voicing=_smooth(loudness * (vowel + 0.25 * (consonant & (kind == "voiced"))), 5),
        formants=2**voice.tract * np.stack([_smooth(f, 8) for f in formants[syllable].T], axis=1),
        friction=_smooth(0.2 * loudness * (consonant & noisy), 3),
        friction_hz=rng.uniform(2500, 6000, n)[syllable],
    )


def glottal_source(
    voice: Voice, controls: Controls, rng: Generator
) -> Float[np.ndarray, " samples"]:
    """Pulses of air, uneven by the voice's roughness, with breath while the glottis is open.

    Source: Rosenberg 1971, doi:10.1121/1.1912389, pulse C.
    """
    hz = 100 * 2 ** (_per_sample(controls.semitones) / 12)
    period = (np.cumsum(hz) / SAMPLE_RATE).astype(int)
    jitter = 0.01 * 2**voice.roughness * rng.standard_normal(period[-1] + 1)
    shimmer = 0.04 * 2**voice.roughness * rng.standard_normal(period[-1] + 1)
    cycle = np.cumsum(hz * (1 + jitter[period])) / SAMPLE_RATE % 1
    opens, closes = 0.4, 0.16  # shares of the cycle
    flow = np.select(
        [cycle < opens, cycle < opens + closes],
        [0.5 - 0.5 * np.cos(np.pi * cycle / opens), np.cos(np.pi / 2 * (cycle - opens) / closes)],
    )
    pulses = np.diff(flow, prepend=0) * SAMPLE_RATE / hz * (1 + shimmer[period])
    breath = 10 ** (voice.breath / 20) * (0.3 + flow) * rng.standard_normal(len(flow))
    return _per_sample(controls.voicing) * (pulses / pulses.std() + breath)


def vocal_tract(
    voice: Voice, formants: Float[np.ndarray, "frames formants"]
) -> Complex[np.ndarray, "frames bins"]:
    """Its response at `HZ`, and the slope of the source's spectrum."""
    damping = 1 + 1j * HZ / 2**voice.brightness
    for hz in np.arange(4500, SAMPLE_RATE / 2, 1000) * 2**voice.tract:
        damping = damping * _damping(np.array([hz]), np.array([0.05 * hz]))
    for track in formants.T:
        damping = damping * _damping(track, 60 + 0.03 * track)
    return 1 / damping


def _damping(
    hz: Float[np.ndarray, " frames"], bandwidth: Float[np.ndarray, " frames"]
) -> Complex[np.ndarray, "frames bins"]:
    """The inverse of a second-order resonance that has gain 1 at 0 Hz."""
    return 1 - (HZ / hz[:, None]) ** 2 + 1j * HZ * (bandwidth / hz**2)[:, None]


def _smooth(track: Float[np.ndarray, " frames"], reach: int) -> Float[np.ndarray, " frames"]:
    """The weighted mean over `reach` frames to either side: nothing in a mouth moves at once."""
    window = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(track, reach, mode="edge"), window / window.sum(), mode="valid")


def _per_sample(track: Float[np.ndarray, " frames"]) -> Float[np.ndarray, " samples"]:
    return np.interp(np.arange(len(track) * HOP) / HOP, np.arange(len(track)), track)


def _spectra(samples: Float[np.ndarray, " samples"]) -> Complex[np.ndarray, "frames bins"]:
    """One spectrum per frame; the windows add up to one."""
    window = np.sin(np.pi * np.arange(FRAME) / FRAME) ** 2 * (2 * HOP / FRAME)
    padded = np.pad(samples, (FRAME // 2, FRAME // 2 - HOP))
    return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP] * window, FFT)


def _overlap_add(pieces: Float[np.ndarray, "frames fft"]) -> Float[np.ndarray, " samples"]:
    samples = np.zeros(len(pieces) * HOP + FFT)
    for frame, piece in enumerate(pieces):
        samples[frame * HOP : frame * HOP + FFT] += piece
    return samples[FRAME // 2 : FRAME // 2 + len(pieces) * HOP]
