"""Results as figures: each takes a DataFrame, draws on an Axes and returns it."""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Literal, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lsmprobe.arguments import checked
from lsmprobe.errors import ResultsError

# Okabe and Ito 2008: told apart with every kind of colour blindness; yellow is left out, it fades.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">", "*"]
METRICS = {"macro_f1": "macro-F1", "uar": "UAR", "accuracy": "accuracy", "r2": "R²"}


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


def draw_layer_curve(curve: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The score of every layer: a line per model, normalisation, head, ... with its 95 % interval.

    Args:
        curve: what `probe_layers` returned, or several of them, concatenated.
        ax: where to draw; by default a new figure.

    Raises:
        ResultsError: the curves are of several scores, which share no axis.
    """
    ax = ax or _axes()
    keys = ["model", "corpus", "target", "head", "feature_norm", "split"]
    name, title = _names(curve, keys)
    lines = curve.groupby(keys, sort=False)
    for (_, rows), colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS)):
        layers = rows["layer"]
        ax.plot(layers, rows["score"], color=colour, marker=marker, label=name(rows))
        ax.fill_between(layers, rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
    if len(curve["metric"].unique()) > 1:
        raise ResultsError(
            f"the curves are of several scores ({', '.join(curve['metric'].unique())}), which "
            "share no axis; draw them one by one."
        )
    for constant in curve["constant"].round(3).unique():
        _draw_level(ax, constant, "best constant answer", "--")
    if curve["metric"].iloc[0] != "r2":
        _draw_level(ax, curve["shuffled"].mean(), "shuffled answers", ":")
    ax.set_ylim(min(0, curve["low"].min()), 102)
    ax.set_ylabel(" or ".join(f"{METRICS[metric]} (%)" for metric in curve["metric"].unique()))
    ax.set_title(title)
    return _over_layers(ax, curve["layer"], legend=len(lines) > 1)


def _draw_level(ax: Axes, score: float, name: str, line: str) -> None:
    """A grey line at a score that takes no knowledge, with its name."""
    ax.axhline(score, color="grey", linestyle=line, linewidth=1)
    ax.annotate(
        name,
        (1, score),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="dimgrey",
    )


def draw_weight_lines(weights: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Learned layer weights with their spread over runs; dashed, each layer's share of the sum.

    Args:
        weights: per run, from `layer_weights(results, per="run")` or, with shares, `layer_shares`;
            a line per experiment.
        ax: where to draw; by default a new figure.
    """
    ax = ax or _axes()
    keys = ["model", "corpus", "split", "feature_norm"]
    name, title = _names(weights, keys)
    values = {"weight": ("-", "full"), "share": ("--", "none")}
    shown = [value for value in values if value in weights]
    lines = weights.groupby([*keys, "experiment"], sort=False)
    for (_, rows), colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS)):
        for value in shown:
            line, fill = values[value]
            over_runs = rows.groupby("layer")[value]
            ax.errorbar(
                over_runs.mean().index,
                over_runs.mean(),
                yerr=over_runs.std().fillna(0),
                color=colour,
                linestyle=line,
                marker=marker,
                fillstyle=fill,
                capsize=3,
                label=", ".join(filter(None, (name(rows), value))),
            )
        ax.axhline(1 / rows["layer"].nunique(), color="grey", linestyle=":", linewidth=1)
    ax.set_ylim(0, 1.1 * weights[shown].max(axis=None))
    ax.set_ylabel(" and ".join(shown) + ", mean ± deviation over runs")
    ax.set_title(title)
    return _over_layers(ax, weights["layer"], legend=len(lines) * len(shown) > 1)


def draw_similarity(
    similarity: pd.DataFrame, ax: Axes | None = None, *, measure: str | None = None
) -> Axes:
    """Heat map of how alike layers are.

    Args:
        similarity: what `layer_similarity` returned; it knows its measure.
        ax: where to draw; by default a new figure.
        measure: the name beside the colours, for a table that was read from a file.
    """
    measure = measure or similarity.attrs.get("measure", "similarity")
    n_rows, n_columns = similarity.shape
    ax = ax or _axes(2.2 + 0.45 * max(n_columns, 5), 1.4 + 0.45 * max(n_rows, 5))
    image = ax.imshow(similarity, cmap="cividis", vmin=0, vmax=1, origin="lower")
    if max(n_rows, n_columns) <= 13:
        for (row, column), value in np.ndenumerate(similarity.to_numpy()):
            colour = "white" if value < 0.55 else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    step = 1 if max(n_rows, n_columns) <= 13 else 4
    ax.set_xticks(range(0, n_columns, step), [str(name) for name in similarity.columns[::step]])
    ax.set_yticks(range(0, n_rows, step), [str(name) for name in similarity.index[::step]])
    ax.set_xlabel(f"layer of {similarity.columns.name}")
    ax.set_ylabel(f"layer of {similarity.index.name}")
    cast(Figure, ax.figure).colorbar(image, ax=ax, label=measure)
    return ax


def draw_knowledge(knowledge: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What else a layer knows: a line per target, and dashed that of the random-weights control.

    Args:
        knowledge: what `what_layers_know` returned, of one corpus.
        ax: where to draw; by default a new figure.
    """
    ax = ax or _axes()
    if knowledge["random_weights"].all():  # nothing that they could be the control of
        knowledge = knowledge.assign(random_weights=False)
    for (target, rows), colour, marker in zip(
        knowledge.groupby("target", sort=False), cycle(COLOURS), cycle(MARKERS)
    ):
        metric = METRICS[rows["metric"].iloc[0]]
        for _, model in rows.groupby("model", sort=False):
            random = model["random_weights"].iloc[0]
            ax.plot(
                model["layer"],
                model["score"],
                color=colour,
                marker=marker,
                linestyle="--" if random else "-",
                alpha=0.6 if random else 1,
                markersize=4 if random else 6,
                label=None if random else f"{target} ({metric})",
            )
    models = list(knowledge.loc[~knowledge["random_weights"], "model"].unique())
    title = f"{', '.join(models)} on {knowledge['corpus'].iloc[0]}"
    ax.set_title(f"{title}; dashed: random weights" if knowledge["random_weights"].any() else title)
    ax.set_ylabel("score (%)")
    ax.set_ylim(min(0, knowledge["score"].min()) - 3, 103)
    return _over_layers(ax, knowledge["layer"], legend=True)


def draw_health(health: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Whether layers are fit to be probed, in percent.

    Args:
        health: what `layer_health` returned.
        ax: where to draw; by default a new figure.
    """
    ax = ax or _axes()
    shown = {
        "mean_cosine": "cosine between clips",
        "rank_share": "effective rank / most possible",
        "clip_share": "variance between clips / all",
        "constant_units": "constant units",
        "overflowed_units": "overflowed units",
    }
    for (column, name), colour, marker in zip(shown.items(), cycle(COLOURS), cycle(MARKERS)):
        ax.plot(health["layer"], 100 * health[column], color=colour, marker=marker, label=name)
    ax.set_ylabel("percent")
    findings = "\n".join(text for text in health["findings"] if text)
    ax.set_title(findings or "no layer is degenerate", fontsize=10)
    return _over_layers(ax, health["layer"], legend=True)


def draw_projection(points: pd.DataFrame, colour: str = "emotion", ax: Axes | None = None) -> Axes:
    """The utterances of a layer in two dimensions.

    Args:
        points: what `project_layer` returned.
        colour: the column that colours them: emotion, speaker, gender or sentence.
        ax: where to draw; by default a new figure.
    """
    ax = ax or _axes()
    names = sorted(points[colour].unique())
    for name, shade, marker in zip(names, cycle(COLOURS), cycle(MARKERS)):
        own = points[points[colour] == name]
        ax.scatter(
            own["x"],
            own["y"],
            s=18,
            color=shade,
            marker=marker,
            alpha=0.75,
            linewidths=0,
            label=name or "not known",
        )
    ax.set_xticks([])
    ax.set_yticks([])
    columns = 1 + (len(names) - 1) // 16
    ax.legend(
        title=colour,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        ncols=columns,
        fontsize=9,
    )
    return ax


def draw_transfer(
    matrix: pd.DataFrame, ax: Axes | None = None, *, measure: str = "macro-F1"
) -> Axes:
    """Heat map of scores across corpora: rows are trained on, columns tested on.

    Args:
        matrix: what `transfer_matrix` returned.
        ax: where to draw; by default a new figure.
        measure: the name beside the colours.
    """
    ax = _percent_map(matrix, ax, measure)
    ax.set_xlabel("tested on")
    ax.set_ylabel("trained on")
    ax.set_xticks(ax.get_xticks(), matrix.columns, rotation=45, ha="right", rotation_mode="anchor")
    return ax


def draw_transfer_layers(
    scores: pd.DataFrame, ax: Axes | None = None, *, measure: str = "macro-F1"
) -> Axes:
    """Heat map of the layers that transfer: a row per pair of corpora, a column per layer.

    Args:
        scores: what `transfer_layers` returned.
        ax: where to draw; by default a new figure.
        measure: the name beside the colours.
    """
    ax = _percent_map(scores, ax, measure)
    ax.set_xlabel("layer")
    return ax


def _percent_map(scores: pd.DataFrame, ax: Axes | None, measure: str) -> Axes:
    """A coloured cell with its number for each score, 0 to 100; nothing where one is missing."""
    n_rows, n_columns = scores.shape
    longest = max(len(str(name)) for name in scores.index)
    ax = ax or _axes(2.4 + 0.09 * longest + 0.5 * max(n_columns, 5), 2 + 0.36 * max(n_rows, 5))
    values = scores.to_numpy(dtype=float)
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value < 55 else "black"
            text = f"{value:.0f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    ax.set_xticks(range(n_columns), [str(name) for name in scores.columns])
    ax.set_yticks(range(n_rows), [str(name) for name in scores.index])
    cast(Figure, ax.figure).colorbar(image, ax=ax, label=f"{measure} (%)")
    return ax


@checked
def draw_learning_curve(
    curve: pd.DataFrame, ax: Axes | None = None, *, over: Literal["speakers", "clips"] = "speakers"
) -> Axes:
    """Score against the size of the training set: the mean of the runs, and its deviation as band.

    Args:
        curve: what `learning_curve` returned, or several of them, concatenated.
        ax: where to draw; by default a new figure.
        over: what is counted; clips are the mean of the runs.
    """
    ax = ax or _axes()
    keys = ["model", "corpus", "head", "layer", "feature_norm"]
    layers = ["all layers" if pd.isna(layer) else f"layer {layer}" for layer in curve["layer"]]
    known = curve.assign(layer=layers)
    name, title = _names(known, keys)
    lines = known.groupby(keys, sort=False)
    for (_, rows), colour, marker in zip(lines, cycle(COLOURS), cycle(MARKERS)):
        runs = rows.groupby("speakers")
        x, mean, spread = runs[over].mean(), runs["score"].mean(), runs["score"].std().fillna(0)
        ax.plot(x, mean, color=colour, marker=marker, label=name(rows))
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    for constant in curve["constant"].round(3).unique():
        _draw_level(ax, constant, "best constant answer", "--")
    if over == "speakers":
        ax.set_xticks(sorted(set(curve["speakers"])))
    ax.set_xlabel(f"training {over}")
    scores = " or ".join(f"{METRICS[metric]} (%)" for metric in curve["metric"].unique())
    ax.set_ylabel(f"{scores}, mean ± deviation over runs")
    ax.set_ylim(0, 102)
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return ax


def _axes(width: float = 6.8, height: float = 4.2) -> Axes:
    """A new figure, in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _over_layers(ax: Axes, layers: pd.Series, *, legend: bool) -> Axes:
    numbers = sorted(set(layers))
    ax.set_xticks(numbers[:: 1 if len(numbers) <= 13 else 4])
    ax.set_xlabel("layer")
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return ax


def _names(table: pd.DataFrame, keys: Sequence[str]) -> tuple[Callable[[pd.DataFrame], str], str]:
    """How to name a line, by what differs between lines, and a title of what they share."""
    words = {"feature_norm": "norm {}", "split": "split {}"}
    differing = [key for key in keys if len(set(table[key])) > 1]

    def name(rows: pd.DataFrame, which: Sequence[str] = differing) -> str:
        return ", ".join(words.get(key, "{}").format(rows[key].iloc[0]) for key in which)

    return name, name(table, [key for key in keys if key not in differing])
