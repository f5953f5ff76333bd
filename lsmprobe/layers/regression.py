"""The plainest probes, regressions of utterance means, and how well numbers are answered.

What is learned is classes, as whole numbers, or numbers, as floats.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.linear_model import LogisticRegression, Ridge

from lsmprobe.config import FeatureNorm
from lsmprobe.probing.norms import pooled_statistics
from lsmprobe.probing.table import NORMS
from lsmprobe.results.bootstrap import (
    N_RESAMPLES,
    interval_ends,
    resampled_over,
    resamples,
    resampling_bias,
)
from lsmprobe.results.scores import Shuffled

NormName = FeatureNorm
# Fixed, so that layers and targets differ in nothing but what they hold.
C = 0.01  # of the logistic regression: the inverse of its penalty
ALPHA = 1 / C  # of the ridge regression: its penalty


def fit_and_answer(
    features: Float[torch.Tensor, "utterances dim"],
    truth: Shaped[np.ndarray, " utterances"],
    known: Int[np.ndarray, " known"],
    asked: Int[np.ndarray, " asked"],
    *,
    feature_norm: NormName,
) -> Shaped[np.ndarray, " asked"]:
    """Normalise and fit on the utterances known, answer for those asked.

    Classes are answered by a logistic regression, balanced as the loss of the paper's heads is;
    numbers by a ridge regression.
    """
    norm = NORMS[feature_norm].fit(lambda: pooled_statistics(features[known]))
    x, queries = (norm(features[rows]).double().numpy() for rows in (known, asked))
    probe = Ridge(alpha=ALPHA)
    if np.issubdtype(truth.dtype, np.integer):
        probe = LogisticRegression(C=C, class_weight="balanced", max_iter=10_000)
    return probe.fit(x, truth[known]).predict(queries)


def r2(truth: Float[np.ndarray, " utterances"], answers: Float[np.ndarray, " utterances"]) -> float:
    """R^2 in percent: 100 is right, 0 the best constant answer; NaN where the truth is constant."""
    return float(_r2(_moments(truth, answers).sum(0, keepdims=True))[0])


def r2_interval(
    truth: Float[np.ndarray, " utterances"],
    answers: Float[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    *,
    seed: int = 0,
) -> tuple[float, float, str]:
    """The 95% bootstrap interval of R^2, low and high, and what was resampled.

    Resampled are speakers, then the utterances of each; with one or two speakers utterances only.
    """
    moments = _moments(truth, answers)
    sums = np.zeros((N_RESAMPLES, moments.shape[1]))
    for own, counts in resamples(np.arange(len(truth)), speakers, seed=seed):
        sums += counts @ moments[own]
    resampled = _r2(sums)
    bias = resampling_bias(resampled, r2(truth, answers))
    return (*interval_ends(resampled, bias=bias), resampled_over(speakers))


def shuffled_r2(
    truth: Float[np.ndarray, " utterances"],
    answers: Float[np.ndarray, " utterances"],
    *,
    n_shuffles: int = 500,
    seed: int = 0,
) -> Shuffled:
    """R^2 of the answers dealt out at random to the utterances: below 0, unless all are alike."""
    rng = np.random.default_rng(seed)
    dealt = (rng.permutation(answers) for _ in range(n_shuffles))
    values = np.array([r2(truth, each) for each in dealt])
    return Shuffled(float(values.mean()), float(np.quantile(values, 0.95)))


def _moments(
    truth: Float[np.ndarray, " utterances"], answers: Float[np.ndarray, " utterances"]
) -> Float[np.ndarray, "utterances 4"]:
    """Of each utterance what R^2 sums up: 1, y, y^2, (y - answer)^2, with y from the mean truth."""
    y = truth - truth.mean()
    return np.stack([np.ones_like(y), y, y**2, (truth - answers) ** 2], axis=1)


def _r2(sums: Float[np.ndarray, "draws 4"]) -> Float[np.ndarray, " draws"]:
    """100 (1 - sum (y - a)^2 / (sum y^2 - (sum y)^2 / n))."""
    n, y, squares, errors = sums.T
    around = squares - y**2 / n
    # A constant truth leaves nothing but rounding.
    return 100 * (1 - errors / np.where(around > 1e-12 * squares, around, np.nan))
