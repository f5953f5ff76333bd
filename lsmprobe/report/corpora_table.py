"""The corpora: what the paper says, what the copies that are here hold, and what was probed."""

from typing import Any

import pandas as pd

from lsmprobe.corpora.table import AS_IN_THE_PAPER, CORPORA
from lsmprobe.report.paper import paper_table
from lsmprobe.report.table1 import table1
from lsmprobe.report.tables import in_order
from lsmprobe.report.typeset import DASH, Table


def corpora_table(runs: pd.DataFrame) -> Table:
    """Table 1: what the paper says, what the copies that are here hold, and what was probed."""
    ours = {row.title: row.name for row in CORPORA.values() if not row.variant_of}
    copies = table1().assign(corpus=lambda table: table.dataset.map(ours))
    probed = runs.groupby("corpus").agg(
        probed=("clips", lambda clips: " or ".join(str(n) for n in sorted(set(clips)))),
        probed_emotions=("emotions", lambda lists: ", ".join(sorted(set().union(*lists)))),
    )
    # Merged or chosen labels are another set of the same emotions: they add none to the corpus's.
    plain = (
        runs[~runs.merged]
        .groupby("corpus")
        .emotions.agg(lambda lists: ", ".join(sorted(set().union(*lists))))
    )
    probed["probed_emotions"] = plain.reindex(probed.index)
    sets = (
        runs[runs.merged]
        .groupby("corpus")
        .emotions.agg(
            lambda lists: " or ".join(str(n) for n in sorted({len(names) for names in lists}))
        )
    )
    probed["merged"] = sets.reindex(probed.index)
    data = paper_table(1).merge(copies[["corpus", "clips", "note"]], how="left")
    data = data.merge(probed, on="corpus", how="outer").set_index("corpus")
    data = data.loc[in_order(data.index, paper_table(1).corpus)].reset_index()
    rows = pd.DataFrame(
        {
            "corpus": data.corpus,
            "language": data.language.fillna(DASH),
            "clips, paper": [DASH if pd.isna(n) else f"{n:.0f}" for n in data.samples],
            "clips, copy": [f"{n:.0f}" if n > 0 else DASH for n in data.clips],
            "clips, probed": data.probed.fillna(DASH),
            "emotions, paper": [_counted(names) for names in data.emotions],
            "emotions, probed": [
                ", ".join(
                    filter(
                        None,
                        (
                            "" if pd.isna(names) and not pd.isna(merged) else _counted(names),
                            "" if pd.isna(merged) else f"{merged} after --map or --emotions",
                        ),
                    )
                )
                for names, merged in zip(data.probed_emotions, data.merged, strict=True)
            ],
        }
    )
    differing = data[data.note.notna() & ~data.note.fillna("").str.endswith(AS_IN_THE_PAPER)]
    notes = ["Copy: in the corpus folders that are found here. Probed: by the records."]
    notes += [f"{row.corpus}: {row.note}." for row in differing.itertuples()]
    return Table("table1", "Table 1: the corpora.", rows, 2, notes, data)


def _counted(names: Any) -> str:
    return DASH if pd.isna(names) else str(names.count(",") + 1)
