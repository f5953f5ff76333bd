"""The table of scores against one worked by hand, and what its text says."""

import pandas as pd
import pytest

from lsmprobe.report.score_lines import format_scores
from lsmprobe.results.score_table import score_table


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


def test_the_text_says_what_the_numbers_are(results):
    text = format_scores(results)
    assert "44.0 ± 4.0" in text
    assert "34.0 to 64.0" in text
    assert "intervals, over utterances only" in text
    assert "random weights" not in text
    results["random_weights"] = True
    assert "m (random weights)" in format_scores(results)


def test_a_score_with_an_alarm_is_marked_and_the_alarm_named_below(results):
    results["alarms"] = [[], ["one-class"], ["one-class", "flat-over-time"], [], []]
    text = format_scores(results)
    assert "! 44.0 ± 4.0" in text
    assert "! 60.0" not in text
    assert "! m on c, linear: one-class in 2 of 3 runs" in text
    assert "! m on c, linear: flat-over-time in 1 of 3 runs" in text


def test_all_layers_are_read_by_multilayer_and_none_by_the_baseline(results):
    baseline = results[results["head"] == "multilayer"].assign(head="ast", experiment="f")
    text = format_scores(pd.concat([results, baseline], ignore_index=True))
    layers = dict(line.split()[2:4] for line in text.splitlines()[1:4])
    assert layers == {"ast": "-", "linear": "4", "multilayer": "all"}
