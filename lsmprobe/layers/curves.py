"""Curves of `probe_layers` on disk, so that a report can show what a notebook has computed."""

import hashlib
import re
from pathlib import Path

import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.errors import ResultsError
from lsmprobe.layers.answers import ABOUT, READ_FIRST

FOLDER = "curves"


def keep_curve(curve: pd.DataFrame, results_dir: str | Path) -> Path | None:
    """Write RESULTS_DIR/curves/MODEL/CORPUS-TARGET-HASH.csv; its path, or None if there is no
    such folder of results.

    The hash is of what decides the curve, so that the same question replaces its own file.

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
    try:
        write_then_rename(path, curve.to_csv(index=False).encode())
    except OSError as error:
        raise ResultsError(
            f"{path} cannot be written ({error.strerror}); choose another results_dir."
        ) from error
    return path


def load_curves(results_dir: str | Path) -> tuple[pd.DataFrame, list[Path]]:
    """Every curve that was kept, one below the other, and the files that cannot be read as one."""
    found, damaged = [], []
    for path in sorted((Path(results_dir) / FOLDER).glob("*/*.csv")):
        try:
            table = pd.read_csv(path, keep_default_na=True, dtype={"corpus": str, "model": str})
            complete = {*READ_FIRST, "validation", "chosen", "choices", "best_score"} <= {*table}
            found += [table] if complete else []
            damaged += [] if complete else [path]
        except (OSError, ValueError):
            damaged.append(path)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(), damaged
