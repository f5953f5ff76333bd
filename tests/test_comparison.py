"""Paired comparisons against plain loops, and by what they do on simulated data."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from simulated import simulated_record, write_records

from lsmprobe.errors import ResultsError
from lsmprobe.results import comparison
from lsmprobe.results.bootstrap import interval_ends
from lsmprobe.results.comparison import add_holm, compare, compare_records, compare_runs, too_small
from lsmprobe.results.records import load_results
from lsmprobe.results.scores import macro_f1, resampled_scores


def simulated(rng, n_speakers, each, skill_a, skill_b, n_runs=1, n_classes=2):
    """Two systems; a speaker is recognised with a skill of its own, around each system's mean."""
    speakers = np.repeat(np.arange(n_speakers), each)
    labels = np.tile(np.arange(each) % n_classes, n_speakers)
    sides = []
    for skill in (skill_a, skill_b):
        own = np.clip(skill + rng.uniform(-0.2, 0.2, n_speakers), 0, 1)[speakers]
        wrong = (labels + rng.integers(1, n_classes, size=(n_runs, len(labels)))) % n_classes
        sides.append(np.where(rng.random((n_runs, len(labels))) < own, labels, wrong))
    return labels, speakers, sides[0], sides[1]


@pytest.mark.parametrize("n_runs", [1, 3])
def test_difference_and_p_are_those_of_a_plain_loop_over_all_swaps(rng, n_runs):
    labels, speakers, a, b = simulated(rng, 7, 6, 0.8, 0.6, n_runs, n_classes=3)

    def difference(swapped):
        flip = np.isin(speakers, swapped)
        left, right = np.where(flip, b, a), np.where(flip, a, b)
        means = [np.mean([macro_f1(labels, run, 3) for run in side]) for side in (left, right)]
        return means[0] - means[1]

    null = np.array(
        [difference(swapped) for n in range(8) for swapped in itertools.combinations(range(7), n)]
    )
    found = compare(labels, speakers, a, b, 3)
    assert found.difference == pytest.approx(null[0])  # nothing swapped
    sides = [(null >= null[0] - 1e-9).mean(), (null <= null[0] + 1e-9).mean()]
    assert found.p == pytest.approx(min(1, 2 * min(sides)))


def test_many_speakers_are_sampled_and_agree_with_a_plain_loop(rng):
    labels, speakers, a, b = simulated(rng, 16, 6, 0.75, 0.65)
    flips = rng.random((2000, 16)) < 0.5
    null = []
    for flip in flips[:, speakers]:
        left, right = np.where(flip, b[0], a[0]), np.where(flip, a[0], b[0])
        null.append(np.mean(left == labels) - np.mean(right == labels))
    # The classes are balanced, and errors too, nearly: accuracy ranks the swaps as macro-F1 does.
    observed = np.mean(a == labels) - np.mean(b == labels)
    expected = 2 * min(np.mean(np.array(null) >= observed), np.mean(np.array(null) <= observed))
    assert compare(labels, speakers, a, b, 2).p == pytest.approx(min(1, expected), abs=0.08)


@pytest.mark.slow
def test_the_interval_is_that_of_a_plain_loop(rng):
    labels, speakers, a, b = simulated(rng, 8, 12, 0.8, 0.6, n_runs=3, n_classes=3)
    resampled = []
    for _ in range(2000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(speakers == s), size=12) for s in rng.choice(8, size=8)]
        )
        runs = rng.choice(3, size=3)
        resampled.append(
            np.mean([macro_f1(labels[rows], a[r, rows], 3) for r in runs])
            - np.mean([macro_f1(labels[rows], b[r, rows], 3) for r in runs])
        )
    expected = np.quantile(resampled, [0.025, 0.975])
    found = compare(labels, speakers, a, b, 3, n_resamples=4000)
    np.testing.assert_allclose([found.low, found.high], expected, atol=2)
    swapped = compare(labels, speakers, b, a, 3, n_resamples=4000)
    np.testing.assert_allclose([-swapped.high, -swapped.low], expected, atol=2)
    assert found.over == "runs; speakers, then utterances"


def test_against_a_perfect_answer_the_interval_is_that_of_a_single_run(rng):
    labels, speakers, a, _ = simulated(rng, 8, 12, 0.7, 0.7, n_classes=3)
    [alone], over = resampled_scores(labels, a, speakers, 3)
    found = compare(labels, speakers, a, labels[None], 3)
    # The joint kinds of utterances are the same, so that the same resamples are drawn.
    assert (found.low + 100, found.high + 100) == pytest.approx(interval_ends(alone))
    assert found.over == over


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 8))
def test_swapping_the_sides_flips_the_sign_and_keeps_p(seed, n_runs, n_speakers):
    rng = np.random.default_rng(seed)
    labels, speakers, a, b = simulated(rng, n_speakers, 6, 0.7, 0.6, n_runs, n_classes=3)
    one = compare(labels, speakers, a, b, 3, n_resamples=2)
    other = compare(labels, speakers, b, a, 3, n_resamples=2)
    assert other.difference == pytest.approx(-one.difference)
    assert other.p == pytest.approx(one.p, nan_ok=True)


@given(st.integers(1, 3), st.integers(6, 20))
def test_nothing_differs_from_itself(n_runs, n_speakers):
    labels, speakers, a, _ = simulated(
        np.random.default_rng(0), n_speakers, 4, 0.6, 0.6, n_runs=n_runs
    )
    same = compare(labels, speakers, a, a, 2, n_resamples=50)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


@pytest.mark.slow
def test_the_interval_covers_the_true_difference(rng):
    """Both classes are equally frequent and equally hard, so that macro-F1 is the mean skill."""
    trials, truth, hits = 150, 10, 0
    for trial in range(trials):
        data = simulated(rng, 20, 20, 0.7, 0.6)
        found = compare(*data, 2, n_resamples=300, seed=trial)
        hits += found.low <= truth <= found.high
    low, high = binom.ppf([0.001, 0.999], trials, 0.95) / trials
    assert low <= hits / trials <= high


@pytest.mark.slow
def test_where_nothing_differs_p_is_uniform_and_false_alarms_are_rare(rng):
    p = np.array(
        [compare(*simulated(rng, 10, 12, 0.7, 0.7), 2, n_resamples=2).p for _ in range(300)]
    )
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        assert (
            binomtest(int((p <= level).sum()), len(p), level, alternative="greater").pvalue > 1e-3
        )
    assert (p <= 0.5).mean() > 0.35  # and it does not simply stay silent
    assert (p <= 0.05).mean() > 0.015


def test_a_clear_difference_is_found_and_the_smallest_p_is_reached(rng):
    labels, speakers, _, _ = simulated(rng, 6, 10, 0.5, 0.5)
    found = compare(labels, speakers, labels[None], 1 - labels[None], 2)
    assert found.p == 2 / 2**6
    assert (found.difference, found.low, found.high) == (100, 100, 100)


@pytest.mark.parametrize(
    ("n_speakers", "sentence"),
    [
        (1, "1 speaker: no test is made, and no interval"),
        (2, "2 speakers: no test is made, and no interval"),
        (3, "p could not be below 0.25"),
        (5, "p could not be below 0.062"),
    ],
)
def test_too_few_speakers_give_no_p_but_a_sentence(rng, n_speakers, sentence):
    found = compare(*simulated(rng, n_speakers, 10, 0.9, 0.5), 2)
    assert np.isnan(found.p)
    assert sentence in found.note
    assert found.note.endswith(".")
    assert (found.over == "utterances only") == (n_speakers < 3)


def test_six_speakers_are_enough_to_be_tested(rng):
    found = compare(*simulated(rng, 6, 10, 0.9, 0.5), 2)
    assert found.note == too_small(np.arange(6)) == ""
    assert found.p >= 2 / 2**6


def test_holm_worked_by_hand():
    table = pd.DataFrame({"what": list("abcd"), "p": [0.01, 0.04, np.nan, 0.03]})
    # Three tests, sorted .01 .03 .04: 3 x .01, 2 x .03, and .04 is no smaller than the one before.
    expected = [0.03, 0.06, np.nan, 0.06]
    np.testing.assert_allclose(add_holm(table).p_holm, expected)
    assert add_holm(table).drop(columns="p_holm").equals(table)
    assert add_holm(table.assign(p=np.nan)).p_holm.isna().all()
    assert len(add_holm(table.iloc[:0])) == 0


def records(predictions, *, seeds=(0, 1), emotions="aabb", order=(0, 1, 2, 3)):
    return [
        {
            "head": "linear",
            "model": "m",
            "corpus": "c",
            "seed": seed,
            "classes": ["a", "b"],
            "predictions": [
                {"key": i, "speaker": f"s{i}", "emotion": emotions[i], "predicted": guess[i]}
                for i in order
            ],
        }
        for seed, guess in zip(seeds, predictions, strict=True)
    ]


def test_records_are_paired_by_seed_and_by_key():
    one = records(["aabb", "abbb"])
    other = records(["bbbb", "aabb", "bbaa"], seeds=(1, 0, 5), order=(3, 1, 0, 2))
    found = compare_records(one, other)
    labels, speakers = np.array([0, 0, 1, 1]), np.arange(4)
    a, b = np.array([[0, 0, 1, 1], [0, 1, 1, 1]]), np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    assert found.difference == compare(labels, speakers, a, b, 2).difference
    expected = np.mean([macro_f1(labels, x, 2) for x in a]) - np.mean(
        [macro_f1(labels, x, 2) for x in b]
    )
    assert found.difference == pytest.approx(expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (records(["aabb"], seeds=[7]), r"seeds \[0, 1\] and \[7\]; expected common"),
        (
            records(["aabb", "aabb"], emotions="abab"),
            "linear of m on c, seed 0, was tested on other",
        ),
        (records(["aabb", "aabb"], order=(0, 1, 2)), "expected the same"),
    ],
)
def test_records_that_cannot_be_paired_are_refused(other, message):
    with pytest.raises(
        ResultsError, match=message.replace("and \\[7\\];", "and \\[7\\] cannot be paired;")
    ):
        compare_records(records(["aabb", "abbb"]), other)


@pytest.fixture
def results(monkeypatch):
    """Two models with two layers each, two runs; the records of all of them are made up."""
    guesses = {("m", 1): "aabb", ("m", 2): "abbb", ("n", 1): "bbaa", ("n", 2): "aaab"}
    made, rows = {}, []
    for (model, layer), guess in guesses.items():
        for record in records([guess, guess]):
            path = f"{model}-{layer}-{record['seed']}.json"
            made[path] = record
            rows.append({"model": model, "layer": layer, "seed": record["seed"], "path": path})
    monkeypatch.setattr(comparison, "load_record", lambda path: made[path.name])
    shared = {"corpus": "c", "split": "loso", "feature_norm": "none", "head": "linear"}
    return pd.DataFrame(rows).assign(**shared)


def test_runs_are_compared_where_they_differ_in_one_thing_alone(results):
    layers = compare_runs(results, "layer")
    assert layers[["model", "a", "b"]].to_numpy().tolist() == [["m", 1, 2], ["n", 1, 2]]
    expected = compare_records(records(["aabb", "aabb"]), records(["abbb", "abbb"]))
    assert layers["difference"][0] == expected.difference
    models = compare_runs(results[results["layer"] == 1], "model")
    assert models[["a", "b", "difference"]].to_numpy().tolist() == [["m", "n", 100.0]]
    assert models["p_holm"].isna().all()  # four speakers: no test


def test_models_are_compared_on_a_layer_each_whatever_its_number(results):
    ends = results[(results["model"] == "m") == (results["layer"] == 2)]
    assert compare_runs(ends, "model")["difference"].item() == pytest.approx(
        macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)
    )


def test_heads_are_compared_whether_they_read_one_layer_or_all_of_them(results):
    one = results[results["model"] == "m"]
    named = one.assign(head=["linear"] * 2 + ["multilayer"] * 2, layer=[1, 1, pd.NA, pd.NA])
    heads = compare_runs(named.astype({"layer": "Int64"}), "head")
    assert heads[["model", "a", "b"]].to_numpy().tolist() == [["m", "linear", "multilayer"]]
    assert heads["difference"].tolist() == compare_runs(one, "layer")["difference"].tolist()


def test_runs_that_leave_open_what_is_compared_are_refused(results):
    with pytest.raises(
        ResultsError, match="c, emotion, classes, loso, none, linear: several runs with one"
    ):
        compare_runs(results, "model")
    with pytest.raises(ResultsError, match="no two runs here differ in feature_norm"):
        compare_runs(results, "feature_norm")


def test_further_settings_in_which_two_sides_differ_are_noted(tmp_path):
    norms = ({"feature_norm": "none", "lr": 0.1}, {"feature_norm": "zscore", "lr": 0.2})
    made = [simulated_record("m", "c", "linear", 0, 4, settings=own) for own in norms]
    made = [one | {"experiment": str(number)} for number, one in enumerate(made)]
    [row] = compare_runs(load_results(write_records(tmp_path, made)), "feature_norm").itertuples()
    assert row.note.startswith("They differ in lr (0.1 and 0.2) too. The test set has 5 speakers")


def test_other_labels_and_another_extraction_of_two_sides_are_noted(tmp_path):
    """Of two models each has a cache of its own, which is no difference to be noted."""
    sides = [("none", "a" * 12, "", "c" * 12), ("zscore", "b" * 12, "own.csv", "d" * 12)]
    made = [
        simulated_record("m", "c", "linear", 0, 4, settings={"feature_norm": norm})
        | {
            "experiment": norm,
            "labels": {"hash": labels, "file": file},
            "cache": {"hash": cache, "file": "m/c.h5", "identity": {}},
        }
        for norm, labels, file, cache in sides
    ]
    [row] = compare_runs(load_results(write_records(tmp_path, made)), "feature_norm").itertuples()
    labels = "labels (the cache's own, aaaaaa and own.csv, bbbbbb)"
    assert f"{labels}, features (m/c.h5, cccccc and m/c.h5, dddddd) too" in row.note
    made[1] |= {"model": "n", "settings": made[0]["settings"]}
    folder = write_records(tmp_path / "models", made)
    [row] = compare_runs(load_results(folder), "model").itertuples()
    assert f"They differ in {labels} too" in row.note
