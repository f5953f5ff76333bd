"""Alarms on planted cases, and none on features of real speech."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from lsmprobe.results.alarms import layer_alarms, run_alarms
from lsmprobe.results.scores import bootstrap_interval, scores, shuffled_answers


def codes(alarms):
    return [alarm.code for alarm in alarms]


def alarms_of(labels, predictions, n_classes, n_speakers=8):
    """As a stage calls it: with the run's own score, interval, and what it scores by guessing."""
    speakers = np.arange(len(labels)) % n_speakers
    found = scores(labels, predictions, n_classes)
    return run_alarms(
        labels,
        predictions,
        n_classes,
        score=found["macro_f1"],
        low=bootstrap_interval(labels, predictions, speakers, n_classes, n_resamples=500).low,
        constant=found["constant_f1"],
        shuffled_95=shuffled_answers(labels, predictions, n_classes).point_95,
    )


@given(st.integers(2, 8), st.integers(0, 100))
def test_a_constant_answer_raises_both_alarms_whichever_it_is(n_classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=40)])
    constant = np.full_like(labels, rng.integers(n_classes))
    assert codes(alarms_of(labels, constant, n_classes)) == ["one-class", "not-above-constant"]


SKEWED = np.array([50, 20, 10, 8, 6, 4, 2]) / 100


@pytest.mark.parametrize(
    ("n_speakers", "n", "frequency", "answered"),
    [
        (1, 55, np.full(7, 1 / 7), np.full(7, 1 / 7)),
        (1, 55, SKEWED, SKEWED[::-1]),
        (3, 120, np.full(2, 1 / 2), np.full(2, 1 / 2)),
        (10, 530, np.full(7, 1 / 7), np.full(7, 1 / 7)),
        (10, 530, SKEWED, np.full(7, 1 / 7)),
    ],
)
def test_guessing_raises_the_alarm_at_every_size_and_class_balance(
    rng, n_speakers, n, frequency, answered
):
    n_classes, trials, n_alarms = len(frequency), 60, 0
    for _ in range(trials):
        labels = rng.choice(n_classes, size=n, p=frequency)
        guesses = rng.choice(n_classes, size=n, p=answered)
        found = codes(alarms_of(labels, guesses, n_classes, n_speakers))
        n_alarms += found == ["not-above-constant"]
    assert n_alarms >= binom.ppf(0.001, trials, 0.95)  # 51


def test_a_run_that_learned_raises_none(rng):
    labels = np.arange(80) % 4
    assert alarms_of(labels, np.where(rng.random(80) < 0.8, labels, 0), 4) == []


def test_one_answer_is_right_where_the_test_set_has_one_class():
    labels = np.zeros(5, dtype=int)
    levels = {"score": 100.0, "low": 50.0, "constant": 49.9, "shuffled_95": 49.9}
    assert run_alarms(labels, labels, 2, **levels) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"low": 20.0}, "from 20.0, reaches the best constant answer, 20.0."),
        ({"score": 25.0}, "25.0, is within what shuffled answers reach, 25.0."),
        ({"low": 20.0, "score": 25.0}, "shuffled answers reach, 25.0."),
    ],
)
def test_a_run_must_exceed_both_levels_and_the_sentence_names_the_one_it_does_not(changes, said):
    labels = np.arange(8) % 4
    levels = {"score": 25.1, "low": 20.1, "constant": 20.0, "shuffled_95": 25.0}
    alarms = run_alarms(labels, labels, 4, **(levels | changes))
    assert codes(alarms) == ["not-above-constant"] * bool(said)
    assert said in "".join(alarm.text for alarm in alarms)


def features(rng, *, over_clips=1.0, over_time=1.0, n=50, dim=24):
    """Means and deviations of a layer whose every dimension is about 10 in size."""
    center = rng.choice([-10.0, 10.0], size=dim)
    means = (center + over_clips * rng.standard_normal((n, dim))).astype(np.float32)
    return means, (over_time * rng.uniform(0.5, 1.5, (n, dim))).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"over_clips": 0.01}, ["flat-over-clips"]),
        ({"over_time": 0.01}, ["flat-over-time"]),
        ({"over_clips": 0.0, "over_time": 0.0}, ["flat-over-clips", "flat-over-time"]),
        ({"over_clips": 0.3, "over_time": 0.3}, []),
    ],
)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_planted_flat_layer_is_found_whatever_its_scale(rng, changes, expected, scale):
    means, stds = features(rng, **changes)
    factor = np.float32(scale)
    found = layer_alarms(means * factor, stds * factor, 7)
    assert codes(found) == expected
    for alarm in found:
        assert alarm.text.startswith("layer 7 hardly varies over ")
        assert alarm.text.endswith(".")
        assert len(alarm.text) < 80


def test_a_layer_of_zeros_raises_both():
    nothing = np.zeros((5, 3), np.float32)
    assert codes(layer_alarms(nothing, nothing, 0)) == ["flat-over-clips", "flat-over-time"]


def test_a_few_enormous_constant_dimensions_do_not_hide_the_others(rng):
    means, stds = features(rng)
    means[:, :2], stds[:, :2] = 1e4, 0.0
    directions = means / np.linalg.norm(means, axis=1, keepdims=True)
    assert (directions @ directions.T).min() > 0.999  # a cosine sees one and the same clip
    assert layer_alarms(means, stds, 0) == []


def test_what_has_no_time_or_no_second_clip_is_not_blamed_for_it(rng):
    means, stds = features(rng)
    assert layer_alarms(means, 0 * stds, 0, over_time=False) == []
    assert codes(layer_alarms(means[:1], stds[:1], 0)) == []


def test_sentences_fit_below_a_table(rng):
    labels = np.arange(8) % 4
    sentences = [alarm.text for alarm in alarms_of(labels, 0 * labels, 4)]
    assert sentences[0] == "predicts one and the same of 4 classes."
    assert all(len(sentence) < 80 for sentence in sentences)
