"""How alike two layers are, from sums over their rows: memory does not grow with the rows.

A row is an utterance or a frame; row i of `x` and row i of `y` belong to the same one. The two may
have different dims, and differ by rotation, scale and offset without being any less alike.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lsmprobe.arguments import checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.errors import CacheError, counted
from lsmprobe.progress import Progress, automatic

BLOCK = 8192  # rows read at once
TILE = 5  # layers by layers that are read together: a fifth of the reads of pair by pair
NAMES = {"cka": "CKA", "svcca": "SVCCA"}


@dataclass(frozen=True)
class Sums:
    """Sums over the rows of x and y, in float64: all that the measures below need.

    Both are taken relative to an offset near their means, which changes no measure and keeps the
    sums exact for features far from zero.
    """

    n: int
    x: Float[np.ndarray, " dim_x"]  # sum of x_i
    y: Float[np.ndarray, " dim_y"]
    xy: Float[np.ndarray, "dim_x dim_y"]  # of x_i y_i'
    k: float  # of k_i = |x_i|^2
    l: float  # of l_i = |y_i|^2  # noqa: E741
    kl: float  # of k_i l_i
    xl: Float[np.ndarray, " dim_x"]  # of x_i l_i
    yk: Float[np.ndarray, " dim_y"]  # of y_i k_i


class Total:
    """Sums that grow block by block."""

    def __init__(self) -> None:
        self._sums: list = []
        self._offsets: tuple[np.ndarray, np.ndarray] = (np.zeros(0), np.zeros(0))

    def add(self, block_x: np.ndarray, block_y: np.ndarray) -> None:
        """Add some rows, (rows, dim_x) and (rows, dim_y): the same rows of both."""
        x, y = block_x.astype(np.float64), block_y.astype(np.float64)
        assert len(x) == len(y), "row i of both belongs to the same utterance or frame"
        if not self._sums:
            self._offsets = x.mean(0), y.mean(0)
        x, y = x - self._offsets[0], y - self._offsets[1]
        k, l = (x**2).sum(1), (y**2).sum(1)  # noqa: E741
        part = [len(x), x.sum(0), y.sum(0), x.T @ y, k.sum(), l.sum(), k @ l, l @ x, k @ y]
        self._sums = [a + b for a, b in zip(self._sums, part, strict=True)] if self._sums else part

    def sums(self) -> Sums:
        """Of all rows so far."""
        assert self._sums, "similarity needs rows"
        n, x, y, xy, k, l, kl, xl, yk = self._sums  # noqa: E741
        return Sums(n, x, y, xy, float(k), float(l), float(kl), xl, yk)


def sums(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> Sums:
    """The sums over all rows; `blocks` are (rows, dim_x) and (rows, dim_y) with the same rows."""
    total = Total()
    for x, y in blocks:
        total.add(x, y)
    return total.sums()


def cka(xy: Sums, xx: Sums, yy: Sums, *, debiased: bool = True) -> float:
    """Linear centred kernel alignment: 1 for the same up to rotation and scale, 0 for unrelated.

    Args:
        xy: the sums of both, `xx` and `yy` those of each with itself.
        xx: see `xy`.
        yy: see `xy`.
        debiased: take the unbiased estimate of HSIC. The plain one calls anything alike that has
            about as many dims as rows. The unbiased one may fall a little below 0.

    Returns:
        NaN where one of the two does not vary.

    Source: Kornblith et al. 2019, arXiv:1905.00414, section 3; Nguyen et al. 2021,
    arXiv:2010.15327, section 2.
    """
    hsic = unbiased_hsic if debiased else biased_hsic
    scale = hsic(xx) * hsic(yy)
    return hsic(xy) / scale**0.5 if scale > 0 else float("nan")


def biased_hsic(s: Sums) -> float:
    """|Xc' Yc|^2 of the centred rows, Xc' Yc = X'Y - (sum x)(sum y)' / n (without 1 / (n - 1)^2).

    Source: Kornblith et al. 2019, equation 3.
    """
    return float(((s.xy - np.outer(s.x, s.y) / s.n) ** 2).sum())


def unbiased_hsic(s: Sums) -> float:
    """The unbiased estimate of HSIC with linear kernels, without the n x n kernels.

    With K = XX', L = YY', their diagonals k_i and l_i, and K~, L~ the same with zero diagonals,

        HSIC = [ tr(K~L~) + (1'K~1)(1'L~1) / ((n-1)(n-2)) - 2 (1'K~L~1) / (n-2) ] / (n (n-3)),

    in which, as K_ij = x_i'x_j, with the sums a = sum x_i and b = sum y_i,

        tr(K~L~) = |X'Y|^2 - sum k_i l_i
        1'K~1    = a'a - sum k_i                             (the same for L with b and l_i)
        1'K~L~1  = sum (x_i'a - k_i)(y_i'b - l_i)
                 = a'(X'Y)b - a'(sum x_i l_i) - b'(sum y_i k_i) + sum k_i l_i

    Source: Song et al. 2012, "Feature Selection via Dependence Maximization", equation 5.
    """
    n = s.n
    assert n > 3, "the unbiased estimate needs four rows"
    trace = (s.xy**2).sum() - s.kl
    both = (s.x @ s.x - s.k) * (s.y @ s.y - s.l)
    chain = s.x @ s.xy @ s.y - s.x @ s.xl - s.y @ s.yk + s.kl
    return float((trace + both / ((n - 1) * (n - 2)) - 2 * chain / (n - 2)) / (n * (n - 3)))


def svcca(xy: Sums, xx: Sums, yy: Sums, *, keep: float = 0.99) -> float:
    """Mean canonical correlation of the principal components that hold `keep` of the variance.

    0 to 1; chance correlations raise it unless rows are many times more than components, so it
    wants frames rather than utterances. NaN where one of the two does not vary.

    Source: Raghu et al. 2017, arXiv:1706.05806.
    """
    left, right = whitening(xx, keep), whitening(yy, keep)
    if not (left.size and right.size):
        return float("nan")
    correlations = np.linalg.svd(left.T @ covariance(xy) @ right, compute_uv=False)
    return float(np.minimum(correlations, 1).mean())


def covariance(s: Sums) -> Float[np.ndarray, "dim_x dim_y"]:
    """Of x with y, over n."""
    return s.xy / s.n - np.outer(s.x, s.y) / s.n**2


def whitening(xx: Sums, keep: float) -> Float[np.ndarray, "dim components"]:
    """Maps rows to their leading principal components, each with standard deviation 1."""
    variances, axes = np.linalg.eigh(covariance(xx))
    variances, axes = variances[::-1], axes[:, ::-1]
    # What is below rounding is no component, even if every bit of variance is to be kept.
    real = variances > max(variances[0], 0) * len(variances) * np.finfo(float).eps
    n_before = np.cumsum(variances * real) - variances  # variance held by those before each
    kept = real & (n_before < keep * (variances * real).sum() * (1 - 1e-12))
    return axes[:, kept] / np.sqrt(variances[kept])


MEASURES: dict[str, Callable[[Sums, Sums, Sums], float]] = {"cka": cka, "svcca": svcca}


@checked
def layer_similarity(
    cache: FeatureCache | str | Path,
    other: FeatureCache | str | Path | None = None,
    *,
    measure: Literal["cka", "svcca"] = "cka",
    rows: Literal["utterances", "frames"] = "utterances",
    progress: Progress = automatic,
) -> pd.DataFrame:
    """How alike every two layers are, of one model or of two on the same utterances.

    Args:
        cache: the first model.
        other: the second one; by default the first again.
        measure: debiased linear CKA, or SVCCA (see similarity.py).
        rows: what is compared, means of utterances or single frames. Frames take longer, and both
            models must have as many of each utterance. SVCCA wants many rows.
        progress: how progress is shown.

    Returns:
        Layers of `cache` as index, layers of `other` as columns, values up to 1. Its `attrs` hold
        the measure's name, and `rows`.

    Raises:
        SettingsError: no such measure or rows.
        CacheError: fewer than four utterances in common, frames that do not match, none stored, or
            damaged ones.
    """
    cache = FeatureCache.of(cache)
    other = cache if other is None else FeatureCache.of(other)
    if other.path == cache.path:
        other = cache
    for each in {cache, other}:
        verify_once(each, reads="means" if rows == "utterances" else "frames")
    ours, theirs = same_utterances(cache, other)
    if rows == "frames" and (cache.lengths[ours] != other.lengths[theirs]).any():
        raise CacheError(
            f"{cache.path} and {other.path} differ in their numbers of frames, so frames cannot be "
            'matched; compare rows="utterances".'
        )
    compare = MEASURES[measure]
    values = pd.DataFrame(index=cache.layers, columns=other.layers, dtype="float64")
    own = _own_sums(cache, ours, rows, progress)
    own_of_other = own if other is cache else _own_sums(other, theirs, rows, progress)
    tiles = list(_tiles(cache.layers, other.layers, mirrored=other is cache))
    for of_one, of_two in progress(tiles, desc=NAMES[measure], unit="tile", delay=5):
        both = _tile_sums((cache, ours, of_one), (other, theirs, of_two), rows)
        for (one, two), pair in both.items():
            values.loc[one, two] = compare(pair, own[one], own_of_other[two])
            if other is cache:
                values.loc[two, one] = values.loc[one, two]
    values.index.name, values.columns.name = cache.model, other.model
    corpora = " and ".join(dict.fromkeys((cache.corpus, other.corpus)))
    values.attrs |= {"measure": NAMES[measure], "rows": rows, "corpus": corpora}
    return values


def _tiles(
    rows: Sequence[int], columns: Sequence[int], *, mirrored: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """Blocks of the table of layers; of a mirrored one those that reach its diagonal or above."""
    for top in range(0, len(rows), TILE):
        for left in range(0, len(columns), TILE):
            if not mirrored or left >= top:
                yield list(rows[top : top + TILE]), list(columns[left : left + TILE])


def _own_sums(
    cache: FeatureCache, utterances: np.ndarray, rows: str, progress: Progress
) -> dict[int, Sums]:
    """The sums of each layer with itself; each is read once."""
    return {
        layer: sums((block, block) for block in blocks_of_layer(cache, utterances, layer, rows))
        for layer in progress(cache.layers, desc=cache.model, unit="layer", delay=5)
    }


def _tile_sums(
    one: tuple[FeatureCache, np.ndarray, list[int]],
    two: tuple[FeatureCache, np.ndarray, list[int]],
    rows: str,
) -> dict[tuple[int, int], Sums]:
    """The sums of every two layers of a tile, block by block; each layer is read once.

    In memory are one block of each layer, and the sums.
    """
    pairs = [(i, j) for i in one[2] for j in two[2] if one[0] is not two[0] or i <= j]
    totals = {pair: Total() for pair in pairs}
    layers = [(side, layer) for side, of in enumerate((one, two)) for layer in of[2]]
    if one[0] is two[0]:  # on the diagonal both sides share layers
        layers = [(0, layer) for layer in dict.fromkeys(one[2] + two[2])]
    sides = (one, two)
    streams = [blocks_of_layer(*sides[side][:2], layer, rows) for side, layer in layers]
    for blocks in zip(*streams, strict=True):
        of = dict(zip(layers, blocks, strict=True))
        for i, j in pairs:
            totals[i, j].add(of[0, i], of[0, j] if one[0] is two[0] else of[1, j])
    return {pair: total.sums() for pair, total in totals.items()}


def same_utterances(
    cache: FeatureCache, other: FeatureCache
) -> tuple[Int[np.ndarray, " common"], Int[np.ndarray, " common"]]:
    """The rows of the utterances that both have, in the same order."""
    key = ["key", "sha256"]  # the same name and the same audio
    one, two = (c.utterances[key].reset_index(names="row") for c in (cache, other))
    both = one.merge(two, on=key)
    if len(both) < 4:
        raise CacheError(
            f"{cache.path} and {other.path} have {counted(len(both), 'utterance')} in common; "
            "expected at least 4. Similarity compares models on the same corpus."
        )
    return both["row_x"].to_numpy(), both["row_y"].to_numpy()


def blocks_of_layer(
    cache: FeatureCache, utterances: np.ndarray, layer: int, rows: str
) -> Iterator[Float[np.ndarray, "rows dim"]]:
    """One layer of some utterances, a block of rows at a time; equal lengths make equal blocks."""
    if rows == "utterances":
        for start in range(0, len(utterances), BLOCK):
            yield cache.pooled[utterances[start : start + BLOCK], cache.place(layer)]
        return
    before = np.cumsum(cache.lengths[utterances]) // BLOCK
    for block in np.split(utterances, np.flatnonzero(np.diff(before)) + 1):
        yield np.concatenate([cache.frames(int(i), layer) for i in block])
