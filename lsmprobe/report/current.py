"""Which runs and curves count: those of the labels and caches that are there now, not the latest.

Where no cache can be asked, since it is not there or the labels were a file's, the latest count.
"""

from collections.abc import Sequence

import pandas as pd

from lsmprobe.layers.answers import ABOUT
from lsmprobe.layers.targets import labels_of
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.tables import stored_as

NAMED = ["corpus", "target", "labels"]


def outdated(runs: pd.DataFrame) -> pd.Series:
    """Which runs have others of the same name that learned the labels, or read the cache, of now.

    Args:
        runs: what `Caches.told` returned.
    """
    told = zip(runs.settings, runs.labels_file, strict=True)
    # Caches of a model that store otherwise, or hold random weights, do not replace each other.
    stored = [repr([stored_as(own), own.get("random_init")]) for own in runs.cache_identity]
    runs = runs.assign(labels=[labels_of(*each) for each in told], stored=stored)
    old = unlike_now(runs, "cache_hash", ["model", "corpus", "target", "stored"], "cache_now")
    old |= unlike_now(runs, "labels_hash", [*NAMED, "split_hash"], "labels_now")
    # A corrected label may have changed the split too.
    learned = runs.labels_now.eq(True).groupby([runs[name] for name in NAMED]).transform("any")
    return old | (runs.labels_now.eq(False) & learned)


def current_curves(curves: pd.DataFrame, caches: Caches) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves of `probe_layers` of the labels and caches of now, and the others.

    Args:
        curves: what `load_curves` returned.
        caches: which say what labels there are, and which of them were read.
    """
    if curves.empty:
        return curves, curves
    firsts = curves.groupby([*ABOUT, "split_seed"], dropna=False, sort=False)
    which = firsts.ngroup()
    first = {n: own.iloc[0] for n, (_, own) in enumerate(firsts)}
    now = {
        "labels_now": {n: caches.has_labels_of_curve(row) for n, row in first.items()},
        "cache_now": {n: caches.is_cache_of_curve(row) for n, row in first.items()},
    }
    curves = curves.assign(**{name: which.map(there) for name, there in now.items()})
    alike = [name for name in (*ABOUT, "split_seed") if name not in ("labels_hash", "cache_hash")]
    old = unlike_now(curves, "cache_hash", alike, "cache_now")
    old |= unlike_now(curves, "labels_hash", alike, "labels_now") | curves.labels_now.eq(False)
    curves = curves.drop(columns=[*now])
    return curves[~old], curves[old]


def unlike_now(runs: pd.DataFrame, what: str, alike: Sequence[str], now: str) -> pd.Series:
    """Whether a value is not that of the runs of now, or else of the latest, of its group."""
    found = pd.Series(False, index=runs.index)
    for _, own in runs.groupby([*alike], dropna=False):
        there = own[own[now].eq(True)]
        valid = there if len(there) else own
        found[own.index] = own[what] != valid[what][valid.created.idxmax()]
    return found
