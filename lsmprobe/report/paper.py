"""What the paper reports, as tables; the numbers are data files beside this module."""

from collections.abc import Collection
from importlib.resources import files
from typing import Literal

import pandas as pd

SOURCE = (
    "D'Asaro, Márquez Villacís, Rizzo and Bottino 2024, Using Large Speech Models for Feature "
    "Extraction in Cross-Lingual Speech Emotion Recognition, CLiC-it 2024"
)
BASELINES = {"ast", "ast-tiny"}


def paper_table(number: Literal[1, 2, 3]) -> pd.DataFrame:
    """A table of the paper, one row per number, in the paper's order.

    Args:
        number: 1 is the corpora, 2 the mean over the corpora of every model and head, 3 every
            corpus and model with one head.

    Returns:
        Scores (`macro_f1`, and `std` over three runs) are in percent. `model`, `head` and `corpus`
        are our names for the paper's `backbone` and `dataset`.

    Source: `SOURCE`; each file says which table it is.
    """
    path = files("lsmprobe") / "data" / f"paper_table{number}.csv"
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")


def known_facts(models: Collection[str], corpora: Collection[str], block: str) -> list[str]:
    """What is known of the paper's numbers, and of ours beside them, one sentence or two each.

    Args:
        models: those that a table shows; only what concerns them is told.
        corpora: those that it shows.
        block: what is not as in the paper, see `tables.experiments`.
    """
    whisper = any("whisper" in model for model in models)
    facts = {
        "A constant answer scores 4.7 (any emotion) to 5.6 (the most frequent one) averaged over "
        "the nine corpora, so the paper's XLS-R with Linear, 5.43, and Non-Linear, 5.86, is what a "
        "head scores that learned nothing.": "xls-r" in models,
        "DEMoS: the paper's 9697 clips include 1129 of guilt, which is none of its seven emotions; "
        "those have 8568 clips, and they are what is probed here.": "demos" in corpora,
        "ShEMO: 400 clips of four emotions, the paper's Table 1, match nothing in that corpus "
        "(3000 clips, six emotions; the four have 2737: shemo-4).": "shemo" in corpora,
        "Whisper sees windows of 30 s, as it was trained, and only the frames that hold audio are "
        "kept; the paper does not say what it did.": whisper and "whisper_context" not in block,
        "Features are not normalised, since the paper says nothing of it; then a layer's score "
        "depends on its scale too. docs/trials.md shows how --feature-norm zscore changes which "
        "layer and which head is best.": bool(set(models) - BASELINES)
        and "feature_norm" not in block,
        "ast-tiny is a far smaller network than the paper's AST, and not compared with it.": (
            "ast-tiny" in models
        ),
    }
    return [fact for fact, concerns in facts.items() if concerns]


def disagreement() -> pd.Series:
    """The mean of a model's column in Table 3 less the same mean in Table 2, by model."""
    keys = ["model", "head"]
    means = paper_table(3).groupby(keys).macro_f1.mean()
    return (means - paper_table(2).set_index(keys).macro_f1).dropna().droplevel("head")
