"""Scores against scikit-learn and by hand; intervals against a plain loop and by coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from lsmprobe.results.bootstrap import interval_ends, resampling_bias
from lsmprobe.results.scores import (
    Interval,
    RunAnswers,
    bootstrap_interval,
    interval_of_runs,
    macro_f1,
    macro_f1_of,
    random_tables,
    resampled_scores,
    runs_interval,
    scores,
    shuffled_answers,
)

SCORES = ["macro_f1", "uar", "accuracy"]


@st.composite
def answers(draw):
    n_classes = draw(st.integers(2, 8))
    classes = st.integers(0, n_classes - 1)
    pairs = draw(st.lists(st.tuples(classes, classes), min_size=1, max_size=40))
    labels, predictions = np.array(pairs).T
    return labels, predictions, n_classes


def noisy_answers(n, n_classes, right, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    return labels, np.where(rng.random(n) < right, labels, rng.integers(n_classes, size=n))


@given(answers())
def test_scores_agree_with_scikit_learn(answers):
    labels, predictions, n_classes = answers
    found, classes = scores(labels, predictions, n_classes), range(n_classes)
    f1 = f1_score(labels, predictions, labels=classes, average=None, zero_division=0)
    recall = recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    np.testing.assert_allclose(found["per_class_f1"], 100 * f1)
    assert found["macro_f1"] == pytest.approx(100 * f1.mean())
    assert found["macro_f1"] == macro_f1(labels, predictions, n_classes)
    assert found["uar"] == pytest.approx(100 * recall)
    assert found["accuracy"] == pytest.approx(100 * accuracy_score(labels, predictions))
    assert found["confusion"] == confusion_matrix(labels, predictions, labels=classes).tolist()


@given(answers())
def test_no_constant_answer_beats_the_best_constant_answer(answers):
    labels, predictions, n_classes = answers
    constants = np.repeat(np.arange(n_classes)[:, None], len(labels), axis=1)
    best = max(
        f1_score(labels, constant, labels=range(n_classes), average="macro", zero_division=0)
        for constant in constants
    )
    assert scores(labels, predictions, n_classes)["constant_f1"] == pytest.approx(100 * best)


def test_scores_worked_by_hand():
    found = scores(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), n_classes=3)
    assert found["per_class_f1"] == pytest.approx([100 * 2 / 3, 80, 0])
    assert found["macro_f1"] == pytest.approx((200 / 3 + 80) / 3)  # class 2, absent, counts 0
    assert found["uar"] == pytest.approx(75)  # class 2, absent, does not count
    assert found["accuracy"] == 75
    assert found["constant_f1"] == pytest.approx(200 / 9)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n_speakers", [1, 2, 3, 10])
def test_a_perfect_answer_is_certain_even_where_resamples_miss_a_rare_class(score, n_speakers):
    labels = np.array([5] + [0, 1, 2, 3, 4] * 6)
    speakers = np.arange(len(labels)) % n_speakers
    interval = bootstrap_interval(labels, labels, speakers, 6, score=score)
    assert (interval.low, interval.high) == (100, 100)


@pytest.mark.parametrize("score", SCORES)
def test_an_answer_that_is_always_wrong_is_certain(score):
    labels = np.arange(30) % 3
    interval = bootstrap_interval(labels, (labels + 1) % 3, np.arange(30) % 5, 3, score=score)
    assert (interval.low, interval.high) == (0, 0)


def test_a_constant_answer_has_its_recall_whatever_is_drawn():
    labels = np.arange(400) % 4
    constant = np.zeros_like(labels)
    interval = bootstrap_interval(labels, constant, np.arange(400) % 10, 4, score="uar")
    assert (interval.low, interval.high) == (25, 25)


@pytest.mark.parametrize("n_speakers", [1, 2])
def test_one_or_two_speakers_give_an_interval_over_utterances(n_speakers):
    labels, predictions = noisy_answers(60, 4, right=0.6, seed=0)
    interval = bootstrap_interval(labels, predictions, np.arange(60) % n_speakers, 4)
    assert interval.over == "utterances only"
    assert interval == bootstrap_interval(labels, predictions, np.zeros(60), 4)


@given(st.permutations(range(30)))
def test_the_order_of_utterances_does_not_matter(order):
    labels, predictions = noisy_answers(30, 3, right=0.6, seed=0)
    speakers = np.array(list("abcde") * 6)
    shuffled = [array[list(order)] for array in (labels, predictions, speakers)]
    once = bootstrap_interval(labels, predictions, speakers, 3, n_resamples=50)
    assert bootstrap_interval(*shuffled, 3, n_resamples=50) == once


@pytest.mark.parametrize("score", SCORES)
def test_the_interval_is_that_of_a_plain_loop(score):
    labels, predictions = noisy_answers(120, 3, right=0.6, seed=1)
    speakers = np.repeat(np.arange(6), [5, 10, 15, 20, 30, 40])
    rng = np.random.default_rng(1)
    resampled = []
    for _ in range(2000):
        rows = [
            rng.choice(np.flatnonzero(speakers == speaker), size=(speakers == speaker).sum())
            for speaker in rng.choice(6, size=6)
        ]
        drawn = np.concatenate(rows)
        resampled.append(scores(labels[drawn], predictions[drawn], 3)[score])
    expected = np.quantile(resampled, [0.025, 0.975])
    found = bootstrap_interval(labels, predictions, speakers, 3, score=score)
    assert found.over == "speakers, then utterances"
    np.testing.assert_allclose([found.low, found.high], expected, atol=1.5)


def test_the_interval_covers_the_truth_where_speakers_differ():
    """Speakers are recognised with a skill of their own; the truth is the mean skill, 60 %."""
    rng = np.random.default_rng(0)
    n_speakers, each, trials = 15, 20, 150
    labels, one_speaker = np.zeros(n_speakers * each, dtype=int), np.zeros(n_speakers * each)
    speakers = np.repeat(np.arange(n_speakers), each)
    intervals: dict[str, list[Interval]] = {"speakers": [], "utterances": []}
    for trial in range(trials):
        skill = rng.uniform(0.3, 0.9, size=n_speakers)
        wrong = (rng.random(len(labels)) > skill[speakers]).astype(int)
        for name, groups in {"speakers": speakers, "utterances": one_speaker}.items():
            intervals[name].append(
                bootstrap_interval(
                    labels, wrong, groups, 2, score="accuracy", n_resamples=400, seed=trial
                )
            )
    coverage = {
        name: np.mean([one.low <= 60 <= one.high for one in found])
        for name, found in intervals.items()
    }
    assert 0.9 <= coverage["speakers"] <= 1
    assert coverage["utterances"] < 0.85  # it takes utterances of one speaker for independent


def test_confidence_widens_and_the_seed_repeats():
    labels, predictions = noisy_answers(100, 4, right=0.5, seed=0)
    speakers = np.arange(100) % 7
    narrow = bootstrap_interval(labels, predictions, speakers, 4, confidence=0.5)
    wide = bootstrap_interval(labels, predictions, speakers, 4, confidence=0.99)
    assert wide.low < narrow.low < macro_f1(labels, predictions, 4) < narrow.high < wide.high
    assert wide == bootstrap_interval(labels, predictions, speakers, 4, confidence=0.99)


# --------------------------------------------------------------------------------------- guessing


@pytest.mark.parametrize("score", SCORES)
def test_shuffled_answers_are_those_of_a_plain_loop(score):
    labels, predictions = noisy_answers(90, 3, right=0.6, seed=1)
    rng = np.random.default_rng(1)
    values = [scores(labels, rng.permutation(predictions), 3)[score] for _ in range(1000)]
    found = shuffled_answers(labels, predictions, 3, score=score)
    assert found.mean == pytest.approx(np.mean(values), abs=0.6)
    assert found.point_95 == pytest.approx(np.quantile(values, 0.95), abs=1.2)


def test_guessing_the_gender_scores_50_and_the_best_constant_answer_less():
    labels = np.arange(400) % 2
    found = shuffled_answers(labels, np.random.default_rng(0).permutation(labels), 2)
    assert found.mean == pytest.approx(50, abs=0.3)
    assert 52 < found.point_95 < 58
    assert scores(labels, labels, 2)["constant_f1"] == pytest.approx(100 / 3)


@given(answers(), st.integers(0, 99))
def test_dealt_answers_keep_how_often_each_class_is_true_and_answered(answers, seed):
    labels, predictions, n_classes = answers
    rows = np.tile(np.bincount(labels, minlength=n_classes), (5, 1))
    columns = np.tile(np.bincount(predictions, minlength=n_classes), (5, 1))
    tables = random_tables(rows, columns, np.random.default_rng(seed))
    assert (tables >= 0).all()
    np.testing.assert_array_equal(tables.sum(2), rows)
    np.testing.assert_array_equal(tables.sum(1), columns)


# -------------------------------------------------------------------------------------- many runs


def test_the_interval_over_runs_is_that_of_a_plain_loop():
    labels, right = np.arange(80) % 3, np.array([[0.7], [0.6], [0.4]])
    rng = np.random.default_rng(0)
    runs = np.where(rng.random((3, 80)) < right, labels, rng.integers(3, size=(3, 80)))
    speakers = np.arange(80) % 8
    rng = np.random.default_rng(1)
    values = []
    for _ in range(2000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(speakers == s), size=10) for s in rng.choice(8, size=8)]
        )
        drawn = rng.choice(3, size=3)
        of_runs = [macro_f1(labels[rows], run[rows], 3) for run in runs]
        values.append((np.mean(np.take(of_runs, drawn)), np.mean(of_runs)))
    found = runs_interval(labels, runs, speakers, 3)
    drawn, all_runs = np.transpose(values)
    observed = float(np.mean([macro_f1(labels, run, 3) for run in runs]))
    expected = interval_ends(drawn, bias=resampling_bias(all_runs, observed))
    np.testing.assert_allclose([found.low, found.high], expected, atol=2)
    assert found.over == "runs; speakers, then utterances"


def test_runs_with_a_test_set_each_are_resampled_each_on_its_own():
    labels, predictions = noisy_answers(100, 4, right=0.5, seed=0)
    runs = [RunAnswers(labels, predictions, np.arange(100) % 7)] * 2
    assert interval_of_runs(runs, 4) == runs_interval(*_stacked(runs), 4)
    other = RunAnswers(labels[::-1], predictions[::-1], runs[0].speakers)
    found = interval_of_runs([runs[0], other], 4)
    assert found.over == "runs, each on its own test set; speakers, then utterances"
    own = bootstrap_interval(labels, predictions, runs[0].speakers, 4)
    # Two independent resamples: their mean varies less than one of them.
    assert 0.55 < (found.high - found.low) / (own.high - own.low) < 0.9


def _stacked(runs):
    return runs[0].labels, np.stack([run.predictions for run in runs]), runs[0].speakers


def test_the_interval_of_one_run_is_its_own_and_that_of_equal_runs_too():
    labels, predictions = noisy_answers(100, 4, right=0.5, seed=0)
    speakers = np.arange(100) % 7
    own = bootstrap_interval(labels, predictions, speakers, 4)
    assert runs_interval(labels, predictions[None], speakers, 4) == own
    equal = runs_interval(labels, np.stack([predictions] * 3), speakers, 4)
    assert (equal.low, equal.high) == pytest.approx((own.low, own.high))


def test_the_interval_of_few_clips_misses_the_truth_on_both_sides_alike():
    """Resamples of 55 clips score below the clips themselves; plain percentiles end too low."""
    rng = np.random.default_rng(0)
    trials, one_speaker = 150, np.zeros(55)
    missed = {"corrected": np.zeros(2), "plain": np.zeros(2)}  # the truth above it, and below
    for trial in range(trials):
        wrong = rng.dirichlet(np.ones(7), size=7) * (1 - np.eye(7))
        confusion = 0.3 * np.eye(7) + 0.7 * wrong / wrong.sum(1, keepdims=True)
        truth = float(macro_f1_of(np.round(1e6 * confusion[None]).astype(int))[0])
        labels = rng.permutation(np.arange(55) % 7)
        answers = (rng.random((55, 1)) > np.cumsum(confusion, 1)[labels]).sum(1).clip(max=6)
        settings = {"n_resamples": 500, "seed": trial}
        [values], _ = resampled_scores(labels, answers[None], one_speaker, 7, **settings)
        own = bootstrap_interval(labels, answers, one_speaker, 7, **settings)
        for name, (low, high) in {
            "corrected": (own.low, own.high),
            "plain": interval_ends(values),
        }.items():
            missed[name] += high < truth, truth < low
    assert missed["plain"][0] > 4 * missed["plain"][1]
    assert abs(np.diff(missed["corrected"])) < 0.6 * abs(np.diff(missed["plain"]))
    assert missed["corrected"].sum() < missed["plain"].sum()


def test_the_interval_is_wider_where_runs_differ():
    """The mean of the runs' own ends knows nothing of that, and misses the truth too often."""
    rng = np.random.default_rng(0)
    n, trials, missed = 600, 50, {"multi": 0, "mean of ends": 0}
    labels, speakers = np.arange(n) % 2, np.arange(n) % 30
    for trial in range(trials):
        skill = rng.normal(0.7, 0.1, size=(5, 1))
        runs = np.where(rng.random((5, n)) < skill, labels, 1 - labels)
        multi = runs_interval(labels, runs, speakers, 2, n_resamples=200, seed=trial)
        ends = [bootstrap_interval(labels, run, speakers, 2, n_resamples=200) for run in runs]
        low, high = np.mean([[one.low, one.high] for one in ends], axis=0)
        missed["multi"] += not multi.low <= 70 <= multi.high
        missed["mean of ends"] += not low <= 70 <= high
    assert missed["multi"] / trials < 0.25  # five runs know little of how runs vary
    assert missed["mean of ends"] > 1.5 * missed["multi"]
