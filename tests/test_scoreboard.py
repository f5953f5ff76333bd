"""The table of scores against one worked by hand, and what its text says."""

import numpy as np
import pandas as pd
import pytest

from lsmprobe.report.score_lines import format_scores
from lsmprobe.results.records import save_run
from lsmprobe.results.score_table import score_table
from lsmprobe.results.scores import runs_interval


@pytest.fixture
def results():
    """Three runs of Linear on layer 4, two of Multi-Layer."""
    base = {
        "model": "m",
        "corpus": "c",
        "split": "speaker",
        "feature_norm": "none",
        "experiment": "e",
        "uar": 50.0,
        "accuracy": 52.0,
        "constant_f1": 5.0,
        "interval_over": "utterances only",
        "random_weights": False,
        "layers": [1, 2],
        "layer_weights": None,
    }
    linear = [
        {
            **base,
            "head": "linear",
            "layer": 4,
            "seed": s,
            "macro_f1": f1,
            "macro_f1_low": f1 - 10,
            "macro_f1_high": f1 + 20,
        }
        for s, f1 in enumerate([40.0, 44.0, 48.0])
    ]
    multi = [
        {
            **base,
            "head": "multilayer",
            "layer": pd.NA,
            "seed": s,
            "macro_f1": 60.0,
            "macro_f1_low": 50.0,
            "macro_f1_high": 70.0,
            "layer_weights": w,
        }
        for s, w in enumerate([[0.25, 0.75], [0.35, 0.65]])
    ]
    return pd.DataFrame(linear + multi).astype({"layer": "Int64"})


def test_the_score_table_is_the_one_worked_by_hand(results):
    linear, multi = score_table(results).to_dict("records")
    assert (linear["head"], linear["layer"], linear["runs"]) == ("linear", 4, 3)
    assert linear["macro_f1"] == 44.0
    assert linear["std"] == 4.0  # of 40, 44, 48 with ddof 1
    assert (linear["low"], linear["high"]) == (34.0, 64.0)
    assert (multi["head"], multi["runs"], multi["std"]) == ("multilayer", 2, 0.0)


def test_runs_of_different_settings_are_never_averaged(results):
    other = results.assign(experiment="f", macro_f1=0.0)
    both = pd.concat([results, other], ignore_index=True)
    assert score_table(both).macro_f1.tolist() == [44.0, 0.0, 60.0, 0.0]
    assert "experiment" in format_scores(both)
    assert "experiment" not in format_scores(results)


def test_the_interval_of_several_runs_is_read_from_their_records(results, tmp_path):
    """Runs that differ widen it; a run alone has its own."""
    rng = np.random.default_rng(0)
    labels, speakers = np.arange(60) % 2, np.arange(60) % 5
    answers = np.where(rng.random((3, 60)) < [[0.9], [0.7], [0.5]], labels, 1 - labels)
    linear = results[results["head"] == "linear"].copy()
    linear["path"] = [
        str(write_record(tmp_path / f"{seed}.json", labels, run, speakers, rng))
        for seed, run in enumerate(answers)
    ]
    row = score_table(linear).iloc[0]
    expected = runs_interval(labels, answers, np.char.add("s", speakers.astype(str)), 2)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=1.5)
    assert row.interval_over == "runs; speakers, then utterances"
    assert score_table(linear[:1]).loc[0, ["low", "high"]].tolist() == [30, 60]  # the run's own


def write_record(path, labels, answers, speakers, rng):
    rows = rng.permutation(len(labels))  # records are joined by key, whatever their order
    predictions = [
        {"key": f"{row:02}", "speaker": f"s{speakers[row]}", "emotion": "ab"[labels[row]]}
        | {"predicted": "ab"[answers[row]], "probabilities": [0.5, 0.5]}
        for row in rows
    ]
    interval = {"low": 0.0, "high": 1.0, "over": "utterances only"}
    scores = {"macro_f1": 1.0, "uar": 1.0, "accuracy": 1.0, "constant_f1": 1.0}
    record = {
        **{"model": "m", "corpus": "c", "head": "linear", "layer": 4, "seed": 0},
        **{"experiment": "e", "settings": {"feature_norm": "none"}, "seconds": 1.0},
        "split": {"kind": "loso", "hash": "h"},
        "cache": {"hash": "x", "identity": {}},
        **{"layers": [4], "layer_weights": None, "folds": [{"best_epoch": 1}]},
        **{"scores": {**scores, "interval": interval}, "classes": ["a", "b"]},
        "predictions": predictions,
    }
    save_run(path, record, {})
    return path


def test_few_runs_that_differ_much_are_named(results):
    results["macro_f1"] = [20.0, 44.0, 68.0, 60.0, 60.0]
    text = " ".join(format_scores(results).split())
    assert "m on c, linear: 3 runs that differ much: take the interval as too narrow." in text
    assert "multilayer: 2 runs" not in text


def test_the_text_says_what_the_numbers_are(results):
    text = " ".join(format_scores(results).split())
    assert "44.0 ± 4.0" in text
    assert "34.0 to 64.0" in text
    assert "interval: bootstrap over mean of the runs' own: utterances only" in text
    assert "random weights" not in text
    results["random_weights"] = True
    assert "m (random weights)" in format_scores(results)


def test_a_score_with_an_alarm_is_marked_and_the_alarm_named_below(results):
    results["alarms"] = [[], ["one-class"], ["one-class", "flat-over-time"], [], []]
    text = " ".join(format_scores(results).split())
    assert "! 44.0 ± 4.0" in text
    assert "! 60.0" not in text
    assert "! m on c, linear: one-class in 2 of 3 runs" in text
    assert "! m on c, linear: flat-over-time in 1 of 3 runs" in text


def test_all_layers_are_read_by_multilayer_and_none_by_the_baseline(results):
    about = {"head": "ast", "experiment": "f", "layer_weights": None}
    baseline = results[results["head"] == "multilayer"].assign(**about)
    text = format_scores(pd.concat([results, baseline], ignore_index=True))
    layers = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("m "))
    assert layers == {"ast": "-", "linear": "4", "multilayer": "all"}
