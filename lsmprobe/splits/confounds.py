"""Confounds: variables that nearly tell the emotion, so that a probe may have learned them instead.

If most speakers show one emotion only, then who speaks tells what is felt, and a score says little.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

CONFOUNDING = 0.5  # of the information about the emotion
N_SHUFFLES = 20
COLUMNS = ("speaker", "gender", "sentence")


class Confound(NamedTuple):
    """How much a column tells of the emotion: 0 nothing beyond chance, 1 everything."""

    column: str
    share: float

    def __str__(self) -> str:
        return (
            f"{self.column} and emotion are nearly one variable here: the {self.column} gives "
            f"{100 * self.share:.0f}% of the information about the emotion. A score may come from "
            f"the {self.column} alone."
        )


def confounds(utterances: pd.DataFrame) -> list[Confound]:
    """The columns that give more than half of the information about the emotion.

    Args:
        utterances: columns emotion and, where known, speaker, gender, sentence. Utterances whose
            value is empty are not counted.
    """
    found = []
    for column in COLUMNS:
        if column in utterances:
            known = utterances[column].fillna("").astype(str) != ""
            share = told_by(utterances[column][known], utterances["emotion"][known])
            if share > CONFOUNDING:
                found.append(Confound(column, share))
    return found


def told_by(values: Iterable[Hashable], labels: Iterable[Hashable]) -> float:
    """The share of the labels' entropy that the values tell, adjusted for chance.

    `(I(labels; values) - E[I]) / (H(labels) - E[I])`, where `E[I]` is the mean over shuffled labels
    (seed 0): values that hardly recur tell nothing, though each goes with one label. 0 where there
    is nothing to tell.

    Source: Theil 1970, the uncertainty coefficient; adjusted for chance as in Vinh, Epps and Bailey
    2010, JMLR 11, 2837-2854.
    """
    value_of, _ = pd.factorize(pd.Series(list(values)))
    label_of, _ = pd.factorize(pd.Series(list(labels)))
    if not len(label_of):
        return 0.0
    entropy = _entropy(label_of)
    rng = np.random.default_rng(0)
    shuffled = (_information(value_of, rng.permutation(label_of)) for _ in range(N_SHUFFLES))
    by_chance = float(np.mean(list(shuffled)))
    if entropy - by_chance < 0.05 * entropy or entropy == 0:
        return 0.0
    return max(0.0, (_information(value_of, label_of) - by_chance) / (entropy - by_chance))


def _information(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> float:
    """Mutual information, in nats."""
    both = one.astype(np.int64) * (int(other.max()) + 1) + other
    return _entropy(one) + _entropy(other) - _entropy(both)


def _entropy(of: Int[np.ndarray, " n"]) -> float:
    shares = np.unique(of, return_counts=True)[1] / len(of)
    return float(-(shares * np.log(shares)).sum())
