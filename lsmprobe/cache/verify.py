"""Every checksum of a cache compared; no number comes from bytes that were not.

Reading everything costs what the disk takes, so it is done once: a mark beside each file says which
size and time of change were verified. A file that has changed since is read again. Who needs means
alone reads and compares means alone, and the mark says so.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsmprobe.cache.catalogue import how_much_is_done
from lsmprobe.cache.file import CacheFile, disk_errors, fdatasync, pwrite
from lsmprobe.cache.labels import labels_that_count
from lsmprobe.cache.layout import CHECKSUM, Reads, decoded
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.parts import names_of, verified_mark
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import CacheError, counted, one_line
from lsmprobe.progress import Progress, automatic

log = logging.getLogger(__name__)
_verified: set[tuple[Path, bytes]] = set()  # by this process; for folders that take no mark
_told: set[str] = set()  # by this process
READERS = 4  # threads; a disk likes to be asked for several things at once
BLOCK_BYTES = 8_000_000  # of one layer, read at once
MEANS_ALONE = b"means "  # before the stamp in a mark; never the beginning of one


def verify_once(
    cache: FeatureCache, progress: Progress = automatic, *, reads: Reads = "frames"
) -> None:
    """Compare the checksums of what is to be read, unless that was done since it last changed.

    A cache that lies under another name than it was made for is named in the log.

    Args:
        cache: which one.
        progress: how the bytes that were read are shown.
        reads: `means`: of a file with checksums of means nothing else is read. Whoever is to read
            a frame says `frames`.

    Raises:
        CacheError: utterances are damaged, or the cache was replaced since it was opened.
    """
    if (said := another_name(cache)) and said not in _told:
        log.warning(said)
        _told.add(said)
    stamps = {file.path: _stamp(file) for file in cache.files}  # taken first: it may change
    if all(_is_verified(path, stamp, reads) for path, stamp in stamps.items()):
        return
    found = verify_cache(cache.path, reads=reads, progress=progress)
    if found.damaged:
        raise CacheError(
            f"{cache.path} has {counted(len(found.damaged), 'damaged utterance')} "
            f"({found.damaged[0]!r} first); expected none. Run lsmprobe cache verify {cache.path} "
            "--repair, then lsmprobe extract again."
        )
    log.info("%s", found)
    for file in cache.files:
        stamp = stamps[file.path]
        if _is_verified(file.path, stamp, reads):  # perhaps frames too, which must stay known
            continue
        mark = stamp if CHECKSUM in file.sums(reads) else MEANS_ALONE + stamp
        _verified.add((file.path.absolute(), mark))
        try:
            verified_mark(file.path).write_bytes(mark)  # half of it is no mark
        except OSError:  # a folder of somebody else's: the next process reads it again
            log.debug("%s cannot be written", verified_mark(file.path))


def another_name(cache: FeatureCache) -> str:
    """A sentence where a file was copied over or moved to the place of another cache; or empty.

    A model's folder may have more in its name than the model's: a revision, an adapter, a seed.
    """
    model, corpus = names_of(cache.path)
    made_for = str(cache.identity.get("model", model)), str(cache.identity.get("corpus", corpus))
    folder = made_for[0].strip("/").replace("/", "--")
    if made_for[1] == corpus and model.startswith((folder, Path(made_for[0]).name)):
        return ""
    return one_line(
        f"{cache.path} was made of {made_for[1]} by {made_for[0]}; its numbers are shown as those "
        f"of {corpus} by {model}. If it was not renamed on purpose, put the right file there."
    )


def _is_verified(path: Path, stamp: bytes, reads: Reads) -> bool:
    enough = {stamp} if reads == "frames" else {stamp, MEANS_ALONE + stamp}
    if any((path.absolute(), mark) in _verified for mark in enough):
        return True
    try:
        return verified_mark(path).read_bytes() in enough
    except OSError:
        return False


def _stamp(file: CacheFile) -> bytes:
    """Which file this is, and when it last changed."""
    with file.opened("rb") as opened:
        status = os.fstat(opened.fileno())
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}".encode()


def mark_for_extraction(file: CacheFile, rows: Sequence[int]) -> None:
    """Take `done` back from utterances that turned out damaged; lsmprobe extract makes them again.

    `skipped` goes first: of a clip that was repaired it may still be 1, and would then count again.

    Raises:
        CacheError: the file is being written, or cannot be.
    """
    with (
        disk_errors(file.path, file.size),
        sole_writer(file.path),
        file.opened("r+b") as opened,
    ):
        for flag in ("skipped", "done"):
            for row in rows:
                place = file.members[f"utterances/{flag}"].offset + row
                pwrite(opened.fileno(), np.zeros(1, np.uint8), place)
            fdatasync(opened.fileno())


@dataclass(frozen=True)
class Verified:
    """What reading a cache, or its means, found; its text is the line printed for it."""

    path: Path
    n_utterances: int  # that are there
    damaged: tuple[str, ...]  # their keys
    unfinished: str  # what is missing, or empty
    gigabytes: float  # that were read
    seconds: float
    means_alone: bool = False  # nothing else was read

    def __str__(self) -> str:
        speed = self.gigabytes / max(self.seconds, 1e-9)
        read = f"{self.gigabytes:.3f} GB in {self.seconds:.1f} s, {speed:.2f} GB/s"
        if self.means_alone:
            read = f"means alone, {read}"
        if self.damaged:
            found = counted(len(self.damaged), "clip", "is", of=self.n_utterances)
            found += f" damaged ({read})"
            found += f": {', '.join(self.damaged)}"
        else:
            found = f"{counted(self.n_utterances, 'clip')}, none damaged ({read})"
        return one_line(f"{self.path}: {found}{self.unfinished and f'; {self.unfinished}'}")


def verify_cache(
    path: Path,
    *,
    repair: bool = False,
    reads: Reads = "frames",
    progress: Progress = automatic,
) -> Verified:
    """Read everything that a cache holds, or its means, and compare the checksums.

    Args:
        path: the cache; its parts are read where it has parts.
        repair: mark what is damaged as not done, for lsmprobe extract.
        reads: `means`: those alone, but of files that have no checksums of them.
        progress: how the bytes that were read are shown.

    Raises:
        CacheError: it cannot be opened, or not be repaired, or its table of labels is damaged.
    """
    started = time.monotonic()
    cache = FeatureCache(path, allow_unfinished=True)
    damaged: list[str] = []
    for file in cache.files:
        rows = damaged_rows(file, progress, reads=reads)
        damaged += decoded(file.columns["key"][rows])
        if repair and rows:
            mark_for_extraction(file, rows)
    labels_that_count(cache)  # a cache without its labels is not sound
    return Verified(
        path=path,
        n_utterances=sum(int(file.done.sum()) for file in cache.files),
        damaged=tuple(damaged),
        unfinished="" if cache.is_finished else f"unfinished: {how_much_is_done(cache)}",
        gigabytes=sum(_nbytes_done(file, file.sums(reads)) for file in cache.files) / 1e9,
        seconds=time.monotonic() - started,
        means_alone=not any(CHECKSUM in file.sums(reads) for file in cache.files),
    )


def damaged_rows(
    file: CacheFile, progress: Progress = automatic, *, reads: Reads = "frames"
) -> list[int]:
    """The utterances of a file, by row, whose bytes, or means, are not what was written."""
    sums = file.sums(reads)
    blocks = list(blocks_of(file, sums))

    def damaged_of(block: tuple[int, int]) -> list[int]:
        return damaged_in(file, *block, sums)

    with (
        ThreadPoolExecutor(READERS) as pool,
        progress(
            total=_nbytes_done(file, sums),
            unit="B",
            unit_scale=True,
            desc=file.path.name,
        ) as bar,
    ):
        damaged: list[int] = []
        for (start, stop), rows in zip(blocks, pool.map(damaged_of, blocks), strict=True):
            damaged += rows
            bar.update(_nbytes(file, start, stop, sums))
    return damaged


def damaged_in(
    file: CacheFile, start: int, stop: int, sums: Sequence[str], then: Any = None
) -> list[int]:
    """Those of some consecutive utterances, as `mismatches`; also where the disk gives nothing."""
    try:
        return file.mismatches(start, stop, sums, then)
    except OSError:
        if stop - start == 1:
            return [start]
        return [r for one in range(start, stop) for r in damaged_in(file, one, one + 1, sums, then)]


def blocks_of(file: CacheFile, sums: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Consecutive utterances that are there, to be read at once: first row, one after the last."""
    pooled, layers = file.members["pooled/mean"], file.per_frame if CHECKSUM in sums else []
    row_nbytes = file.members[layers[0]].row_nbytes if layers else 0
    sizes = file.columns["frames"] * row_nbytes + pooled.row_nbytes
    start = nbytes = 0
    for row, (done, size) in enumerate(zip(file.done, sizes, strict=True)):
        if start < row and (not done or nbytes + size > BLOCK_BYTES):
            yield start, row
            start, nbytes = row, 0
        if done:
            nbytes += int(size)
        else:
            start = row + 1
    if start < len(sizes):
        yield start, len(sizes)


def _nbytes_done(file: CacheFile, sums: Sequence[str]) -> int:
    """Bytes that some columns of checksums cover, of all utterances that are there."""
    return sum(_nbytes(file, *block, sums) for block in blocks_of(file, sums))


def _nbytes(file: CacheFile, start: int, stop: int, sums: Sequence[str]) -> int:
    """Those of some consecutive utterances."""
    sizes = {name: file.members[name].row_nbytes for name in file.covered(sums)}
    layers = sum(sizes.pop(name, 0) for name in file.per_frame)
    n_frames = int(file.columns["frames"][start:stop].sum())
    return n_frames * layers + (stop - start) * sum(sizes.values())
