"""How well distributions over classes are answered: divergence, most frequent label, best constant.

A row is what raters said of one utterance, as shares that sum to 1.
"""

import numpy as np
from jaxtyping import Float, Int, Num

NO_LABEL = -1  # of an utterance of which several classes have most votes
SAME_SHARE = 1e-5  # shares that differ by no more are equal but for rounding
STEPS = 2000  # of the search for the best constant answer
Shares = Float[np.ndarray, "utterances classes"]


def jensen_shannon(truth: Shares, answers: Shares) -> Float[np.ndarray, " utterances"]:
    """The Jensen-Shannon divergence of each row, in bits: 0 where both are alike, at most 1.

    The mean of the Kullback-Leibler divergences of both from their mean.

    Source: Lin 1991, IEEE Transactions on Information Theory 37, 145-151.
    """
    y, a = np.asarray(truth, np.float64), np.asarray(answers, np.float64)
    between = (y + a) / 2
    bits = (_relative_entropy(y, between) + _relative_entropy(a, between)) / 2
    return np.maximum(bits, 0.0)  # rounding may leave less than 0


def _relative_entropy(p: Shares, q: Shares) -> Float[np.ndarray, " utterances"]:
    """The Kullback-Leibler divergence of p from q in bits, where q has whatever p has."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log2(ratio)).sum(1)


def most_frequent(shares: Num[np.ndarray, "utterances classes"]) -> Int[np.ndarray, " utterances"]:
    """The class with the largest share of each row, `NO_LABEL` where several have it.

    This is the plurality rule; docs/questions.md says how the literature uses it.
    """
    largest = shares.max(1, keepdims=True)
    single = (shares >= largest - SAME_SHARE).sum(1) == 1
    return np.where(single, shares.argmax(1), NO_LABEL)


def best_constant(truth: Shares) -> Float[np.ndarray, " classes"]:
    """The one distribution whose mean divergence from all rows is least.

    The divergence is the least, over m, of half KL(y || m) + KL(q || m), and that is convex in q
    and m together. So for a given q each row's best m is its mean with q, for given ones the best q
    is their geometric mean, and going back and forth ends at the least of all.
    """
    y = np.asarray(truth, np.float64)
    q = y.mean(0)
    for _ in range(STEPS):
        with np.errstate(divide="ignore"):  # a class without any share keeps none
            logs = np.log((y + q) / 2).mean(0)
        new = np.where(q > 0, np.exp(logs - logs.max()), 0.0)
        new /= new.sum()
        if np.abs(new - q).max() < 1e-12:
            break
        q = new
    return q
