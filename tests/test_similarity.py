import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA

from lsmprobe.layers.similarity import biased_hsic, cka, sums, svcca, unbiased_hsic


def all_sums(x, y):
    return sums([(x, y)]), sums([(x, x)]), sums([(y, y)])


def related(rng, n=40, dim_x=5, dim_y=7, noise=1.0):
    x = rng.normal(size=(n, dim_x))
    return x, x @ rng.normal(size=(dim_x, dim_y)) + noise * rng.normal(size=(n, dim_y)) + 3


def gram_hsic(x, y, debiased):
    """The definitions, with n x n kernels (Gretton et al. 2005; Song et al. 2012, equation 5)."""
    n, one = len(x), np.ones(len(x))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    if not debiased:
        centre = np.eye(n) - 1 / n
        return np.trace(k @ centre @ l @ centre)
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    inner = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (inner - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


@pytest.mark.parametrize("debiased", [False, True])
@given(
    n=st.integers(4, 30),
    dims=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_hsic_is_its_definition_with_gram_matrices(debiased, n, dims, seed):
    x, y = related(np.random.default_rng(seed), n, *dims)
    hsic = unbiased_hsic if debiased else biased_hsic
    for one, other in ((x, y), (x, x)):
        expected = gram_hsic(one, other, debiased)
        scale = abs(gram_hsic(one, one, False) * gram_hsic(other, other, False)) ** 0.5
        assert hsic(sums([(one, other)])) == pytest.approx(expected, rel=1e-8, abs=1e-9 * scale)


@pytest.mark.parametrize("debiased", [False, True])
def test_cka_knows_no_rotation_scale_or_offset(rng, debiased):
    x, y = related(rng)
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    plain = cka(*all_sums(x, y), debiased=debiased)
    assert cka(*all_sums(x, 1e-3 * y @ turn + 1e4), debiased=debiased) == pytest.approx(plain)
    assert cka(*all_sums(y, 5 * y @ turn - 2), debiased=debiased) == pytest.approx(1)
    assert cka(*all_sums(y, x), debiased=debiased) == pytest.approx(plain)


def test_only_the_debiased_cka_calls_unrelated_wide_features_unrelated(rng):
    x, y = rng.normal(size=(2, 60, 200))
    assert cka(*all_sums(x, y), debiased=False) > 0.7
    assert abs(cka(*all_sums(x, y))) < 0.05


@given(cuts=st.lists(st.integers(1, 39), max_size=5), dtype=st.sampled_from(["float16", "float32"]))
def test_the_sums_do_not_depend_on_the_blocks(cuts, dtype):
    x, y = (part.astype(dtype) for part in related(np.random.default_rng(0)))
    cuts = sorted(set(cuts))
    blocks = list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))
    whole, parts = sums([(x, y)]), sums(iter(blocks))
    assert parts.n == 40
    assert unbiased_hsic(parts) == pytest.approx(unbiased_hsic(whole))
    assert biased_hsic(parts) == pytest.approx(biased_hsic(whole))


def test_features_far_from_zero_lose_no_digits(rng):
    x, y = related(rng)
    assert cka(*all_sums(x + 1e7, y - 1e7)) == pytest.approx(cka(*all_sums(x, y)), rel=1e-6)


def test_svcca_of_everything_is_the_mean_canonical_correlation_of_scikit_learn(rng):
    x, y = related(rng, n=80, dim_x=3, dim_y=4)
    one, other = CCA(n_components=3, scale=False, max_iter=5000, tol=1e-12).fit_transform(x, y)
    expected = [np.corrcoef(one[:, i], other[:, i])[0, 1] for i in range(3)]
    assert svcca(*all_sums(x, y), keep=1.0) == pytest.approx(np.mean(expected), abs=1e-6)


def test_svcca_knows_no_invertible_map_and_drops_what_hardly_varies(rng):
    x, y = related(rng, n=80, dim_x=3, dim_y=4)
    plain = svcca(*all_sums(x, y), keep=1.0)
    assert svcca(*all_sums(x @ rng.normal(size=(3, 3)) + 5, y), keep=1.0) == pytest.approx(plain)
    noise = 1e-3 * rng.normal(size=(80, 6))  # far below a hundredth of the variance
    assert svcca(*all_sums(x, x)) == pytest.approx(1)
    assert svcca(*all_sums(np.hstack([x, noise]), x)) == pytest.approx(1, abs=1e-3)
    assert svcca(*all_sums(np.hstack([x, noise]), x), keep=1.0) == pytest.approx(1, abs=1e-3)


def test_a_dim_that_repeats_another_changes_no_canonical_correlation(rng):
    x, y = related(rng, n=80, dim_x=3, dim_y=4)
    twice = np.hstack([x, x[:, :1], np.ones((80, 1))])  # the covariance has rank 3 of 5
    assert svcca(*all_sums(twice, y), keep=1.0) == pytest.approx(svcca(*all_sums(x, y), keep=1.0))


def test_features_that_do_not_vary_are_like_nothing(rng):
    x, constant = rng.normal(size=(20, 3)), np.full((20, 3), 7.0)
    assert np.isnan(cka(*all_sums(x, constant)))
    assert np.isnan(svcca(*all_sums(x, constant)))
