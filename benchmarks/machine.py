"""What the benchmarks share: the machine in words, times as medians, figures as JSON."""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import ctypes
import datetime
import gc
import json
import os
import platform
import re
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch


def machine(device: str = "cpu") -> str:
    """Where and when this is measured."""
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{where}, {os.cpu_count()} cores{load}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {datetime.date.today()}"
    )


def seconds(way: Callable[[], object], device: str = "cpu") -> float:
    """How long a call takes, until the device has finished too."""
    started = time.perf_counter()
    way()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def medians(
    ways: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[str, float]:
    """Median seconds of each way; in every round each way runs once, in turn."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            took[name].append(seconds(way, device))
    return {name: statistics.median(times) for name, times in took.items()}


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file."""
    if hasattr(os, "posix_fadvise"):  # macOS has none: there the page cache is measured too
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_memory() -> int:
    """The most bytes that this process has held so far."""
    # On Linux getrusage also counts the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(kilobytes) * 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def own_memory() -> int:
    """The bytes that this process holds now, without the files that it maps (those on Linux)."""
    status = Path("/proc/self/status")
    found = re.findall(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else ()
    return int(found[0]) * 2**10 if found else psutil.Process().memory_info().rss


def give_back() -> None:
    """Hand memory that is free back to the system, where the C library can be told to."""
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


@contextmanager
def most_own_memory(seen: list[int]) -> Iterator[None]:
    """Put the most of `own_memory` while this goes on at the end of `seen`; asked every 5 ms."""
    ended = threading.Event()
    most = own_memory()

    def look() -> None:
        nonlocal most
        while not ended.wait(0.005):
            most = max(most, own_memory())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()
        seen.append(max(most, own_memory()))


def write_json(path: Path | None, figures: Mapping[str, Any], device: str = "cpu") -> None:
    """The figures and the machine, if a file was asked for."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine(device), **figures}, indent=1) + "\n")
