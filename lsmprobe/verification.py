"""No number comes from a cache that has not been read whole and found undamaged.

Reading everything costs what the disk takes, so it is done once: a mark beside each file says which
size and time of change were verified. A file that has changed since is read again.
"""

import logging
import os
from pathlib import Path

from lsmprobe.cache import FeatureCache
from lsmprobe.cache_format import CacheFile
from lsmprobe.cache_parts import verified_mark
from lsmprobe.cache_tools import verify_cache
from lsmprobe.errors import CacheError

log = logging.getLogger(__name__)

_verified: set[tuple[Path, bytes]] = set()  # by this process; for folders that take no mark


def verify_once(cache: FeatureCache) -> None:
    """Compare every checksum of a cache, unless that was done since it last changed.

    Raises:
        CacheError: utterances are damaged, or the cache was replaced since it was opened.
    """
    stamps = {file.path: _stamp(file) for file in cache.files}  # taken first: it may change
    if all(_is_verified(path, stamp) for path, stamp in stamps.items()):
        return
    found = verify_cache(cache.path)
    if found.damaged:
        raise CacheError(
            f"{cache.path} has {len(found.damaged)} damaged utterances ({found.damaged[0]!r} "
            f"first); expected none. Run lsmprobe cache verify {cache.path} --repair, then "
            "extract.py again."
        )
    log.info("%s", found)
    for path, stamp in stamps.items():
        _verified.add((path.absolute(), stamp))
        try:
            verified_mark(path).write_bytes(stamp)  # half of it is no mark
        except OSError:  # a folder of somebody else's: the next process reads it again
            log.debug("%s cannot be written", verified_mark(path))


def _is_verified(path: Path, stamp: bytes) -> bool:
    if (path.absolute(), stamp) in _verified:
        return True
    try:
        return verified_mark(path).read_bytes() == stamp
    except OSError:
        return False


def _stamp(file: CacheFile) -> bytes:
    """Which file this is, and when it last changed."""
    with file.opened("rb") as opened:
        status = os.fstat(opened.fileno())
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
