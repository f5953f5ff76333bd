"""What single choices of the recipe decide: all flips of all caches as one table."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.experiments.sensitivity import flag_of
from lsmprobe.probing.table import head_title
from lsmprobe.report.typeset import DASH, Table, number

NORM = "feature_norm"
CACHE = ["model", "corpus", "target"]


def flips_table(found: pd.DataFrame) -> Iterator[Table]:
    """A row per flipped choice: how far each head moves, and how often another head is best.

    Args:
        found: what `flips_of` returned.
    """
    if found.empty:
        return
    heads = list(dict.fromkeys(found["head"]))
    rows = []
    for (choice, value), own in found.groupby(["choice", "value"], sort=True):
        moved = {head_title(h): _moved(own[own["head"] == h].difference) for h in heads}
        rows.append({"choice": flag_of(choice), "value": value, **moved, **_turned(own)})
    notes = [
        "Points of macro-F1 against no flip, mean over caches (least to most); in how many another "
        "head has the highest mean, which may be chance. Intervals: lsmprobe sensitivity."
    ]
    yield Table("flips", "What single choices move.", pd.DataFrame(rows), 2, notes, found)


def flips_of(experiments: pd.DataFrame) -> pd.DataFrame:
    """One row per flip and head: model, corpus, target, experiment, head, choice, value, score.

    And difference, in points, and turned: whether another head is best than without the flip,
    missing where there is one head. A flip is an experiment whose recipe differs from that of the
    main comparison in one choice, and that was tested on the same split. Heads of one layer count
    with the last one.

    Args:
        experiments: what `comparable.experiments_of` returned.
    """
    last = experiments.layer.isna() | (experiments.layer == experiments.n_layers - 1).fillna(False)
    experiments = experiments[last.astype(bool)]
    rows: list[dict[str, Any]] = []
    for key, own in experiments.groupby(CACHE, sort=False):
        main = own[own.main]
        others = own[~own.main & ~own.outdated & own.split_hash.isin(set(main.split_hash))]
        if others.empty:
            continue
        norm = others[NORM].mode().iloc[0]  # the one that the flips were made with
        bases = {row.head: row for row in main[main[NORM] == norm].itertuples()}
        candidates = pd.concat([others, main[main[NORM] != norm]])
        of_cache = [
            {
                "experiment": row.experiment,
                "head": row.head,
                "choice": flip[0],
                "value": flip[1],
                "score": row.macro_f1,
            }
            for row in candidates.itertuples()
            if row.head in bases and (flip := _flip(bases[row.head], row))
        ]
        for one in of_cache:
            alike = {
                other["head"]: other["score"]
                for other in of_cache
                if (other["choice"], other["value"]) == (one["choice"], one["value"])
            }
            before = {head: bases[head].macro_f1 for head in bases}
            rows.append(
                {
                    **dict(zip(CACHE, key, strict=True)),
                    **one,
                    "difference": one["score"] - before[one["head"]],
                    "turned": _best(before) != _best(before | alike) if len(before) > 1 else None,
                }
            )
    columns = [*CACHE, "experiment", "head", "choice", "value", "score", "difference", "turned"]
    return pd.DataFrame(rows, columns=columns)


def _flip(base: Any, other: Any) -> tuple[str, str] | None:
    """The one choice in which two experiments differ, and its value in the other."""
    before = {**base.changes, NORM: base.feature_norm}
    after = {**other.changes, NORM: other.feature_norm}
    names = [n for n in {*before, *after} if before.get(n) != after.get(n)]
    if len(names) != 1:
        return None
    return names[0], str(after.get(names[0], "default"))


def _best(scores: dict[str, float]) -> str:
    return max(scores, key=lambda head: scores[head])


def _moved(differences: pd.Series) -> str:
    if differences.empty:
        return DASH
    low, high = differences.min(), differences.max()
    span = "" if len(differences) == 1 else f" ({number(low, '+')} to {number(high, '+')})"
    return f"{number(differences.mean(), '+')}{span}"


def _turned(flips: pd.DataFrame) -> dict[str, str]:
    known = flips.dropna(subset="turned").drop_duplicates(CACHE)
    turned = int(np.count_nonzero(known.turned.astype(bool)))
    return {"another best head": f"{turned} of {len(known)}" if len(known) else DASH}
