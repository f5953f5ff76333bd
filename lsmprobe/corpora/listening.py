"""A clip as a few kilobytes, to be listened to: Ogg Opus at 16 kHz, as the models heard it."""

import io
import os

import soundfile

from lsmprobe.corpora.audio import SAMPLE_RATE, read_audio


def as_opus(
    path: str | os.PathLike[str],
    start_s: float | None = None,
    end_s: float | None = None,
    *,
    most_s: float = 30.0,
) -> bytes:
    """A clip, or a part of a file, as an Ogg Opus file.

    Args:
        path: the audio file.
        start_s: where the part begins; None or NaN is the start of the file.
        end_s: where the part ends; None or NaN is the end of the file.
        most_s: what lies beyond is cropped off the end.

    Raises:
        AudioError: as `read_audio`.
    """
    audio = read_audio(path, start_s=start_s, end_s=end_s, max_s=most_s)
    written = io.BytesIO()
    soundfile.write(written, audio.waveform, SAMPLE_RATE, format="OGG", subtype="OPUS")
    return written.getvalue()
