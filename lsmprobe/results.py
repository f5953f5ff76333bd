"""One record per run on disk, and all of them as one DataFrame.

A record is a JSON file; the trained head lies beside it as safetensors. The record is written last,
aside and then renamed, so a record under its final name is a finished run.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
from torch import Tensor

from lsmprobe.errors import ResultsError

FORMAT = "lsmprobe-run"
VERSION = 1

log = logging.getLogger(__name__)


def run_id(identity: Mapping[str, Any]) -> str:
    """Twelve hex digits that stand for everything that decides a run's numbers."""
    canonical = json.dumps(identity, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def record_path(
    results_dir: Path, model: str, corpus: str, head: str, layer: int | None, seed: int, run: str
) -> Path:
    """Where the record of a run lies: RESULTS/MODEL/CORPUS/linear-layer12-seed0-RUN.json."""
    which = head if layer is None else f"{head}-layer{layer:02d}"
    return results_dir / model / corpus / f"{which}-seed{seed}-{run}.json"


def save_run(path: Path, record: Mapping[str, Any], heads: Mapping[str, Tensor]) -> None:
    """Write a finished run: its head's tensors, then its record.

    Raises:
        ResultsError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_then_rename(path.with_suffix(".safetensors"), safetensors.torch.save(dict(heads)))
        content = json.dumps({"format": FORMAT, "version": VERSION, **record}, allow_nan=False)
        _write_then_rename(path, content.encode())
    except OSError as error:
        raise ResultsError(
            f"{path.parent}: the result cannot be written ({error.strerror}); "
            "free space or choose another --results-dir. Finished runs are kept."
        ) from error


def load_record(path: Path) -> dict[str, Any]:
    """One record.

    Raises:
        ResultsError: the file is not a record, or one of another version.
    """
    try:
        record = json.loads(path.read_bytes())
        found = record["format"], record["version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResultsError(
            f"{path} is not a readable record of a run ({error}); delete it and probe again."
        ) from error
    if found != (FORMAT, VERSION):
        raise ResultsError(
            f"{path} has format {found[0]} {found[1]}; expected {FORMAT} {VERSION}. "
            "Delete it and probe again."
        )
    return record


def load_head(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's trained heads, by `fold.parameter`; `path` is the record's."""
    try:
        return safetensors.torch.load_file(path.with_suffix(".safetensors"))
    except (OSError, safetensors.SafetensorError) as error:
        raise ResultsError(f"{path}: its trained head cannot be read ({error}).") from error


def load_results(results_dir: str | Path = "results") -> pd.DataFrame:
    """Every finished run in a folder, one row each.

    Scores are in percent. `layer` is missing for Multi-Layer, `layer_weights` for the others. Runs
    of one `experiment` differ in their seed alone (and with --resplit in their split).
    Damaged records are named in a warning of the log and left out.

    Raises:
        ResultsError: the folder is not there.
    """
    folder = Path(results_dir)
    if not folder.is_dir():
        raise ResultsError(f"{folder} is not a folder; expected the --results-dir of probe.py.")
    splits = folder / "splits"
    return results_table(path for path in sorted(folder.rglob("*.json")) if path.parent != splits)


def results_table(paths: Iterable[Path]) -> pd.DataFrame:
    """These records as a DataFrame, one row each; see `load_results`."""
    rows = []
    for path in paths:
        try:
            rows.append(_row(path, load_record(path)))
        except ResultsError as error:
            log.warning("left out: %s", error)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("left out: %s is damaged (%s: %s)", path, type(error).__name__, error)
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)


def is_finished(path: Path) -> bool:
    """Whether a run's record is there and can be read."""
    try:
        _row(path, load_record(path))
    except (ResultsError, KeyError, TypeError, ValueError):
        return False
    return True


_COLUMNS: dict[str, str] = {
    "model": "str",
    "corpus": "str",
    "head": "str",
    "layer": "Int64",
    "seed": "Int64",
    "split": "str",
    "feature_norm": "str",
    "experiment": "str",
    "macro_f1": "float64",
    "macro_f1_low": "float64",
    "macro_f1_high": "float64",
    "uar": "float64",
    "accuracy": "float64",
    "constant_f1": "float64",
    "interval_over": "str",
    "n_test": "Int64",
    "best_epoch": "object",
    "layers": "object",
    "layer_weights": "object",
    "random_weights": "bool",
    "settings": "object",
    "split_hash": "str",
    "cache_hash": "str",
    "seconds": "float64",
    "path": "str",
}


def _row(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    scores = record["scores"]
    return {
        "model": record["model"],
        "corpus": record["corpus"],
        "head": record["head"],
        "layer": record["layer"],
        "seed": record["seed"],
        "split": record["split"]["kind"],
        "feature_norm": record["settings"]["feature_norm"],
        "experiment": record["experiment"],
        "macro_f1": float(scores["macro_f1"]),
        "macro_f1_low": float(scores["interval"]["low"]),
        "macro_f1_high": float(scores["interval"]["high"]),
        "uar": float(scores["uar"]),
        "accuracy": float(scores["accuracy"]),
        "constant_f1": float(scores["constant_f1"]),
        "interval_over": scores["interval"]["over"],
        "n_test": len(record["predictions"]),
        "best_epoch": [fold["best_epoch"] for fold in record["folds"]],
        "layers": record["layers"],
        "layer_weights": record["layer_weights"],
        "random_weights": record["cache"]["identity"].get("random_init") is not None,
        "settings": record["settings"],
        "split_hash": record["split"]["hash"],
        "cache_hash": record["cache"]["hash"],
        "seconds": float(record["seconds"]),
        "path": str(path),
    }


def _write_then_rename(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
