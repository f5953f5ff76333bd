"""What cheaper caches cost: float16 at every frame, compared with int8, means of frames, bfloat16.

Each way is a cache of its own, made by `extract`; from each `probe` trains both heads that read
frames, with and without zscore, leaving one speaker out. Every way is compared with float16 at
every frame by the same runs on the same test clips (`compare_records`): the score lost with its 95%
interval, paired by seed, the bytes of the file, and the seconds of training. A way is within a
point where that interval lies above -1. Caches and runs that exist are not made again, so
more seeds, or going on after a stop, cost only what is missing.

    python benchmarks/stores.py [--quick] [--model M --dataset D --data-dir DIR] [--json FILE]
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from machine import machine, write_json

from lsmprobe import ExtractConfig, ProbeConfig, compare_records, extract
from lsmprobe.probing.stage import probe
from lsmprobe.results.records import load_record

FULL = "float16"
WAYS: dict[str, dict[str, Any]] = {  # by the folder of its cache: flags of extract
    FULL: {},
    "step100": {"frame_step": 100.0},
    "step200": {"frame_step": 200.0},
    "int8-step100": {"frame_step": 100.0, "store_dtype": "int8"},
    "int8": {"store_dtype": "int8"},
    "bfloat16": {"precision": "bfloat16"},  # computed so, and stored as float16
}
NORMS = ("none", "zscore")
HEADS = ("nonlinear", "multilayer")
POINT = 1.0  # of macro-F1 in percent: what a smaller cache may lose


@dataclass(frozen=True)
class Config:
    """Compare ways to store hidden states."""

    model: str = "whisper-tiny-en"
    """As for lsmprobe extract."""
    dataset: str = "emodb"
    """As for extract."""
    data_dir: Path | None = None
    """As for extract."""
    folder: Path = Path("stores")
    """Caches and records are written in here."""
    ways: tuple[str, ...] = tuple(WAYS)
    """Which to compare."""
    norms: tuple[str, ...] = NORMS
    """Which normalisations of features."""
    seeds: int = 5
    """Runs of each head."""
    split: str = "loso"
    """As for probe."""
    epochs: int = 30
    """Of each run."""
    quick: bool = False
    """The toy corpus and the toy model, one epoch, to see that it runs."""
    json: Path | None = None
    """Write the figures here too."""


def made_cache(config: Config, way: str) -> Path:
    """The cache of one way."""
    asked = ExtractConfig(
        model=config.model,
        dataset=config.dataset,
        data_dir=config.data_dir,
        cache_dir=config.folder / way,
        **WAYS[way],
    )
    return extract(asked).path


def runs_of(config: Config, way: str, norm: str, head: str) -> pd.DataFrame:
    """One row per seed; only missing runs are trained."""
    asked = ProbeConfig(
        cache_dir=config.folder / way,
        results_dir=config.folder / "results" / way,
        head=head,
        feature_norm=norm,  # type: ignore[arg-type]
        split=config.split,
        runs=config.seeds,
        epochs=config.epochs,
    )
    return probe(asked).sort_values("seed")


def compared(config: Config) -> Iterator[dict[str, Any]]:
    """A row for each way, norm and head, as soon as it is measured."""
    nbytes = {way: made_cache(config, way).stat().st_size for way in config.ways}
    for norm in config.norms:
        for head in HEADS:
            full = runs_of(config, FULL, norm, head)
            for way in config.ways:
                runs = full if way == FULL else runs_of(config, way, norm, head)
                row = {
                    "store": way,
                    "norm": norm,
                    "head": head,
                    "macro_f1": runs.macro_f1.mean(),
                    "bytes": nbytes[way],
                    "smaller": nbytes[FULL] / nbytes[way],
                    "seconds": runs.seconds.sum(),
                    "faster": full.seconds.sum() / runs.seconds.sum(),
                }
                if way != FULL:
                    row |= difference(runs, full)
                yield row


def difference(runs: pd.DataFrame, full: pd.DataFrame) -> dict[str, Any]:
    """The score of some runs less that of float16 at every frame, in percentage points."""
    found = compare_records(*([load_record(Path(p)) for p in of.path] for of in (runs, full)))
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "within_a_point": bool(found.low > -POINT),
    }


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    text = f"{row['store']:12} {row['norm']:6} {row['head']:10} {row['macro_f1']:6.2f}"
    if "low" in row:
        kept = "within a point" if row["within_a_point"] else "not shown to be"
        text += f"  {row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] {kept}"
    return f"{text}; {row['smaller']:.1f} x smaller, trained {row['faster']:.1f} x as fast"


def main(config: Config) -> None:
    """Measure and print."""
    if config.quick:
        config = replace(
            config, model="toy", dataset="toy", split="kfold:3", seeds=2, epochs=1, norms=("none",)
        )
    print(machine())
    rows = []
    for row in compared(config):
        rows.append(row)
        print(line(row), flush=True)
        write_json(config.json, {"split": config.split, "seeds": config.seeds, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Config))
