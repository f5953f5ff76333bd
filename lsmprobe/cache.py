"""The cache, one HDF5 file with the hidden states of a corpus: its format, one writer, one reader.

HDF5 lays the complete file out once and says where its datasets lie; after that the writer puts
plain bytes there and readers map them into memory. So no HDF5 metadata is ever in flight, and a
killed run loses the last seconds of its work, no more. docs/cache-format.md is the specification.
"""

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import pandas as pd
import torch
import xxhash
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from lsmprobe.errors import CacheError

FORMAT = "lsmprobe-cache"
VERSION = 1

# UTF-8, as wide as the longest
TEXT = ("key", "path", "emotion", "speaker", "gender", "sentence", "split")
NUMBERS = {"start_s": "<f8", "end_s": "<f8", "seconds": "<f8", "samples": "<i8", "frames": "<i8"}
PLANNED = (*TEXT, *NUMBERS, "offset")  # columns that never change
WRITTEN = {"sha256": "S64", "checksum": "<u8", "done": "u1", "skipped": "u1"}  # with each utterance
STORED = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4"}  # NumPy has no bfloat16: its bits
LARGEST = {"float16": 65504.0, "bfloat16": 1e15, "float32": 1e15}  # squares must fit in float32

PAGE = 4096  # bytes
ACKNOWLEDGE_S = 2.0

fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class Member(NamedTuple):
    """A dataset: what it holds, and its first byte in the file once that is laid out."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Exact however large the shape, which NumPy's product is not."""
        return self.dtype.itemsize * math.prod(self.shape)


def members(
    n: int, n_frames: int, n_layers: int, dim: int, dtype: str, widths: Iterable[int]
) -> dict[str, Member]:
    """Every dataset of a cache of `n` utterances; no frames: pooled only; `widths` are of TEXT."""
    text = {name: f"S{width}" for name, width in zip(TEXT, widths, strict=True)}
    columns = text | NUMBERS | {"offset": "<i8"} | WRITTEN
    statistics = Member(np.dtype("<f4"), (n, n_layers, dim))
    layer = Member(np.dtype(STORED[dtype]), (n_frames, dim))
    return (
        {f"utterances/{name}": Member(np.dtype(kind), (n,)) for name, kind in columns.items()}
        | {"pooled/mean": statistics, "pooled/std": statistics}
        | {f"layers/{number:02d}": layer for number in range(n_layers if n_frames else 0)}
    )


@dataclass(frozen=True, eq=False)
class CachePlan:
    """Everything that decides what a cache file looks like, known before the first forward pass."""

    utterances: pd.DataFrame
    """The table of docs/design.md with samples, seconds and frames (0: the clip is unreadable)."""
    n_layers: int
    """Layer 0 counts."""
    dim: int
    store: Literal["frames", "pooled"]
    dtype: Literal["float16", "bfloat16", "float32"]
    """How frames are stored; the pooled statistics are always float32."""
    identity: dict
    """Model, preprocessing, layer convention, versions: what JSON can hold."""

    def __post_init__(self) -> None:
        assert self.n_layers > 0
        assert self.dim > 0
        assert len(json.dumps(self.identity)) < 60_000  # an HDF5 attribute ends at 64 KiB
        assert self.utterances["key"].is_unique
        if not self.utterances["frames"].any():
            raise CacheError(
                f"Not one of {len(self.utterances)} utterances has a frame to store; expected "
                "readable clips. Check --data-dir."
            )

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns that are known in advance, as they are stored."""
        text = {name: _encoded(self.utterances[name]) for name in TEXT}
        numbers = {name: self.utterances[name].to_numpy(kind) for name, kind in NUMBERS.items()}
        offset = np.cumsum(numbers["frames"]) - numbers["frames"]
        return text | numbers | {"offset": offset}

    @cached_property
    def members(self) -> dict[str, Member]:
        """Every dataset of the file."""
        n_frames = int(self.columns["frames"].sum()) if self.store == "frames" else 0
        widths = [self.columns[name].itemsize for name in TEXT]
        shape = len(self.utterances), n_frames, self.n_layers, self.dim
        return members(*shape, self.dtype, widths)

    @property
    def frames_nbytes(self) -> int:
        """Bytes of all frames of all layers, which a pooled cache goes without."""
        row = self.n_layers * self.dim * np.dtype(STORED[self.dtype]).itemsize
        return int(self.columns["frames"].sum()) * row

    @property
    def pooled_nbytes(self) -> int:
        """Bytes of the means and standard deviations."""
        return 2 * self.members["pooled/mean"].nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of the file, at most."""
        # Each dataset and each of its pieces of HDF5 metadata starts on a page.
        return sum(member.nbytes + 4 * PAGE for member in self.members.values()) + 32 * PAGE


class CacheWriter:
    """Writes the utterances of a plan into its file, in any order, each once.

    What is written counts once it is acknowledged: data, fdatasync, its `done` flags, fdatasync.
    That happens every couple of seconds, at `flush`, and when the `with` block ends.
    """

    done: np.ndarray  # which utterances are written, now or by an earlier run
    skipped: np.ndarray  # which are left out on purpose

    def __init__(
        self, path: Path, plan: CachePlan, descriptor: int, stored: "FeatureCache"
    ) -> None:
        self.path, self.plan = path, plan
        self.done = stored._column("done") == 1
        self.skipped = (stored._column("skipped") == 1) & ~self.done
        self._descriptor = descriptor
        self._members = stored._members
        self._unacknowledged: list[tuple[str, int]] = []
        self._acknowledged_at = time.monotonic()

    @classmethod
    def open(cls, path: str | Path, plan: CachePlan) -> "CacheWriter":
        """Lay the file out, or continue the one that is there.

        Raises:
            CacheError: the disk is too small, the folder read-only, another process at work, or the
                file that is there was planned differently.
        """
        path = Path(path)
        with _disk_errors(path, plan):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _lay_out(path, plan)
            descriptor = os.open(path, os.O_RDWR)
        try:
            _lock(descriptor, path)
            stored = FeatureCache(path, allow_unfinished=True)
            if differences := _differences(stored, plan):
                raise CacheError(
                    f"{path} was planned differently: {'; '.join(differences)}. "
                    "Use another --cache-dir, or delete the file."
                )
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, plan, descriptor, stored)

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def remaining(self) -> list[int]:
        """The utterances that are neither written nor skipped, in the plan's order."""
        return np.flatnonzero(~(self.done | self.skipped)).tolist()

    def write(self, index: int, hidden: Float[Tensor, "layers frames dim"], sha256: str) -> None:
        """Store one utterance's hidden states, and their mean and deviation before any rounding.

        Args:
            index: its row in the plan.
            hidden: on any device, in any floating type.
            sha256: of its audio, in hexadecimal.

        Raises:
            CacheError: NaN, infinity, a value that the stored type cannot hold, or a disk error.
        """
        plan, hidden = self.plan, hidden.detach()
        start, length = (int(plan.columns[name][index]) for name in ("offset", "frames"))
        assert length > 0
        assert hidden.shape == (plan.n_layers, length, plan.dim)
        assert len(sha256) == 64
        assert not self.done[index]
        _check_range(hidden, plan.utterances["key"].iloc[index], plan)

        mean = hidden.float().mean(1)  # two passes: torch.std_mean takes twice as long
        std = (hidden.float() - mean[:, None]).square_().mean(1).sqrt_()
        pooled = [mean.cpu().numpy(), std.cpu().numpy()]
        layers = list(_rounded(hidden, plan.dtype)) if plan.store == "frames" else []
        digest = np.array([sha256.encode()])
        checksum = np.array([_checksum([*layers, *pooled, digest])], np.uint64)
        with _disk_errors(self.path, plan):
            for number, frames in enumerate(layers):
                self._put(f"layers/{number:02d}", start, frames)
            for name, statistics in zip(("mean", "std"), pooled, strict=True):
                self._put(f"pooled/{name}", index, statistics)
            self._put("utterances/sha256", index, digest)
            self._put("utterances/checksum", index, checksum)
        self.done[index], self.skipped[index] = True, False
        self._acknowledge_soon("done", index)

    def skip(self, index: int) -> None:
        """Leave an utterance out on purpose: it stands as not done, yet a file can be finished."""
        assert not self.done[index]
        self.skipped[index] = True
        self._acknowledge_soon("skipped", index)

    def flush(self) -> None:
        """Make everything written so far durable, then say so in the file."""
        # Emptied first: after a failed fdatasync nobody knows what reached the disk.
        flags, self._unacknowledged = self._unacknowledged, []
        if flags:
            with _disk_errors(self.path, self.plan):
                fdatasync(self._descriptor)
                for name, index in flags:
                    self._put(f"utterances/{name}", index, np.ones(1, np.uint8))
                fdatasync(self._descriptor)
            if os.fstat(self._descriptor).st_nlink == 0:
                raise CacheError(f"{self.path} was deleted or replaced meanwhile. Run it again.")
        self._acknowledged_at = time.monotonic()

    def close(self) -> None:
        """Flush, and let go of the file."""
        try:
            self.flush()
        finally:
            os.close(self._descriptor)

    def _acknowledge_soon(self, flag: str, index: int) -> None:
        self._unacknowledged.append((flag, index))
        if time.monotonic() - self._acknowledged_at > ACKNOWLEDGE_S:
            self.flush()

    def _put(self, name: str, row: int, values: np.ndarray) -> None:
        dtype, shape, offset = self._members[name]
        _pwrite(self._descriptor, values, offset + row * dtype.itemsize * math.prod(shape[1:]))


class FeatureCache:
    """Reads a cache: its table, the frames of every layer, the pooled means.

    Arrays are read-only views of the file mapped into memory: what is not touched is not read. HDF5
    is done with when the constructor returns, so instances may be pickled and used in forked
    processes. While a writer is at work, an instance shows what was done when it was opened.

    Raises:
        CacheError: no such file, not a cache, another version, truncated, damaged, or unfinished.
    """

    utterances: pd.DataFrame  # those that are there, in the file's order: as planned, and sha256
    missing: pd.DataFrame  # the others; `skipped`: on purpose
    is_finished: bool  # every utterance is there or skipped
    layers: range  # 0 is what enters the first block
    dim: int
    store: str  # frames or pooled
    dtype: str  # float16, bfloat16 or float32
    identity: dict  # model, preprocessing, layer convention, versions
    offsets: Int[np.ndarray, " utterances"]  # first row of each utterance in `layer(...)`
    lengths: Int[np.ndarray, " utterances"]  # frames of each utterance

    def __init__(self, path: str | Path, *, allow_unfinished: bool = False) -> None:
        self.path = Path(path)
        attributes, self._members, self._size = _locate(self.path)
        self.store = "frames" if "layers/00" in self._members else "pooled"
        self.dtype, self.identity = attributes["dtype"], attributes["identity"]
        n, self.n_layers, self.dim = self._members["pooled/mean"].shape
        self.layers = range(self.n_layers)

        done = self._column("done") == 1  # read before what it vouches for
        columns = {name: self._column(name) for name in PLANNED}
        frames, ends = columns["frames"], np.cumsum(columns["frames"])
        if (
            _plan_checksum(self.identity, columns) != attributes["plan_checksum"]
            or (frames < 0).any()
            or (columns["offset"] != ends - frames).any()
            or (self.store == "frames" and self._members["layers/00"].shape[0] != ends[-1])
        ):
            raise _damaged(self.path, "its table of utterances does not add up")
        table = pd.DataFrame({name: _series(columns[name]) for name in (*TEXT, *NUMBERS)})
        self.utterances = table[done].reset_index(drop=True)
        self.utterances["sha256"] = _series(self._column("sha256")[done])
        self.missing = table[~done].reset_index(drop=True)
        self.missing["skipped"] = self._column("skipped")[~done] == 1
        self.is_finished = bool(self.missing["skipped"].all())
        if not (self.is_finished or allow_unfinished):
            raise CacheError(
                f"{self.path} is unfinished: {(~self.missing['skipped']).sum()} of {n} utterances "
                "are still to come. Run extract.py again, it continues there."
            )
        self._rows = np.flatnonzero(done)
        self.offsets, self.lengths = columns["offset"][done], frames[done]

    def frames(self, i: int, layer: int) -> Float[np.ndarray, "frames dim"]:
        """Hidden states of utterance `i` (a row of `utterances`) at one layer, as they are stored.

        A read-only view of the file; of a bfloat16 cache a float32 copy, which is exact.

        Raises:
            CacheError: there is no such layer, or only the pooled means were stored.
        """
        rows = self.layer(layer)[self.offsets[i] : self.offsets[i] + self.lengths[i]]
        return _bfloat16_to_float32(rows) if self.dtype == "bfloat16" else rows

    def layer(self, layer: int) -> Shaped[np.ndarray, "frames dim"]:
        """One layer of all utterances; those of `i` are the `lengths[i]` rows from `offsets[i]` on.

        A read-only view of the file; bfloat16 comes as its bits, uint16. In an unfinished cache it
        has rows of no utterance, which hold anything.
        """
        if self.store != "frames":
            raise CacheError(
                f"{self.path} holds pooled means only; expected frames. Run extract.py with "
                "--store frames and another --cache-dir."
            )
        if layer not in self.layers:
            raise CacheError(f"{self.path} has layers 0 to {self.layers[-1]}; got layer {layer}.")
        return self._array(f"layers/{layer:02d}")

    @cached_property
    def pooled(self) -> Float[np.ndarray, "utterances layers dim"]:
        """The mean over each utterance's frames; a view of the file if every utterance is there."""
        return self._done_rows("pooled/mean")

    @cached_property
    def pooled_std(self) -> Float[np.ndarray, "utterances layers dim"]:
        """The population standard deviation over each utterance's frames."""
        return self._done_rows("pooled/std")

    @property
    def identity_hash(self) -> str:
        """SHA-256 over what the features are: identity, stored type, keys and audio of all rows."""
        rows = self.utterances[["key", "sha256"]].to_numpy().tolist()
        what = [_decisive(self.identity), self.dtype, rows]
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def verify(self, i: int) -> bool:
        """Whether the stored bytes of utterance `i` are still those that were written."""
        rows, row = slice(self.offsets[i], self.offsets[i] + self.lengths[i]), self._rows[i]
        layers = self.layers if self.store == "frames" else ()
        parts = [self.layer(layer)[rows] for layer in layers]
        parts += [self._array(name)[row] for name in ("pooled/mean", "pooled/std")]
        parts += [self._array("utterances/sha256")[row : row + 1]]
        return _checksum(parts) == int(self._array("utterances/checksum")[row])

    def __getstate__(self) -> dict[str, Any]:
        mapped = ("_bytes", "pooled", "pooled_std")  # mapped anew where it is unpickled
        return {name: value for name, value in vars(self).items() if name not in mapped}

    @cached_property
    def _bytes(self) -> np.ndarray:
        if self.path.stat().st_size != self._size:
            raise _damaged(self.path, "its size has changed")
        return np.asarray(np.memmap(self.path, np.uint8, "r"))  # a plain view slices faster

    def _array(self, name: str) -> np.ndarray:
        member = self._members[name]
        raw = self._bytes[member.offset : member.offset + member.nbytes]
        return raw.view(member.dtype).reshape(member.shape)

    def _column(self, name: str) -> np.ndarray:
        return self._array(f"utterances/{name}").copy()

    def _done_rows(self, name: str) -> np.ndarray:
        array = self._array(name)
        return array if len(self._rows) == len(array) else array[self._rows]


def _lay_out(path: Path, plan: CachePlan) -> None:
    """Create the complete file, space reserved and every flag 0, under its name or not at all."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a kill in here
        left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:  # so that HDF5 is not the one that meets a full disk
            _reserve(file.fileno(), plan.nbytes)
        _create(beside, plan)
        _, located, size = _locate(beside)
        with beside.open("r+b") as file:
            _reserve(file.fileno(), size)
            zeros = {name: np.zeros(len(plan.utterances), kind) for name, kind in WRITTEN.items()}
            for name, values in (plan.columns | zeros).items():
                _pwrite(file.fileno(), values, located[f"utterances/{name}"].offset)
            os.fsync(file.fileno())
        if differences := _differences(FeatureCache(beside, allow_unfinished=True), plan):
            raise _damaged(beside, f"read back, {'; '.join(differences)}")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # else a power cut may take the name away again
    os.close(folder)


def _create(path: Path, plan: CachePlan) -> None:
    """Let HDF5 write its metadata; the datasets get their place and no content."""
    attributes = {
        "format": FORMAT,
        "made_by": "lsmprobe",
        "dtype": plan.dtype,
        "identity": json.dumps(plan.identity, sort_keys=True),
        "plan_checksum": _plan_checksum(plan.identity, plan.columns),
    }
    plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plain.set_layout(h5py.h5d.CONTIGUOUS)
    plain.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plain.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plain.set_obj_track_times(False)  # the same plan makes the same bytes
    # Everything starts on a page, so no page that is written later holds metadata.
    aligned = {"alignment_threshold": 1, "alignment_interval": PAGE}
    with h5py.File(path, "w", locking=False, **aligned) as file:
        file.attrs.create("version", VERSION, dtype="<i8")
        for name, value in attributes.items():
            text = value.encode()
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))
        for name, member in plan.members.items():
            group, _, leaf = name.partition("/")
            text_type = h5py.string_dtype("utf-8", member.dtype.itemsize)
            kind = h5py.h5t.py_create(text_type if leaf in TEXT else member.dtype, logical=True)
            space = h5py.h5s.create_simple(member.shape)
            h5py.h5d.create(file.require_group(group).id, leaf.encode(), kind, space, dcpl=plain)


def _locate(path: Path) -> tuple[dict[str, Any], dict[str, Member], int]:
    """A cache's attributes, what lies where in it, and its size in bytes; no data are read."""
    if not path.is_file():
        raise CacheError(f"There is no cache file {path}. Run extract.py first.")
    try:
        with path.open("rb") as raw:
            signature, size = raw.read(8), os.fstat(raw.fileno()).st_size
        if signature != b"\x89HDF\r\n\x1a\n":
            raise CacheError(f"{path} is not an HDF5 file; expected a cache that extract.py made.")
        with h5py.File(path, "r", locking=False) as file:
            return *_checked(file, path, size), size
    except CacheError:
        raise
    except PermissionError as error:
        raise CacheError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # of damaged metadata h5py raises whatever it stumbles over
        raise _damaged(path, " ".join(str(error).split())) from error


def _checked(file: h5py.File, path: Path, size: int) -> tuple[dict[str, Any], dict[str, Member]]:
    """Attributes and datasets, if they are a cache's and nothing leads out of the file."""
    if _text(file.attrs.get("format", "")) != FORMAT:
        raise CacheError(f"{path} is an HDF5 file, but not a cache that extract.py made.")
    if (version := int(file.attrs["version"])) != VERSION:
        raise CacheError(
            f"{path} has cache format {version}; expected {VERSION}. Delete it, run extract.py."
        )
    attributes: dict[str, Any] = {
        "dtype": _text(file.attrs["dtype"]),
        "identity": dict(json.loads(_text(file.attrs["identity"]))),
        "plan_checksum": _text(file.attrs["plan_checksum"]),
    }
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
    ends = [(member.offset, member.offset + member.nbytes) for member in found.values()]
    if any(end > start for (_, end), (start, _) in pairwise(sorted(ends))):
        raise ValueError("its datasets overlap")
    if lacking := {"pooled/mean", *(f"utterances/{name}" for name in TEXT)} - found.keys():
        raise ValueError(f"{min(lacking)} is missing")
    n, n_layers, dim = found["pooled/mean"].shape
    n_frames = found["layers/00"].shape[0] if "layers/00" in found else 0
    widths = [found[f"utterances/{name}"].dtype.itemsize for name in TEXT]
    expected = members(n, n_frames, n_layers, dim, attributes["dtype"], widths)
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


def _differences(stored: "FeatureCache", plan: CachePlan) -> list[str]:
    """What a file and a plan disagree about; where the audio lies does not matter."""
    old, new = _settings(stored), _settings(plan)
    found = [
        f"{name} was {old.get(name)!r}, is now {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    had, has = _rows({name: stored._column(name) for name in PLANNED}), _rows(plan.columns)
    differing = {
        "new": has.keys() - had.keys(),
        "gone": had.keys() - has.keys(),
        "changed": [key for key, row in had.items() if has.get(key, row) != row],
        "in another place": [a for a, b in zip(had, has, strict=False) if a != b]
        if had.keys() == has.keys()
        else [],
    }
    changes = [
        f"{len(keys)} {how} ({os.fsdecode(min(keys))!r} first)"
        for how, keys in differing.items()
        if keys
    ]
    return found + ([f"utterances: {', '.join(changes)}"] if changes else [])


def _settings(cache: "CachePlan | FeatureCache") -> dict[str, Any]:
    """What is the same for all utterances, by dotted names."""
    identity = json.loads(json.dumps(_decisive(cache.identity)))
    names = ("store", "dtype", "n_layers", "dim")
    return _flat(identity) | {name: getattr(cache, name) for name in names}


def _decisive(identity: dict) -> dict:
    """The identity less the versions of libraries, which are told and not compared.

    An upgrade must not turn away a finished cache; another model or preprocessing must.
    """
    return {name: value for name, value in identity.items() if name != "versions"}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one: `{"model.revision": ...}`."""
    if not isinstance(value, dict):
        return {name: value}
    inner = [_flat(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()]
    return {key: item for items in inner for key, item in items.items()}


def _rows(columns: Mapping[str, np.ndarray]) -> dict[bytes, tuple]:
    """What was planned for each key."""
    compared = [
        values.view("<i8") if values.dtype == "<f8" else values  # by its bits: NaN equals NaN
        for name, values in columns.items()
        if name not in ("path", "offset")
    ]
    rows = zip(*(values.tolist() for values in compared), strict=True)
    return dict(zip(columns["key"].tolist(), rows, strict=True))


def _check_range(hidden: Float[Tensor, "layers frames dim"], key: str, plan: CachePlan) -> None:
    """Refuse NaN, infinity, and what the stored type cannot hold."""
    dtype = plan.dtype if plan.store == "frames" else "float32"
    peaks = hidden.abs().flatten(1).amax(1).cpu().double()  # NaN stays NaN
    fits = peaks <= LARGEST[dtype]
    if fits.all():
        return
    layer = int(fits.int().argmin())
    found = f"{key}: layer {layer} reaches {float(peaks[layer]):.6g}"
    if peaks[layer] <= LARGEST["float32"]:
        raise CacheError(
            f"{found}; {dtype} holds up to {LARGEST[dtype]:.6g}. "
            "Use --store-dtype bfloat16 or float32."
        )
    raise CacheError(
        f"{found}; expected finite hidden states. Listen to the clip, or use --precision float32."
    )


def _rounded(hidden: Float[Tensor, "layers frames dim"], dtype: str) -> np.ndarray:
    """The states as they are stored."""
    rounded = hidden.to(getattr(torch, dtype)).cpu().contiguous()
    bits = rounded.view(torch.int16) if dtype == "bfloat16" else rounded
    return bits.numpy().view(STORED[dtype])


def _bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Exactly: bfloat16 is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _raw(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _checksum(arrays: Iterable[np.ndarray]) -> int:
    """xxh3_64 of their bytes, one after another."""
    state = xxhash.xxh3_64()
    for array in arrays:
        state.update(_raw(array))
    return state.intdigest()


def _plan_checksum(identity: dict, columns: Mapping[str, np.ndarray]) -> str:
    text = np.frombuffer(json.dumps(identity, sort_keys=True).encode(), np.uint8)
    return f"{_checksum([text, *(columns[name] for name in PLANNED)]):016x}"


def _encoded(values: Iterable[str]) -> np.ndarray:
    """Text as fixed-width UTF-8; what could not be decoded in a path becomes its bytes again."""
    encoded = [value.encode("utf-8", "surrogateescape") for value in values]
    assert not any(b"\0" in value for value in encoded)  # which is the padding
    return np.array(encoded, f"S{max(1, *map(len, encoded))}")


def _series(values: np.ndarray) -> Any:
    """A column of a table; text as objects, since Arrow's strings refuse surrogates."""
    if values.dtype.kind != "S":
        return values
    text = [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
    return pd.Series(text, dtype=object)


def _text(value: Any) -> str:
    """A string attribute, of fixed or variable length."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _pwrite(descriptor: int, array: np.ndarray, offset: int) -> None:
    data = _raw(array)
    while data:  # a write may be cut short
        n_written = os.pwrite(descriptor, data, offset)
        data, offset = data[n_written:], offset + n_written


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


def _lock(descriptor: int, path: Path) -> None:
    """Turn a second writer away; a courtesy only, as some network filesystems have no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CacheError(
            f"{path} is being written by another process. Wait for it, or use another --cache-dir."
        ) from error
    except OSError:
        pass


@contextmanager
def _disk_errors(path: Path, plan: CachePlan) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except OSError as error:
        found, remedy = f"cannot be written: {error.strerror or error}", "Use another --cache-dir."
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(next(p for p in path.parents if p.exists())).free
            needs = f"needs {plan.nbytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
            found = f"{needs} ({error.strerror})"
            remedy = "Make room, use another --cache-dir, or --store pooled."
        raise CacheError(f"{path} {found}. {remedy}") from error


def _damaged(path: Path, how: str) -> CacheError:
    return CacheError(f"{path} is damaged or no cache: {how}. Delete it, run extract.py.")
