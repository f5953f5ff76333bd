"""The plainest probes: regressions of utterance means.

What is learned is classes, as whole numbers, or numbers, as floats.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from sklearn.linear_model import LogisticRegression, Ridge

from lsmprobe.config import FeatureNorm
from lsmprobe.probing.norms import pooled_statistics
from lsmprobe.probing.table import NORMS

NormName = FeatureNorm
Known = Num[np.ndarray, "utterances *columns"]
Answered = Num[np.ndarray, "asked *columns"]
# Fixed, so that layers and targets differ in nothing but what they hold.
C = 0.01  # of the logistic regression: the inverse of its penalty
ALPHA = 1 / C  # of the ridge regression: its penalty


def fit_and_answer(
    features: Float[torch.Tensor, "utterances dim"],
    truth: Known,
    known: Int[np.ndarray, " known"],
    asked: Int[np.ndarray, " asked"],
    *,
    feature_norm: NormName,
) -> Answered:
    """Normalise and fit on the utterances known, answer for those asked.

    Classes are answered by a logistic regression, balanced as the loss of the paper's heads is;
    numbers by a ridge regression, of several columns each by one of its own.
    """
    norm = NORMS[feature_norm].fit(lambda: pooled_statistics(features[known]))
    x, queries = (norm(features[rows]).double().numpy() for rows in (known, asked))
    probe = Ridge(alpha=ALPHA)
    if np.issubdtype(truth.dtype, np.integer):
        probe = LogisticRegression(C=C, class_weight="balanced", max_iter=10_000)
    return probe.fit(x, truth[known]).predict(queries)
