"""Whether a sound file is as long as it states, and whether it states a length at all.

libsndfile takes what is there of a file that was cut off, without a word. A file that is written as
a stream may state no length; then nobody can see that it was cut off, so it counts as cut off.
"""

import io
import re
from collections.abc import Callable
from typing import Any

AUDIO_CHUNK_RESIZED = re.compile(r"^ *(data|SSND) *:.*\(should be", re.MULTILINE)
UNKNOWN = 2**32 - 1  # as AU writes a length that it does not know
MAX_CHUNKS = 1_000  # of a CAF file


def is_whole(sound: Any, file: io.BufferedIOBase) -> bool:
    """Whether an open `soundfile.SoundFile`, of which `file` holds the bytes, is all there."""
    rule = RULES.get(sound.format)
    return not AUDIO_CHUNK_RESIZED.search(sound.extra_info) and (rule is None or rule(file))


def _size(file: io.BufferedIOBase) -> int:
    return file.seek(0, io.SEEK_END)


def _start(file: io.BufferedIOBase, n_bytes: int) -> bytes:
    file.seek(0)
    return file.read(n_bytes)


def _ogg(file: io.BufferedIOBase) -> bool:
    """Whether the last page is complete and says that it is the last.

    Source: RFC 3533, section 6.
    """
    file.seek(max(0, _size(file) - 2**17))  # a page has at most 65,307 bytes
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    header_bytes = 27 + page[26] if len(page) > 26 else 27
    return len(page) >= header_bytes + sum(page[27:header_bytes]) and bool(page[5] & 4)


def _mp3(file: io.BufferedIOBase) -> bool:
    """Whether the first frame states its stream's frames and bytes, and the file has those bytes.

    Where it does not, the length is an estimate and libsndfile drops what lies beyond it.
    Source: the Xing and Info tags of LAME; for the ID3v2 tag in front, id3.org/id3v2.4.0-structure.
    """
    tag = _start(file, 10)
    file.seek(10 + int("".join(f"{byte:07b}" for byte in tag[6:]), 2) if tag[:3] == b"ID3" else 0)
    stated = re.search(rb"(?:Xing|Info)...[\x03\x07\x0b\x0f].{4}(.{4})", file.read(64), re.DOTALL)
    return stated is not None and int.from_bytes(stated[1], "big") <= _size(file)


def _au(file: io.BufferedIOBase) -> bool:
    """Source: Sun's audio file format: magic, offset of the data, its bytes."""
    head = _start(file, 12)
    order = "big" if head[:4] == b".snd" else "little"  # "dns." is the other way round
    offset, stated = (int.from_bytes(head[at : at + 4], order) for at in (4, 8))  # type: ignore[arg-type]
    return stated != UNKNOWN and offset + stated <= _size(file)


def _sphere(file: io.BufferedIOBase) -> bool:
    """Source: NIST SPeech HEader REsources: a text header with sample_count, of each channel."""
    head = _start(file, 16)
    n_bytes = re.fullmatch(rb"NIST_1A\n *(\d+)\n", head)
    if not n_bytes:
        return False
    text = _start(file, min(int(n_bytes[1]), 2**16))
    fields = ("sample_count", "channel_count", "sample_n_bytes")
    found = [re.search(rf"^{field} -\w+ (\d+)".encode(), text, re.MULTILINE) for field in fields]
    if not all(found):
        return False
    stated = [int(match[1]) for match in found if match]
    return int(n_bytes[1]) + stated[0] * stated[1] * stated[2] <= _size(file)


def _wave64(file: io.BufferedIOBase) -> bool:
    """Source: Sonic Foundry's Wave64: a 16-byte id, then the bytes of the whole file."""
    return 0 < int.from_bytes(_start(file, 24)[16:], "little") <= _size(file)


def _rf64(file: io.BufferedIOBase) -> bool:
    """Source: EBU Tech 3306: the chunk ds64 has the sizes that 32 bits do not hold."""
    head = _start(file, 28)
    return head[12:16] == b"ds64" and 0 < int.from_bytes(head[20:], "little") + 8 <= _size(file)


def _caf(file: io.BufferedIOBase) -> bool:
    """Source: Apple's Core Audio Format: chunks of a type and 8 bytes of size, -1 if unknown."""
    place, end = 8, _size(file)
    for _ in range(MAX_CHUNKS):
        file.seek(place)
        chunk = file.read(12)
        stated = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data" or len(chunk) < 12 or stated < 0:
            return chunk[:4] == b"data" and stated >= 0 and place + 12 + stated <= end
        place += 12 + stated
    return False


RULES: dict[str, Callable[[io.BufferedIOBase], bool]] = {
    "OGG": _ogg,
    "MP3": _mp3,
    "AU": _au,
    "NIST": _sphere,
    "W64": _wave64,
    "RF64": _rf64,
    "CAF": _caf,
}
