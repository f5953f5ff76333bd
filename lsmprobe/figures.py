"""Results as figures."""

from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
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


def save_figure(ax: Axes, path: Path) -> None:
    """Write the figure that holds `ax`, as the path's ending says, sharp enough for a paper."""
    figure = cast(Figure, ax.figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    plt.close(figure)
