"""Results as figures."""

from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def draw_layer_weights(weights: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Greyscale map of layer weights, a row per experiment; darker is heavier (Figure 2).

    Args:
        weights: what `layer_weights` returned.
        ax: where to draw; by default a new figure.
    """
    random = np.where(weights.random_weights, " (random weights)", "")
    weights = weights.assign(model=weights.model + random)
    keys = ["model", "corpus", "split", "feature_norm", "experiment"]
    table = weights.pivot_table(index=keys, columns="layer", values="weight")
    named = [key for key in keys[:-1] if key in keys[:2] or len(set(weights[key])) > 1]
    names = [", ".join(row) for row in table.reset_index()[named].to_numpy()]
    if ax is None:
        size = 1.5 + 0.55 * max(len(table.columns), 6), 1.4 + 0.45 * len(table)  # inches
        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.imshow(table, cmap="Greys", vmin=0, vmax=2 * table.max(axis=None), aspect="auto")
    for row, values in enumerate(table.to_numpy()):
        for column, value in enumerate(values):
            if not pd.isna(value):
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(table.columns)), [str(layer) for layer in table.columns])
    ax.set_yticks(range(len(table)), names)
    ax.set_xlabel("layer")
    ax.set_title("Multi-Layer's layer weights", fontsize=10)
    return ax


def draw_mean_layer_weights(weights: pd.DataFrame) -> Axes:
    """Figure 2: a row per model, darker is heavier; below it the spread over runs.

    Shades are relative to an even share, one over the number of layers, so that a model of few
    layers is no darker than one of many.

    Args:
        weights: what `mean_layer_weights` returned, in the order of the rows. Models may have
            different numbers of layers; where a model has no such layer, nothing is drawn.
    """
    random = np.where(weights.random_weights, "\n(random weights)", "")
    weights = weights.assign(model=weights.model + random)
    models, layers = list(dict.fromkeys(weights.model)), sorted(set(weights.layer))
    n_layers = weights.groupby("model", sort=False).size().to_numpy()[:, None]
    size = 2.2 + 0.42 * max(len(layers), 8), 1.8 + 2 * 0.42 * len(models)  # inches
    _, axes = plt.subplots(2, figsize=size, sharex=True, layout="constrained")
    for ax, column in zip(axes, ["weight", "std"], strict=True):
        table = weights.pivot_table(
            index="model", columns="layer", values=column, sort=False, dropna=False
        ).reindex(models, columns=layers)
        values = table.to_numpy(dtype=float)
        shades = values * n_layers
        if column == "weight":  # no range is so narrow that noise looks like a pattern
            shown = min(0.8, float(np.nanmin(shades))), max(1.2, float(np.nanmax(shades)))
            _draw_map(ax, shades, shown, 100 * values, decimals=1)
        else:
            shown = 0.0, float(np.nanmax(shades, initial=1e-9))  # of one run there is no deviation
            _draw_map(ax, shades, shown, 100 * values, decimals=2)
        ax.set_yticks(range(len(models)), models)
    axes[0].set_title("layer weight, percent", fontsize=10)
    axes[1].set_title("its deviation over runs", fontsize=10)
    axes[1].set_xticks(range(len(layers)), [str(layer) for layer in layers])
    axes[1].set_xlabel("layer")
    return axes[0]


def _draw_map(
    ax: Axes,
    shades: Float[np.ndarray, "rows columns"],
    shown: tuple[float, float],
    numbers: Float[np.ndarray, "rows columns"],
    *,
    decimals: int,
) -> None:
    """A grey cell with its number for each value; `shown` are white and the darkest grey."""
    low, high = shown
    full = high + 0.25 * (high - low)  # black would hide the number
    ax.imshow(shades, cmap="Greys", vmin=low, vmax=full, aspect="auto")
    for (row, column), number in np.ndenumerate(numbers):
        if not np.isnan(number):
            colour = "white" if shades[row, column] > low + 0.55 * (full - low) else "black"
            text = f"{number:.{decimals}f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def save_figure(ax: Axes, path: Path) -> None:
    """Write the figure that holds `ax`, as the path's ending says, sharp enough for a paper."""
    figure = cast(Figure, ax.figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    plt.close(figure)
