"""An audio file -> a mono 16 kHz waveform: soundfile reads it, librosa resamples it.

What libraries pass over in silence is refused here in one line that names the file: audio that was
cut off, channels that cancel each other, NaN, a header that makes no sense. What is only odd about
a clip (clipping, a dead channel) is reported beside its waveform.
"""

import hashlib
import io
import math
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float

from lsmprobe.corpora.containers import (
    CONTAINER_SUFFIXES,
    converting,
    decode,
    ffmpeg_version,
    is_container,
)
from lsmprobe.corpora.cut_off import is_whole
from lsmprobe.corpora.kept import Kept
from lsmprobe.errors import AudioError, counted
from lsmprobe.impostors import HEAD, impostor

SAMPLE_RATE = 16_000  # Hz
MIN_SAMPLES = 400  # one frame, 25 ms
SOUND_SUFFIXES = {  # names of files that soundfile decodes
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc"),
    *(".sph", ".nist", ".au", ".snd", ".caf", ".w64", ".rf64"),
}
AUDIO_SUFFIXES = SOUND_SUFFIXES | CONTAINER_SUFFIXES  # of both kinds
# Those that state their length, so that they show when they are cut off.
FORMATS = ("WAV", "WAVEX", "AIFF", "FLAC", "OGG", "MP3", "NIST", "AU", "CAF", "W64", "RF64")
# Encodings in which libsndfile finds any sample exactly. In the others (MP3 and Opus by up to the
# size of the signal itself) what is read after a seek differs from what is read from the start, so
# a file of these is decoded whole.
SEEKABLE = re.compile(r"PCM_.*|FLOAT|DOUBLE|ULAW|ALAW")
SAMPLE_RATES = range(8_000, 384_001)  # Hz
MAX_CHANNELS = 8
MAX_FILE_BYTES = 2**30
MAX_VALUES = 2**28  # samples x channels decoded at once: 4.6 hours of 16 kHz mono
MAX_PEAK = 1_000  # full scale is 1; far beyond it the rest vanishes when a waveform is normalised
SILENCE = 1e-5  # peak to peak: a third of the smallest step of 16 bits
PART_TOLERANCE_S = 0.5  # by which a part may end beyond its file; `ends_beyond` says so
FULL_SCALE = 0.999
OPPOSITE_PHASE = -0.5  # correlation of two channels
MAX_KEPT_VALUES = 2**27  # decoded and kept for further parts of their files: 512 MiB of float32
MAX_KNOWN_FILES = 2**16
_importing = threading.Lock()


@dataclass(frozen=True)
class AudioHeader:
    """What a file declares; `samples` counts one channel at the file's own `sample_rate` in Hz."""

    sample_rate: int
    channels: int
    samples: int
    path: str = "the audio"  # as messages show it

    @property
    def seconds(self) -> float:
        """Duration of the whole file."""
        return self.samples / self.sample_rate


@dataclass(frozen=True, eq=False)
class Audio:
    """A mono 16 kHz waveform, nominally within [-1, 1].

    `sha256` (hex) is that of the whole file; `findings` has one line for each oddity, which
    begins with its kind: `beyond full scale`, `clipping`, `dead channel`, `opposite phase`.
    """

    waveform: Float[np.ndarray, " samples"]
    sha256: str
    findings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Whole:
    """A whole file, decoded."""

    header: AudioHeader
    channels: Float[np.ndarray, "samples channels"]
    sha256: str


def read_header(path: str | os.PathLike[str]) -> AudioHeader:
    """What the file declares; nothing is decoded, except of a container, which ffmpeg decodes.

    Raises:
        AudioError: not a file, not audio, cut off, or a header that makes no sense.
    """
    with _opened(path) as file:
        if _in_container(file):
            return _whole(path).header
        with _decoder(file, path) as sound:
            return _checked_header(sound, file, path)


def n_samples(
    header: AudioHeader,
    start_s: float | None = None,
    end_s: float | None = None,
    max_s: float | None = None,
) -> int:
    """Samples at 16 kHz that `read_audio` returns for the same arguments.

    Raises:
        AudioError: the part leaves the file, is shorter than one frame, or too long to be read.
    """
    start, stop = _part(header, start_s, end_s, max_s)
    return _n_resampled(stop - start, header.sample_rate)


def ends_beyond(header: AudioHeader, end_s: float | None) -> bool:
    """Whether a part ends beyond its file by more than rounding to hundredths; it is cut there."""
    return _given(end_s, 0.0) > header.seconds + 0.01


def audio_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the whole file in hexadecimal, as `read_audio` tells it; nothing is decoded.

    Raises:
        AudioError: not a file, or one that cannot be read.
    """
    with _opened(path) as file:
        return hashlib.sha256(file.read()).hexdigest()


def read_audio(
    path: str | os.PathLike[str],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    max_s: float | None = None,
) -> Audio:
    """The mean of the channels at 16 kHz; 16-bit mono at 16 kHz comes out as its integers / 32768.

    A part is that slice of the whole file, decoded, in every format. A file is read and hashed
    once for all its parts, as long as it does not change.

    Args:
        path: a file in one of `FORMATS`, or in a container where ffmpeg is installed.
        start_s: where the part begins; None or NaN is the start of the file.
        end_s: where the part ends; None or NaN is the end of the file.
        max_s: what lies beyond is cropped off the end; None or NaN crops nothing.

    Raises:
        AudioError: as `read_header` and `n_samples`, and for audio that is damaged, incomplete,
            silent, not finite or far beyond full scale.
    """
    with _opened(path) as file:
        if _in_container(file):
            whole = _whole(path)
            header, sha256 = whole.header, whole.sha256
            start, stop = _part(header, start_s, end_s, max_s)
            channels = whole.channels[start:stop]
        elif _given(start_s, 0.0) == 0 and math.isnan(_given(end_s, math.nan)):
            # Its hash is that of the very bytes decoded.
            content = file.read()
            sha256 = hashlib.sha256(content).hexdigest()
            header, start, stop, channels = _decoded(io.BytesIO(content), path, None, None, max_s)
        else:
            sha256 = _HASHES.get(path, lambda: audio_hash(path))
            header, start, stop, channels = _decoded(file, path, start_s, end_s, max_s)
    if len(channels) < stop - start:
        raise _incomplete(header, start + len(channels))
    return Audio(
        waveform=_mono_16_khz(channels, header),
        sha256=sha256,
        findings=tuple(_findings(channels)),
    )


def decoders(paths: Iterable[str]) -> dict[str, str]:
    """The versions of programs, besides the libraries, that decode some of the files."""

    def needs_ffmpeg(path: str) -> bool:
        with suppress(AudioError), _opened(path) as file:
            return _in_container(file)
        return False

    return {"ffmpeg": ffmpeg_version()} if any(map(needs_ffmpeg, dict.fromkeys(paths))) else {}


def _in_container(file: io.BufferedIOBase) -> bool:
    head = file.read(12)
    file.seek(0)
    return is_container(head)


def _decoded(
    file: io.BufferedIOBase,
    path: str | os.PathLike[str],
    start_s: float | None,
    end_s: float | None,
    max_s: float | None,
) -> tuple[AudioHeader, int, int, Float[np.ndarray, "samples channels"]]:
    """The header; the part's first sample and the one after the last; the part's samples."""
    with _decoder(file, path) as sound:
        header = _checked_header(sound, file, path)
        start, stop = _part(header, start_s, end_s, max_s)
        if stop - start < header.samples and not SEEKABLE.fullmatch(sound.subtype):
            return header, start, stop, _whole(path).channels[start:stop]
        if start:
            sound.seek(start)
        return header, start, stop, sound.read(stop - start, dtype="float32", always_2d=True)


def _whole(path: str | os.PathLike[str]) -> _Whole:
    """The whole file, decoded; of the last few files once."""
    return _WHOLES.get(path, lambda: _decode_whole(path))


def _decode_whole(path: str | os.PathLike[str]) -> _Whole:
    with _opened(path) as file:
        content = file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    if is_container(content[:12]):
        name = _shown(path)
        channels, sample_rate = decode(path, name, MAX_VALUES)
        header = AudioHeader(sample_rate, channels.shape[1], len(channels), name)
        return _Whole(_plausible(header), channels, sha256)
    header, _, stop, channels = _decoded(io.BytesIO(content), path, None, None, None)
    if len(channels) < stop:
        raise _incomplete(header, len(channels))
    return _Whole(header, channels, sha256)


_HASHES: Kept[str] = Kept(MAX_KNOWN_FILES)
_WHOLES: Kept[_Whole] = Kept(MAX_KEPT_VALUES, lambda whole: whole.channels.size)


def _incomplete(header: AudioHeader, found: int) -> AudioError:
    return AudioError(
        f"{header.path} holds {found} of the {header.samples} samples that it "
        "declares: it is cut off or damaged; copy it again."
    )


def _shown(path: str | os.PathLike[str]) -> str:
    """The path for a message: newlines and undecodable bytes escaped."""
    return repr(os.fspath(path))[1:-1]


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[io.BufferedIOBase]:
    """The file at `path`, if it is a regular one (opening a FIFO would block)."""
    try:
        if not Path(path).exists():
            raise AudioError(f"{_shown(path)} does not exist; check the path.")
        if not Path(path).is_file():
            raise AudioError(f"{_shown(path)} is not a regular file; expected an audio file.")
        size = Path(path).stat().st_size
        if size == 0:
            raise AudioError(f"{_shown(path)} is empty (0 bytes); copy it again.")
        if size > MAX_FILE_BYTES:
            raise AudioError(
                f"{_shown(path)} has {size / 2**30:.1f} GiB; expected at most "
                f"{MAX_FILE_BYTES / 2**30:.0f} GiB: cut it into utterances."
            )
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise AudioError(f"{_shown(path)} cannot be read: {error.strerror}.") from error


@contextmanager
def _decoder(file: io.BufferedIOBase, path: str | os.PathLike[str]) -> Iterator[Any]:
    """A `soundfile.SoundFile` over `file`; what it cannot decode is an AudioError."""
    try:
        with soundfile.SoundFile(_Callbacks(file)) as sound:
            yield sound
    except soundfile.LibsndfileError as error:
        file.seek(0)
        reason = impostor(file.read(HEAD), "audio") or (
            f"cannot be decoded ({error.error_string.rstrip('.')}): it is damaged or of another "
            f"format than {', '.join(FORMATS)}; copy it again or convert it to WAV"
        )
        raise AudioError(f"{_shown(path)} {reason}.") from error


class _Callbacks:
    """A file as libsndfile calls it from C, where an exception would be printed and then lost."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file = file
        self.tell = file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> None:
        """Move, or stay where a damaged header points outside of the file."""
        with suppress(OSError, ValueError):
            self.file.seek(offset, whence)

    def read(self, size: int) -> bytes:
        """Nothing where the disk fails: audio that is missing is noticed by its length."""
        with suppress(OSError):
            return self.file.read(size)
        return b""


def _checked_header(
    sound: Any, file: io.BufferedIOBase, path: str | os.PathLike[str]
) -> AudioHeader:
    """The header of an open `soundfile.SoundFile`, of which `file` holds the bytes."""
    name = _shown(path)
    if sound.format not in FORMATS:
        raise AudioError(
            f"{name} has format {sound.format}; expected {', '.join(FORMATS)}. Convert it to WAV: "
            f"{converting(name)}"
        )
    header = _plausible(AudioHeader(sound.samplerate, sound.channels, sound.frames, name))
    place = file.tell()
    if not is_whole(sound, file):
        raise AudioError(
            f"{name} is cut off, or was written as a stream that does not say how long it is; "
            "copy it again or convert it to WAV or FLAC."
        )
    file.seek(place)
    return header


def _plausible(header: AudioHeader) -> AudioHeader:
    """The header, if it can be meant."""
    if header.sample_rate not in SAMPLE_RATES:
        raise AudioError(
            f"{header.path} declares {header.sample_rate} Hz; expected {SAMPLE_RATES[0]} to "
            f"{SAMPLE_RATES[-1]}: its header is damaged, or it is not speech."
        )
    if header.channels > MAX_CHANNELS:
        raise AudioError(
            f"{header.path} has {header.channels} channels; expected at most {MAX_CHANNELS}: "
            "extract the one with the voice."
        )
    if header.samples <= 0:
        raise AudioError(
            f"{header.path} holds a header and no samples: it is cut off, or nothing was recorded; "
            "copy it again."
        )
    return header


def _part(
    header: AudioHeader, start_s: float | None, end_s: float | None, max_s: float | None
) -> tuple[int, int]:
    """The first sample and the one after the last, at the file's own rate; checked."""
    start_s, end_s = _given(start_s, 0.0), _given(end_s, header.seconds)
    fits = start_s < header.seconds and end_s <= header.seconds + PART_TOLERANCE_S
    if not (0 <= start_s < end_s and fits):
        raise AudioError(
            f"{header.path} has no part from {start_s:g} to {end_s:g} s; "
            f"it ends at {header.seconds:.3f} s."
        )
    start = round(start_s * header.sample_rate)
    longest = round(min(_given(max_s, math.inf), header.seconds) * header.sample_rate)
    stop = min(round(end_s * header.sample_rate), header.samples, start + longest)
    if _n_resampled(stop - start, header.sample_rate) < MIN_SAMPLES:
        raise AudioError(
            f"{header.path} gives {(stop - start) / header.sample_rate:.4f} s of audio; expected "
            f"at least {MIN_SAMPLES / SAMPLE_RATE} s, one frame."
        )
    if (stop - start) * header.channels > MAX_VALUES:
        raise AudioError(
            f"{header.path} declares {(stop - start) / header.sample_rate / 3600:.1f} hours of "
            f"{header.channels}-channel audio; expected at most {MAX_VALUES:.1e} samples at once: "
            "cut it into utterances, or name the parts."
        )
    return start, stop


def _given(seconds: float | None, default: float) -> float:
    return default if seconds is None or math.isnan(seconds) else seconds


def _n_resampled(samples: int, sample_rate: int) -> int:
    """The ceiling of samples * SAMPLE_RATE / sample_rate, in whole numbers."""
    return -(-samples * SAMPLE_RATE // sample_rate)


def _mono_16_khz(
    channels: Float[np.ndarray, "samples channels"], header: AudioHeader
) -> Float[np.ndarray, " resampled"]:
    """The mean of the channels, resampled; checked."""
    peak = np.abs(channels).max()
    if not np.isfinite(peak):
        raise AudioError(f"{header.path} holds NaN or infinite samples; export it again.")
    if peak > MAX_PEAK:
        raise AudioError(
            f"{header.path} has a peak of {peak:.3g}; expected about 1, at most {MAX_PEAK}: "
            "scale it, or export it again."
        )
    if np.ptp(channels, axis=0).max() < SILENCE:
        raise AudioError(f"{header.path} is silent (peak {peak:.1e}); leave it out.")
    waveform = channels.mean(axis=1)
    if np.ptp(waveform) < SILENCE:
        raise AudioError(
            f"{header.path} is silent once mixed: its channels cancel each other; "
            "keep one of them, or turn the sign of one."
        )
    if header.sample_rate == SAMPLE_RATE:
        return waveform
    return _resampled(waveform, header.sample_rate)


def _resampled(
    waveform: Float[np.ndarray, " samples"], sample_rate: int
) -> Float[np.ndarray, " resampled"]:
    """The waveform at 16 kHz, of the exact length."""
    with _importing:  # takes seconds, so only here; two threads must not import half of it each
        from librosa import resample

    n = _n_resampled(len(waveform), sample_rate)
    resampled = resample(
        waveform, orig_sr=sample_rate, target_sr=SAMPLE_RATE, res_type="soxr_hq", fix=False
    )
    assert abs(len(resampled) - n) <= 1
    return np.pad(resampled[:n], (0, max(0, n - len(resampled))))


def _findings(channels: Float[np.ndarray, "samples channels"]) -> Iterator[str]:
    """What is odd about audio that is usable."""
    magnitude = np.abs(channels)
    if magnitude.max() > 1:
        yield f"beyond full scale: the peak is {magnitude.max():.3g}, and 1 is full scale"
    full = magnitude >= FULL_SCALE
    clipped = (full[2:] & full[1:-1] & full[:-2]).sum() / full.size
    if clipped > 0:
        yield f"clipping: {clipped:.2%} of the samples lie in runs at full scale"
    dead = np.ptp(channels, axis=0) < SILENCE
    if dead.any():
        yield f"dead channel: {counted(dead.sum(), 'channel', 'is', of=len(dead))} silent"
    if (~dead).sum() > 1:
        correlation = np.corrcoef(channels[:, ~dead], rowvar=False).min()
        if correlation < OPPOSITE_PHASE:
            yield f"opposite phase: two channels have a correlation of {correlation:.2f}"
