"""Whether a layer is fit to be probed: does it vary, in how many directions, within its range.

Everything is read off the pooled statistics: n_i frames, mean m_i and standard deviation s_i of
clip i give every first and second moment of frames, so no frame is read.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from lsmprobe.arguments import checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.layers.similarity import blocks_of_layer
from lsmprobe.probing.norms import ROUNDING
from lsmprobe.results.alarms import layer_alarms

FLOAT16_LIMIT = 64_504.0  # transformers clamps float16 states to the largest value less 1000


def variances(
    means: Float[np.ndarray, "clips dim"],
    stds: Float[np.ndarray, "clips dim"],
    lengths: Int[np.ndarray, " clips"],
) -> tuple[Float[np.ndarray, " dim"], Float[np.ndarray, " dim"]]:
    """Variance over time (within a clip) and over clips (of their means); together, that of frames.

    Over time: sum n_i s_i^2 / N. Over clips: sum n_i (m_i - m)^2 / N, m = sum n_i m_i / N.
    """
    share = lengths[:, None] / lengths.sum()
    wide = means.astype(np.float64)
    over_time = (share * stds.astype(np.float64) ** 2).sum(0)
    over_clips = (share * (wide - (share * wide).sum(0)) ** 2).sum(0)
    return over_time, over_clips


def constant_units(
    means: Float[np.ndarray, "clips dim"],
    stds: Float[np.ndarray, "clips dim"],
    lengths: Int[np.ndarray, " clips"],
) -> float:
    """Share of the dims, 0 to 1, that nowhere vary beyond rounding, in a clip or between clips."""
    deviation = np.sqrt(sum(variances(means, stds, lengths)))
    mean = np.average(means.astype(np.float64), axis=0, weights=lengths)
    return float((deviation <= ROUNDING * np.abs(mean)).mean())


def effective_rank(means: Float[np.ndarray, "clips dim"]) -> float:
    """Directions in which clips differ: 1 on a line, at most the dims and one less than the clips.

    exp(-sum p_i ln p_i) with p_i the singular values of the centred means, divided by their sum; 0
    where nothing varies.

    Source: Roy and Vetterli 2007, "The effective rank".
    """
    wide = means.astype(np.float64)
    singular = np.linalg.svd(wide - wide.mean(0), compute_uv=False)
    singular = singular[singular > np.abs(wide).max() * len(wide) * np.finfo(np.float32).eps]
    share = singular / singular.sum()
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


def mean_cosine(means: Float[np.ndarray, "clips dim"]) -> float:
    """Mean cosine between two clips: near 0 if they point everywhere, 1 if all point one way.

    (|sum u_i|^2 - n) / (n (n - 1)) with u_i the clips' means at length 1.

    Source: Ethayarajh 2019, arXiv:1909.00512, "anisotropy".
    """
    wide = means.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    units = wide / np.where(length > 0, length, 1)
    n = len(units)
    return float((np.square(units.sum(0)).sum() - np.square(units).sum()) / (n * (n - 1)))


def may_reach(
    means: Float[np.ndarray, "clips dim"],
    stds: Float[np.ndarray, "clips dim"],
    lengths: Int[np.ndarray, " clips"],
    limit: float,
) -> bool:
    """Whether some frame may hold a value of `limit` or more; False is certain, True is not.

    No value of a clip is further than s_i sqrt(n_i - 1) from its mean; NaN and infinity may be
    anything.

    Source: Samuelson 1968, "How deviant can you be?".
    """
    largest = np.abs(means) + stds * np.sqrt(np.maximum(lengths - 1, 0))[:, None]
    return not (largest < limit).all()


@checked
def layer_health(cache: FeatureCache | str | Path) -> pd.DataFrame:
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
    cache = FeatureCache.of(cache)
    verify_once(cache, reads="means")
    rows = []
    for layer in cache.layers:
        place = cache.place(layer)
        means, stds = cache.pooled[:, place], cache.pooled_std[:, place]
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
                findings.append(f"layer {layer}: {100 * values[name]:.2g}% of its units {what}.")
        rows.append({"layer": layer, **values, "findings": " ".join(findings)})
    table = pd.DataFrame(rows)
    table.attrs["about"] = f"{cache.model}, {cache.corpus}"
    return table


def _overflowed(cache: FeatureCache, layer: int) -> float:
    """Share of the dims with a value at the limit; frames are read only where there may be one."""
    half = "float16" in (cache.dtype, cache.identity.get("precision"))
    limit = FLOAT16_LIMIT if half else np.inf
    place = cache.place(layer)
    if not may_reach(cache.pooled[:, place], cache.pooled_std[:, place], cache.lengths, limit):
        return 0.0
    if cache.store != "frames":
        return float("nan")
    verify_once(cache)
    over = np.zeros(cache.dim, bool)
    for frames in blocks_of_layer(cache, np.arange(len(cache.lengths)), layer, "frames"):
        over |= ~(np.abs(frames) < limit).all(0)
    return float(over.mean())
