import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from lsmprobe.errors import ResultsError
from lsmprobe.report.figures import (
    COLOURS,
    draw_health,
    draw_knowledge,
    draw_layer_curve,
    draw_projection,
    draw_representational_similarity,
    draw_similarity,
    draw_weight_lines,
)


def curve(n_layers=5, **fields):
    """What `probe_layers` gives, as far as figures read it."""
    row = {
        "model": "m",
        "random_weights": False,
        "corpus": "c",
        "target": "emotion",
        "head": "logistic",
        "feature_norm": "zscore",
        "split": "loso",
        "metric": "macro_f1",
        "constant": 5.5,
        "shuffled": 14.0,
    }
    layers = np.arange(n_layers)
    score = 60.0 + layers
    return pd.DataFrame(
        {**row, "layer": layers, "score": score, "low": score - 5, "high": score + 4, **fields}
    )


def weights(**fields):
    """What `layer_shares` gives for two runs."""
    row = {
        "model": "m",
        "random_weights": False,
        "corpus": "c",
        "split": "loso",
        "feature_norm": "none",
        "experiment": "e",
    }
    runs = [
        {**row, "seed": seed, "layer": layer, "weight": weight, "share": weight**2, **fields}
        for seed, of_run in enumerate([[0.2, 0.8], [0.4, 0.6]])
        for layer, weight in enumerate(of_run, start=1)
    ]
    return pd.DataFrame(runs)


def geometry(n_layers=5, **fields):
    """What `representational_similarity` gives, as far as its figure reads it."""
    row = {
        "model": "m",
        "corpus": "c",
        "target": "emotion",
        "dissimilarity": "correlation",
        "feature_norm": "zscore",
        "shuffled_95": 0.02,
    }
    score = 0.1 + 0.01 * np.arange(n_layers)
    ends = {"score": score, "low": score - 0.05, "high": score + 0.04}
    return pd.DataFrame({**row, "layer": np.arange(n_layers), **ends, **fields})


def health(findings=("", "")):
    return pd.DataFrame(
        {
            "layer": [0, 1],
            "mean_cosine": [0.9, 0.5],
            "rank_share": [0.2, 0.4],
            "clip_share": [0.1, 0.2],
            "constant_units": [0.0, 0.5],
            "overflowed_units": [0.0, np.nan],
            "findings": findings,
        }
    )


def points(n_names=7):
    n = 3 * n_names
    return pd.DataFrame(
        {
            "x": np.arange(n) * 1.0,
            "y": np.arange(n) * 2.0,
            "emotion": [f"e{i % n_names:02d}" for i in range(n)],
            "speaker": ["a"] * n,
        }
    )


def matrix(rows=5, columns=3):
    values = np.linspace(0, 1, rows * columns).reshape(rows, columns)
    return pd.DataFrame(values).rename_axis(index="m", columns="n")


def ceiling(**fields):
    """What `noise_ceiling` gives of votes, as far as the figure reads it."""
    bounds = {"bound": ["lower", "upper"], "score": [70.0, 80.0]}
    return pd.DataFrame({"metric": "macro_f1", "against": "one rating", **bounds, **fields})


DRAWN = {
    "curve": lambda ax=None: draw_layer_curve(curve(), ax),
    "ceiling": lambda ax=None: draw_layer_curve(curve(), ax, ceiling=ceiling()),
    "curves": lambda ax=None: draw_layer_curve(
        pd.concat([curve(25), curve(25, feature_norm="none")]), ax
    ),
    "weights": lambda ax=None: draw_weight_lines(weights(), ax),
    "similarity": lambda ax=None: draw_similarity(matrix(), ax),
    "deep similarity": lambda ax=None: draw_similarity(matrix(25, 25), ax),
    "knowledge": lambda ax=None: draw_knowledge(
        pd.concat([curve(), curve(target="pitch", metric="r2")]), ax
    ),
    "geometry": lambda ax=None: draw_representational_similarity(
        pd.concat([geometry(25), geometry(25, target="speaker"), geometry(25, target="sentence")]),
        ax,
    ),
    "health": lambda ax=None: draw_health(health(), ax),
    "projection": lambda ax=None: draw_projection(points(), ax=ax),
    "many speakers": lambda ax=None: draw_projection(points(40), ax=ax),
}


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_is_drawn_beyond_the_figure_and_no_words_lie_on_each_other(name):
    ax = DRAWN[name]()
    figure = ax.figure
    figure.canvas.draw()
    window = figure.bbox.padded(1)
    for one in figure.axes:
        box = one.get_tightbbox()
        assert box.x0 >= window.x0 and box.y0 >= window.y0
        assert box.x1 <= window.x1 and box.y1 <= window.y1
        for axis in (one.xaxis, one.yaxis):
            words = [
                label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()
            ]
            assert not any(a.overlaps(b) for i, a in enumerate(words) for b in words[:i])
    assert min(text.get_fontsize() for text in figure.findobj(plt.Text) if text.get_text()) >= 8


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_of_ones_own_is_drawn_into_and_returned(name):
    _, ax = plt.subplots()
    assert DRAWN[name](ax) is ax
    assert len(plt.get_fignums()) == 1


def test_curves_of_several_scores_share_no_axis():
    with pytest.raises(
        ResultsError, match="several scores \\(macro_f1, uar\\), which share no axis"
    ):
        draw_layer_curve(pd.concat([curve(), curve(metric="uar")]))


def test_a_curve_shows_score_interval_and_what_guessing_scores():
    ax = draw_layer_curve(curve())
    line, constant, shuffled = ax.lines
    assert line.get_ydata().tolist() == [60, 61, 62, 63, 64]
    assert set(constant.get_ydata()) == {5.5}
    assert set(shuffled.get_ydata()) == {14.0}
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (55, 68)
    assert ax.get_ylabel() == "macro-F1 (%)"
    assert ax.get_xlabel() == "layer"
    assert ax.get_title() == "m, c, emotion, logistic, norm zscore, split loso"
    assert ax.get_legend() is None


def test_a_ceiling_is_a_band_under_its_name():
    ax = draw_layer_curve(curve(), ceiling=pd.concat([ceiling(), ceiling(metric="uar", score=99)]))
    [band] = ax.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == (70, 80)
    assert ax.texts[-1].get_text() == "ceiling against one rating"
    assert set(ax.lines[-1].get_ydata()) == {80}
    with pytest.raises(ResultsError, match="the ceiling is of ccc, and the curve of macro_f1"):
        draw_layer_curve(curve(), ceiling=ceiling(metric="ccc"))


def test_levels_that_are_alike_have_one_name():
    ax = draw_layer_curve(curve(constant=14.2, shuffled=14.3))
    assert [text.get_text() for text in ax.texts] == ["best constant answer, shuffled answers"]


def test_a_model_of_one_layer_has_its_interval_as_a_bar():
    ax = draw_layer_curve(pd.concat([curve(), curve(1, model="logmel")]))
    _, bar, *_ = ax.collections
    np.testing.assert_allclose(bar.get_segments(), [[[0, 55], [0, 64]]])


def test_lines_are_named_by_what_differs():
    ax = draw_layer_curve(pd.concat([curve(), curve(feature_norm="none"), curve(model="n")]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "m, norm zscore",
        "m, norm none",
        "n, norm zscore",
    ]
    assert ax.get_title() == "c, emotion, logistic, split loso"


def test_curves_of_other_labels_are_told_apart():
    """Those of one file by their hash."""
    own, files = curve(labels="as in the corpus", labels_hash="a" * 12), {"labels": "labels: x.csv"}
    of_files = [curve(**files, labels_hash=digit * 12) for digit in "bc"]
    curves = pd.concat([own, *of_files])
    names = [text.get_text() for text in draw_layer_curve(curves).get_legend().get_texts()]
    told = ["labels as in the corpus", "labels: x.csv (bbbbbb)", "labels: x.csv (cccccc)"]
    assert [name for name in names if "labels" in name] == told


def test_curves_of_other_caches_are_told_apart():
    curves = pd.concat([curve(cache_hash="a" * 64), curve(cache_hash="b" * 64)])
    names = [text.get_text() for text in draw_layer_curve(curves).get_legend().get_texts()]
    assert names == ["cache aaaaaa", "cache bbbbbb"]


def test_weights_have_their_spread_and_shares_are_dashed():
    ax = draw_weight_lines(weights())
    weight, share = ax.containers
    assert weight.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.7])
    spread = np.diff([segment[:, 1] for segment in weight.lines[2][0].get_segments()])
    np.testing.assert_allclose(spread / 2, np.std([0.2, 0.4], ddof=1))
    assert (weight.lines[0].get_linestyle(), share.lines[0].get_linestyle()) == ("-", "--")
    assert 0.5 in [line.get_ydata()[0] for line in ax.lines]  # what two equal layers would have
    alone = draw_weight_lines(weights().drop(columns="share"))
    assert alone.get_ylabel() == "weight, mean ± standard deviation over runs"
    assert len(alone.containers) == 1


def test_a_heat_map_shows_every_value_where_its_layers_meet():
    ax = draw_similarity(matrix(), measure="SVCCA")
    assert {(t.get_position(), t.get_text()) for t in ax.texts} >= {
        ((0, 0), "0.00"),
        ((2, 4), "1.00"),
    }
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer of n", "layer of m")
    assert ax.figure.axes[1].get_ylabel() == "SVCCA"


def test_random_weights_are_dashed_beside_the_same_colour():
    random = curve(model="m-random0", random_weights=True)
    ax = draw_knowledge(pd.concat([curve(), random, curve(target="pitch", metric="r2")]))
    own, control, pitch = ax.lines
    assert own.get_color() == control.get_color() != pitch.get_color()
    assert (own.get_linestyle(), control.get_linestyle()) == ("-", "--")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["emotion (macro-F1)", "pitch (R²)"]
    assert ax.get_title() == "m on c, split loso, norm zscore; dashed: random weights"


def test_random_weights_alone_are_no_control():
    ax = draw_knowledge(curve(model="toy", random_weights=True))
    assert [line.get_linestyle() for line in ax.lines] == ["-"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["emotion (macro-F1)"]
    assert ax.get_title() == "toy on c, split loso, norm zscore"


def test_what_a_corpus_does_not_tell_has_a_name():
    ax = draw_projection(points(3).assign(emotion=""))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["not known"]


def test_similarities_to_targets_have_intervals_and_the_level_of_shuffled_targets():
    ax = draw_representational_similarity(
        pd.concat([geometry(), geometry(target="speaker", shuffled_95=0.03)])
    )
    emotion, speaker, shuffled, zero = ax.lines
    assert emotion.get_ydata().tolist() == speaker.get_ydata().tolist() == [*geometry()["score"]]
    assert (shuffled.get_ydata()[0], zero.get_ydata()[0]) == (0.03, 0)
    ends = [segment[:, 1].tolist() for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ends, geometry()[["low", "high"]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["emotion", "speaker"]
    assert ax.get_title() == "m, c, correlation dissimilarity, norm zscore"


def test_degenerate_layers_are_named_above_the_panel():
    assert draw_health(health()).get_title() == "no layer is degenerate"
    text = "layer 1: 50 % of its units do not vary."
    assert draw_health(health(("", text))).get_title() == text


@pytest.mark.slow
def test_every_name_has_a_look_of_its_own():
    ax = draw_projection(points(40))
    looks = {
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in ax.collections
    }
    assert len(looks) == 40
    assert len(set(COLOURS)) == len(COLOURS)
    assert draw_projection(points(), "speaker").get_legend().get_title().get_text() == "speaker"
