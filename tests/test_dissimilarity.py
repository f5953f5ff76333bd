import logging

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from lsmprobe.errors import SettingsError
from lsmprobe.layers import dissimilarity
from lsmprobe.layers.dissimilarity import (
    Order,
    layer_geometry,
    pair_weights,
    rank_correlation,
    representational_similarity,
)
from lsmprobe.results.bootstrap import resamples


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(dissimilarity, "N_RESAMPLES", 30)
    monkeypatch.setattr(dissimilarity, "N_SHUFFLES", 30)


def correlated(one, other, times=None):
    """The rank correlation of two dissimilarity matrices, each pair as often as `times` says."""
    weights = np.ones(len(one)) if times is None else np.asarray(times, float)
    kept = np.flatnonzero(weights)
    ranks = (Order.of(np.asarray(d, float)).ranks(kept, weights[kept]) for d in (one, other))
    return rank_correlation(*ranks, weights[kept])


def test_a_case_worked_by_hand():
    """Utterances a, b of one class and c, d of another: pairs ab, ac, ad, bc, bd, cd.

    The layer's ranks are 1, 4, 5, 3, 6, 2. The target's are 1.5 for ab and cd, and 4.5 for the
    others: from the mean of 3.5, -2 and 1. So the sum of products is -2 (-2.5 - 1.5) + 0.5 + 1.5 -
    0.5 + 2.5 = 12, of 12 (the target's squares) and 17.5: 12 / sqrt(12 x 17.5) = 0.828. No pair of
    one class is further apart than one of two, so that no layer could score more.
    """
    layer, target = [0.1, 0.5, 0.7, 0.4, 0.9, 0.2], [0, 1, 1, 1, 1, 0]
    assert correlated(layer, target) == pytest.approx(12 / (12 * 17.5) ** 0.5)
    assert Order.of(np.array(target, float)).largest == pytest.approx(12 / (12 * 17.5) ** 0.5)
    assert correlated(np.negative(layer), target) == pytest.approx(-12 / (12 * 17.5) ** 0.5)


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=3, max_size=30
    )
)
def test_weights_are_pairs_that_come_again(pairs):
    """Against scipy, which is handed each pair as often as its weight says."""
    one, other, times = np.array(pairs).T
    again = [np.repeat(each, times) for each in (one, other)]
    if min(len(np.unique(each)) for each in again) < 2:
        assert np.isnan(correlated(one, other, times))
    else:
        assert correlated(one, other, times) == pytest.approx(spearmanr(*again).statistic)


@pytest.mark.parametrize("measure", ["correlation", "cosine", "euclidean"])
def test_scores_are_those_of_scipy(planted_cache, measure):
    path = planted_cache(layer=2, strength=1.0)
    found = representational_similarity(
        path,
        ("emotion", "duration"),
        dissimilarity=measure,
        feature_norm="none",
    )
    cache = dissimilarity.FeatureCache(path)
    table = cache.utterances
    targets = {
        "emotion": pdist(pd.factorize(table["emotion"])[0][:, None], "hamming"),
        "duration": np.round(pdist(table[["seconds"]].to_numpy(), "cityblock"), 9),
    }
    for row in found.itertuples():
        layer = pdist(cache.pooled[:, row.layer].astype(float), measure)
        expected = spearmanr(layer, targets[row.target]).statistic
        assert row.score == pytest.approx(expected, abs=1e-6)


def test_the_planted_layer_peaks_and_shuffled_targets_say_what_is_nothing(planted_cache):
    found = representational_similarity(planted_cache(layer=3), ("emotion", "speaker"))
    emotion, speaker = (found[found["target"] == name] for name in ("emotion", "speaker"))
    assert emotion.set_index("layer")["score"].idxmax() == 3
    [best] = emotion[emotion["layer"] == 3].itertuples()
    others = emotion[emotion["layer"] != 3]
    assert best.shuffled_95 < best.low < best.score < best.high < best.largest
    assert (others["score"].abs() < 0.06).all() and (others["low"] < 0.02).all()
    assert (emotion["shuffled"].abs() < 0.02).all()
    assert (speaker["score"].abs() < 0.06).all()
    assert set(emotion["interval_over"]) == {"speakers, then utterances"}
    assert set(speaker["interval_over"]) == {"utterances only"}  # these are all the speakers


def test_a_clip_is_no_pair_with_itself():
    speakers = np.repeat(["a", "b", "c"], 4)
    drawn = np.zeros((30, 12))
    for own, times in resamples(np.arange(12), speakers, n_resamples=30, seed=0):
        drawn[:, own] = times
    first, second = np.triu_indices(12, 1)
    for (kept, weights), times in zip(pair_weights(speakers, n_resamples=30), drawn, strict=True):
        assert weights.sum() == (times.sum() ** 2 - (times**2).sum()) / 2
        np.testing.assert_array_equal(weights, times[first[kept]] * times[second[kept]])


def test_more_utterances_than_are_compared_are_drawn_and_counted(planted_cache, caplog):
    path = planted_cache()
    with caplog.at_level(logging.WARNING):
        found = representational_similarity(path, "emotion", most=60, seed=1)
    assert "60 utterances of 160 are drawn and compared; 100 are left out" in caplog.text
    assert set(found["n_utterances"]) == {60} and set(found["left_out"]) == {100}
    again = representational_similarity(path, "emotion", most=60, seed=1)
    pd.testing.assert_frame_equal(found, again)
    assert (representational_similarity(path, "emotion", most=60)["score"] != found["score"]).all()


def test_what_a_corpus_lacks_is_left_out_unless_it_is_asked_for(planted_cache, caplog):
    path = planted_cache()
    with caplog.at_level(logging.WARNING):
        found = representational_similarity(path)
    assert list(dict.fromkeys(found["target"])) == ["emotion", "speaker"]
    assert "skipping gender: " in caplog.text
    with pytest.raises(SettingsError, match="gender"):
        representational_similarity(path, ("emotion", "gender"))


def test_a_column_of_a_file_stands_beside_one_of_the_corpus(planted_cache, tmp_path):
    path = planted_cache(layer=3)
    table = dissimilarity.FeatureCache(path).utterances
    labels = tmp_path / "arousal.csv"
    numbers = table["emotion"].map({"anger": 9, "happiness": 7, "neutrality": 3, "sadness": 1})
    table[["key"]].assign(arousal=numbers).to_csv(labels, index=False)
    found = representational_similarity(path, ("emotion", "arousal"), labels=labels)
    peaks = found.loc[found.groupby("target")["score"].idxmax()]
    assert dict(zip(peaks["target"], peaks["layer"], strict=True)) == {"emotion": 3, "arousal": 3}


@pytest.fixture
def changed(tmp_path, rng):
    """Layer 1 is layer 0 turned, moved and made larger; layer 2 nothing of it; layer 3 constant."""
    turn = torch.tensor(np.linalg.qr(rng.normal(size=(6, 6)))[0], dtype=torch.float32)
    states = []
    for _ in range(20):
        hidden = torch.tensor(rng.normal(size=(4, 1, 6)), dtype=torch.float32)
        hidden[1] = 5 * hidden[0] @ turn + 2
        hidden[3] = 1
        states.append(hidden)
    table = utterance_table([f"s{i % 4}" for i in range(20)], ["anger", "fear"] * 10, [1] * 20)
    return write_cache(tmp_path / "m" / "c.h5", table, states, dtype="float32")


def test_distances_know_no_rotation_scale_or_offset_and_a_constant_layer_has_none(changed):
    found = layer_geometry(changed, dissimilarity="euclidean", feature_norm="none")
    assert found.loc[0, 1] == pytest.approx(1, abs=1e-4)
    assert abs(found.loc[0, 2]) < 0.4
    np.testing.assert_allclose(np.diag(found)[:3], 1)
    np.testing.assert_array_equal(found, found.T)
    assert found[3].isna().all()
    assert (found.attrs["n_utterances"], found.attrs["left_out"]) == (20, 0)
    pd.testing.assert_frame_equal(
        found, layer_geometry(changed, changed, dissimilarity="euclidean", feature_norm="none")
    )


@pytest.mark.parametrize("measure", ["correlation", "cosine", "euclidean"])
def test_a_layer_that_does_not_vary_has_no_score(changed, measure):
    found = representational_similarity(changed, "emotion", dissimilarity=measure).iloc[3]
    assert found[["score", "low", "high"]].isna().all()
