"""How long the Linear head waits for its first epoch: means verified alone, or everything.

Two caches of the same made-up frames, one laid out as before there were checksums of means. Each is
probed for one epoch, the first time, by lsmprobe's own functions in this process; before each trial
the page cache is told to forget the file, and the mark of what was verified is removed.

    python benchmarks/first_epoch.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro
from machine import forget, machine, seconds, write_json
from synthetic import clip_seconds, utterance_table, write_cache

from lsmprobe.cache.parts import verified_mark
from lsmprobe.cache.verify import verify_cache
from lsmprobe.config import ProbeConfig
from lsmprobe.probing.stage import probe
from lsmprobe.progress import silent

LAYERS, DIM = 13, 768  # of a base model; layer 0 counts
KINDS = {"everything": False, "means_alone": True}  # what is verified: whether there is the column


@dataclass(frozen=True)
class Config:
    """Time the first epoch of the Linear head on a cache with frames."""

    clips: int = 700
    """Clips of 2.8 s on average: about 2 GB in each of two caches."""
    trials: int = 5
    """Each kind in turn, so many times; the median counts."""
    folder: Path | None = None
    """A folder on the disk to measure; by default where temporary files go."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def first_epoch(path: Path, before: Callable[[Path], None]) -> float:
    """Seconds from a command that has begun to the end of its first epoch, and its record."""
    path.touch()  # this process, too, knows what it verified, by the time of change
    verified_mark(path).unlink(missing_ok=True)
    before(path)
    with tempfile.TemporaryDirectory() as results:
        config = ProbeConfig(
            head="linear",
            runs=1,
            epochs=1,
            device="cpu",
            cache_dir=path.parents[1],
            results_dir=Path(results),
        )
        return seconds(lambda: probe(config, progress=silent))


def main(config: Config) -> None:
    """Measure and print."""
    n_clips, dim = (60, 16) if config.quick else (config.clips, DIM)
    trials = 1 if config.quick else config.trials
    table = utterance_table(clip_seconds(n_clips), n_speakers=10)
    print(machine())
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=config.folder) as name:
        paths = {
            kind: write_cache(
                Path(name) / kind / "noise" / "made.h5", table, LAYERS, dim, means_checksum=column
            )
            for kind, column in KINDS.items()
        }
        for kind, path in paths.items():
            found = verify_cache(path, reads="means", progress=silent)
            figures[f"{kind}_gb"] = found.gigabytes
        for state, before in (("cold", forget), ("warm", lambda path: None)):
            took: dict[str, list[float]] = {kind: [] for kind in paths}
            for _ in range(trials):
                for kind, path in paths.items():
                    took[kind].append(first_epoch(path, before))
            middle = {kind: statistics.median(times) for kind, times in took.items()}
            figures |= {f"{state}_{kind}_s": value for kind, value in middle.items()}
            figures[f"{state}_ratio"] = middle["everything"] / middle["means_alone"]
    for what, value in figures.items():
        print(f"{what:22} {value:8.3f}")
    write_json(config.json, figures)


if __name__ == "__main__":
    main(tyro.cli(Config))
