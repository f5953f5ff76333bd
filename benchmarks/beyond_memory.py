"""What an epoch over a cache larger than the memory costs: time at disk speed, no more memory.

Run it where memory is limited, in a container or a batch job, or on Linux as
    systemd-run --scope -p MemoryMax=1500M python benchmarks/beyond_memory.py
Where it is not, the process limits its own memory to 1.5 GB (the page cache stays free). It writes
a cache --times as large as the limit, and times three ways through it: the file read from its
start; the frames of the Multi-Layer head, read in the order of a training; an epoch of training.
Before each of them the page cache is told to forget the file.

    python benchmarks/beyond_memory.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import tyro
from machine import forget, machine, peak_memory, seconds, write_json
from synthetic import clip_seconds, train_an_epoch, utterance_table, write_cache

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.machine import control_group_limits
from lsmprobe.probing.batches import FrameFeatures

LAYERS, DIM = 13, 768  # of a base model; layer 0 counts
OWN_LIMIT = 1_500_000_000  # bytes
GIGABYTES_PER_CLIP = 2.8 * 50 * LAYERS * DIM * 2e-9


@dataclass(frozen=True)
class Config:
    """Time an epoch over a cache that does not fit."""

    times: float = 4
    """Size of the cache, as a multiple of the memory limit."""
    folder: Path | None = None
    """A folder on the disk to measure; by default where temporary files go."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def memory_limit() -> int:
    """Bytes: the control group's if it has less than the machine, else one set here."""
    limit = min([psutil.virtual_memory().total, *control_group_limits()])
    if limit == psutil.virtual_memory().total:
        limit = OWN_LIMIT
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return limit


def read_from_start(path: Path) -> None:
    """The whole file, 16 MB at a time."""
    with path.open("rb", buffering=0) as file:
        block = bytearray(2**24)
        while file.readinto(block):
            pass


def main(config: Config) -> None:
    """Measure and print."""
    limit = OWN_LIMIT if config.quick else memory_limit()
    n_clips = 100 if config.quick else round(config.times * limit / 1e9 / GIGABYTES_PER_CLIP)
    dim = 16 if config.quick else DIM
    print(f"{machine()}\nlimit {limit / 1e9:.2f} GB")
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        table = utterance_table(clip_seconds(n_clips), n_speakers=10)
        path = write_cache(Path(name) / "noise" / "made.h5", table, LAYERS, dim)
        cache = FeatureCache(path)
        layers = tuple(cache.layers[1:])
        features = FrameFeatures(cache.frames, cache.lengths, 0 if config.quick else None)
        rows = np.random.default_rng(0).permutation(n_clips)
        fold = rows[: n_clips * 8 // 10], rows[n_clips * 8 // 10 : n_clips * 9 // 10], rows[-10:]

        def go_through() -> None:
            pools = [rows[start : start + 128] for start in range(0, n_clips, 128)]
            for _ in features.through(pools, layers, "cpu"):
                pass

        def after_forgetting(way: Callable[[], None]) -> float:
            forget(path)
            return seconds(way)

        gigabytes = path.stat().st_size / 1e9
        frames_gb = float(cache.lengths.sum()) * len(layers) * dim * 2e-9
        trained_gb = frames_gb * sum(cache.lengths[part].sum() for part in fold)
        trained_gb /= cache.lengths.sum()
        figures = {
            "cache_gb": gigabytes,
            "times_the_limit": gigabytes / limit * 1e9,
            "from_start_gb_per_s": gigabytes / after_forgetting(lambda: read_from_start(path)),
            "in_pools_gb_per_s": frames_gb / after_forgetting(go_through),
            "training_gb_per_s": trained_gb
            / after_forgetting(lambda: train_an_epoch(cache, fold, features)),
            "peak_gb": peak_memory() / 1e9,
        }
    for what, value in figures.items():
        print(f"{what:22} {value:8.3f}")
    write_json(config.json, {"limit_gb": limit / 1e9, **figures})


if __name__ == "__main__":
    main(tyro.cli(Config))
