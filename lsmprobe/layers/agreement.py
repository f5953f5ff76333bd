"""Do two curves over the layers rise and fall together, or are both merely smooth?

Neighbouring layers are alike, so two smooth curves that have nothing to do with each other often
agree in their ranks. A p for unordered pairs takes that for significance: of unrelated smooth
curves over 12 and 24 layers, a fifth to a half have p < 0.05. The null here keeps the smoothness.
"""

from itertools import product

import numpy as np
from jaxtyping import Float, Int
from scipy.fft import dct, idct
from scipy.stats import rankdata

MAX_EXHAUSTIVE = 13  # layers: up to so many, every one of the 2^(n - 1) surrogates is made
N_SURROGATES = 4999


def agreement_p(
    one: Float[np.ndarray, " layers"], other: Float[np.ndarray, " layers"], *, seed: int = 0
) -> tuple[float, float]:
    """Two-sided p of Kendall's and of Spearman's rank correlation, against surrogates of `other`.

    The p can be no smaller than 2 / 2^(layers - 1): 0.25 with four layers, 0.06 with six. Curves
    with few bends have few surrogates that differ, so a small p takes curves with structure.
    """
    null = np.vstack([other, surrogates(other, seed=seed)])
    found = [np.abs(measure(one, null)) for measure in (_kendall, _spearman)]
    # The observed curve is one of its own surrogates.
    kendall, spearman = (float((of_all >= of_all[0] - 1e-9).mean()) for of_all in found)
    return kendall, spearman


def surrogates(
    curve: Float[np.ndarray, " layers"], *, seed: int = 0
) -> Float[np.ndarray, "surrogates layers"]:
    """Curves as smooth as this one, which otherwise have nothing to do with it.

    The curve is taken apart into cosines of growing frequency, and each keeps its size and gets a
    random sign: phase randomisation (Theiler et al. 1992, "Testing for nonlinearity in time series:
    the method of surrogate data") without the assumption that the last layer is followed by the
    first. Cosines are nearly uncorrelated in a process of whatever smoothness (Ahmed, Natarajan and
    Rao 1974, "Discrete cosine transform"), so that signs are what may be exchanged.

    Returns:
        All of them but the curve itself, up to 13 layers; above that 4999 random ones.
    """
    cosines = dct(curve - curve.mean(), norm="ortho")
    return idct(_signs(len(curve), seed) * cosines, norm="ortho", axis=-1)


def _signs(n_layers: int, seed: int) -> Int[np.ndarray, "surrogates layers"]:
    """A sign for each cosine; the first is the mean, which ranks do not see."""
    if n_layers <= MAX_EXHAUSTIVE:
        signs = np.array(list(product([1, -1], repeat=n_layers - 1)))[1:].reshape(-1, n_layers - 1)
    else:
        signs = np.random.default_rng(seed).choice([1, -1], size=(N_SURROGATES, n_layers - 1))
    return np.hstack([np.ones((len(signs), 1), dtype=int), signs.astype(int)])


def _kendall(
    one: Float[np.ndarray, " layers"], others: Float[np.ndarray, "curves layers"]
) -> Float[np.ndarray, " curves"]:
    """Concordant less discordant pairs of layers."""
    i, j = np.triu_indices(len(one), 1)
    others = np.round(others, 9)  # what is equal stays equal behind the cosines
    return (np.sign(one[i] - one[j]) * np.sign(others[:, i] - others[:, j])).sum(1)


def _spearman(
    one: Float[np.ndarray, " layers"], others: Float[np.ndarray, "curves layers"]
) -> Float[np.ndarray, " curves"]:
    """The correlation of ranks; 0 where a curve is constant."""
    middle = (len(one) + 1) / 2
    x, y = rankdata(one) - middle, rankdata(np.round(others, 9), axis=-1) - middle
    size = np.sqrt((x @ x) * (y * y).sum(1))
    return y @ x / np.where(size > 0, size, 1)
