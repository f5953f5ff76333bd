"""One cache file: laid out once, complete, and opened with mistrust.

HDF5 lays the complete file out once and says where its datasets lie; after that a writer puts plain
bytes there and readers map them into memory. So no HDF5 metadata is ever in flight, and a killed
run loses the last seconds of its work, no more. docs/cache-format.md is the specification.
"""

import copy
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

import h5py
import numpy as np
import xxhash

from lsmprobe.cache.codecs import codec_of
from lsmprobe.cache.layout import (
    CHECKSUM,
    FORMAT,
    HEAD_BYTES,
    MEANS_CHECKSUM,
    PAGE,
    PLANNED,
    STATISTICS,
    TEXT,
    VERSIONS,
    Member,
    Reads,
    checksums_in,
    members,
    raw_bytes,
    version_of,
)
from lsmprobe.cache.plan import CachePlan, differences, plan_checksum
from lsmprobe.cache.selection import Selection, selection_of
from lsmprobe.errors import CacheError

CANNOT_LOCK = "unable to lock file"  # as HDF5 says it
KEEP_IT = (
    " Keep it, and run lsmprobe extract with --replace, which takes over what is undamaged where "
    "it can, and extracts the rest."
)
UNLOCKED = "Set the environment variable HDF5_USE_FILE_LOCKING=FALSE."

fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class CacheFile:
    """A file as it lies on the disk; its arrays are read-only views of it, mapped into memory.

    HDF5 is done with when the constructor returns, so instances may be pickled and used in forked
    processes. What is done is what was done when the file was opened.

    Raises:
        CacheError: no such file, not a cache, another version, truncated or damaged.
    """

    path: Path
    members: dict[str, Member]
    columns: dict[str, np.ndarray]  # PLANNED, as they are stored
    done: np.ndarray  # which utterances are there
    skipped: np.ndarray  # which are left out on purpose
    store: str
    dtype: str
    n_layers: int  # that are stored
    dim: int
    identity: dict
    selection: Selection  # which of the model's states these are
    per_frame: list[str]  # the members with a row per frame, layer by layer

    def __init__(self, path: Path) -> None:
        self.path = path
        attributes, self.members, self.size, self._inode = _locate(path)
        self.per_frame = [name for name in self.members if name.startswith("layers/")]
        self.store = "frames" if self.per_frame else "pooled"
        self.dtype, self.identity = attributes["dtype"], attributes["identity"]
        _, self.n_layers, self.dim = self.members["pooled/mean"].shape
        self.selection = selection_of(self.identity, self.n_layers)
        self.done = self.array("utterances/done") == 1  # read before what it vouches for
        self.skipped = (self.array("utterances/skipped") == 1) & ~self.done
        self.columns = {name: self.array(f"utterances/{name}").copy() for name in PLANNED}
        frames, ends = self.columns["frames"], np.cumsum(self.columns["frames"])
        if (
            plan_checksum(self.identity, self.columns) != attributes["plan_checksum"]
            or (ends < self.columns["offset"]).any()  # negative, or so many that they wrap around
            or len(np.unique(self.columns["key"])) < len(frames)
            or (self.columns["offset"] != ends - frames).any()
            or any(self.members[name].shape[0] != ends[-1] for name in self.per_frame)
        ):
            raise damaged(path, "its table of utterances does not add up")

    def array(self, name: str) -> np.ndarray:
        """A dataset by its name; rows of utterances that are not done hold anything."""
        member = self.members[name]
        raw = self._bytes[member.offset : member.offset + member.nbytes]
        return raw.view(member.dtype).reshape(member.shape)

    def sums(self, reads: Reads = "frames") -> list[str]:
        """The columns of checksums to compare before means alone, or anything, is read."""
        there = checksums_in(self.members)
        return there[-1:] if reads == "means" else there

    def covered(self, sums: Sequence[str]) -> list[str]:
        """The members that some columns of checksums cover, in their order."""
        layers = self.per_frame if CHECKSUM in sums else []
        pooled = [name for name in STATISTICS if name in self.members]
        return [*layers, *pooled, "utterances/sha256"]

    def mismatches(
        self,
        start: int,
        stop: int,
        sums: Sequence[str],
        then: Callable[[str, int, np.ndarray], None] | None = None,
    ) -> list[int]:
        """Of the utterances `start` to `stop` those whose bytes are not what was written.

        Read member by member, as they lie on the disk, and not mapped: what the disk cannot give
        or what was cut off in the meantime is an error and not the end of the process.

        Args:
            start: the first row in the table of utterances.
            stop: the one after the last.
            sums: the columns of checksums to compute; compared are those that the file has.
            then: is handed a member's name, an utterance's row, and its part of that member: all
                that is covered, then the checksums as computed, for a copy that has such columns.

        Raises:
            OSError: the disk cannot give them.
        """
        found = self._computed(start, stop, sums, then or (lambda *_: None))
        differ = np.zeros(stop - start, bool)
        for name in set(sums).intersection(self.members):
            differ |= found[name] != self.array(name)[start:stop]
        return (np.flatnonzero(differ) + start).tolist()

    def _computed(
        self,
        start: int,
        stop: int,
        sums: Sequence[str],
        then: Callable[[str, int, np.ndarray], None],
    ) -> dict[str, np.ndarray]:
        """Columns of checksums over what the file holds of some utterances, as `mismatches`."""
        offset, frames = (self.columns[name].tolist() for name in ("offset", "frames"))
        rows_of = range(start, stop)
        states = {name: [xxhash.xxh3_64() for _ in rows_of] for name in sums}
        with self.opened("rb") as file:
            for name in self.covered(sums):
                dtype, shape, place = member = self.members[name]
                per_frame = name in self.per_frame
                first = offset[start] if per_frame else start
                end = offset[stop - 1] + frames[stop - 1] if per_frame else stop
                nbytes = (end - first) * member.row_nbytes
                raw = pread(file.fileno(), nbytes, place + first * member.row_nbytes)
                if len(raw) < nbytes:
                    raise OSError(errno.EIO, "the file ends too early")
                rows = np.frombuffer(raw, dtype).reshape(-1, *shape[1:])
                covering = [states[each] for each in sums if name in self.covered([each])]
                for row, *of_row in zip(rows_of, *covering, strict=True):
                    here = offset[row] - first if per_frame else row - start
                    mine = rows[here : here + (frames[row] if per_frame else 1)]
                    for state in of_row:
                        state.update(raw_bytes(mine))
                    then(name, row, mine)
        found = {n: np.array([s.intdigest() for s in of], np.uint64) for n, of in states.items()}
        for name, values in found.items():
            for row in rows_of:
                then(name, row, values[row - start : row - start + 1])
        return found

    def read_from(self, path: Path) -> "CacheFile | None":
        """A file that HDF5 cannot open, as if it were laid out like this one; None if it is not.

        The same plan makes the same bytes, and an attribute at the same place tells the plan. A
        file from before there was a checksum of means is shorter by that, and alike in all else.
        """
        old = {name: member for name, member in self.members.items() if name != MEANS_CHECKSUM}
        least = max(member.offset + member.nbytes for member in old.values())
        digits = plan_checksum(self.identity, self.columns).encode()
        with self.opened("rb") as mine, path.open("rb") as other:
            place = mine.read(HEAD_BYTES).find(digits)
            found = other.read(HEAD_BYTES)[place : place + len(digits)]
            status = os.fstat(other.fileno())
        if place < 0 or found != digits or not least <= status.st_size <= self.size:
            return None
        twin = copy.copy(self)
        twin.path, twin.size, twin._inode = path, status.st_size, status.st_ino
        if twin.size < self.size:
            twin.members = old
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_bytes"}

    @contextmanager
    def opened(self, mode: Literal["rb", "r+b"]) -> Iterator[BinaryIO]:
        """The file once more, if it is still the same.

        Raises:
            CacheError: it is gone, another one, or of another size.
        """
        try:
            file = self.path.open(mode)
        except OSError as error:
            raise CacheError(f"{self.path} cannot be opened: {error.strerror}.") from error
        with file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode:
                raise CacheError(f"{self.path} was replaced in the meantime. Open it again.")
            if found.st_size != self.size:
                raise damaged(self.path, "its size has changed")
            yield file

    @cached_property
    def _bytes(self) -> np.ndarray:
        with self.opened("rb") as file:
            return np.asarray(np.memmap(file, np.uint8, "r"))  # a plain view slices faster


def lay_out(
    path: Path, plan: CachePlan, fill: Callable[[int, dict[str, Member]], None] | None = None
) -> None:
    """Create the complete file, space reserved and every flag 0, under its name or not at all.

    Args:
        path: where it is to lie; what lies there is replaced in one step.
        plan: what it looks like.
        fill: writes what is known already, given a descriptor and where everything lies.
    """
    remove_leftovers(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:  # so that HDF5 is not the one that meets a full disk
            _reserve(file.fileno(), plan.nbytes)
        _create(beside, plan)
        _, located, size, _ = _locate(beside)
        with beside.open("r+b") as file:
            _reserve(file.fileno(), size)
            known = {f"utterances/{name}": values for name, values in plan.columns.items()}
            for name, member in located.items():
                if name.startswith("utterances/"):  # 0 where it is written with each utterance
                    values = known.get(name, np.zeros(member.shape, member.dtype))
                    pwrite(file.fileno(), values, member.offset)
            if fill:
                fill(file.fileno(), located)
            os.fsync(file.fileno())
        if found := differences(CacheFile(beside), plan):
            raise damaged(beside, f"read back, {'; '.join(found)}")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what a kill while `path` was being written has left beside it.

    For its only writer: the file beside it may be another's that is at work.
    """
    for entry in path.parent.iterdir():
        if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
            entry.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make new names last; else a power cut may take them away again."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _create(path: Path, plan: CachePlan) -> None:
    """Let HDF5 write its metadata; the datasets get their place and no content."""
    attributes = {
        "format": FORMAT,
        "made_by": "lsmprobe",
        "dtype": plan.dtype,
        "identity": json.dumps(plan.identity, sort_keys=True),
        "plan_checksum": plan_checksum(plan.identity, plan.columns),
    }
    plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plain.set_layout(h5py.h5d.CONTIGUOUS)
    plain.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plain.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plain.set_obj_track_times(False)  # the same plan makes the same bytes
    # Everything starts on a page, so no page that is written later holds metadata.
    aligned = {"alignment_threshold": 1, "alignment_interval": PAGE}
    with h5py.File(path, "w", locking=False, **aligned) as file:
        version = version_of(plan.dtype, plan.identity, plan.members)
        file.attrs.create("version", version, dtype="<i8")
        for name, value in attributes.items():
            text = value.encode()
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))
        for name, member in plan.members.items():
            group, _, leaf = name.partition("/")
            text_type = h5py.string_dtype("utf-8", member.dtype.itemsize)
            kind = h5py.h5t.py_create(text_type if leaf in TEXT else member.dtype, logical=True)
            space = h5py.h5s.create_simple(member.shape)
            h5py.h5d.create(file.require_group(group).id, leaf.encode(), kind, space, dcpl=plain)


def _locate(path: Path) -> tuple[dict[str, Any], dict[str, Member], int, int]:
    """A cache's attributes, what lies where in it, its bytes and its inode; no data are read."""
    if not path.is_file():
        raise CacheError(
            f"There is no cache file {path}. Run lsmprobe extract first; lsmprobe demo makes a "
            "small one to look at."
        )
    try:
        with path.open("rb") as raw:
            signature, found = raw.read(8), os.fstat(raw.fileno())
        if signature != b"\x89HDF\r\n\x1a\n":
            raise CacheError(
                f"{path} is not an HDF5 file; expected a cache that lsmprobe extract made."
            )
        with h5py.File(path, "r", locking=False) as file:
            return *_checked(file, path, found.st_size), found.st_size, found.st_ino
    except CacheError:
        raise
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # of damaged metadata h5py raises whatever it stumbles over
        if CANNOT_LOCK in str(error):
            raise CacheError(
                f"{path} cannot be locked by HDF5, which reading does not need. {UNLOCKED}"
            ) from error
        raise damaged(path, " ".join(str(error).split())) from error


def _checked(file: h5py.File, path: Path, size: int) -> tuple[dict[str, Any], dict[str, Member]]:
    """Attributes and datasets, if they are a cache's and nothing leads out of the file."""
    if _text(file.attrs.get("format", "")) != FORMAT:
        raise CacheError(f"{path} is an HDF5 file, but not a cache that lsmprobe extract made.")
    if (version := int(file.attrs["version"])) not in VERSIONS:
        raise CacheError(
            f"{path} has cache format {version}; expected {VERSIONS[0]} to {VERSIONS[-1]}. "
            "Delete it and run lsmprobe extract."
        )
    attributes: dict[str, Any] = {
        "dtype": _text(file.attrs["dtype"]),
        "identity": dict(json.loads(_text(file.attrs["identity"]))),
        "plan_checksum": _text(file.attrs["plan_checksum"]),
    }
    for name in ("versions", "part"):
        if not isinstance(attributes["identity"].get(name, {}), dict):
            raise ValueError(f"{name} in its identity is not an object")
    try:
        codec_of(attributes["dtype"])
    except CacheError as error:
        raise CacheError(f"{path}: {error}") from error
    found = {}
    for group in _hard_links(file):
        for leaf in _hard_links(file[group]):
            dataset = file[group][leaf]
            made, offset = dataset.id.get_create_plist(), dataset.id.get_offset()
            is_plain = made.get_layout() == h5py.h5d.CONTIGUOUS and offset is not None
            member = Member(dataset.dtype, dataset.shape, offset or 0)
            if not is_plain or made.get_external_count() or member.offset + member.nbytes > size:
                raise ValueError(f"{group}/{leaf} does not lie plainly inside the file")
            found[f"{group}/{leaf}"] = member
    if version != (needed := version_of(attributes["dtype"], attributes["identity"], found)):
        raise ValueError(f"it says version {version}, and what it holds needs {needed}")
    ends = [(member.offset, member.offset + member.nbytes) for member in found.values()]
    if any(end > start for (_, end), (start, _) in pairwise(sorted(ends))):
        raise ValueError("its datasets overlap")
    if lacking := {"pooled/mean", *(f"utterances/{name}" for name in TEXT)} - found.keys():
        raise ValueError(f"{min(lacking)} is missing")
    n, n_layers, dim = found["pooled/mean"].shape
    layers = selection_of(attributes["identity"], n_layers).layers
    first = f"layers/{layers[0]:02d}"
    n_frames = found[first].shape[0] if first in found else 0
    widths = [found[f"utterances/{name}"].dtype.itemsize for name in TEXT]
    shape, dtype = (n, n_frames, layers, dim), attributes["dtype"]
    expected = members(*shape, dtype, widths, means_checksum=MEANS_CHECKSUM in found)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found or name not in expected or found[name][:2] != expected[name][:2]:
            raise ValueError(f"{name} is missing, not known, or of another type or shape")
    return attributes, found


def _hard_links(group: h5py.Group) -> list[str]:
    """The members of a group, if none of them leads elsewhere."""
    if not (isinstance(group, h5py.Group) and len(group)):
        raise ValueError(f"{group.name} is not a group of datasets")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
    return list(group)


def _text(value: Any) -> str:
    """A string attribute, of fixed or variable length."""
    return value.decode() if isinstance(value, bytes) else str(value)


def pwrite(descriptor: int, array: np.ndarray, offset: int) -> None:
    """Put an array's bytes at a place in a file, all of them."""
    data = raw_bytes(array)
    while data:  # a write may be cut short
        n_written = os.pwrite(descriptor, data, offset)
        data, offset = data[n_written:], offset + n_written


def pread(descriptor: int, nbytes: int, offset: int) -> bytes:
    """Bytes of a file from a place on; the descriptor is this thread's alone."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, nbytes, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows
    return os.read(descriptor, nbytes)


def _reserve(descriptor: int, nbytes: int) -> None:
    """Make a file that long, with disk space behind every byte where the system can promise it."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    disk = os.fstatvfs(descriptor)
    if nbytes > disk.f_bavail * disk.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, nbytes)


@contextmanager
def disk_errors(path: Path, nbytes: int) -> Iterator[None]:
    """What the disk refuses to a file of `nbytes`, as one line."""
    try:
        yield
    except OSError as error:
        found, remedy = f"cannot be written: {error.strerror or error}", "Use another --cache-dir."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(next(p for p in path.parents if p.exists())).free
            needs = f"needs {nbytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
            found = f"{needs} ({error.strerror})"
            remedy = "Make room, use another --cache-dir, or --store pooled."
        elif CANNOT_LOCK in str(error):
            found, remedy = "cannot be locked by HDF5, which lsmprobe does not need", UNLOCKED
        raise CacheError(f"{path} {found}. {remedy}") from error


def damaged(path: Path, how: str) -> CacheError:
    """The error of a file that cannot be used at all."""
    return CacheError(f"{path} is damaged or no cache: {how}.{KEEP_IT}")
