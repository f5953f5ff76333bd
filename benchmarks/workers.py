"""How the paper's probing grid divides over workers: measured on two, simulated on more.

Measured: a small grid of made-up caches in this process, and by `local:2`. Simulated: the pieces
that the planner makes of the paper's grid (six models, nine corpora), as long as one corpus of each
size of model says that a clip or a frame takes, each handed to the worker that is free first: the
longest first, as the runner does it, which no order can beat by more than a third; and by model
and corpus.

    python benchmarks/workers.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import heapq
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import tyro
from grid import CORPORA, EPOCHS, MODELS_OF_A_SIZE, SIZES, Corpus, Size, made_task
from machine import machine, write_json
from synthetic import clip_seconds, utterance_table, write_cache

from lsmprobe.cluster.stages import train_on
from lsmprobe.config import ProbeConfig
from lsmprobe.probing.stage import planned_runs, probe_all, reading_alike, train_together
from lsmprobe.probing.table import HEADS
from lsmprobe.progress import silent


@dataclass(frozen=True)
class Config:
    """Measure and simulate."""

    workers: tuple[int, ...] = (1, 2, 8, 64)
    """Simulated."""
    start_s: float = 10.0
    """Simulated: of a process, before its piece begins."""
    fraction: float = 0.2
    """The part of EmoDB by which the pieces are timed; scaled up."""
    epochs: int = 2
    """The same of the epochs."""
    clips: int = 60
    """Measured: of each of the six caches of the small grid."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


class Long(NamedTuple):
    """A piece of the grid, and how long it takes."""

    name: str
    seconds: float


def pieces_of(size: Size, corpus: Corpus, config: Config) -> list[Long]:
    """Every piece of a model on a corpus, trained and scaled up to all clips and epochs.

    What does not grow with them is scaled up too, so that the hours are too many.
    """
    task = made_task(corpus, size, config.fraction)
    times = EPOCHS / config.epochs * corpus.clips / len(task.lengths)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        asked = ProbeConfig(epochs=config.epochs, device="cpu", results_dir=Path(folder))
        groups = reading_alike([(asked, run) for run in planned_runs(asked, task)])
        for jobs in groups[:1]:  # what is loaded and set up once
            train_together(jobs, task, on_epoch=lambda: None)
            for _, run in jobs:
                run.path.unlink()
        for jobs in groups:
            started = time.perf_counter()
            train_together(jobs, task, on_epoch=lambda: None)
            seconds = times * (time.perf_counter() - started)
            found.append(Long(HEADS[jobs[0][1].head].reads, seconds))
    return found


def paper_grid(config: Config, sizes: Iterable[Size]) -> list[Long]:
    """The pieces of the paper's grid, in the order of the planner: by model, then by corpus."""
    timed_on = next(corpus for corpus in CORPORA if corpus.name == "emodb")
    pieces = []
    for size in sizes:
        timed = pieces_of(size, timed_on, config)
        for number in range(MODELS_OF_A_SIZE):
            for corpus in CORPORA:
                amounts = {
                    "means": corpus.clips / timed_on.clips,
                    "frames": corpus.hours / timed_on.hours,
                }
                pieces += [
                    Long(
                        f"{size.name} {number} on {corpus.name}, {piece.name}",
                        piece.seconds * amounts[piece.name],
                    )
                    for piece in timed
                ]
    return pieces


def makespan_s(seconds: Sequence[float], workers: int, start_s: float) -> float:
    """When the last piece ends, each being taken by the worker that is free first.

    >>> makespan_s([3.0, 1.0, 1.0, 1.0], 2, 0.0)
    3.0
    """
    free = [0.0] * workers
    for piece in seconds:
        heapq.heappush(free, heapq.heappop(free) + start_s + piece)
    return max(free)


def simulated(pieces: Sequence[Long], config: Config) -> list[dict]:
    """Hours of the grid on each number of workers."""
    planned = [piece.seconds for piece in pieces]
    one = makespan_s(planned, 1, config.start_s)
    rows = []
    for workers in config.workers:
        took = makespan_s(sorted(planned, reverse=True), workers, config.start_s)
        as_planned = makespan_s(planned, workers, config.start_s)
        rows.append(
            {
                "workers": workers,
                "hours": took / 3600,
                "times_faster": one / took,
                "by_model_hours": as_planned / 3600,
            }
        )
    return rows


def measured(config: Config) -> dict[str, float]:
    """Seconds of a small grid in one process, and in two."""
    size = Size("small", 3, 16) if config.quick else Size("small", 7, 256)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in "a" if config.quick else "ab":
            for more, corpus in enumerate("x" if config.quick else "xyz"):
                table = utterance_table(clip_seconds(config.clips + more), 6)
                path = Path(folder, "cache", model, f"{corpus}.h5")
                write_cache(path, table, size.n_layers, size.dim)
        asked = ProbeConfig(
            runs=1,
            epochs=config.epochs if config.quick else EPOCHS,
            cache_dir=Path(folder, "cache"),
            device="cpu",
        )
        for name, go in {
            "one_process_s": lambda c: probe_all(c, progress=silent),
            "local_2_s": lambda c: train_on("local:2", c, progress=silent),
        }.items():
            started = time.perf_counter()
            go(replace(asked, results_dir=Path(folder, name)))
            found[name] = time.perf_counter() - started
    return found


def main(config: Config) -> None:
    """Measure, simulate and print."""
    sizes: tuple[Size, ...] = SIZES
    if config.quick:
        config = replace(config, fraction=0.0, epochs=1, clips=84)
        sizes = (Size("tiny", 3, 16),)
    print(machine("cpu"))
    small = measured(config)
    print({name: round(seconds, 1) for name, seconds in small.items()}, flush=True)
    pieces = paper_grid(config, sizes)
    longest = max(pieces, key=lambda piece: piece.seconds)
    print(
        f"{len(pieces)} pieces; the longest, {longest.name}, takes {longest.seconds / 3600:.2f} h"
    )
    rows = simulated(pieces, config)
    for row in rows:
        print(
            f"{row['workers']:4} workers {row['hours']:7.2f} h, {row['times_faster']:5.1f} times "
            f"faster; by model and corpus {row['by_model_hours']:7.2f} h"
        )
    figures = {"measured": small, "longest_h": longest.seconds / 3600, "simulated": rows}
    write_json(config.json, figures, "cpu")


if __name__ == "__main__":
    main(tyro.cli(Config))
