"""The bootstrap behind every interval: what is resampled, and the ends of an interval."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Shaped

N_RESAMPLES = 2000
CONFIDENCE = 0.95
BY_SPEAKER = "speakers, then utterances"
BY_UTTERANCE = "utterances only"


def resampled_over(speakers: Shaped[np.ndarray, " utterances"]) -> str:
    """What is resampled: one or two speakers say nothing about others, so only utterances are.

    >>> resampled_over(np.array(["anna", "bert"]))
    'utterances only'
    """
    return BY_SPEAKER if len(np.unique(speakers)) > 2 else BY_UTTERANCE


def resamples(
    kind_of: Int[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Iterator[tuple[Int[np.ndarray, " own"], Int[np.ndarray, "resamples own"]]]:
    """How often each resample draws each kind of utterance, one speaker after another.

    Utterances of one kind are alike in everything that is counted, so they are drawn together.
    With one or two speakers all utterances are taken for one speaker's.

    Yields:
        The kinds of utterance that a speaker has, and how often each resample draws each of them.

    Source: Davison and Hinkley 1997, section 3.8.
    """
    rng = np.random.default_rng(seed)
    names, speaker_of = np.unique(speakers, return_inverse=True)
    if resampled_over(speakers) == BY_UTTERANCE:
        names, speaker_of = names[:1], np.zeros_like(speaker_of)
    n_drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    for speaker, times in enumerate(n_drawn.T):
        # Utterances of a speaker drawn m times are one multinomial draw of m times as many.
        own, counts = np.unique(kind_of[speaker_of == speaker], return_counts=True)
        yield own, rng.multinomial(times * counts.sum(), counts / counts.sum())


def interval_ends(
    values: Float[np.ndarray, " resamples"], confidence: float = CONFIDENCE, *, bias: float = 0.0
) -> tuple[float, float]:
    """The ends of the percentile interval; NaN among the values is left out.

    Args:
        values: of the resamples.
        confidence: 0.95 for a 95% interval.
        bias: of the resamples, as `resampling_bias` gives it.

    Source: Efron and Tibshirani 1993, chapter 13 and, with an acceleration of 0, section 14.3.

    >>> interval_ends(np.arange(101.0))
    (2.5, 97.5)
    """
    from scipy.special import ndtr, ndtri  # slow to import, and needed once training is over

    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    quantiles = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(values, ndtr(ndtri(quantiles) + 2 * bias))
    return float(low), float(high)


def resampling_bias(values: Float[np.ndarray, " resamples"], observed: float) -> float:
    """How far below the data its resamples score: 0 if as many lie above as below.

    Resamples of few clips miss some of them and score lower more often than higher, by macro-F1.

    Args:
        values: of the resamples.
        observed: the value of the data itself.

    Returns:
        The bias-correction z0, in standard deviations of a normal distribution.

    Source: Efron and Tibshirani 1993, equation 14.14.

    >>> resampling_bias(np.array([1.0, 2.0, 3.0]), 2.0)
    0.0
    """
    from scipy.special import ndtri  # as above

    values = values[~np.isnan(values)]
    equal = np.isclose(values, observed, rtol=1e-12, atol=1e-9)
    below = ((values < observed) & ~equal).sum() + equal.sum() / 2
    return float(ndtri(np.clip(below, 1, len(values) - 1) / len(values)))
