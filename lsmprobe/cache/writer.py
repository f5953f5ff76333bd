"""The one writer of a cache file: bytes into place, `done` flags after them."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lsmprobe.cache.codecs import CODECS, FINITE, codec_of
from lsmprobe.cache.file import CacheFile, disk_errors, fdatasync, lay_out, pwrite, sync_folder
from lsmprobe.cache.layout import CHECKSUM, Member, checksum, checksums_in
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.parts import cache_files, remove_file
from lsmprobe.cache.plan import CachePlan as CachePlan
from lsmprobe.cache.plan import differences
from lsmprobe.cache.verify import blocks_of, damaged_in
from lsmprobe.errors import CacheError

ACKNOWLEDGE_S = 2.0


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
    def open(
        cls,
        path: str | Path,
        plan: CachePlan,
        lease: str = "",
        *,
        locked: Callable[[], None] = lambda: None,
    ) -> "CacheWriter":
        """Lay the file out, or continue the one that is there.

        Args:
            path: of the file.
            plan: what it is to hold.
            lease: see `sole_writer`. A leased writer never writes into the file of an earlier one,
                which may be alive: it copies what is undamaged into a file of its own, which takes
                the name. The earlier one finds that its file has lost its name, and stops.
            locked: called once nobody else can write the file, before anything is laid out.

        Raises:
            CacheError: the disk is too small, the folder read-only, another process at work, or the
                file that is there was planned differently.
        """
        path = Path(path)
        with ExitStack() as held:
            with disk_errors(path, plan.nbytes):
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(sole_writer(path, lease))
                locked()
                if not path.exists():
                    lay_out(path, plan)
                elif lease:
                    _continue_in_a_copy(path, plan)
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
        """Store an utterance's hidden states, and their mean and standard deviation, unrounded.

        Args:
            index: its row in the plan.
            hidden: of every layer of the model, on any device, in any floating type; or what
                `outgoing` made of them.
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

        pooled = {"mean": hidden.mean, "std": hidden.std}
        if hidden.scale is not None:
            pooled["scale"] = hidden.scale
        statistics = {f"pooled/{name}": values.numpy() for name, values in pooled.items()}
        rounded = hidden.rounded
        layers = [] if rounded is None else list(codec_of(plan.dtype).encode(rounded))
        digest = np.array([sha256.encode()])
        with disk_errors(self.path, plan.nbytes):
            for number, frames in zip(plan.selection.layers, layers, strict=bool(layers)):
                self._put(f"layers/{number:02d}", start, frames)
            for name, values in statistics.items():
                self._put(name, index, values)
            self._put("utterances/sha256", index, digest)
            for name in checksums_in(self._members):
                frames = layers if name == CHECKSUM else []
                stored = checksum([*frames, *statistics.values(), digest])
                self._put(name, index, np.array([stored], np.uint64))
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
        sums, n_taken = checksums_in(self._members), 0
        parts: list[tuple[str, int, np.ndarray]] = []
        for index in self.remaining:
            parts.clear()
            try:
                if twin.mismatches(index, index + 1, sums, lambda *part: parts.append(part)):
                    continue
            except OSError:  # the disk does not give it
                continue
            with disk_errors(self.path, self.plan.nbytes):
                for name, row, values in parts:
                    at = twin.columns["offset"][row] if name.startswith("layers/") else row
                    self._put(name, int(at), values)
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
                raise CacheError(
                    f"{self.path} was deleted or replaced in the meantime. Run lsmprobe "
                    "extract again."
                )
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


def _continue_in_a_copy(path: Path, plan: CachePlan) -> None:
    """Give an unfinished file's name to a new one that holds what is undamaged of it."""
    old = CacheFile(path)
    if differences(old, plan) or (old.done | old.skipped).all():
        return

    def copy(descriptor: int, members: dict[str, Member]) -> None:
        def put(name: str, row: int, values: np.ndarray) -> None:
            at = plan.columns["offset"][row] if name in old.per_frame else row
            member = members[name]
            pwrite(descriptor, values, member.offset + int(at) * member.row_nbytes)

        sums = checksums_in(members)
        for start, stop in blocks_of(old, sums):
            damaged = set(damaged_in(old, start, stop, sums, put))
            for row in range(start, stop):
                if row not in damaged:
                    put("utterances/done", row, np.ones(1, np.uint8))

    lay_out(path, plan, copy)


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
    rounded: Shaped[Tensor, "layers frames dim"] | None  # None: only statistics are stored
    mean: Float[Tensor, "layers dim"]
    std: Float[Tensor, "layers dim"]
    peaks: Float[Tensor, " layers"]  # largest magnitudes; NaN where there is one
    scale: Float[Tensor, "layers dim"] | None = None  # of a codec that has levels
    copied: Any = None  # the CUDA event after the last copy

    def arrive(self) -> None:
        """Wait until all of it is in this machine's memory."""
        if self.copied is not None:
            self.copied.synchronize()


@torch.no_grad()
def outgoing(hidden: Float[Tensor, "layers frames dim"], plan: CachePlan) -> Outgoing:
    """What is stored of the states of every layer of a model, computed where they are.

    From a GPU the copies go to pinned memory, and the GPU can go on with what comes next.
    """
    hidden = plan.selection.of(hidden)
    wide = hidden.float()
    mean = wide.mean(1)  # two passes: torch.std_mean takes twice as long
    if plan.selection.step > 1:
        hidden = wide = plan.selection.steps(wide)
    peaks = _peaks(wide.flatten(1))
    centred = wide - mean[:, None]
    stored = scale = None
    if plan.store == "frames":
        codec = codec_of(plan.dtype)
        if codec.levels:
            scale = _peaks(centred.mT) / codec.levels
            # 0 where all frames are alike, of which the mean says all
            hidden = centred / torch.where(scale > 0, scale, 1.0)[:, None]
        stored = codec.round(hidden)
    std = centred.square_().mean(1).sqrt_()

    def to_host(tensor: Tensor) -> Tensor:
        return tensor.to("cpu", non_blocking=hidden.is_cuda)

    return Outgoing(
        shape=tuple(wide.shape),
        rounded=None if stored is None else to_host(stored),
        mean=to_host(mean),
        std=to_host(std),
        peaks=to_host(peaks),
        scale=None if scale is None else to_host(scale),
        copied=torch.cuda.current_stream(hidden.device).record_event() if hidden.is_cuda else None,
    )


def _peaks(values: Float[Tensor, "*rows values"]) -> Float[Tensor, "*rows"]:
    """The largest magnitude of each row, NaN where there is one."""
    return torch.maximum(values.amax(-1), -values.amin(-1))  # torch.aminmax is 20 times as slow


def _check_range(peaks: Float[Tensor, " layers"], key: str, plan: CachePlan) -> None:
    """Refuse NaN, infinity, and what the stored type cannot hold."""
    largest = codec_of(plan.dtype).largest if plan.store == "frames" else FINITE
    peaks = peaks.double()
    fits = peaks <= largest
    if fits.all():
        return
    layer = int(fits.int().argmin())
    found = f"{repr(key)[1:-1]}: layer {layer} reaches {float(peaks[layer]):.6g}"
    if peaks[layer] <= FINITE:
        wider = " or ".join(codec.name for codec in CODECS.values() if codec.largest > largest)
        raise CacheError(
            f"{found}; {plan.dtype} holds up to {largest:.6g}. "
            f"Use --store-dtype {wider}, with --replace."
        )
    raise CacheError(
        f"{found}; expected finite hidden states. Listen to the clip, or use --precision float32."
    )
