import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lsmprobe.layers.regression import fit_and_answer


def test_numbers_are_answered_by_ridge_regression_of_standardised_features(rng):
    features = rng.normal(size=(60, 5)) * [1, 10, 100, 1, 1] + 3
    truth = features @ rng.normal(size=5) + rng.normal(size=60)
    known, asked = np.arange(40), np.arange(40, 60)
    model = make_pipeline(StandardScaler(), Ridge(alpha=100)).fit(features[known], truth[known])
    answers = fit_and_answer(
        torch.tensor(features, dtype=torch.float32), truth, known, asked, feature_norm="zscore"
    )
    np.testing.assert_allclose(answers, model.predict(features[asked]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("feature_norm", ["none", "zscore", "layernorm"])
def test_what_is_asked_never_reaches_the_fit(rng, feature_norm):
    features = torch.tensor(rng.normal(size=(60, 5)), dtype=torch.float32)
    truth, known = rng.integers(0, 3, size=60), np.arange(40)
    first = fit_and_answer(features, truth, known, np.arange(40, 50), feature_norm=feature_norm)
    features[50:], truth[40:] = 1e6, 2  # other utterances, and every label that is not known
    again = fit_and_answer(features, truth, known, np.arange(40, 50), feature_norm=feature_norm)
    np.testing.assert_array_equal(first, again)


def test_each_column_of_numbers_has_a_regression_of_its_own(rng):
    features = torch.tensor(rng.normal(size=(60, 5)), dtype=torch.float32)
    truth, known, asked = rng.normal(size=(60, 2)), np.arange(40), np.arange(40, 60)
    both, *each = (
        fit_and_answer(features, numbers, known, asked, feature_norm="zscore")
        for numbers in (truth, truth[:, 0], truth[:, 1])
    )
    np.testing.assert_allclose(both, np.stack(each, axis=1))
