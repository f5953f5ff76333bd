"""What the open choices decide: as items, and as files."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.experiments.sensitivity import Sensitivity, flag_of
from lsmprobe.probing.table import head_title
from lsmprobe.report.shown import file_name, mark_notes, marked
from lsmprobe.report.typeset import (
    DASH,
    Item,
    Table,
    as_markdown,
    as_text,
    head_and_layer,
    interval,
    number,
    score,
)
from lsmprobe.results.measures import EMOTION

# A conclusion: its column, how it is titled, and of what it is said; with how many decimals, those
# of the measure where it is a score.
CONCLUSIONS = {
    "best_head": ("best head", None, 0),
    "best_layer": ("best layer", "best_layer_score", None),
    "heaviest_layer": ("heaviest layer", "weight", 3),
}


def format_sensitivity(found: Sensitivity) -> str:
    """For the terminal."""
    return "\n\n".join(map(as_text, sensitivity_items(found)))


def save_sensitivity(found: Sensitivity, folder: Path) -> Path:
    """Write FOLDER/MODEL-CORPUS.md, and its numbers in full beside it as CSV; the first's path.

    Of another target than emotion it is MODEL-CORPUS-TARGET.md.

    Raises:
        OSError: a file cannot be written.
    """
    target = "" if found.target == EMOTION else f"-{file_name(','.join(found.target))}"
    path = folder / f"{found.model}-{found.corpus}{target}.md"
    items = sensitivity_items(found)
    for table in items:
        if isinstance(table, Table):
            numbers = table.data.to_csv(index=False).encode()
            write_then_rename(path.with_name(f"{path.stem}-{table.name}.csv"), numbers)
    text = "\n\n".join(map(as_markdown, items))
    write_then_rename(path, f"{text}\n".encode())
    return path


def sensitivity_items(found: Sensitivity) -> list[Item]:
    """What moved the conclusions, and by how much each head moved."""
    on, measure = f"{found.model} on {found.corpus}", found.measure
    if found.target != EMOTION:
        on += f", target {','.join(found.target)}"
    flips = found.conclusions
    rows = pd.DataFrame({"choice": flips.choice.map(flag_of), "value": flips.value})
    for head, own in found.scores.groupby("head", sort=False):
        rows[head_and_layer(head_title(str(head)), own.layer.iloc[0])] = list(
            marked(
                map(partial(score, decimals=measure.decimals), own[measure.score], own["std"]),
                own,
            )
        )
    for name, (title, value, decimals) in CONCLUSIONS.items():
        if flips[name].notna().any():
            rows[title] = [
                _conclusion(row, name, value, measure.decimals if decimals is None else decimals)
                for row in flips.to_dict("records")
            ]
    notes = [
        *mark_notes(found.scores),
        "Each row flips one choice of the recipe in the first row. "
        f"{measure.title_with_unit}, mean ± standard deviation (ddof 1) over runs; best layer: for "
        f"Linear, with its {measure.title}; heaviest layer: of Multi-Layer, with its weight.",
        "*: not as in the first row. The order of means has turned around, which may still be "
        "chance; the intervals of the differences say more.",
    ]
    if found.failures:
        notes.append(f"Left out, since they failed: {'; '.join(found.failures)}.")
    moved = Table("conclusions", f"Sensitivity of {on}.", rows, 2, notes, flips)
    return [moved, _differences(found, on)]


def _conclusion(row: dict[str, Any], name: str, value: str | None, decimals: int) -> str:
    """A conclusion of one flip, with its value and a star if it is not that without a flip."""
    if pd.isna(row[name]):
        return DASH
    text = (
        f"{row[name]} ({number(row[value], decimals=decimals)})" if value else head_title(row[name])
    )
    return text + "*" * (name in row["turned"].split())


def _differences(found: Sensitivity, on: str) -> Table:
    measure = found.measure
    flipped = found.scores[found.scores.difference.notna() | found.scores.note.notna()]
    rows = pd.DataFrame(
        {
            "choice": flipped.choice.map(flag_of),
            "value": flipped.value,
            "head": flipped["head"].map(head_title),
            "difference": [
                number(value, "+", decimals=measure.decimals) for value in flipped.difference
            ],
            "95% interval": [
                interval(low, high, "+", decimals=measure.decimals)
                for low, high in zip(flipped.low, flipped.high, strict=True)
            ],
            "p": [number(value, decimals=3) for value in flipped.p],
            "Holm": [number(value, decimals=3) for value in flipped.p_holm],
        }
    )
    notes = [
        f"{'Points' if measure.score_unit else 'Difference'} of {measure.title} against the same "
        "head without a flip, both means over the runs.",
        *(f"The interval is a paired bootstrap over {over}." for over in flipped.over.dropna()),
        *flipped.note.dropna(),
    ]
    if n_tests := int(np.count_nonzero(flipped.p.notna())):
        notes.append(
            "p is of a two-sided permutation test over speakers and about these very runs; Holm is "
            f"p corrected for the {n_tests} tests of this table."
        )
    said = list(dict.fromkeys(filter(None, notes)))
    return Table("scores", f"Differences of {on}.", rows, 3, said, found.scores)
