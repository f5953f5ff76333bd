"""Alarms on planted cases, and none on features of real speech."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe.results.alarms import layer_alarms, run_alarms
from lsmprobe.results.scores import bootstrap_interval, scores


def codes(alarms):
    return [alarm.code for alarm in alarms]


def alarms_of(labels, predictions, n_classes):
    """As a stage calls it: with the run's own interval and the constant answer's score."""
    low = bootstrap_interval(labels, predictions, np.arange(len(labels)) % 8, n_classes).low
    constant = scores(labels, predictions, n_classes)["constant_f1"]
    return run_alarms(labels, predictions, n_classes, low, constant)


@given(st.integers(2, 8), st.integers(0, 100))
def test_a_constant_answer_raises_both_alarms_whichever_it_is(n_classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=40)])
    constant = np.full_like(labels, rng.integers(n_classes))
    assert codes(alarms_of(labels, constant, n_classes)) == ["one-class", "not-above-constant"]


def test_guessing_does_not_rule_out_the_constant_answer(rng):
    labels = np.repeat([0, 0, 0, 1], 20)
    assert codes(alarms_of(labels, rng.permutation(labels), 2)) == ["not-above-constant"]


def test_a_run_that_learned_raises_none(rng):
    labels = np.arange(80) % 4
    assert alarms_of(labels, np.where(rng.random(80) < 0.8, labels, 0), 4) == []


def test_one_answer_is_right_where_the_test_set_has_one_class():
    labels = np.zeros(5, dtype=int)
    assert run_alarms(labels, labels, 2, 50.0, 49.9) == []


@pytest.mark.parametrize(("low", "expected"), [(20.0, ["not-above-constant"]), (20.1, [])])
def test_an_interval_that_ends_at_the_constant_answer_does_not_rule_it_out(low, expected):
    labels = np.arange(8) % 4
    assert codes(run_alarms(labels, labels, 4, low, 20.0)) == expected


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
