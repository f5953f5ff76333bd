import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lsmprobe.layers.regression import fit_and_answer, r2, r2_interval


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


@given(seed=st.integers(0, 1000), offset=st.sampled_from([0.0, 1e6]))
def test_r2_is_scikit_learns(seed, offset):
    rng = np.random.default_rng(seed)
    truth = offset + rng.normal(size=12)
    answers = truth + rng.normal(size=12)
    assert r2(truth, answers) == pytest.approx(100 * r2_score(truth, answers), rel=1e-6)


def test_a_constant_truth_has_no_r2():
    assert np.isnan(r2(np.full(5, 0.1), np.arange(5.0)))


def test_the_interval_widens_with_what_speakers_differ_in(rng):
    speakers = np.repeat([f"s{i}" for i in range(8)], 25)
    truth = rng.normal(size=200)
    answers = truth + 0.5 * rng.normal(size=200)
    low, high, over = r2_interval(truth, answers, speakers)
    assert low < r2(truth, answers) < high
    assert over == "speakers, then utterances"
    assert r2_interval(truth, answers, speakers) == (low, high, over)
    off = answers + np.repeat(rng.normal(size=8), 25)  # every speaker by another amount
    wide_low, wide_high, _ = r2_interval(truth, off, speakers)
    assert wide_high - wide_low > 3 * (high - low)
    assert r2_interval(truth, answers, np.repeat(["a", "b"], 100))[2] == "utterances only"


def test_right_answers_have_an_r2_of_100(rng):
    truth = rng.normal(size=30)
    assert r2(truth, truth) == 100
    assert r2_interval(truth, truth, np.repeat(["a", "b", "c"], 10))[:2] == pytest.approx(
        (100, 100)
    )
