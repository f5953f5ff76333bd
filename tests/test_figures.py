"""The right numbers stand in the figures, and darker is heavier."""

import numpy as np
import pandas as pd

from lsmprobe.report.figures import draw_layer_weights, draw_mean_layer_weights, save_figure


def weights_of(model, weights, **fields):
    """As `layer_weights` and `mean_layer_weights` return them."""
    row = {
        "model": model,
        "random_weights": False,
        "corpus": "c",
        "split": "speaker",
        "feature_norm": "none",
        "experiment": "e",
        "std": 0.01,
        "runs": 3,
        **fields,
    }
    return pd.DataFrame([{**row, "layer": n, "weight": w} for n, w in enumerate(weights, start=1)])


def texts(labels):
    return [label.get_text() for label in labels]


def darkness(ax, row, column):
    """Of a cell of the map, from 0 (white) to 1 (black)."""
    [image] = ax.images
    return 1 - np.mean(image.cmap(image.norm(image.get_array()[row, column]))[:3])


def test_the_map_of_experiments_shows_every_weight_and_darker_is_heavier(tmp_path):
    ax = draw_layer_weights(weights_of("m", [0.30, 0.70]))
    assert texts(ax.texts) == ["0.30", "0.70"]
    assert texts(ax.get_xticklabels()) == ["1", "2"]
    assert texts(ax.get_yticklabels()) == ["m, c"]
    random = draw_layer_weights(weights_of("m", [0.3, 0.7], random_weights=True))
    assert texts(random.get_yticklabels()) == ["m (random weights), c"]
    assert darkness(ax, 0, 1) > darkness(ax, 0, 0)
    save_figure(ax, tmp_path / "figures" / "weights.pdf")
    assert (tmp_path / "figures" / "weights.pdf").read_bytes().startswith(b"%PDF")


def test_figure_2_has_a_row_per_model_and_blanks_where_a_model_has_no_such_layer():
    table = pd.concat([weights_of("b", [0.1, 0.2, 0.3, 0.4]), weights_of("a", [0.45, 0.55])])
    ax = draw_mean_layer_weights(table)
    spread = ax.figure.axes[1]
    assert texts(ax.get_yticklabels()) == texts(spread.get_yticklabels()) == ["b", "a"]
    assert texts(spread.get_xticklabels()) == ["1", "2", "3", "4"]
    assert texts(ax.texts) == ["10.0", "20.0", "30.0", "40.0", "45.0", "55.0"]
    assert texts(spread.texts) == ["1.00"] * 6
    assert {tuple(text.get_position()) for text in ax.texts[4:]} == {(0, 1), (1, 1)}
    assert np.isnan(ax.images[0].get_array().filled(np.nan)[1]).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_shades_are_relative_to_an_even_share():
    table = pd.concat([weights_of("two", [0.5, 0.5]), weights_of("four", [0.1, 0.2, 0.2, 0.5])])
    ax = draw_mean_layer_weights(table)
    assert darkness(ax, 0, 0) == darkness(ax, 0, 1)
    assert darkness(ax, 1, 0) < darkness(ax, 1, 1) < darkness(ax, 0, 0) < darkness(ax, 1, 3)


def test_one_run_has_no_spread_to_draw():
    ax = draw_mean_layer_weights(weights_of("m", [0.5, 0.5], std=np.nan, random_weights=True))
    assert texts(ax.get_yticklabels()) == ["m\n(random weights)"]
    assert not ax.figure.axes[1].texts
    ax.figure.canvas.draw()  # without a warning
