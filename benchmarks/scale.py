"""How the cost of a cache grows: opening, splitting, reading, verifying, an epoch.

Synthetic caches with few dimensions, so that even 50,000 utterances fit anywhere. A cost is linear
if the nanoseconds per frame stay the same from row to row. Opening should take equally long.

    python benchmarks/scale.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from machine import machine, medians, write_json
from synthetic import clip_seconds, train_an_epoch, utterance_table, write_cache

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_cache
from lsmprobe.probing.batches import FrameFeatures
from lsmprobe.splits.kinds import speaker_split


@dataclass(frozen=True)
class Config:
    """Time what reads a cache, at growing sizes."""

    utterances: tuple[int, ...] = (500, 5_000, 10_000, 50_000)
    """Sizes, each a cache of its own."""
    layers: int = 4
    """How many layers, layer 0 included."""
    dim: int = 16
    """Dimensions of a frame."""
    repeats: int = 3
    """Rounds; the median counts."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def read_all(cache: FeatureCache) -> None:
    """Touch every frame of every layer, utterance by utterance."""
    for layer in cache.layers:
        for row in range(len(cache.lengths)):
            cache.frames(row, layer).sum(dtype=np.float32)


def measure(path: Path, config: Config) -> dict[str, float]:
    """Seconds of everything that is done with one cache."""
    cache = FeatureCache(path)
    table = cache.utterances
    parts = speaker_split(table.speaker, table.emotion).folds[0]
    fold = parts.train, parts.validation, parts.test
    features = FrameFeatures(cache.frames, cache.lengths)
    ways: dict[str, Callable[[], Any]] = {
        "open_s": lambda: FeatureCache(path),
        "table_s": lambda: FeatureCache(path).utterances,
        "split_s": lambda: speaker_split(table.speaker, table.emotion),
        "read_s": lambda: read_all(cache),
        "verify_s": lambda: verify_cache(path),
        "epoch_s": lambda: train_an_epoch(cache, fold, features, hidden=16),
    }
    return {"frames": int(table.frames.sum())} | medians(ways, config.repeats)


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(config, utterances=(40, 80), repeats=1)
    print(machine())
    print(f"{config.layers} layers of {config.dim} dimensions; ns are per frame of all layers")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in config.utterances:
            table = utterance_table(clip_seconds(n, mean_s=1.0), n_speakers=20)
            path = write_cache(Path(folder) / "noise" / f"{n}.h5", table, config.layers, config.dim)
            found = figures[str(n)] = measure(path, config)
            path.unlink()
            per_frame = {name: 1e9 * found[name] / found["frames"] for name in found}
            print(
                f"{n:6} utterances, {found['frames']:8} frames: "
                f"open {1e3 * found['open_s']:.1f} ms, "
                f"with its table {1e3 * found['table_s']:.1f} ms, "
                f"split {found['split_s']:.2f} s, read {per_frame['read_s']:.0f} ns, "
                f"verify {per_frame['verify_s']:.0f} ns, epoch {per_frame['epoch_s']:.0f} ns"
            )
    write_json(config.json, figures)


if __name__ == "__main__":
    main(tyro.cli(Config))
