"""How long the paper's probing grid takes: its nine corpora, three heads, three seeds, all models.

Stage 2 as it is, on made-up hidden states of the corpora's true sizes, for one base model (12
layers of 768 dimensions) and one large one (24 of 1024); the paper has three of each. The states
are cut from one block of noise in memory, since caches for the two would fill 200 GB. A disk would
add the time to read the gigabytes that are printed, at most once an epoch.
A part of each corpus (--fraction) and a few epochs (--epochs) can stand for the whole. Then each is
also trained for twice as many epochs: the difference is what the epochs take, and only that is
scaled up to 30. All of it is scaled up to all clips, with what does not grow with them.
`--processes N` runs so many grids at a time, each with its share of the cores, as --cluster local:N
does with the pieces of one; then one grid takes an Nth of their mean.

    python benchmarks/grid.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from machine import machine, write_json
from synthetic import EMOTIONS, clip_seconds, utterance_table

from lsmprobe.config import ProbeConfig
from lsmprobe.probing.stage import planned_runs, train_together
from lsmprobe.probing.task import Task

EPOCHS = 30  # of the paper's recipe
FRAME_STEP = 20.0  # milliseconds, of the paper's six models
MODELS_OF_A_SIZE = 3  # of the paper's six


class Corpus(NamedTuple):
    """What decides how long a corpus takes."""

    name: str
    clips: int
    hours: float
    speakers: int


CORPORA = (  # clips without labels that the paper leaves out; * hours by the mean of a clip
    Corpus("aesdd", 604, 0.689, 6),
    Corpus("cafe", 936, 1.155, 12),
    Corpus("demos", 8568, 6.90, 68),  # * 2.9 s
    Corpus("emodb", 535, 0.413, 10),
    Corpus("emomatch", 2005, 1.39, 50),  # * 2.5 s, a guess: nobody publishes it
    Corpus("emovo", 588, 0.510, 6),
    Corpus("eyase", 579, 0.375, 6),
    Corpus("oreau", 502, 0.388, 32),  # * 2.78 s, as version 2
    Corpus("shemo", 3000, 3.48, 87),  # * 4.17 s, as the 2838 clips that EmoBox has
)


class Size(NamedTuple):
    """A kind of model."""

    name: str
    n_layers: int  # layer 0 counts
    dim: int


SIZES = (Size("base", 13, 768), Size("large", 25, 1024))


@dataclass(frozen=True)
class Config:
    """Time the grid."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the heads are trained."""
    fraction: float = 1.0
    """Share of each corpus's clips that is used, 0 to 1; the time is scaled up."""
    frame_step: float = FRAME_STEP
    """Milliseconds between stored frames, as for lsmprobe extract."""
    epochs: int = EPOCHS
    """How many epochs of the 30 are run; where fewer, as many again, and the time is scaled up."""
    processes: int = 1
    """Grids that run at a time."""
    quick: bool = False
    """A tiny part of the three smallest corpora and a tiny model, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


class Noise:
    """Answers like a cache: hidden states of any number of utterances out of one block."""

    store = "frames"

    def __init__(self, size: Size, lengths: np.ndarray) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = size.n_layers, 2 * int(lengths.max()), size.dim
        self.path = Path("nowhere")
        self.layers, self.dim = range(size.n_layers), size.dim
        self.identity = {"model": size.name, "random_init": None}
        self.identity_hash = size.name
        self._block = torch.randn(shape, generator=generator).half().numpy()
        self._lengths = lengths

    def frames(self, i: int, layer: int) -> np.ndarray:
        """An utterance starts where its number says, within the first half."""
        start = 37 * i % (self._block.shape[1] // 2)
        return self._block[layer, start : start + self._lengths[i]]

    def means_of(self, rows: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        """As if each utterance had been averaged."""
        shape = len(rows), len(layers), self.dim
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def stds_of(self, rows: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        """As if all were 1."""
        return np.ones((len(rows), len(layers), self.dim), np.float32)


def made_task(corpus: Corpus, size: Size, fraction: float, frame_step: float = FRAME_STEP) -> Task:
    """A corpus as stage 2 sees it, or its first clips; `frame_step` in milliseconds."""
    seconds = clip_seconds(corpus.clips, 3600 * corpus.hours / corpus.clips)
    least = corpus.speakers * len(EMOTIONS)  # so that a split finds every class
    n_clips = min(corpus.clips, max(round(fraction * corpus.clips), least))
    table = utterance_table(seconds[:n_clips], corpus.speakers)
    table["frames"] = np.ceil(table.frames * FRAME_STEP / frame_step).astype(int)
    cache = Noise(size, table.frames.to_numpy())
    table = table.assign(sha256=table["key"])  # each of a file of its own
    return Task(cache, size.name, corpus.name, np.arange(n_clips), table, EMOTIONS)


def probed_s(task: Task, epochs: int, device: str, folder: Path) -> float:
    """Seconds of all heads and seeds on one corpus: split, training, scores, records."""
    asked = ProbeConfig(
        epochs=epochs,
        device=device,
        results_dir=folder / str(epochs),
    )
    started = time.perf_counter()
    jobs = [(asked, run) for run in planned_runs(asked, task)]
    train_together(jobs, task, on_epoch=lambda: None)
    return time.perf_counter() - started


def whole_s(took: float, task: Task, config: Config, folder: Path) -> float:
    """Seconds of 30 epochs, of which some `took` so long."""
    if config.epochs == EPOCHS:
        return took
    twice = probed_s(task, 2 * config.epochs, config.device, folder)
    an_epoch = max(0.0, twice - took) / config.epochs
    return took + (EPOCHS - config.epochs) * an_epoch


def measured(
    config: Config, sizes: tuple[Size, ...], corpora: tuple[Corpus, ...]
) -> Iterator[dict]:
    """Each size and corpus in turn."""
    with tempfile.TemporaryDirectory() as name:  # what the first one alone would pay for
        probed_s(made_task(corpora[0], sizes[0], 0.0), 1, config.device, Path(name))
    for size in sizes:
        for corpus in corpora:
            task = made_task(corpus, size, config.fraction, config.frame_step)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                took = probed_s(task, config.epochs, config.device, folder)
                whole = whole_s(took, task, config, folder)
            yield {
                "model": size.name,
                "corpus": corpus.name,
                "clips": len(task.lengths),
                "frames_gb": 2e-9 * task.lengths.sum() * size.n_layers * size.dim,
                "seconds": took,
                "projected_s": whole * corpus.clips / len(task.lengths),
            }


def at_a_time(processes: int) -> float:
    """Hours of one grid, where so many run at a time with the flags of this command."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{number}.json" for number in range(processes)]
        flags = [*sys.argv[1:], "--processes", "1", "--json"]
        command = [sys.executable, __file__, *flags]
        running = [subprocess.Popen([*command, file], env=environment) for file in files]
        failed = [process.args for process in running if process.wait()]
        if failed:
            sys.exit(f"failed: {failed[0]}")
        hours = [json.loads(file.read_text())["projected_h"] for file in files]
    each = ", ".join(f"{h:.2f}" for h in hours)
    print(
        f"{processes} at a time, {threads} threads each: {each} h; a grid takes an Nth of the mean"
    )
    return sum(hours) / processes**2


def main(config: Config) -> None:
    """Measure and print."""
    if config.processes > 1:
        hours = at_a_time(config.processes)
        print(f"one grid: {hours:.2f} h")
        write_json(config.json, {"processes": config.processes, "projected_h": hours})
        return
    sizes, corpora = SIZES, CORPORA
    if config.quick:
        config = replace(config, fraction=0.0, epochs=1)
        sizes = (Size("tiny", 3, 16),)
        corpora = tuple(sorted(CORPORA, key=lambda corpus: corpus.speakers * corpus.clips)[:3])
    print(machine(config.device))
    rows = []
    for row in measured(config, sizes, corpora):
        rows.append(row)
        print(
            f"{row['model']:6} {row['corpus']:9} {row['clips']:5} clips, {row['frames_gb']:6.2f} GB"
            f"{row['seconds']:9.1f} s, scaled up {row['projected_s']:9.0f} s",
            flush=True,
        )
    hours = MODELS_OF_A_SIZE * sum(row["projected_s"] for row in rows) / 3600
    print(f"all of this for {MODELS_OF_A_SIZE} models of each size: {hours:.2f} h")
    write_json(config.json, {"cells": rows, "projected_h": hours}, config.device)


if __name__ == "__main__":
    main(tyro.cli(Config))
