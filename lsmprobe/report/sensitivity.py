"""What the open choices decide, as text, tables and files."""

from pathlib import Path

import numpy as np
import pandas as pd

from lsmprobe.atomic import write_then_rename
from lsmprobe.experiments.sensitivity import Sensitivity, flag_of
from lsmprobe.probing.table import head_title
from lsmprobe.report.typeset import DASH, Table, as_markdown, as_text


def format_sensitivity(found: Sensitivity) -> str:
    """For the terminal."""
    return "\n\n".join(as_text(table) for table in _tables(found))


def save_sensitivity(found: Sensitivity, folder: Path) -> Path:
    """Write FOLDER/MODEL-CORPUS.md, and its numbers in full beside it as CSV; the first's path.

    Raises:
        OSError: a file cannot be written.
    """
    path = folder / f"{found.model}-{found.corpus}.md"
    tables = _tables(found)
    for table in tables:
        numbers = table.data.to_csv(index=False).encode()
        write_then_rename(path.with_name(f"{path.stem}-{table.name}.csv"), numbers)
    text = "\n\n".join(as_markdown(table) for table in tables)
    write_then_rename(path, f"{text}\n".encode())
    return path


def _tables(found: Sensitivity) -> list[Table]:
    """What moved the conclusions, and by how much each head moved."""
    on = f"{found.model} on {found.corpus}"
    flips = found.conclusions
    heads = list(dict.fromkeys(found.scores["head"]))
    rows = pd.DataFrame({"choice": flips.choice.map(flag_of), "value": flips.value})
    for head in heads:
        own = found.scores[found.scores["head"] == head]
        layer = "" if own.layer.isna().all() else f", layer {own.layer.iloc[0]}"
        rows[head_title(head) + layer] = [
            _spread(mean, std) for mean, std in zip(own.macro_f1, own["std"], strict=True)
        ]
    said = {
        "best_head": (
            "best head",
            [DASH if pd.isna(head) else head_title(head) for head in flips.best_head],
        ),
        "best_layer": ("best layer", _and(flips.best_layer, flips.best_layer_f1, "{:.1f}")),
        "heaviest_layer": ("heaviest layer", _and(flips.heaviest_layer, flips.weight, "{:.3f}")),
    }
    for name, (title, column) in said.items():
        if flips[name].notna().any():
            stars = ["*" if name in turned.split() else "" for turned in flips.turned]
            rows[title] = [f"{text}{star}" for text, star in zip(column, stars, strict=True)]
    notes = [
        "Each row flips one choice of the recipe in the first row. Macro-F1 in percent, mean ± "
        "standard deviation (ddof 1) over runs; best layer: for Linear, with its macro-F1; "
        "heaviest layer: of Multi-Layer, with its weight.",
        "*: not as in the first row. The order of means has turned around, which may still be "
        "chance; the intervals of the differences say more.",
    ]
    if found.failures:
        notes.append(f"Left out, since they failed: {'; '.join(found.failures)}.")
    moved = Table("conclusions", f"Sensitivity of {on}.", rows, 2, notes, flips)
    return [moved, _differences(found, on)]


def _differences(found: Sensitivity, on: str) -> Table:
    flipped = found.scores[found.scores.difference.notna() | found.scores.note.notna()]
    rows = pd.DataFrame(
        {
            "choice": flipped.choice.map(flag_of),
            "value": flipped.value,
            "head": flipped["head"].map(head_title),
            "difference": flipped.difference.map("{:+.1f}".format, na_action="ignore"),
            "95 % interval": [
                f"{low:+.1f} to {high:+.1f}" if low == low else np.nan
                for low, high in zip(flipped.low, flipped.high, strict=True)
            ],
            "p": flipped.p.map("{:.3f}".format, na_action="ignore"),
            "Holm": flipped.p_holm.map("{:.3f}".format, na_action="ignore"),
        }
    ).astype(object)
    notes = [
        "Points of macro-F1 against the same head without a flip, both means over the runs.",
        *(f"The interval is a paired bootstrap over {over}." for over in flipped.over.dropna()),
        *flipped.note.dropna(),
    ]
    if n_tests := flipped.p.notna().sum():
        notes.append(
            "p is of a two-sided permutation test over speakers and about these very runs; Holm is "
            f"p corrected for the {n_tests} tests of this table."
        )
    said = list(dict.fromkeys(filter(None, notes)))
    return Table("scores", f"Differences of {on}.", rows.fillna(DASH), 3, said, found.scores)


def _spread(mean: float, std: float) -> str:
    if np.isnan(mean):
        return DASH  # every run failed
    return f"{mean:.1f}" if np.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def _and(layers: pd.Series, values: pd.Series, pattern: str) -> list[str]:
    return [
        DASH if pd.isna(layer) else f"{layer} ({pattern.format(value)})"
        for layer, value in zip(layers, values, strict=True)
    ]
