import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from lsmprobe.layers.health import constant_units, effective_rank, may_reach, mean_cosine, variances


def clips(seed=0, n=7, dim=5, scale=1.0, dtype=np.float32):
    """Frames of several clips, and their pooled statistics."""
    rng = np.random.default_rng(seed)
    frames = [
        (scale * (rng.normal(size=dim) + rng.normal(size=(length, dim)))).astype(dtype)
        for length in rng.integers(1, 9, size=n)
    ]
    means = np.array([clip.mean(0) for clip in frames], np.float32)
    stds = np.array([clip.std(0) for clip in frames], np.float32)
    return frames, means, stds, np.array([len(clip) for clip in frames])


@given(seed=st.integers(0, 1000))
def test_variance_over_time_and_over_clips_make_up_that_of_all_frames(seed):
    frames, means, stds, lengths = clips(seed)
    over_time, over_clips = variances(means, stds, lengths)
    np.testing.assert_allclose(over_time + over_clips, np.concatenate(frames).var(0), rtol=1e-4)
    only_means = np.repeat(means, lengths, axis=0)
    np.testing.assert_allclose(over_clips, only_means.var(0), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("n_directions", [1, 2, 5])
def test_the_effective_rank_counts_directions_of_equal_size(n_directions):
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0][:n_directions]
    means = np.concatenate([axes, -axes]).astype(np.float32) + 3
    assert effective_rank(means) == pytest.approx(n_directions, rel=1e-3)
    assert effective_rank(100 * means) == pytest.approx(n_directions, rel=1e-3)


def test_the_effective_rank_is_the_one_worked_by_hand():
    # Singular values in the ratio 3 : 1, so p = 3/4, 1/4 and the rank is (4/3)^(3/4) 4^(1/4).
    means = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]], np.float32)
    assert effective_rank(means) == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_clips_that_are_all_alike_have_rank_zero():
    assert effective_rank(np.full((6, 3), 0.1, np.float32)) == 0


@given(seed=st.integers(0, 1000))
def test_the_mean_cosine_is_that_of_all_pairs(seed):
    _, means, _, _ = clips(seed)
    cosines = cosine_similarity(means)
    expected = cosines[~np.eye(len(means), dtype=bool)].mean()
    assert mean_cosine(means) == pytest.approx(expected, abs=1e-6)
    assert mean_cosine(np.ones((4, 3), np.float32)) == pytest.approx(1)


def test_constant_units_are_counted_whatever_their_size():
    _, means, stds, lengths = clips(dim=8)
    means[:, 0], stds[:, 0] = 5000, 0.01  # float16 rounds 5000 by 2
    means[:, 1], stds[:, 1] = 0, 0
    means[:, 2], stds[:, 2] = 5, 0.01  # small beside its mean, yet far above rounding
    means[3, 3], stds[:, 3] = 9, 0  # varies over clips alone
    assert constant_units(means, stds, lengths) == 2 / 8


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 3e4))
def test_a_limit_that_is_reached_is_never_ruled_out(seed, scale):
    frames, means, stds, lengths = clips(seed, scale=scale)
    largest = float(np.abs(np.concatenate(frames)).max())
    assert may_reach(means, stds, lengths, 0.999 * largest)
    assert not may_reach(means, stds, lengths, 1e6 * scale)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_may_be_anything(value):
    _, means, stds, lengths = clips()
    means[2, 1] = value
    assert may_reach(means, stds, lengths, 1e30)
