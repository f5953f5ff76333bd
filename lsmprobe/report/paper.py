"""What the paper reports, as tables; the numbers are data files beside this module."""

from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import pandas as pd

SOURCE = (
    "D'Asaro, Márquez Villacís, Rizzo and Bottino 2024, Using Large Speech Models for Feature "
    "Extraction in Cross-Lingual Speech Emotion Recognition, CLiC-it 2024"
)
PROTOCOL = (
    "as in the paper: split by whole speakers, features not normalised, the default recipe, "
    "Linear and Non-Linear on the last layer"
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
    return _read(f"paper_table{number}")


@cache
def paper_models() -> dict[str, dict[str, Any]]:
    """The paper's models by our names: a row of `paper_models.csv` each, which says what it holds.

    A `sha256` that nobody states is empty.
    """
    table = _read("paper_models").fillna({"sha256": ""}).set_index("model")
    return {str(name): dict(row) for name, row in table.iterrows()}


def _read(name: str) -> pd.DataFrame:
    path = files("lsmprobe") / "data" / f"{name}.csv"
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, comment="#")


def not_the_papers(model: str, identity: Mapping[str, Any], n_layers: int | None) -> str:
    """Why a model is not the paper's though it is called so; empty where nothing speaks against it.

    Args:
        model: as the record names it.
        identity: of the cache: hub_id, revision, files_sha256, random_init, and dim where told.
        n_layers: of the cache, layer 0 too.

    A file of weights whose SHA-256 is the known one is the paper's, wherever it was read from. At
    the known revision it must be that file; another revision may hold the same values.

    >>> not_the_papers("whisper-small", {"hub_id": "openai/whisper-small"}, 13)
    ''
    >>> not_the_papers("whisper-small", {"hub_id": None}, 5)
    "5 layers, the paper's has 13"
    """
    if model not in paper_models():
        return ""
    row = paper_models()[model]
    found = {
        "weights": ("random", None)[identity.get("random_init") is None],
        "repository": None if _is_the_file(row, identity) else identity.get("hub_id"),
        "layers": n_layers,
        "dimensions": identity.get("dim"),
        "weights file": None if _is_the_file(row, identity) in (None, True) else "another",
    }
    expected = {
        "weights": "trained",
        "repository": row["hub_id"],
        "layers": row["n_blocks"] + 1,
        "dimensions": row["dim"],
        "weights file": f"SHA-256 {row['sha256'][:12]}...",
    }
    return "; ".join(
        f"{value} {what}, the paper's has {expected[what]}"
        for what, value in found.items()
        if value is not None and value != expected[what]
    )


def _is_the_file(row: Mapping[str, Any], identity: Mapping[str, Any]) -> bool | None:
    """Whether the weights are the file that is known; None where nothing says it."""
    held = {*(identity.get("files_sha256") or {}).values()}
    if row["sha256"] in held:
        return True
    is_there = row["hub_id"] == identity.get("hub_id")
    pinned = is_there and row["revision"] == identity.get("revision")
    return False if row["sha256"] and held and pinned else None


def taken_for(model: str, identity: Mapping[str, Any]) -> str:
    """What is not certain about a model that is taken for the paper's; empty if nothing is.

    The paper names its models and states no revision.

    >>> pinned = paper_models()["whisper-small"]
    >>> taken_for("whisper-small", {"hub_id": None, "files_sha256": {"w": pinned["sha256"]}})
    ''
    >>> taken_for("whisper-small", {"hub_id": pinned["hub_id"], "revision": "0" * 40})
    'by its repository; its revision is 000000000000, known is 973afd24965f'
    """
    row = paper_models().get(model)
    if row is None or _is_the_file(row, identity):
        return ""
    if identity.get("hub_id") is None:
        return "by name only: the record tells no repository"
    found = identity.get("revision")
    if found in (None, row["revision"]):
        return ""
    return f"by its repository; its revision is {found[:12]}, known is {row['revision'][:12]}"


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
