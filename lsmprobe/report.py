"""Results as tables and figures."""

from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Runs are averaged only where they are of one experiment, whatever else they share.
KEYS = ["model", "corpus", "split", "feature_norm", "head", "layer", "experiment"]


def score_table(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over the runs of each head, in percent.

    Args:
        results: what `load_results` or `probe` returned.

    Returns:
        One row per experiment (model, corpus, split, feature normalisation, head, layer, and any
        other setting): macro_f1, its std over the runs (ddof 1), the ends of the 95 % interval
        (means of the runs' ends), uar, accuracy, the constant answer's macro-F1, runs.
    """
    groups = results.groupby(KEYS, sort=True, dropna=False)
    return groups.agg(
        macro_f1=("macro_f1", "mean"),
        std=("macro_f1", "std"),
        low=("macro_f1_low", "mean"),
        high=("macro_f1_high", "mean"),
        uar=("uar", "mean"),
        accuracy=("accuracy", "mean"),
        constant_f1=("constant_f1", "mean"),
        runs=("seed", "size"),
    ).reset_index()


def format_scores(results: pd.DataFrame) -> str:
    """The score table as text for the terminal."""
    table = score_table(results)
    random = set(results.model[results.random_weights])
    text = pd.DataFrame(
        {
            "model": [f"{m} (random weights)" if m in random else m for m in table.model],
            "corpus": table.corpus,
            "split": table.split,
            "norm": table.feature_norm,
            "head": table["head"],
            "layer": ["all" if pd.isna(layer) else str(layer) for layer in table.layer],
            "macro-F1": [
                f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"
                for mean, std in zip(table.macro_f1, table["std"], strict=True)
            ],
            "95 % interval": [
                f"{low:.1f} to {high:.1f}" for low, high in zip(table.low, table.high, strict=True)
            ],
            "UAR": table.uar.map("{:.1f}".format),
            "accuracy": table.accuracy.map("{:.1f}".format),
            "constant": table.constant_f1.map("{:.1f}".format),
            "runs": table.runs,
        }
    )
    if table.duplicated(KEYS[:-1]).any():
        text["experiment"] = table.experiment  # other settings differ; the records say which
    constant = [name for name in ("split", "norm") if len(set(text[name])) == 1]
    heading = ", ".join(f"{name} {text[name].iloc[0]}" for name in constant)
    lines = [text.drop(columns=constant).to_string(index=False)]
    lines.append(
        f"percent, mean ± standard deviation (ddof 1) over runs; {heading}; interval: mean of the "
        f"runs' bootstrap intervals, over {' / '.join(sorted(set(results.interval_over)))}; "
        "constant: macro-F1 of the best constant answer"
    )
    return "\n".join(lines)


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
