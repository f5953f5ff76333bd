"""The machine: where tensors live, how much memory there is, what the system is asked for."""

import ctypes
import logging
import mmap
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import torch
from jaxtyping import Shaped

from lsmprobe.errors import SettingsError

with suppress(ImportError):  # Windows has none
    import resource

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h
LOOK_EVERY_S = 10.0  # at which cores are taken
FORGET_AFTER_S = 60.0  # what lies between two looks so far apart may be no training
_looked: list["CoreTime"] = []  # the last time, if there was one
log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None) if os.name == "posix" else None


def choose_device(device: str) -> str:
    """`auto` is a GPU if there is one; anything else is taken at its word.

    Raises:
        SettingsError: the device is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise SettingsError(f"--device {device}: this machine has none; use --device auto or cpu.")
    return device


def free_memory(device: str) -> int:
    """Bytes that this process may still take on a device, within the limits that are set for it."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    used = psutil.Process().memory_info()
    left = [psutil.virtual_memory().available]
    left += [limit - used.rss for limit in control_group_limits()]
    if "resource" not in globals():
        return max(0, min(left))
    for kind, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.rss)):
        limit, _ = resource.getrlimit(kind)  # ulimit -v, ulimit -d
        left += [limit - taken] if limit != resource.RLIM_INFINITY else []
    return max(0, min(left))


def control_group_limits(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """The memory limits, in bytes, that a container or a batch system set; none outside Linux."""
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):  # version 2 of control groups has no names
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        top = root / controllers
        group = top / path.lstrip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(top) and (place / name).exists():
                limit = (place / name).read_text().strip()
                limits += [int(limit)] if limit != "max" else []
    return limits


@dataclass(frozen=True)
class CoreTime:
    """How long the cores that this process may use were busy until a moment."""

    clock: float  # seconds
    cores: int
    busy: float  # seconds, of all these cores together
    own: float  # of these, this process

    @classmethod
    def now(cls) -> "CoreTime":
        """As the system counts it, in hundredths of a second."""
        every = [times._asdict() for times in psutil.cpu_times(percpu=True)]
        if hasattr(os, "sched_getaffinity"):  # not on macOS
            may_use = os.sched_getaffinity(0)
            every = [times for core, times in enumerate(every) if core in may_use]
        working = ("user", "nice", "system", "irq", "softirq")  # user has guest in it
        busy = sum(times.get(kind, 0.0) for times in every for kind in working)
        return cls(time.monotonic(), len(every), busy, time.process_time())

    def free_since(self, before: "CoreTime") -> float:
        """How many cores other processes left to this one, on average."""
        others = (self.busy - before.busy) - (self.own - before.own)
        return self.cores - max(0.0, others) / (self.clock - before.clock)


def say_where_cores_are_taken(threads: int) -> None:
    """Compare threads with the cores that other processes leave, if the last time is long ago.

    Threads that share an operation wait for each other, and so for those that have no core.

    Args:
        threads: all that compute here, and share operations.
    """
    if not _looked:
        _looked.append(CoreTime.now())
    elif time.monotonic() - _looked[0].clock >= LOOK_EVERY_S:
        before, _looked[0] = _looked[0], CoreTime.now()
        free = _looked[0].free_since(before)
        recent = _looked[0].clock - before.clock < FORGET_AFTER_S  # of this training
        if recent and threads > free + 0.5 and choose_device("auto") == "cpu":
            _say_cores_are_taken(threads, _looked[0].cores, max(1, round(free)))


@cache  # says the same once
def _say_cores_are_taken(threads: int, cores: int, fewer: int) -> None:
    log.info(
        "other processes use these %d cores too, where %d threads wait for each other at every "
        "step; OMP_NUM_THREADS=%d is likely faster as long as they run",
        *(cores, threads, fewer),
    )


def keep_freed_memory() -> None:
    """Have glibc reuse freed memory instead of handing it back to the system after every step.

    Getting it back page by page cost a fifth of a Multi-Layer step. Other C libraries are left as
    they are.
    """
    if _libc is not None and hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # bytes; the largest that glibc takes
        _libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def share_freed_memory() -> None:
    """Have glibc make no further heaps in this process, so that new threads share those there are.

    It would give each new thread a heap of its own, and hand that back whenever it is empty,
    whatever else is set: a sixth of a Multi-Layer step.
    """
    if _libc is not None and hasattr(_libc, "mallopt"):
        _libc.mallopt(M_ARENA_MAX, 1)


def announce(array: Shaped[np.ndarray, "..."]) -> None:
    """Have the system read all of a memory-mapped array at once, not page by page when touched.

    Two to three times as fast from a disk; nothing happens to what is in memory already.
    """
    if _libc is None or not hasattr(mmap, "MADV_WILLNEED"):
        return
    start = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    length = array.ctypes.data + array.nbytes - start
    _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_int(mmap.MADV_WILLNEED))
