"""How the cost of a cache in many parts grows: planning, opening, merging, probing.

Made-up pooled means of few dimensions. The cost is linear if the seconds grow as the utterances do.
Memory is the most that the process itself held in a step, without the files that it maps; what a
clip takes is the difference between two sizes, each run alone, since memory that is free is not
always given back: --utterances 100000.

    python benchmarks/parts.py [--quick] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from machine import give_back, most_own_memory, own_memory, write_json
from synthetic import utterance_table

from lsmprobe.cache.file import lay_out, pwrite
from lsmprobe.cache.labels import write_labels
from lsmprobe.cache.layout import Member, checksum
from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.parts import part_numbers, part_path, plan_of_rows
from lsmprobe.cache.plan import CachePlan, plan_hash
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cluster.pieces import pieces_of_extraction, read_table, write_table
from lsmprobe.config import ExtractConfig, ProbeConfig
from lsmprobe.extraction.resume import planned_files
from lsmprobe.probing.stage import probe
from lsmprobe.progress import silent


@dataclass(frozen=True)
class Config:
    """Time what is done with a cache in parts, at growing sizes."""

    utterances: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Sizes, each a cache of its own."""
    per_part: int = 1000
    """Utterances in each part."""
    layers: int = 2
    """How many layers, layer 0 included."""
    dim: int = 16
    """Dimensions of a layer."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def write_parts(path: Path, plan: CachePlan, count: int) -> None:
    """Every part of a finished cache of pooled means, as a run of stage 1 leaves it."""
    numbers = part_numbers(plan.utterances.samples.to_numpy(), count)
    digest = plan_hash(plan)
    for number in range(count):
        rows = np.flatnonzero(numbers == number).tolist()
        part = plan_of_rows(plan, rows, {"number": number, "of": count, "plan": digest})
        shape = len(rows), plan.n_layers, plan.dim
        means = np.random.default_rng(number).normal(size=shape).astype(np.float32)
        values = {
            "pooled/mean": means,
            "pooled/std": np.ones_like(means),
            "utterances/sha256": np.array([f"{row:064x}".encode() for row in rows]),
            "utterances/done": np.ones(len(rows), np.uint8),
        }
        checked = [values[name] for name in list(values)[:3]]
        sums = [checksum([each[row : row + 1] for each in checked]) for row in range(len(rows))]
        values["utterances/checksum"] = np.array(sums, np.uint64)

        def fill(
            descriptor: int, members: dict[str, Member], values: dict[str, np.ndarray] = values
        ) -> None:
            for name, array in values.items():
                pwrite(descriptor, array, members[name].offset)

        lay_out(part_path(path, number, count), part, fill)


class Steps:
    """Seconds of each step, and the most memory in GB during it."""

    def __init__(self, **known: float) -> None:
        self.found = known

    def timed(self, name: str, call: Callable[[], Any]) -> None:
        """One step; what is free is given back first, so that it does not count."""
        give_back()
        started, most = time.monotonic(), []
        with most_own_memory(most):
            call()
        self.found[f"{name}_s"] = round(time.monotonic() - started, 3)
        self.found[f"{name}_gb"] = round(most[0] / 1e9, 3)


def make(folder: Path, path: Path, n: int, count: int, config: Config, steps: Steps) -> None:
    """Plan and write the parts, and the table that a worker is handed."""
    table = utterance_table(np.full(n, 1.0), 100)
    plan = CachePlan(table, config.layers, config.dim, "pooled", "float32", {"model": "made"})
    asked = ExtractConfig("made", "many", cache_dir=folder)
    samples = table.samples.to_numpy()
    steps.timed("plan", lambda: pieces_of_extraction(asked, samples, [], count))
    steps.timed("write", lambda: write_parts(path, plan, count))
    write_table(folder / "table.npz", table)
    write_labels(path, table, None)


def measure(folder: Path, n: int, config: Config) -> dict[str, float]:
    """All steps at one size."""
    count = max(1, n // config.per_part)
    path = folder / "made" / "many.h5"
    path.parent.mkdir(parents=True)
    steps = Steps(utterances=n, parts=count)
    make(folder, path, n, count, config, steps)
    give_back()
    steps.found["libraries_gb"] = round(own_memory() / 1e9, 3)
    mine = part_path(path, count // 2, count)
    mine.rename(folder / "aside.h5")  # as if all but this one were there

    def one_worker() -> None:
        kept = read_table(folder / "table.npz")
        kept = kept.assign(frames=kept.samples // 320)
        plan = CachePlan(kept, config.layers, config.dim, "pooled", "float32", {"model": "made"})
        planned_files(path, plan, (count // 2, count))

    steps.timed("plan_of_one_worker", one_worker)
    (folder / "aside.h5").rename(mine)
    steps.timed("open", lambda: FeatureCache(path))
    probed = ProbeConfig(
        head="linear",
        runs=1,
        epochs=1,
        cache_dir=folder,
        results_dir=folder / "results",
        device="cpu",
    )
    steps.timed("verify_and_probe", lambda: probe(probed, progress=silent))
    steps.timed("merge", lambda: merge_cache(path, remove_parts=True, progress=silent))
    steps.timed("open_merged", lambda: FeatureCache(path))
    return steps.found


def main(config: Config) -> None:
    """Measure and print a table."""
    sizes = (200, 400) if config.quick else config.utterances
    per_part = 50 if config.quick else config.per_part
    config = Config(sizes, per_part, config.layers, config.dim, config.quick, config.json)
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(Path(folder), n, config))
        print(rows[-1], flush=True)
    if config.json:
        write_json(config.json, {"rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Config))
