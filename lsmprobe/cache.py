"""The cache of a corpus' hidden states: one writer of a file, one reader of all its files.

cache_format.py knows what a file looks like, cache_parts.py which files make up a cache.
"""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from lsmprobe.cache_format import (
    PLANNED,
    STORED,
    CacheFile,
    checksum,
    decisive,
    differences,
    disk_errors,
    lay_out,
    pwrite,
    sync_folder,
    table_of,
)
from lsmprobe.cache_format import CachePlan as CachePlan
from lsmprobe.cache_parts import cache_files, check_parts, open_files, part_of, remove_file
from lsmprobe.cache_parts import cache_paths as cache_paths
from lsmprobe.errors import CacheError

LARGEST = {"float16": 65504.0, "bfloat16": 1e15, "float32": 1e15}  # squares must fit in float32
ACKNOWLEDGE_S = 2.0

fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class CacheWriter:
    """Writes the utterances of a plan into its file, in any order, each once.

    What is written counts once it is acknowledged: data, fdatasync, its `done` flags, fdatasync.
    That happens every couple of seconds, at `flush`, and when the `with` block ends.
    """

    done: np.ndarray  # which utterances are written, now or by an earlier run
    skipped: np.ndarray  # which are left out on purpose

    def __init__(
        self, stored: CacheFile, plan: CachePlan, descriptor: int, held: ExitStack
    ) -> None:
        self.path, self.plan = stored.path, plan
        self.done, self.skipped = stored.done, stored.skipped
        self._members = stored.members
        self._descriptor, self._held = descriptor, held
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
        with ExitStack() as held:
            with disk_errors(path, plan.nbytes):
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(sole_writer(path))
                if not path.exists():
                    lay_out(path, plan)
                descriptor = os.open(path, os.O_RDWR)
            held.callback(os.close, descriptor)
            stored = CacheFile(path)
            if found := differences(stored, plan):
                raise CacheError(
                    f"{path} was planned differently: {'; '.join(found)}. Use another --cache-dir, "
                    "or delete the file."
                )
            return cls(stored, plan, descriptor, held.pop_all())

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def remaining(self) -> list[int]:
        """The utterances that are neither written nor skipped, in the plan's order."""
        return np.flatnonzero(~(self.done | self.skipped)).tolist()

    def write(
        self,
        index: int,
        hidden: "Float[Tensor, 'layers frames dim'] | Outgoing",
        sha256: str,
    ) -> None:
        """Store one utterance's hidden states, and their mean and deviation before any rounding.

        Args:
            index: its row in the plan.
            hidden: on any device, in any floating type; or what `outgoing` made of them.
            sha256: of its audio, in hexadecimal.

        Raises:
            CacheError: NaN, infinity, a value that the stored type cannot hold, or a disk error.
        """
        plan = self.plan
        if isinstance(hidden, Tensor):
            hidden = outgoing(hidden, plan)
        start, length = (int(plan.columns[name][index]) for name in ("offset", "frames"))
        assert length > 0
        assert hidden.shape == (plan.n_layers, length, plan.dim)
        assert len(sha256) == 64
        assert not self.done[index]
        hidden.arrive()
        _check_range(hidden.peaks, plan.utterances["key"].iloc[index], plan)

        pooled = [hidden.mean.numpy(), hidden.std.numpy()]
        layers = [] if hidden.rounded is None else list(_bits(hidden.rounded, plan.dtype))
        digest = np.array([sha256.encode()])
        with disk_errors(self.path, plan.nbytes):
            for number, frames in enumerate(layers):
                self._put(f"layers/{number:02d}", start, frames)
            for name, statistics in zip(("mean", "std"), pooled, strict=True):
                self._put(f"pooled/{name}", index, statistics)
            self._put("utterances/sha256", index, digest)
            stored = checksum([*layers, *pooled, digest])
            self._put("utterances/checksum", index, np.array([stored], np.uint64))
        self.done[index], self.skipped[index] = True, False
        self._acknowledge_soon("done", index)

    def skip(self, index: int) -> None:
        """Leave an utterance out on purpose: it stands as not done, yet a file can be finished."""
        assert not self.done[index]
        self.skipped[index] = True
        self._acknowledge_soon("skipped", index)

    def take_over(self, path: Path) -> int:
        """Copy what a damaged file of the very same plan holds undamaged; how many utterances."""
        twin = CacheFile(self.path).read_from(path)
        if twin is None:
            return 0
        stored, n_taken = twin.array("utterances/checksum"), 0
        parts: list[tuple[str, int, np.ndarray]] = []
        for index in self.remaining:
            parts.clear()
            try:
                found = twin.checksums(index, index + 1, lambda *part: parts.append(part))
            except OSError:  # the disk does not give it
                continue
            if found != [int(stored[index])]:
                continue
            with disk_errors(self.path, self.plan.nbytes):
                for name, row, values in parts:
                    at = twin.columns["offset"][row] if name.startswith("layers/") else row
                    self._put(name, int(at), values)
                self._put("utterances/checksum", index, stored[index : index + 1])
            self.done[index], n_taken = True, n_taken + 1
            self._acknowledge_soon("done", index)
        return n_taken

    def flush(self) -> None:
        """Make everything written so far durable, then say so in the file."""
        # Emptied first: after a failed fdatasync nobody knows what reached the disk.
        flags, self._unacknowledged = self._unacknowledged, []
        if flags:
            with disk_errors(self.path, self.plan.nbytes):
                fdatasync(self._descriptor)
                for name, index in flags:
                    self._put(f"utterances/{name}", index, np.ones(1, np.uint8))
                fdatasync(self._descriptor)
            if os.fstat(self._descriptor).st_nlink == 0:
                raise CacheError(f"{self.path} was deleted or replaced meanwhile. Run it again.")
        self._acknowledged_at = time.monotonic()

    def close(self) -> None:
        """Flush, and let go of the file."""
        with self._held:
            self.flush()

    def _acknowledge_soon(self, flag: str, index: int) -> None:
        self._unacknowledged.append((flag, index))
        if time.monotonic() - self._acknowledged_at > ACKNOWLEDGE_S:
            self.flush()

    def _put(self, name: str, row: int, values: np.ndarray) -> None:
        member = self._members[name]
        pwrite(self._descriptor, values, member.offset + row * member.row_nbytes)


class FeatureCache:
    """Reads a cache: its table, the frames of every layer, the pooled means.

    Arrays are read-only views of the file mapped into memory: what is not touched is not read. HDF5
    is done with when the constructor returns, so instances may be pickled and used in forked
    processes. While a writer is at work, an instance shows what was done when it was opened.
    Parts are one cache, whose utterances are in the order of their keys.

    Raises:
        CacheError: no such file, not a cache, another version, truncated, damaged, or unfinished;
            or parts that do not belong together.
    """

    files: list[CacheFile]  # one, or the parts
    missing_parts: list[int]  # those of which there is no file
    is_finished: bool  # every utterance is there or skipped
    layers: range  # 0 is what enters the first block
    dim: int
    store: str  # frames or pooled
    dtype: str  # float16, bfloat16 or float32
    identity: dict  # model, preprocessing, layer convention, versions
    columns: dict[str, np.ndarray]  # what was planned, as it is stored; also what is missing
    offsets: Int[np.ndarray, " utterances"]  # first row of each utterance in its file's layers
    lengths: Int[np.ndarray, " utterances"]  # frames of each utterance

    def __init__(self, path: str | Path, *, allow_unfinished: bool = False) -> None:
        self.path = Path(path)
        self.files, self.missing_parts = open_files(self.path)
        first = self.files[0]
        self.store, self.dtype, self.dim = first.store, first.dtype, first.dim
        self.n_layers, self.layers = first.n_layers, range(first.n_layers)
        self.identity = {name: value for name, value in first.identity.items() if name != "part"}

        sizes = [len(file.done) for file in self.files]
        keys = np.concatenate([file.columns["key"] for file in self.files])
        order = np.arange(len(keys)) if len(sizes) == 1 else np.argsort(keys, kind="stable")
        self.columns = {
            name: np.concatenate([file.columns[name] for file in self.files])[order]
            for name in PLANNED
        }
        if len(sizes) > 1:
            check_parts(self.path, self.files, self.columns["key"])
        self._done = np.concatenate([file.done for file in self.files])[order]
        self._skipped = np.concatenate([file.skipped for file in self.files])[order]
        to_come = int((~self._done & ~self._skipped).sum())
        self.is_finished = not (to_come or self.missing_parts)
        if not (self.is_finished or allow_unfinished):
            raise CacheError(f"{self.path} is unfinished: {self.what_is_missing()}")
        self._file_of = np.repeat(np.arange(len(sizes)), sizes)[order][self._done]
        self._row_of = np.concatenate([np.arange(size) for size in sizes])[order][self._done]
        self.offsets, self.lengths = (
            self.columns[name][self._done] for name in ("offset", "frames")
        )

    @cached_property
    def utterances(self) -> pd.DataFrame:
        """Those that are there, one row each: what was planned, and `sha256`."""
        planned = {name: self.columns[name][self._done] for name in PLANNED if name != "offset"}
        return table_of(planned | {"sha256": self._done_rows("utterances/sha256")})

    @cached_property
    def missing(self) -> pd.DataFrame:
        """The others; `skipped`: on purpose."""
        planned = {name: self.columns[name][~self._done] for name in PLANNED if name != "offset"}
        return table_of(planned | {"skipped": self._skipped[~self._done]})

    def what_is_missing(self) -> str:
        """For people: what an unfinished cache lacks, and what to do."""
        if self.missing_parts:
            count = part_of(self.files[0])["of"]
            numbers = ", ".join(map(str, self.missing_parts))
            return (
                f"of its {count} parts there is no {numbers}. Run extract.py with "
                f"--part {self.missing_parts[0]}/{count}."
            )
        to_come = int((~self._done & ~self._skipped).sum())
        return (
            f"{to_come} of {len(self._done)} utterances are still to come. Run extract.py again, "
            "it continues there."
        )

    def frames(self, i: int, layer: int) -> Float[np.ndarray, "frames dim"]:
        """Hidden states of utterance `i` (a row of `utterances`) at one layer, as they are stored.

        A read-only view of the file; of a bfloat16 cache a float32 copy, which is exact.

        Raises:
            CacheError: there is no such layer, or only the pooled means were stored.
        """
        self._check_layer(layer)
        array = self.files[self._file_of[i]].array(f"layers/{layer:02d}")
        rows = array[self.offsets[i] : self.offsets[i] + self.lengths[i]]
        return bfloat16_to_float32(rows) if self.dtype == "bfloat16" else rows

    def layer(self, layer: int) -> Shaped[np.ndarray, "frames dim"]:
        """One layer of all utterances; those of `i` are the `lengths[i]` rows from `offsets[i]` on.

        A read-only view of the file; bfloat16 comes as its bits, uint16. In an unfinished cache it
        has rows of no utterance, which hold anything.

        Raises:
            CacheError: as `frames`, and where the cache is in parts, which have no common view.
        """
        self._check_layer(layer)
        if len(self.files) > 1:
            raise CacheError(
                f"{self.path} is in {len(self.files)} parts, which cannot be one view; read it "
                f"utterance by utterance, or run: lsmprobe cache merge {self.path}"
            )
        return self.files[0].array(f"layers/{layer:02d}")

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
        what = [decisive(self.identity), self.dtype, rows]
        text = json.dumps(what, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def verify(self, i: int) -> bool:
        """Whether the stored bytes of utterance `i` are still those that were written."""
        file, row = self.files[self._file_of[i]], int(self._row_of[i])
        return file.checksums(row, row + 1) == [int(file.array("utterances/checksum")[row])]

    def __getstate__(self) -> dict[str, Any]:
        mapped = ("pooled", "pooled_std")  # mapped anew where it is unpickled
        return {name: value for name, value in vars(self).items() if name not in mapped}

    def _check_layer(self, layer: int) -> None:
        if self.store != "frames":
            raise CacheError(
                f"{self.path} holds pooled means only; expected frames. Run extract.py with "
                "--store frames and another --cache-dir."
            )
        if layer not in self.layers:
            raise CacheError(f"{self.path} has layers 0 to {self.layers[-1]}; got layer {layer}.")

    def _done_rows(self, name: str) -> np.ndarray:
        """The rows of all utterances that are there: of one complete file a view."""
        arrays = [file.array(name) for file in self.files]
        if len(arrays) == 1 and self._done.all():
            return arrays[0]
        gathered = np.empty((len(self._row_of), *arrays[0].shape[1:]), arrays[0].dtype)
        for number, array in enumerate(arrays):
            mine = self._file_of == number
            gathered[mine] = array[self._row_of[mine]]
        return gathered


def mark_for_extraction(file: CacheFile, rows: Sequence[int]) -> None:
    """Take `done` back from utterances that turned out damaged; extract.py makes them again.

    `skipped` goes first: of a clip that was mended it may still be 1, and would then count again.

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


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Turn a second writer of a file away; a courtesy only: some network filesystems lock nothing.

    The lock is that of a small file beside it, which says who writes, so that it covers the layout
    too and never stands in a reader's way.

    Raises:
        CacheError: another process writes it.
    """
    beside = path.with_name(f".{path.name}.lock")
    descriptor = _locked(beside, path)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                beside.unlink()
            os.close(descriptor)


def is_being_written(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    try:
        with path.with_name(f".{path.name}.lock").open("rb") as beside:
            fcntl.flock(beside, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _locked(beside: Path, path: Path) -> int | None:
    """A descriptor that holds the lock; None where there can be none."""
    while True:
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:  # a full disk; of a read-only folder the caller will hear
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(descriptor, 300, 0).decode("utf-8", "replace")
            os.close(descriptor)
            raise CacheError(
                f"{path} is being written by another process{who and f' ({who})'}. Wait for it, "
                "or use another --cache-dir."
            ) from error
        except OSError:
            pass
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # whoever held it has just removed it
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    who = f"process {os.getpid()} on {socket.gethostname()} since {since}"
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, who.encode(), 0)
    return descriptor


def put_in_place(new: Path, path: Path) -> None:
    """Let a finished file take the place of a cache in one step; then remove its old parts."""
    parts = [file for file in cache_files(path) if file != path]
    with disk_errors(path, 0), sole_writer(path):
        new.replace(path)
        sync_folder(path.parent)
        for part in parts:
            remove_file(part)


@dataclass(frozen=True)
class Outgoing:
    """What is stored of an utterance's hidden states, perhaps still on its way from a GPU."""

    shape: tuple[int, ...]  # layers, frames, dim
    rounded: Float[Tensor, "layers frames dim"] | None  # None: only statistics are stored
    mean: Float[Tensor, "layers dim"]
    std: Float[Tensor, "layers dim"]
    peaks: Float[Tensor, " layers"]  # largest magnitudes; NaN where there is one
    copied: Any = None  # the CUDA event after the last copy

    def arrive(self) -> None:
        """Wait until all of it is in this machine's memory."""
        if self.copied is not None:
            self.copied.synchronize()


@torch.no_grad()
def outgoing(hidden: Float[Tensor, "layers frames dim"], plan: CachePlan) -> Outgoing:
    """What is stored of hidden states, computed where they are.

    From a GPU the copies go to pinned memory, and the GPU can go on with what comes next.
    """
    wide = hidden.float()
    mean = wide.mean(1)  # two passes: torch.std_mean takes twice as long
    std = (wide - mean[:, None]).square_().mean(1).sqrt_()
    values = wide.flatten(1)
    peaks = torch.maximum(values.amax(1), -values.amin(1))  # torch.aminmax is 20 times as slow

    def to_host(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", non_blocking=hidden.is_cuda)

    stored = hidden.to(getattr(torch, plan.dtype)) if plan.store == "frames" else None
    return Outgoing(
        shape=tuple(hidden.shape),
        rounded=None if stored is None else to_host(stored),
        mean=to_host(mean),
        std=to_host(std),
        peaks=to_host(peaks),
        copied=torch.cuda.current_stream(hidden.device).record_event() if hidden.is_cuda else None,
    )


def _check_range(peaks: Float[Tensor, " layers"], key: str, plan: CachePlan) -> None:
    """Refuse NaN, infinity, and what the stored type cannot hold."""
    dtype = plan.dtype if plan.store == "frames" else "float32"
    peaks = peaks.double()
    fits = peaks <= LARGEST[dtype]
    if fits.all():
        return
    layer = int(fits.int().argmin())
    found = f"{repr(key)[1:-1]}: layer {layer} reaches {float(peaks[layer]):.6g}"
    if peaks[layer] <= LARGEST["float32"]:
        raise CacheError(
            f"{found}; {dtype} holds up to {LARGEST[dtype]:.6g}. "
            "Use --store-dtype bfloat16 or float32, with --replace."
        )
    raise CacheError(
        f"{found}; expected finite hidden states. Listen to the clip, or use --precision float32."
    )


def _bits(rounded: Float[Tensor, "layers frames dim"], dtype: str) -> np.ndarray:
    """The states as they are stored."""
    rounded = rounded.contiguous()
    bits = rounded.view(torch.int16) if dtype == "bfloat16" else rounded
    return bits.numpy().view(STORED[dtype])


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Exactly: bfloat16 is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
