"""How well numbers are answered: CCC, r, R^2, RMSE and MAE, each read off sums over utterances.

Several targets at once are scored one by one; the score of all is their mean.
"""

import numpy as np
from jaxtyping import Float, Num

N_SUMS = 6  # of each target: 1, y, a, y^2, a^2, y a
Numbers = Num[np.ndarray, "utterances *targets"]
Sums = Float[np.ndarray, "*draws parts"]


def moments(truth: Numbers, answers: Numbers) -> Float[np.ndarray, "utterances parts"]:
    """What each utterance adds to the sums that CCC and r are made of, target by target.

    Truth and answers are both measured from the mean truth, which changes neither score and keeps
    the sums small.
    """
    y, a = _columns(truth), _columns(answers)
    centre = y.mean(0)
    y, a = y - centre, a - centre
    return np.stack([np.ones_like(y), y, a, y**2, a**2, y * a], axis=2).reshape(len(y), -1)


def errors(truth: Numbers, answers: Numbers) -> Float[np.ndarray, "utterances parts"]:
    """What each utterance adds to the sums that RMSE and MAE are made of: 1, |e| and e^2."""
    e = np.abs(_columns(truth) - _columns(answers))
    return np.stack([np.ones_like(e), e, e**2], axis=2).reshape(len(e), -1)


def ccc(sums: Sums) -> Float[np.ndarray, "*draws"]:
    """The concordance correlation coefficient, -1 to 1: 1 only where every answer is the truth.

    2 cov(y, a) / (var y + var a + (mean y - mean a)^2), moments over n. A constant answer has 0.

    Source: Lin 1989, Biometrics 45, 255-268.
    """
    mean_y, mean_a, var_y, var_a, covariance = _of_targets(sums)
    around = var_y + var_a + (mean_y - mean_a) ** 2
    return _ratio(2 * covariance, around).mean(-1)


def pearson(sums: Sums) -> Float[np.ndarray, "*draws"]:
    """Pearson's correlation, -1 to 1; a constant answer has 0."""
    _, _, var_y, var_a, covariance = _of_targets(sums)
    return _ratio(covariance, np.sqrt(var_y * var_a)).mean(-1)


def r2(sums: Sums) -> Float[np.ndarray, "*draws"]:
    """R^2 in percent: 100 is right, 0 the mean of the truth; NaN where the truth is constant.

    100 (1 - sum (y - a)^2 / sum (y - mean y)^2).
    """
    n, y, _, yy, aa, ya = _split(sums, N_SUMS)
    around = yy - y**2 / n
    # A constant truth leaves nothing but rounding.
    around = np.where(around > 1e-12 * yy, around, np.nan)
    return (100 * (1 - (yy - 2 * ya + aa) / around)).mean(-1)


def mae(sums: Sums) -> Float[np.ndarray, "*draws"]:
    """The mean absolute error, in the target's unit."""
    n, absolute, _ = _split(sums, 3)
    return (absolute / n).mean(-1)


def rmse(sums: Sums) -> Float[np.ndarray, "*draws"]:
    """The root of the mean squared error, in the target's unit."""
    n, _, squared = _split(sums, 3)
    return np.sqrt(squared / n).mean(-1)


def _of_targets(sums: Sums) -> tuple[np.ndarray, ...]:
    """Means, variances and the covariance of each target."""
    n, y, a, yy, aa, ya = _split(sums, N_SUMS)
    mean_y, mean_a = y / n, a / n
    # What is left of a constant's squares is rounding, which may be below 0.
    variances = [
        np.where(v > 1e-12 * squares / n, v, 0.0)
        for v, squares in ((yy / n - mean_y**2, yy), (aa / n - mean_a**2, aa))
    ]
    covariance = np.where((variances[0] > 0) & (variances[1] > 0), ya / n - mean_y * mean_a, 0.0)
    return mean_y, mean_a, *variances, covariance


def _split(sums: Sums, n_sums: int) -> list[np.ndarray]:
    """The sums of one kind each, targets last."""
    by_target = np.asarray(sums, dtype=np.float64).reshape(*sums.shape[:-1], -1, n_sums)
    return [by_target[..., k] for k in range(n_sums)]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


def _columns(values: Numbers) -> Float[np.ndarray, "utterances targets"]:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)
