"""What this machine can do at most: the limits that the stages are measured against.

Matrix products, memory copies, the disk, and copies to a GPU and back where there is one.

    python benchmarks/limits.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from machine import machine, seconds, write_json
from torch import Tensor

IN_A_ROW = 16  # products between two looks at the clock


@dataclass(frozen=True)
class Config:
    """Measure the machine."""

    size: int = 2048
    """Rows and columns of the matrices."""
    megabytes: int = 1024
    """MiB that are copied, written and read."""
    repeats: int = 5
    """Rounds; the median counts."""
    folder: Path | None = None
    """A folder on the disk to measure; by default where temporary files go."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where matrices are multiplied and memory is copied."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def median_s(way: Callable[[], object], config: Config, device: str = "cpu") -> float:
    """Median seconds of a call; one call before that warms up."""
    way()
    return statistics.median(seconds(way, device) for _ in range(config.repeats))


def products(config: Config, dtype: torch.dtype) -> float:
    """GFLOP/s of a product of square matrices; a multiplication and an addition are two."""
    a, b = torch.randn(2, config.size, config.size, device=config.device, dtype=dtype)

    def multiply() -> None:
        for _ in range(IN_A_ROW):
            a @ b

    return IN_A_ROW * 2 * config.size**3 / median_s(multiply, config, config.device) / 1e9


def copies(config: Config, source: Tensor, target: Tensor) -> float:
    """GB/s written; within one memory as many are read too."""
    way = median_s(lambda: target.copy_(source), config, config.device)
    return source.nbytes / way / 1e9


def disk(config: Config, folder: Path) -> tuple[float, float]:
    """GB/s written, fsync included, and read back with nothing left in the page cache."""
    path, block = folder / "block", torch.randint(0, 256, (16 * 2**20,), dtype=torch.uint8).numpy()
    times = config.megabytes // 16
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def write() -> None:
        for number in range(times):
            os.pwrite(descriptor, block, number * block.nbytes)
        os.fsync(descriptor)

    def read() -> None:
        for number in range(times):
            os.preadv(descriptor, [block], number * block.nbytes)

    def forgotten_then_read() -> float:
        if hasattr(os, "posix_fadvise"):  # macOS has none: there the page cache is measured
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return seconds(read)

    written = median_s(write, config)
    found = statistics.median(forgotten_then_read() for _ in range(config.repeats))
    os.close(descriptor)
    path.unlink()
    return times * block.nbytes / written / 1e9, times * block.nbytes / found / 1e9


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(config, size=128, megabytes=16, repeats=1)
    print(machine(config.device))
    figures = {
        "float32_gflop_per_s": products(config, torch.float32),
        "bfloat16_gflop_per_s": products(config, torch.bfloat16),
    }
    here = torch.ones(config.megabytes * 2**18)  # float32
    there = torch.empty_like(here, device=config.device)
    figures["memory_copy_gb_per_s"] = copies(config, there.clone(), there)
    if config.device != "cpu":
        pinned = here.pin_memory()
        figures["to_device_gb_per_s"] = copies(config, here, there)
        figures["to_device_pinned_gb_per_s"] = copies(config, pinned, there)
        figures["from_device_gb_per_s"] = copies(config, there, here)
        figures["from_device_pinned_gb_per_s"] = copies(config, there, pinned)
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        write, read = disk(config, Path(folder))
    figures |= {"disk_write_gb_per_s": write, "disk_read_gb_per_s": read}
    for name, value in figures.items():
        print(f"{name:28} {value:8.2f}")
    write_json(config.json, figures, config.device)


if __name__ == "__main__":
    main(tyro.cli(Config))
