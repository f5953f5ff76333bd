import numpy as np
import pandas as pd
import pytest

from lsmprobe.analysis import layer_weights
from lsmprobe.figures import draw_layer_weights, save_figure
from lsmprobe.report import format_scores, score_table


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
    other["layer_weights"] = [None, None, None, [1.0, 0.0], [1.0, 0.0]]
    both = pd.concat([results, other], ignore_index=True)
    assert score_table(both).macro_f1.tolist() == [44.0, 0.0, 60.0, 0.0]
    weights = layer_weights(both).groupby("experiment").weight.apply(list)
    np.testing.assert_allclose(weights["e"], [0.30, 0.70])
    np.testing.assert_allclose(weights["f"], [1.0, 0.0])
    assert len(draw_layer_weights(layer_weights(both)).get_yticks()) == 2
    assert "experiment" in format_scores(both)
    assert "experiment" not in format_scores(results)


def test_experiments_with_other_layers_are_kept_apart(results):
    other = results.assign(experiment="f")
    other["layers"] = [[0, 1, 2]] * 5
    other["layer_weights"] = [None, None, None, [0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]
    weights = layer_weights(pd.concat([results, other], ignore_index=True))
    assert weights.groupby("experiment").layer.apply(list).to_dict() == {
        "e": [1, 2],
        "f": [0, 1, 2],
    }


def test_the_text_says_what_the_numbers_are(results):
    text = format_scores(results)
    assert "44.0 ± 4.0" in text
    assert "34.0 to 64.0" in text
    assert "intervals, over utterances only" in text
    assert "random weights" not in text
    results["random_weights"] = True
    assert "m (random weights)" in format_scores(results)


def test_layer_weights_are_averaged_over_runs_with_their_spread(results):
    weights = layer_weights(results)
    assert weights.layer.tolist() == [1, 2]
    np.testing.assert_allclose(weights.weight, [0.30, 0.70])
    np.testing.assert_allclose(weights["std"], np.std([0.25, 0.35], ddof=1))
    assert weights.runs.tolist() == [2, 2]
    assert layer_weights(results[results["head"] == "linear"]).empty


def test_the_map_shows_every_weight_and_darker_is_heavier(results, tmp_path):
    ax = draw_layer_weights(layer_weights(results))
    assert [text.get_text() for text in ax.texts] == ["0.30", "0.70"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["m, c"]
    random = draw_layer_weights(layer_weights(results.assign(random_weights=True)))
    assert [label.get_text() for label in random.get_yticklabels()] == ["m (random weights), c"]
    [image] = ax.images
    light, dark = image.cmap(image.norm(np.array([0.30, 0.70])))
    assert dark[:3].sum() < light[:3].sum()
    save_figure(ax, tmp_path / "figures" / "weights.pdf")
    assert (tmp_path / "figures" / "weights.pdf").read_bytes().startswith(b"%PDF")
