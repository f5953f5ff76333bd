"""What the layers hold, as DataFrames: similarity, health, pictures of a layer.

A stage: it reads caches, verified once, and hands arrays to the modules that compute.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from tqdm import tqdm

from lsmprobe.alarms import layer_alarms
from lsmprobe.cache import FeatureCache
from lsmprobe.errors import CacheError
from lsmprobe.heads import Standardise, pooled_statistics
from lsmprobe.health import constant_units, effective_rank, may_reach, mean_cosine, variances
from lsmprobe.similarity import Sums, cka, sums, svcca
from lsmprobe.verification import verify_once

BLOCK = 8192  # rows read at once
FLOAT16_LIMIT = 64_504.0  # transformers clamps float16 states to the largest value less 1000


def layer_similarity(
    cache: FeatureCache,
    other: FeatureCache | None = None,
    *,
    measure: Literal["cka", "svcca"] = "cka",
    rows: Literal["utterances", "frames"] = "utterances",
) -> pd.DataFrame:
    """How alike every two layers are, of one model or of two on the same utterances.

    Args:
        cache: the first model.
        other: the second one; by default the first again.
        measure: debiased linear CKA, or SVCCA (see similarity.py).
        rows: what is compared, means of utterances or single frames. Frames take longer, and both
            models must have as many of each utterance. SVCCA wants many rows.

    Returns:
        Layers of `cache` as index, layers of `other` as columns, values up to 1.

    Raises:
        CacheError: fewer than four utterances in common, frames that do not match, none stored, or
            damaged ones.
    """
    other = other or cache
    for each in {cache, other}:
        verify_once(each)
    ours, theirs = _same_utterances(cache, other)
    if rows == "frames" and (cache.lengths[ours] != other.lengths[theirs]).any():
        raise CacheError(
            f"{cache.path} and {other.path} differ in their numbers of frames, so frames cannot be "
            'matched; compare rows="utterances".'
        )

    def of_cache(layer: int) -> Iterator[np.ndarray]:
        return _blocks(cache, ours, layer, rows)

    def of_other(layer: int) -> Iterator[np.ndarray]:
        return _blocks(other, theirs, layer, rows)

    compare: Callable[[Sums, Sums, Sums], float] = cka if measure == "cka" else svcca
    mine = [_sums(of_cache(layer), of_cache(layer)) for layer in cache.layers]
    yours = mine
    if other is not cache:
        yours = [_sums(of_other(layer), of_other(layer)) for layer in other.layers]
    values = pd.DataFrame(index=cache.layers, columns=other.layers, dtype="float64")
    for one in tqdm(cache.layers, "layers", delay=5):
        for two in other.layers:
            if other is cache and two < one:
                values.loc[one, two] = values.loc[two, one]
            else:
                both = _sums(of_cache(one), of_other(two))
                values.loc[one, two] = compare(both, mine[one], yours[two])
    values.index.name, values.columns.name = cache.path.parent.name, other.path.parent.name
    return values


def _sums(one: Iterator[np.ndarray], other: Iterator[np.ndarray]) -> Sums:
    return sums(zip(one, other, strict=True))


def _same_utterances(
    cache: FeatureCache, other: FeatureCache
) -> tuple[Int[np.ndarray, " common"], Int[np.ndarray, " common"]]:
    """The rows of the utterances that both have, in the same order."""
    key = ["key", "sha256"]  # the same name and the same audio
    one, two = (c.utterances[key].reset_index(names="row") for c in (cache, other))
    both = one.merge(two, on=key)
    if len(both) < 4:
        raise CacheError(
            f"{cache.path} and {other.path} have {len(both)} utterances in common; expected at "
            "least 4. Similarity compares models on the same corpus."
        )
    return both["row_x"].to_numpy(), both["row_y"].to_numpy()


def _blocks(
    cache: FeatureCache, utterances: np.ndarray, layer: int, rows: str
) -> Iterator[Float[np.ndarray, "rows dim"]]:
    """One layer of some utterances, a block of rows at a time; equal lengths make equal blocks."""
    if rows == "utterances":
        for start in range(0, len(utterances), BLOCK):
            yield cache.pooled[utterances[start : start + BLOCK], layer]
        return
    before = np.cumsum(cache.lengths[utterances]) // BLOCK
    for block in np.split(utterances, np.flatnonzero(np.diff(before)) + 1):
        yield np.concatenate([cache.frames(int(i), layer) for i in block])


def layer_health(cache: FeatureCache) -> pd.DataFrame:
    """Whether each layer is fit to be probed.

    Returns:
        One row per layer:

        - layer
        - time_variance, clip_variance: of frames within a clip and of clips' means, mean over dims
        - clip_share: the second over the sum of both, 0 to 1
        - effective_rank: in how many directions clips differ (see health.py), and rank_share of it
          in the most that these clips and dims allow
        - mean_cosine: between two clips, 1 if all point one way
        - constant_units: share of the dims that do not vary beyond rounding
        - overflowed_units: share of the dims with NaN, infinity or a value at float16's limit;
          missing where only frames could tell and none are stored
        - findings: sentences that name what is degenerate; empty if nothing is

    Raises:
        CacheError: utterances are damaged.
    """
    verify_once(cache)
    rows = []
    for layer in cache.layers:
        means, stds = cache.pooled[:, layer], cache.pooled_std[:, layer]
        over_time, over_clips = (v.mean() for v in variances(means, stds, cache.lengths))
        rank = effective_rank(means)
        values = {
            "time_variance": over_time,
            "clip_variance": over_clips,
            "clip_share": over_clips / (over_time + over_clips or 1),
            "effective_rank": rank,
            "rank_share": rank / min(len(means) - 1, cache.dim),
            "mean_cosine": mean_cosine(means),
            "constant_units": constant_units(means, stds, cache.lengths),
            "overflowed_units": _overflowed(cache, layer),
        }
        can_vary = int(cache.lengths.max()) > 1
        alarms = layer_alarms(means, stds, layer, over_time=can_vary)
        findings = [alarm.text for alarm in alarms]
        for name, what in (("constant_units", "do not vary"), ("overflowed_units", "overflow")):
            if values[name] > 0:
                findings.append(f"layer {layer}: {100 * values[name]:.2g} % of its units {what}.")
        rows.append({"layer": layer, **values, "findings": " ".join(findings)})
    return pd.DataFrame(rows)


def _overflowed(cache: FeatureCache, layer: int) -> float:
    """Share of the dims with a value at the limit; frames are read only where there may be one."""
    half = "float16" in (cache.dtype, cache.identity.get("precision"))
    limit = FLOAT16_LIMIT if half else np.inf
    if not may_reach(cache.pooled[:, layer], cache.pooled_std[:, layer], cache.lengths, limit):
        return 0.0
    if cache.store != "frames":
        return float("nan")
    over = np.zeros(cache.dim, bool)
    for frames in _blocks(cache, np.arange(len(cache.lengths)), layer, "frames"):
        over |= ~(np.abs(frames) < limit).all(0)
    return float(over.mean())


def project_layer(
    cache: FeatureCache, layer: int, method: Literal["pca", "tsne"] = "pca", *, seed: int = 0
) -> pd.DataFrame:
    """A picture of a layer: every utterance as a point in two dimensions.

    The dims are standardised first, else a few of enormous size would be all there is to see.

    Args:
        cache: whose utterances.
        layer: which one.
        method: `pca` keeps distances as well as a plane can; `tsne` keeps neighbours, and its
            distances and cluster sizes mean nothing.
        seed: of t-SNE.

    Returns:
        One row per utterance: x, y, key, emotion, speaker, gender, sentence.

    Raises:
        CacheError: there is no such layer, or utterances are damaged.

    Source: van der Maaten and Hinton 2008, as scikit-learn has it.
    """
    if layer not in cache.layers:
        raise CacheError(f"{cache.path} has layers 0 to {cache.layers[-1]}; got layer {layer}.")
    verify_once(cache)
    means = _tensor(cache.pooled[:, layer])
    features = Standardise(*pooled_statistics(means))(means).numpy()
    if method == "pca":
        points = PCA(n_components=2, svd_solver="full").fit_transform(features)
    else:
        perplexity = min(30.0, (len(features) - 1) / 3)
        points = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(features)
    columns = ["key", "emotion", "speaker", "gender", "sentence"]
    return pd.DataFrame(points, columns=["x", "y"]).join(cache.utterances[columns])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
