"""Noise ceilings: by hand, against definitions and scipy, and where the ceiling is known."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f_oneway

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.errors import SettingsError
from lsmprobe.layers.ceiling import (
    MEAN,
    ONE,
    best_cells,
    bounds_of_numbers,
    bounds_of_votes,
    noise_ceiling,
)
from lsmprobe.results.scores import score_of

CLASSES = ["anger", "fear", "joy", "sadness"]


def scored(bounds):
    """Of bounds, their scores on all utterances: {(metric, against, bound): score}."""
    return {
        (each.metric, each.against, each.bound): float(each.of(each.parts.sum(0)[None])[0])
        for each in bounds
    }


def counts(said, n_classes=4):
    """Votes per class, from what raters said as numbers of classes: (utterances, raters)."""
    return np.stack([np.bincount(row, minlength=n_classes) for row in said]).astype(float)


def test_votes_by_hand():
    """AAB, BBB and AB; the others of an A in AAB are A and B, who agree half.

    Right of eight votes: lower 1/2 + 1/2 + 0, 3, 0 + 0; upper 2, 3 and 1, whichever is answered.
    """
    found = scored(bounds_of_votes(np.array([[2.0, 1], [0, 3], [1, 1]])))
    assert found["accuracy", ONE, "lower"] == pytest.approx(100 * 4 / 8)
    assert found["accuracy", ONE, "upper"] == pytest.approx(100 * 6 / 8)
    # A: 1 of 3 votes is answered A, B: 3 of 5 are answered B.
    assert found["uar", ONE, "lower"] == pytest.approx(100 * (1 / 3 + 3 / 5) / 2)
    assert found["uar", ONE, "upper"] == pytest.approx(100 * (3 / 3 + 3 / 5) / 2)


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=4), min_size=2, max_size=4))
def test_no_answers_score_more_than_the_upper_ceiling(said):
    """Against all the answers that can be given to a few utterances."""
    votes = np.stack([np.bincount(row, minlength=3) for row in said]).astype(float)
    truth = np.concatenate([np.array(row) for row in said])
    of = np.repeat(np.arange(len(said)), [len(row) for row in said])
    best = {
        score: max(
            score_of(truth, np.array(answers)[of], 3, score)
            for answers in product(range(3), repeat=len(said))
        )
        for score in ("accuracy", "uar")
    }
    found = scored(bounds_of_votes(votes))
    for score, most in best.items():
        assert found[score, ONE, "upper"] == pytest.approx(most)


@given(st.integers(0, 1000), st.integers(2, 5))
def test_the_lower_ceiling_is_the_score_of_the_others_answers(seed, n_raters):
    """By definition: each rater's others are asked; where they are even, all answers count."""
    rng = np.random.default_rng(seed)
    said = rng.integers(0, 3, (6, n_raters))
    truth, answers, weights = [], [], []
    for row, rater in product(said, range(n_raters)):
        n = np.bincount(np.delete(row, rater), minlength=3)
        for answer in np.flatnonzero(n == n.max()):
            truth.append(row[rater])
            answers.append(answer)
            weights.append(60 // (n == n.max()).sum())  # whole numbers, for one, two or three
    again = [np.repeat(each, weights) for each in (truth, answers)]
    found = scored(bounds_of_votes(counts(said, 3)))
    for score in ("accuracy", "uar"):
        assert found[score, ONE, "lower"] == pytest.approx(score_of(*again, 3, score))
    if {0, 1, 2} <= set(said.ravel()):
        expected = score_of(*again, 3, "macro_f1")
        assert found["macro_f1", ONE, "lower"] == pytest.approx(expected)


@pytest.mark.parametrize(("n_raters", "most"), [(3, 25.0), (25, 1.0)])
def test_the_ceiling_of_raters_who_err_is_how_often_they_are_right(n_raters, most):
    """Raters hear the class of a clip in 70 of 100 cases, else another: nobody can foresee more."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 4000)
    other = (truth[:, None] + rng.integers(1, 4, (4000, n_raters))) % 4
    said = np.where(rng.random((4000, n_raters)) < 0.7, truth[:, None], other)
    found = scored(bounds_of_votes(counts(said)))
    for score in ("accuracy", "uar", "macro_f1"):
        lower, upper = (found[score, ONE, bound] for bound in ("lower", "upper"))
        assert lower - 0.5 < 70 < upper + 0.5
        assert upper - lower < most


def test_cells_count_every_vote_once():
    votes = counts(np.random.default_rng(0).integers(0, 4, (20, 5)))
    assert best_cells(votes, np.ones(4)).sum() == votes.sum()


def ratings(n=3000, n_raters=4, noise=1.0, offsets=0.0, seed=0):
    """Numbers: what the clip is, standard deviation 1, and what each rater adds."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    own = offsets * np.linspace(-1, 1, n_raters)
    return truth, truth[:, None] + own + noise * rng.normal(size=(n, n_raters))


def test_the_reliability_is_that_of_an_analysis_of_variance():
    """Cronbach's alpha by its definition; ICC(1) of a large table from the F that scipy finds."""
    _, said = ratings(n=40, offsets=1.0)
    alpha = 4 / 3 * (1 - said.var(0, ddof=1).sum() / said.sum(1).var(ddof=1))
    found = scored(bounds_of_numbers(said))
    assert found["ccc", MEAN, "upper"] == pytest.approx(alpha**0.5)
    _, said = ratings(n=3000)
    f = f_oneway(*said).statistic
    found = scored(bounds_of_numbers(said))
    assert found["ccc", ONE, "upper"] == pytest.approx(((f - 1) / (f - 1 + 4)) ** 0.5, abs=2e-3)
    # Spearman and Brown: the mean of four ratings, from one of them.
    one, mean = (found["pearson", against, "upper"] ** 2 for against in (ONE, MEAN))
    assert mean == pytest.approx(4 * one / (1 + 3 * one), abs=2e-3)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("offsets", [0.0, 1.0])
def test_the_ceiling_of_noise_that_is_known(missing, offsets):
    """Signal 1 and noise 1: correlations of root 1/2 with one rating, root 4/5 with four's mean.

    Who knows the signal reaches it; offsets of raters count against one rating alone.
    """
    truth, said = ratings(offsets=offsets)
    rng = np.random.default_rng(1)
    said[rng.random(said.shape) < missing] = np.nan
    kept = (~np.isnan(said)).sum(1) >= 2
    truth, said = truth[kept], said[kept]
    found = scored(bounds_of_numbers(said))
    spread = offsets**2 * np.linspace(-1, 1, 4).var()
    assert found["ccc", ONE, "upper"] == pytest.approx(1 / (2 + spread) ** 0.5, abs=0.02)
    assert 0 < found["ccc", ONE, "lower"] < found["ccc", ONE, "upper"]
    assert found["ccc", ONE, "lower"] < found["pearson", ONE, "lower"]
    mean = np.nanmean(said - np.nanmean(said, axis=0), axis=1)
    reached = np.corrcoef(truth, mean)[0, 1]
    assert found["pearson", MEAN, "upper"] == pytest.approx(reached, abs=0.015)
    if not missing:
        assert reached == pytest.approx(0.8**0.5, abs=0.01)


def test_the_lower_ceiling_of_numbers_is_the_ccc_of_the_others_mean():
    _, said = ratings(n=30, n_raters=3)
    others = np.stack([np.delete(said, rater, axis=1).mean(1) for rater in range(3)], axis=1)
    found = scored(bounds_of_numbers(said))
    for score in ("ccc", "pearson"):
        expected = score_of(said.ravel(), others.ravel(), 1, score)
        assert found[score, ONE, "lower"] == pytest.approx(expected)


# ------------------------------------------------------------------------------ from a cache


@pytest.fixture
def rated(planted_cache, tmp_path):
    """A cache of 160 clips, and a table of labels to be written with columns of ratings."""
    path = planted_cache()
    keys = FeatureCache(path).utterances["key"]

    def make(**columns):
        labels = tmp_path / "ratings.csv"
        pd.DataFrame({"key": keys, **columns}).to_csv(labels, index=False)
        return path, labels

    return make


def test_votes_of_words_counts_and_one_column_are_the_same(rated):
    said = np.random.default_rng(0).integers(0, 3, (160, 3))
    said[:, 1] = np.where(np.arange(160) % 2, said[:, 0], said[:, 1])
    words = np.array(CLASSES[:3])[said]
    path, labels = rated(
        **{f"r{i}": words[:, i] for i in range(3)},
        together=[";".join(row) for row in words],
        **{name: (words == name).sum(1) for name in CLASSES[:3]},
    )
    by_rater = noise_ceiling(path, "r0,r1,r2", labels=labels)
    asked = {"together": "auto", "anger,fear,joy": "shares"}
    for columns, kind in asked.items():
        other = noise_ceiling(path, columns, kind=kind, labels=labels)
        pd.testing.assert_frame_equal(by_rater.drop(columns="raters"), other.drop(columns="raters"))
    assert list(by_rater["metric"].unique()) == ["macro_f1", "uar", "accuracy"]
    assert ((by_rater["low"] < by_rater["score"]) & (by_rater["score"] < by_rater["high"])).all()
    assert set(by_rater["interval_over"]) == {"speakers, then utterances"}
    assert (by_rater["n_utterances"] == 160).all() and (by_rater["ratings"] == 3).all()


def test_numbers_may_be_missing_and_clips_with_one_rating_are_left_out(rated):
    _, said = ratings(n=160, n_raters=3)
    said[:10, 1:] = np.nan
    path, labels = rated(**{f"r{i}": said[:, i] for i in range(3)})
    found = noise_ceiling(path, "r0,r1,r2", labels=labels)
    assert (found["n_utterances"] == 150).all() and (found["left_out"] == 10).all()
    assert set(found["against"]) == {ONE, MEAN}
    assert ((found["low"] < found["score"]) & (found["score"] < found["high"])).all()


REFUSED = {
    "one rater": ("r0", "auto", "One rater alone says nothing of how far raters agree"),
    "one vote each": ("word", "auto", "One rater alone says nothing"),
    "no such column": ("r7,r0", "auto", "has no column 'r7'"),
    "shares": ("share_a,share_b", "shares", "do not say how many raters there were"),
    "words as numbers": ("word,r0", "numbers", "'word' of made holds words"),
    "infinite": (
        "r0,endless",
        "auto",
        "^raters: in made, 1 of 160 values of 'endless' is infinite",
    ),
    "an unknown share": ("word,r0", "shares", "^raters: "),
    "nobody tells clips apart": ("three,four", "auto", "each always gives the same number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_says_nothing_of_agreement_is_refused_in_one_line(rated, name):
    columns, kind, message = REFUSED[name]
    path, labels = rated(
        r0=np.arange(160.0),
        word=["anger", "fear"] * 80,
        share_a=[0.25] * 160,
        share_b=[0.75] * 160,
        three=[3.0] * 160,
        four=[4.0] * 159 + [np.nan],
        endless=[np.inf] + [1.0, 2.0, 3.0] * 53,
    )
    with pytest.raises(SettingsError, match=message) as caught:
        noise_ceiling(path, columns, kind=kind, labels=labels)
    assert "\n" not in str(caught.value)
