"""One record per run on disk, and all of them as one DataFrame.

A record is a JSON file; the trained head lies beside it as safetensors. The record is written last,
aside and then renamed, so a record under its final name is a finished run.
"""

import glob
import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from lsmprobe.atomic import one_at_a_time, write_then_rename
from lsmprobe.errors import ResultsError, one_line
from lsmprobe.results.measures import CLASSES, EMOTION, MEASURES, Measure, measure_of, target_of

FORMAT = "lsmprobe-run"
NAMED_BY = ("model", "corpus", "target", "measure", "split", "feature_norm", "head", "layer")
"""What a table calls an experiment by; what it is, its hash says."""
VERSION = 1
ONE_RUN = ("experiment", "seed", "split_hash")  # equal of two records: they are of one run
log = logging.getLogger(__name__)
_FOLD_VALUES = ("best_epoch", "history", "layer_weights", "seconds", "shared_pools")


class Column(NamedTuple):
    """A column of the table of results: its type, and how a record tells it."""

    kind: str
    read: Callable[[Mapping[str, Any]], Any]


def _scored(measure: Measure) -> dict[str, Column]:
    """The columns of a measure; another measure's record has none of them.

    What shuffled answers score is missing in older records.
    """

    def at(way: tuple[str, ...], record: Mapping[str, Any]) -> float | None:
        if measure_of(record) is not measure:
            return None
        found = record["scores"]
        if way[0] == "shuffled":
            return (found.get("shuffled") or {}).get(way[1])
        for step in way:
            found = found[step]
        return float(found)

    return {name: Column("float64", partial(at, way)) for name, way in measure.columns.items()}


def _same(name: str, kind: str) -> Column:
    return Column(kind, lambda record: record[name])


# What people read stands first; settings, hashes and paths stand last. Of scores, a table has those
# of classes and those that its records have.
_COLUMNS: dict[str, Column] = {
    "model": _same("model", "str"),
    "corpus": _same("corpus", "str"),
    "target": Column("str", lambda record: ",".join(target_of(record))),
    "head": _same("head", "str"),
    "layer": _same("layer", "Int64"),
    **{name: column for measure in MEASURES.values() for name, column in _scored(measure).items()},
    "measure": Column("str", lambda record: measure_of(record).name),
    "seed": _same("seed", "Int64"),
    "split": Column("str", lambda record: split_of(record)),
    "feature_norm": Column("str", lambda record: record["settings"]["feature_norm"]),
    "n_test": Column("Int64", lambda record: len(record["predictions"])),
    "interval_over": Column("str", lambda record: record["scores"]["interval"]["over"]),
    "random_weights": Column(
        "bool", lambda record: record["cache"]["identity"].get("random_init") is not None
    ),
    "alarms": Column(
        "object", lambda record: [alarm["code"] for alarm in record.get("alarms", [])]
    ),
    "validation": Column("float64", lambda record: _validation(record["folds"])),
    "best_epoch": Column("object", lambda record: [fold["best_epoch"] for fold in record["folds"]]),
    "n_layers": Column("Int64", lambda record: record.get("n_layers")),  # of the cache, 0 too
    "layers": _same("layers", "object"),
    "layer_weights": _same("layer_weights", "object"),
    "seconds": Column("float64", lambda record: float(record["seconds"])),
    "settings": _same("settings", "object"),
    "experiment": _same("experiment", "str"),
    "split_hash": Column("str", lambda record: record["split"]["hash"]),
    "labels_hash": Column("str", lambda record: labels_hash_of(record)),
    "labels_file": Column("str", lambda record: record.get("labels", {}).get("file", "")),
    "created": Column("str", lambda record: record.get("created", "")),
    "cache_hash": Column("str", lambda record: record["cache"]["hash"]),
    "cache_identity": Column("object", lambda record: record["cache"]["identity"]),
}
PATH = {"path": "object"}  # a folder's name may be no Unicode, which `str` refuses
Load = Callable[[Path], dict[str, Any]]  # a record of a path, as `load_record` gives it
# What a column of each type can take.
_FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str) and not re.search("[\ud800-\udfff]", value),
    "Int64": lambda value: value is None or (type(value) is int and abs(value) < 2**63),
    "float64": lambda value: value is None or math.isfinite(value),
    "bool": lambda value: isinstance(value, bool),
    "object": lambda value: value is None or isinstance(value, list | dict),
}


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
    """Write a finished run: its heads' tensors if there are any, then its record.

    Raises:
        ResultsError: the folder cannot be written.
    """
    tensors = safetensors.torch.save(dict(heads)) if heads else b""
    own = {"head_sha256": hashlib.sha256(tensors).hexdigest()} if heads else {}
    told = {"format": FORMAT, "version": VERSION, **record, **own}
    content = json.dumps(told, allow_nan=False)
    with _disk_errors(path), one_at_a_time(path.parent):  # or a record has another's heads
        if heads:
            write_then_rename(path.with_suffix(".safetensors"), tensors)
        write_then_rename(path, content.encode())
        for fold in path.parent.glob(f".{glob.escape(path.stem)}.fold*.safetensors"):
            fold.unlink(missing_ok=True)


@dataclass(frozen=True)
class TrainedFold:
    """What came of one fold of a run."""

    best_epoch: int  # counted from 1
    history: list[dict[str, float | None]]  # one entry per epoch
    layer_weights: list[float] | None  # if the head weighs layers
    seconds: float
    probabilities: Float[Tensor, "test classes"]
    head: dict[str, Tensor]
    shared_pools: bool = False  # whether its batches came from pools that all seeds shared


def save_fold(path: Path, number: int, fold: TrainedFold) -> None:
    """Keep a fold of a run that is still going, so that a kill costs no more than one fold.

    Args:
        path: of the run's record, which replaces its folds when it is saved.
        number: of the fold, from 0.
        fold: what came of it.

    Raises:
        ResultsError: the folder cannot be written.
    """
    values = {name: getattr(fold, name) for name in _FOLD_VALUES}
    head = {f"head.{name}": tensor for name, tensor in fold.head.items()}
    tensors = {"probabilities": fold.probabilities, **head}
    content = safetensors.torch.save(tensors, metadata={"fold": json.dumps(values)})
    with _disk_errors(path):
        write_then_rename(_fold_path(path, number), content)


def load_fold(path: Path, number: int) -> TrainedFold | None:
    """A fold that was kept, if it is there and whole."""
    kept = _fold_path(path, number)
    if not kept.exists():
        return None
    try:
        with safetensors.safe_open(kept, "pt") as file:
            values = json.loads(file.metadata()["fold"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        probabilities = tensors.pop("probabilities")
        head = {name.removeprefix("head."): tensor for name, tensor in tensors.items()}
        return TrainedFold(**values, probabilities=probabilities, head=head)
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        log.warning("made again: %s is damaged (%s)", kept, error)
        return None


def _fold_path(path: Path, number: int) -> Path:
    """Hidden beside the record: it is no result."""
    return path.with_name(f".{path.stem}.fold{number:03d}.safetensors")


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"{path.parent}: the result cannot be written ({error.strerror}); "
            "free space or choose another --results-dir. Finished runs are kept."
        ) from error


def load_record(path: Path) -> dict[str, Any]:
    """One record.

    Raises:
        ResultsError: the file is not a record, one of another version, or damaged.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
        found = record["format"], record["version"]
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be read ({error.strerror}). Run lsmprobe probe again."
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, error) from error
    if found != (FORMAT, VERSION):
        raise ResultsError(
            f"{path} has format {one_line(f'{found[0]} {found[1]}')}; expected {FORMAT} {VERSION}. "
            "Delete it and run lsmprobe probe again."
        )
    try:
        measure_of(record)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error
    try:
        for name, value in _row(record).items():
            if not _FITS[_COLUMNS[name].kind](value):
                raise ValueError(f"{name} is {str(value)[:40]!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    return record


def load_head(path: Path, record: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The tensors of a run's trained heads, by `fold.parameter`.

    Args:
        path: of the run's record.
        record: what `load_record` made of it, where it was read before.

    Raises:
        ResultsError: they are not there, damaged, or those of another run; or as `load_record`.
    """
    record = load_record(path) if record is None else record
    expected = record.get("head_sha256")  # older records do not say
    beside = path.with_suffix(".safetensors")
    try:
        content = beside.read_bytes()
        if expected not in (None, found := hashlib.sha256(content).hexdigest()):
            raise ResultsError(
                f"{beside} has the hash {found[:12]}; expected {str(expected)[:12]}, the head that "
                f"{path.name} was scored with. Put it back, or run lsmprobe probe again with "
                "--force."
            )
        return safetensors.torch.load(content)
    except (OSError, safetensors.SafetensorError) as error:
        raise ResultsError(f"{path}: its trained head cannot be read ({error}).") from error


def load_predictions(path: str | Path) -> pd.DataFrame:
    """What a run says of every test utterance; `path` is the record's.

    Returns:
        One row per utterance, in the split's order: key, speaker, emotion. Of classes: predicted,
        and one column `p_EMOTION` per class with its probability; `truth` where the target is
        another column than the emotion. Of numbers: each target and predicted_TARGET. Of soft
        labels as of classes, with `truth` the most frequent label (empty where several have most
        votes), and one column `share_CLASS` per class with what raters said. Its `attrs["about"]`
        names the experiment; tables of several of its runs keep that when they are concatenated.

    Raises:
        ResultsError: as `load_record`.
    """
    record = load_record(Path(path))
    try:
        return predictions_of(record)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def predictions_of(record: Mapping[str, Any]) -> pd.DataFrame:
    """What `load_predictions` gives of a record that was read."""
    table = measure_of(record).predictions(record)
    row = _row(record)
    layer = "" if row["layer"] is None else f" on layer {row['layer']}"
    model = row["model"] + (" (random weights)" if row["random_weights"] else "")
    of = (model, row["corpus"], row["target"], row["head"] + layer)
    table.attrs["about"] = ", ".join([*of, f"split {row['split']}", f"norm {row['feature_norm']}"])
    return table


def load_results(results_dir: str | Path = "results", *, load: Load = load_record) -> pd.DataFrame:
    """Every finished run in a folder, one row each.

    Scores of classes are in percent, those of numbers in the unit of their measure; a table has
    columns for the measures that it has runs of. `target` is what was learned. `split` names the
    test set too, where it is one of several: `given/Test1`. `layer` is missing
    for Multi-Layer, `layer_weights` for the others. Runs of one `experiment` differ in their seed
    alone (and with --resplit in their split), and one that is there twice counts once;
    `settings`, `cache_identity` and `labels_hash` say in
    what two experiments differ. `alarms` are codes, see alarms.py. `validation` is the score on the
    validation set of the epoch that was kept. Damaged records are named in a warning of the log and
    left out.

    Args:
        results_dir: the folder.
        load: what reads a record; whoever reads on hands in one that remembers.

    Raises:
        ResultsError: the folder is not there.
    """
    folder = Path(results_dir)
    if not folder.is_dir():
        raise ResultsError(
            f"{folder} is not a folder; expected the --results-dir of lsmprobe probe."
        )
    splits = folder / "splits"
    paths = (path for path in sorted(folder.rglob("*.json")) if path.parent != splits)
    return results_table(paths, load=load)


def results_table(paths: Iterable[Path], *, load: Load = load_record) -> pd.DataFrame:
    """These records as a DataFrame, one row each; see `load_results`."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in paths:
        try:
            row = {**_row(load(path)), "path": str(path)}
        except ResultsError as error:
            log.warning("skipping: %s", error)
            continue
        first = rows.setdefault(tuple(row[name] for name in ONE_RUN), row)
        if first is not row:
            log.warning("skipping %s: it is the run of %s, which counts once", path, first["path"])
    there = {row["measure"] for row in rows.values()} | {CLASSES.name}
    others = (m for m in MEASURES.values() if m.name not in there)
    absent = {name for measure in others for name in measure.columns}
    shown = {name: column.kind for name, column in _COLUMNS.items() if name not in absent}
    kinds = shown | PATH
    return pd.DataFrame(
        {n: pd.Series([row[n] for row in rows.values()], dtype=kind) for n, kind in kinds.items()}
    )


def with_target(results: pd.DataFrame) -> pd.DataFrame:
    """The results with the columns target and measure, which tables of one's own may lack."""
    usual = {"target": ",".join(EMOTION), "measure": CLASSES.name}
    return results.assign(**{n: value for n, value in usual.items() if n not in results})


def which_run(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of `ONE_RUN`, of a record."""
    return tuple(_COLUMNS[name].read(record) for name in ONE_RUN)


def once(results: pd.DataFrame) -> pd.DataFrame:
    """The results without runs that stand there twice, as in tables that were concatenated."""
    known = [name for name in ONE_RUN if name in results]
    return results.drop_duplicates(known) if len(known) == len(ONE_RUN) else results


def split_of(record: Mapping[str, Any]) -> str:
    """The split of a run as tables name it: its kind, and of several test sets which one.

    >>> split_of({"split": {"kind": "loso"}})
    'loso'
    >>> split_of({"split": {"kind": "given", "test_set": "Test1"}})
    'given/Test1'
    """
    split = record["split"]
    return "/".join(filter(None, (split["kind"], split.get("test_set", ""))))


def labels_hash_of(record: Mapping[str, Any]) -> str:
    """Equal means that two runs of one corpus and target learned the same labels.

    Older records do not say what they learned: theirs is of what they were tested on.
    """
    if "labels" in record:
        return str(record["labels"]["hash"])
    told = ("key", "speaker", "emotion", "truth")
    tested = [[str(each.get(name)) for name in told] for each in record["predictions"]]
    return run_id({"tested": sorted(tested)})


def is_finished(path: Path) -> bool:
    """Whether a run's record is there and can be read."""
    try:
        load_record(path)
    except ResultsError:
        return False
    return True


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's row in the table of results."""
    return {name: column.read(record) for name, column in _COLUMNS.items()}


def _damaged(path: str | Path, error: Exception) -> ResultsError:
    return ResultsError(
        f"{path} is not a readable record of a run ({type(error).__name__}: {error}); "
        "delete it and run lsmprobe probe again."
    )


def _validation(folds: Any) -> float | None:
    """The score on validation of the epoch that was kept, mean over folds; missing if unknown."""
    try:
        return sum(
            float(fold["history"][fold["best_epoch"] - 1]["validation_score"]) for fold in folds
        ) / len(folds)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
