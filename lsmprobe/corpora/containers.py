"""Audio in the containers of films and telephones (MP4, M4A, AAC, WebM, Matroska, AVI), by ffmpeg.

libsndfile does not read these, so ffmpeg decodes them where it is installed: the first audio stream
at its own rate, in float32. ffmpeg is the one program that lsmprobe starts. It gets the file's name
behind `file:`, may open nothing but files, and only in the formats listed here.
"""

import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lsmprobe.errors import AudioError

# Names that such files have. Whether a file is one, its first bytes say.
CONTAINER_SUFFIXES = {
    *(".mp4", ".m4a", ".m4v", ".aac", ".mov", ".avi", ".webm", ".mkv", ".mka", ".3gp"),
    *(".wma", ".wmv", ".amr", ".flv"),  # read by nothing here: named with what converts them
}
DEMUXERS = "mov,matroska,avi,aac"
BYTES_PER_VALUE = 4  # float32


class Decoded(NamedTuple):
    """What ffmpeg decoded: float32, nominally within [-1, 1], at `sample_rate` in Hz."""

    channels: Float[np.ndarray, "samples channels"]
    sample_rate: int


def is_container(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a container that ffmpeg is to decode."""
    return (
        head[4:8] == b"ftyp"
        or head.startswith(b"\x1a\x45\xdf\xa3")  # Matroska and WebM
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0)  # AAC, ADTS
    )


@functools.cache
def ffmpeg_version() -> str:
    """The version of the ffmpeg that is installed; empty where none is."""
    program = shutil.which("ffmpeg")
    if program is None:
        return ""
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    return said.stdout.removeprefix("ffmpeg version ").partition(" ")[0]


def converting(name: str) -> str:
    """The command that makes a WAV of a file, for a message."""
    return f"ffmpeg -i {shlex.quote(name)} {shlex.quote(name.rpartition('.')[0] + '.wav')}"


def decode(path: str | os.PathLike[str], name: str, most_values: int) -> Decoded:
    """The first audio stream of a container, at its own rate.

    Args:
        path: a regular file.
        name: of the file, for messages.
        most_values: samples times channels that are decoded at most.

    Raises:
        AudioError: ffmpeg is not installed; the file is damaged, cut off or longer than allowed, or
            has no audio. A cut is noticed by what the container states of its length. A bare AAC
            stream (.aac) states none: there only a cut within a frame is noticed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{name} is in a container that needs ffmpeg, which is not installed. Install it, or "
            f"where it is, convert the file to WAV: {converting(name)}"
        )
    limits = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS]
    command = [program, "-nostdin", "-v", "error", *limits, "-i", f"file:{os.fspath(path)}"]
    command += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    most_bytes = BYTES_PER_VALUE * most_values + 4096
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as running,
    ):
        assert running.stdout
        sound = running.stdout.read(most_bytes + 1)
        if len(sound) > most_bytes:
            running.kill()
            raise AudioError(
                f"{name} holds more than {most_values:.1e} samples; cut it into utterances."
            )
        status = running.wait()
        errors.seek(0)
        complaint = " ".join(errors.read(2000).decode("utf-8", "replace").split())
    if status or complaint or not _avi_is_whole(path):
        said = complaint[:200] or "it is shorter than its header states"
        raise AudioError(
            f"{name} is damaged, cut off or without audio, ffmpeg says: {said}. Copy it again, or "
            f"convert it to WAV and listen to it: {converting(name)}"
        )
    return _from_au(sound)


def _from_au(sound: bytes) -> Decoded:
    """The samples of an AU stream of float32, the plainest header that ffmpeg writes."""
    assert sound[:4] == b".snd" and int.from_bytes(sound[12:16], "big") == 6, "float32"
    start, rate, n_channels = (int.from_bytes(sound[i : i + 4], "big") for i in (4, 16, 20))
    values = np.frombuffer(sound, dtype=">f4", offset=start).astype(np.float32)
    return Decoded(values.reshape(-1, n_channels), rate)


def _avi_is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether the file is as long as its RIFF header states; ffmpeg does not compare the two."""
    with open(path, "rb") as file:  # noqa: PTH123 a path of bytes that are no text, too
        head = file.read(12)
        size = file.seek(0, os.SEEK_END)
    return head[8:] != b"AVI " or 8 + int.from_bytes(head[4:8], "little") <= size
