"""Curves of `probe_layers` on disk, so that a report can show what a notebook has computed."""

import datetime
import hashlib
import re
from pathlib import Path

import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import ResultsError
from lsmprobe.layers.answers import ABOUT, READ_FIRST
from lsmprobe.layers.targets import hash_of_measured, is_measured
from lsmprobe.probing.objectives import CLASSIFICATION, REGRESSION
from lsmprobe.probing.targets import target_columns
from lsmprobe.probing.task import labels_hash_now
from lsmprobe.results.measures import CLASSES

FOLDER = "curves"
LATER = ("cache_hash", "labels_hash", "created")  # columns that older files lack
TEXT = ("corpus", "model", *LATER)


def keep_curve(curve: pd.DataFrame, results_dir: str | Path) -> Path | None:
    """Write RESULTS_DIR/curves/MODEL/CORPUS-TARGET-HASH.csv; its path, or None if there is no
    such folder of results.

    The hash is of what decides the curve, so that the same question replaces its own file. A column
    `created` says when it was asked.

    Args:
        curve: what `probe_layers` returns.
        results_dir: where records are kept.

    Raises:
        ResultsError: the file cannot be written.
    """
    if not Path(results_dir).is_dir():
        return None
    about = curve.loc[curve.index[0], [*ABOUT, "split_seed"]].astype(str)
    digest = hashlib.sha256(repr(about.tolist()).encode()).hexdigest()[:8]
    target = re.sub(r"[^\w,.-]", "_", about.target)[:60]
    name = f"{about.corpus}-{target}-{digest}.csv"
    path = Path(results_dir) / FOLDER / about.model / name
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")
    try:
        write_then_rename(path, curve.assign(created=now).to_csv(index=False).encode())
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be written ({error.strerror}); choose another results_dir."
        ) from error
    return path


def load_curves(results_dir: str | Path) -> tuple[pd.DataFrame, list[Path]]:
    """Every curve that was kept, one below the other, and the files that cannot be read as one.

    Older ones do not say which cache they read, which labels they learned, nor when: these columns
    are empty.
    """
    found, damaged = [], []
    for path in sorted((Path(results_dir) / FOLDER).glob("*/*.csv")):
        try:
            table = pd.read_csv(path, keep_default_na=True, dtype=dict.fromkeys(TEXT, str))
            table = table.assign(
                **{name: table[name].fillna("") if name in table else "" for name in LATER}
            )
            complete = {*READ_FIRST, "validation", "chosen", "choices", "best_score"} <= {*table}
            found += [table] if complete else []
            damaged += [] if complete else [path]
        except (OSError, ValueError):
            damaged.append(path)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(), damaged


def labels_hash_of_curve(cache: FeatureCache, target: str, metric: str) -> str:
    """The `labels_hash` that a curve of the labels that a cache holds now would have.

    Args:
        cache: whose labels.
        target: of the curve.
        metric: its score, which says whether the target is numbers.

    Raises:
        CacheError: the table of labels is missing or damaged.
    """
    columns = target_columns(target)
    if is_measured(columns, cache.utterances):
        return hash_of_measured(cache.utterances)
    objective = CLASSIFICATION if metric in CLASSES.scores else REGRESSION
    return labels_hash_now(cache, columns, objective, {})
