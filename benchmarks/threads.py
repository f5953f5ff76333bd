"""How torch's threads wait for each other, alone and beside jobs that use every core.

Between two operations a thread spins for a while before it sleeps (`lsmprobe.threads`). The same
work is timed with the default of the OpenMP library, with lsmprobe's setting, and without any
spinning; each in a process of its own, in turn, first alone and then beside busy processes:
- the forward pass of wav2vec2-base's architecture with random weights;
- a Linear sweep over made-up means;
- an epoch of three Multi-Layer heads over made-up frames, which train side by side, and of one.
What is fair beside busy processes is the time alone, divided by the share of the cores that as many
threads get: with two threads beside two busy processes on two cores, twice the time.

`--openmp` names another OpenMP library (libiomp5.so, libomp.so), which is loaded before torch's.

    python benchmarks/threads.py [--quick] [--openmp FILE] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from extraction import TINY
from machine import machine, medians, write_json
from probing import Config as Sizes
from probing import Corpus, epoch_seconds, member, train
from transformers import Wav2Vec2Config, Wav2Vec2Model

from lsmprobe.machine import keep_freed_memory
from lsmprobe.probing.batches import PooledFeatures
from lsmprobe.threads import WAITING

DEFAULT, OURS = "the default", "lsmprobe's"
SETTINGS = {  # of the two variables: spins of GNU's OpenMP; milliseconds of Intel's and LLVM's
    DEFAULT: ("300000", "200"),
    OURS: tuple(WAITING.values()),
    "no spinning": ("0", "0"),
}
CLIP = 16_000 * 3  # samples


@dataclass(frozen=True)
class Config:
    """Time ways to wait."""

    busy: int = os.cpu_count() or 1
    """Processes that use a core each, beside which everything is timed again."""
    openmp: Path | None = None
    """An OpenMP library to load before torch's."""
    repeats: int = 3
    """Rounds; the median counts."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""
    stages: bool = False
    """Time the stages in this process, and print them as JSON: what each process is told."""


def stage_seconds(*, quick: bool) -> dict[str, float]:
    """Seconds of each stage in this process; each is run once before it is timed."""
    keep_freed_memory()
    sizes = Sizes(clips=200, layers=4, epochs=10)
    if quick:
        sizes = replace(sizes, clips=60, layers=2, dim=24, epochs=1)
    network = Wav2Vec2Model(Wav2Vec2Config(**(TINY if quick else {}))).eval()
    clip = torch.randn(1, CLIP // 10 if quick else CLIP)

    def forward() -> None:
        with torch.no_grad():
            for _ in range(1 if quick else 4):
                network(clip)

    def sweep() -> None:
        members = [
            member("linear", corpus, layer, seed, sizes.epochs)
            for layer in range(sizes.layers)
            for seed in range(3)
        ]
        train(members, corpus, PooledFeatures(corpus.means), "cpu")

    with tempfile.TemporaryDirectory() as name:
        corpus = Corpus.make(sizes, Path(name))
        forward()
        sweep()
        took = medians({"forward": forward, "linear": sweep}, 1)
        for heads in (3, 1):
            took[f"multilayer x{heads}"] = epoch_seconds("multilayer", corpus, sizes, heads)
    return took


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def in_a_process(config: Config, setting: str) -> dict[str, float]:
    """The stages' seconds with one setting."""
    environment = os.environ | dict(zip(WAITING, SETTINGS[setting], strict=True))
    if config.openmp:
        environment["LD_PRELOAD"] = str(config.openmp.resolve())
    flags = ["--stages", *(["--quick"] if config.quick else [])]
    done = subprocess.run(
        [sys.executable, __file__, *flags],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return json.loads(done.stdout)


def rounds(config: Config) -> dict[str, dict[str, float]]:
    """Median seconds of each stage with each setting; in a round each setting has its turn."""
    took: dict[str, dict[str, list[float]]] = {setting: {} for setting in SETTINGS}
    for _ in range(config.repeats):
        for setting, of_one in took.items():
            for stage, seconds in in_a_process(config, setting).items():
                print(f"{setting}, {stage}: {seconds:.2f} s", flush=True)
                of_one.setdefault(stage, []).append(seconds)
    return {
        setting: {stage: statistics.median(values) for stage, values in of_one.items()}
        for setting, of_one in took.items()
    }


def main(config: Config) -> None:
    """Measure and print."""
    if config.stages:
        print(json.dumps(stage_seconds(quick=config.quick)))
        return
    if config.quick:
        config = replace(config, repeats=1, busy=1)
    print(machine())
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    fair = max(1.0, (threads + config.busy) / cores)
    alone = rounds(config)
    with busy_processes(config.busy):
        beside = rounds(config)
    rows = []
    for setting in SETTINGS:
        for stage, seconds in alone[setting].items():
            row = {
                "setting": setting,
                "stage": stage,
                "alone_s": seconds,
                "beside_s": beside[setting][stage],
                "alone_times_the_default": seconds / alone[DEFAULT][stage],
                "times_the_fair_share": beside[setting][stage] / (fair * alone[OURS][stage]),
            }
            rows.append(row)
            print(
                f"{setting:12} {stage:13} alone {seconds:6.2f} s,"
                f" {row['alone_times_the_default']:.2f} times the default;"
                f" beside {config.busy} busy processes {row['beside_s']:6.2f} s,"
                f" {row['times_the_fair_share']:.2f} times the fair share of {fair:.1f}"
            )
    write_json(config.json, {"busy": config.busy, "fair": fair, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Config))
