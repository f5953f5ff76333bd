"""Nothing is learned from a cache that has not been read whole and found undamaged.

Reading everything costs what the disk takes, so it is done once: a mark beside each file says which
size and time of change were verified. A file that has changed since is read again.
"""

import logging
from pathlib import Path

from lsmprobe.cache import FeatureCache
from lsmprobe.cache_tools import verify_cache
from lsmprobe.errors import CacheError
from lsmprobe.files import write_then_rename

log = logging.getLogger(__name__)


def verify_once(path: Path) -> None:
    """Compare every checksum of a cache, unless that was done since it last changed.

    Raises:
        CacheError: utterances are damaged.
    """
    marks = {_mark(file.path): _stamp(file.path) for file in FeatureCache(path).files}
    if all(mark.exists() and mark.read_bytes() == stamp for mark, stamp in marks.items()):
        return
    found = verify_cache(path)
    if found.damaged:
        raise CacheError(
            f"{path} has {len(found.damaged)} damaged utterances ({found.damaged[0]!r} first); "
            f"expected none. Run lsmprobe cache verify {path} --repair, then extract.py again."
        )
    log.info("%s", found)
    for mark, stamp in marks.items():
        try:
            write_then_rename(mark, stamp)
        except OSError:  # a folder of somebody else's: it will be read again next time
            log.debug("%s cannot be written", mark)


def _mark(file: Path) -> Path:
    return file.with_name(f".{file.name}.verified")


def _stamp(file: Path) -> bytes:
    """Which file this is, and when it last changed."""
    status = file.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()
