"""Pieces: what one process does in one go, as plain values that travel as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.cache.layout import NUMBERS, TEXT, as_bytes, table_of
from lsmprobe.cache.parts import PART_NAME, part_numbers
from lsmprobe.config import (
    BaselineConfig,
    Config,
    ExtractConfig,
    ProbeConfig,
    SensitivityConfig,
    TransferConfig,
)

NUMBERS_READ = ("start_s", "end_s", "seconds", "samples")  # known before a model is
KINDS: dict[str, type[Config]] = {
    kind.__name__: kind
    for kind in (ExtractConfig, ProbeConfig, TransferConfig, SensitivityConfig, BaselineConfig)
}


@dataclass(frozen=True)
class Piece:
    """Work that one process does, and may do again: what is there already is not done twice."""

    name: str  # for messages; its log is named after it
    config: Config  # of the stage
    size: int  # how much work it is: samples of audio, or epochs of training
    records: tuple[str, ...] = ()  # of stage 2, the records that it makes
    cost: int = 0  # how long it takes compared with the others, in no unit: the longest goes first

    def to_json(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        config = {field.name: getattr(self.config, field.name) for field in fields(self.config)}  # type: ignore[arg-type]
        return {
            "name": self.name,
            "kind": type(self.config).__name__,
            "config": json.loads(json.dumps(config, default=_path_as_json)),
            "size": self.size,
            "records": list(self.records),
            "cost": self.cost,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Piece":
        """What `to_json` made."""
        config = {name: _from_json(value) for name, value in values["config"].items()}
        return cls(
            values["name"],
            KINDS[values["kind"]](**config),
            values["size"],
            tuple(values["records"]),
            values["cost"],
        )


def pieces_of_extraction(
    config: ExtractConfig, samples: np.ndarray, there: Sequence[Path], n_parts: int
) -> list[Piece]:
    """The pieces of one model on one corpus.

    What is there decides: a cache in one file is continued as one piece, parts as they were cut.

    Args:
        config: what is extracted.
        samples: of every utterance, 0 where it cannot be read.
        there: the files of the cache, see `cache_files`.
        n_parts: into how many parts a new cache is cut; fewer where there are too few clips.
    """
    name = f"{config.cache_path.parent.name} on {config.cache_path.stem}"
    found = [PART_NAME.fullmatch(file.name) for file in there]
    counts = {int(part["of"]) if part and part["of"] else 0 for part in found}
    count = max(counts, default=_parts_that_fit(samples, n_parts))
    if config.replace or 0 in counts or (count == 1 and not counts):
        return [Piece(name, config, int(samples.sum()))]
    sizes = np.bincount(part_numbers(samples, count), samples, minlength=count)
    return [
        Piece(
            f"{name}, part {number} of {count}",
            replace(config, part=f"{number}/{count}"),
            int(sizes[number]),
        )
        for number in range(count)
    ]


def write_table(path: Path, utterances: pd.DataFrame) -> None:
    """Keep a corpus as `planned_utterances` read it, so that no process reads its audio again.

    Further columns stay behind: they are labels, which the command itself writes.
    """
    text = {name: as_bytes(np.asarray(utterances[name], object)) for name in TEXT}
    numbers = {name: utterances[name].to_numpy(NUMBERS[name]) for name in NUMBERS_READ}
    attrs = np.array(json.dumps(utterances.attrs))
    np.savez(path, attrs=attrs, **(text | numbers))


def read_table(path: Path) -> pd.DataFrame:
    """What `write_table` kept."""
    with np.load(path) as kept:
        table = table_of({name: kept[name] for name in (*TEXT, *NUMBERS_READ)})
        table.attrs = json.loads(str(kept["attrs"]))
    return table


def _parts_that_fit(samples: np.ndarray, n_parts: int) -> int:
    """As many parts as there are to be, or as there can be without an empty one."""
    readable = samples > 0
    for count in range(max(1, min(n_parts, int(readable.sum()))), 1, -1):
        if len(np.unique(part_numbers(samples, count)[readable])) == count:
            return count
    return 1


def _path_as_json(value: Any) -> dict[str, str]:
    assert isinstance(value, Path)
    return {"path": str(value)}


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return Path(value["path"])
    return tuple(map(_from_json, value)) if isinstance(value, list) else value
