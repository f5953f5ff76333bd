"""Results as figures: each takes a DataFrame, draws on an Axes and returns it."""

import io
import textwrap
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
from lsmprobe.atomic import write_then_rename
from lsmprobe.errors import ResultsError
from lsmprobe.layers.recorded import recorded_curves
from lsmprobe.layers.weights import WEIGHTS_NAMED_BY, layer_weights
from lsmprobe.report.outcomes import by_group
from lsmprobe.report.typeset import caches_that_differ, labels_that_differ
from lsmprobe.results.breakdown import confusion
from lsmprobe.results.records import with_target
from lsmprobe.results.scores import STATISTICS

# Okabe and Ito 2008: told apart with every kind of colour blindness; yellow is left out, it fades.
# Behind them two dark shades and a grey, so that ten speakers have ten colours; every colour comes
# with a marker of its own, and nine markers beside ten colours make 90 looks.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
COLOURS += ["#882255", "#999999", "#332288"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", ">", "*"]
MAX_BANDS = 4  # more lines have bars for intervals
SAME_LEVEL = 4  # points; the names of nearer levels would cover each other
TITLE_WIDTH = 60  # letters in a line of a title
LEGEND_ROWS = 16  # more names make another column
BEST_IS_1 = ("CCC", "Pearson")


def draw_layer_weights(weights: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Greyscale map of layer weights, a row per experiment; darker is heavier (Figure 2).

    Args:
        weights: what `layer_weights` returned; or results, of which it is asked for.
        ax: where to draw; by default a new figure.

    Raises:
        ResultsError: no run among these results weighs layers.
    """
    if "layer_weights" in weights:
        weights = _weights_of(weights)
    random = np.where(weights.random_weights, " (random weights)", "")
    weights = weights.assign(model=weights.model + random)
    keys = [*WEIGHTS_NAMED_BY, "experiment"]
    table = weights.pivot_table(index=keys, columns="layer", values="weight")
    differing = [key for key in keys[:-1] if key in keys[:2] or len(set(weights[key])) > 1]
    name, _ = _names(weights, keys)
    names = [name(row, differing) for _, row in table.reset_index().groupby(keys)]
    if ax is None:
        longest = max(map(len, names))
        size = 0.9 + 0.08 * longest + 0.42 * max(len(table.columns), 8), 1.4 + 0.4 * len(table)
        ax = _axes(*size)
    shades = table.mul(table.notna().sum(axis=1), axis=0)  # relative to an even share
    shown = min(0.8, float(shades.min(axis=None))), max(1.2, float(shades.max(axis=None)))
    _draw_map(ax, shades.to_numpy(), shown, table.to_numpy(), decimals=2)
    ax.set_xticks(range(len(table.columns)), [str(layer) for layer in table.columns])
    ax.set_yticks(range(len(table)), names)
    ax.set_xlabel("layer")
    shared = name(weights, [key for key in keys[2:-1] if key not in differing])
    ax.set_title(", ".join(filter(None, ("Multi-Layer's layer weights", shared))), fontsize=10)
    return ax


def _weights_of(results: pd.DataFrame) -> pd.DataFrame:
    if results["layer_weights"].isna().all():
        raise ResultsError(
            "no run among these results weighs layers; expected some of --head multilayer."
        )
    return layer_weights(results)


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
    axes[1].set_title("its standard deviation over runs", fontsize=10)
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
    figure, content = cast(Figure, ax.figure), io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=200)
    plt.close(figure)
    write_then_rename(path, content.getvalue())


def draw_layer_curve(
    curve: pd.DataFrame, ax: Axes | None = None, *, ceiling: pd.DataFrame | None = None
) -> Axes:
    """The score of every layer: a line per model, normalisation, head, ... with its 95% interval.

    Args:
        curve: what `probe_layers` or `sweep_layers` returned, or several of them, concatenated; or
            results, whose sweeps over layers are drawn.
        ax: where to draw; by default a new figure.
        ceiling: what `noise_ceiling` returned, to be drawn as a line with its name, or as a band
            from the lower to the upper one; leave in it the rows that the curve is scored against.

    Raises:
        ResultsError: the curves are of several scores, which share no axis, or the ceiling is of
            others; or there is no sweep among these results.
    """
    if "layer_weights" in curve:
        curve = recorded_curves(curve)
    own, ax = ax is None, ax or _axes()
    keys = ["model", "corpus", "target", "head", "feature_norm", "split"]
    name, title = _names(curve, keys)
    settings = _other_settings(curve, keys)
    lines = curve.groupby([*keys, settings], sort=False)
    looks = zip(lines, cycle(COLOURS), cycle(MARKERS))
    for n, (((*_, other), rows), colour, marker) in enumerate(looks):
        rows = rows.sort_values("layer")
        layers = rows["layer"]
        label = ", ".join(filter(None, (name(rows), other)))
        if len(lines) > MAX_BANDS:  # bands would cover each other: bars, side by side
            layers = layers + 0.5 * (n / (len(lines) - 1) - 0.5)
        if len(lines) > MAX_BANDS or len(rows) == 1:  # a single layer has no band
            ends = rows["score"] - rows["low"], rows["high"] - rows["score"]
            ax.errorbar(layers, rows["score"], yerr=ends, fmt="none", ecolor=colour, elinewidth=0.8)
        ax.plot(layers, rows["score"], color=colour, marker=marker, markersize=5, label=label)
        if len(lines) > MAX_BANDS:
            continue
        ax.fill_between(layers, rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
    if len(curve["metric"].unique()) > 1:
        raise ResultsError(
            f"the curves are of several scores ({', '.join(curve['metric'].unique())}), which "
            "share no axis; draw them one by one."
        )
    levels = curve.groupby("corpus", sort=False)
    for corpus, rows in levels:  # each corpus has its own
        which = f" ({corpus})" if len(levels) > 1 else ""
        constant, shuffled = rows["constant"].mean(), rows["shuffled"].mean()
        told = rows["metric"].iloc[0] != "r2" and rows["shuffled"].notna().any()
        unit = 1 if STATISTICS[rows["metric"].iloc[0]].in_percent else 0.01
        alike = told and abs(constant - shuffled) < SAME_LEVEL * unit  # as of UAR
        both = ", shuffled answers" if alike else ""
        _draw_level(ax, constant, f"best constant answer{both}{which}", "--")
        if told and not alike:
            _draw_level(ax, shuffled, f"shuffled answers{which}", ":")
    if ceiling is not None:
        _draw_ceiling(ax, ceiling, curve["metric"].iloc[0])
    ax.set_ylim(min(0, curve["low"].min()), _top(curve["metric"]))
    ax.set_ylabel(_score_axis(curve["metric"]))
    ax.set_title(title, fontsize=10)
    return _over_layers(ax, curve["layer"], legend=len(lines) > 1, own=own)


def _other_settings(curve: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """What tells curves apart that agree in all of these: their labels, their caches, or a number
    for each set of settings.
    """
    alike = curve.groupby(list(keys), sort=False, dropna=False).ngroup()
    told = [labels_that_differ(curve, alike), caches_that_differ(curve, alike)]
    texts = curve.reindex(columns=["settings"]).settings.astype(object).fillna("")
    order = texts.groupby([alike, *told]).transform(
        lambda own: own.map({text: i for i, text in enumerate(own.unique())})
    )
    told.append(order.map(lambda n: f"other settings ({n})" if n else ""))
    named = [", ".join(filter(None, words)) for words in zip(*told, strict=True)]
    return pd.Series(named, index=curve.index, name="other")


def _draw_ceiling(ax: Axes, ceiling: pd.DataFrame, metric: str) -> None:
    """Bands from lower to upper ceilings, with their names."""
    own = ceiling[ceiling["metric"] == metric]
    if own.empty:
        raise ResultsError(
            f"the ceiling is of {', '.join(ceiling['metric'].unique())}, and the curve of "
            f"{metric}; ask for a curve of one of these, by score=..."
        )
    for against, rows in own.groupby("against", sort=False):
        low, high = rows["score"].min(), rows["score"].max()
        ax.axhspan(low, high, color="grey", alpha=0.15, linewidth=0)
        _draw_level(ax, high, f"ceiling against {against}", "-.")


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
    own, ax = ax is None, ax or _axes()
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
    ax.set_ylabel(" and ".join(shown) + ", mean ± standard deviation over runs", fontsize=9)
    ax.set_title(title, fontsize=10)
    return _over_layers(ax, weights["layer"], legend=len(lines) * len(shown) > 1, own=own)


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
    if corpus := similarity.attrs.get("corpus"):
        ax.set_title(f"on {corpus}", fontsize=10)
    return ax


def draw_representational_similarity(similarity: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Whether utterances that differ in a target lie apart: a line per target with its interval.

    Args:
        similarity: what `representational_similarity` returned, or several of them, concatenated.
        ax: where to draw; by default a new figure.
    """
    own, ax = ax is None, ax or _axes()
    keys = ["model", "corpus", "target", "dissimilarity", "feature_norm"]
    name, title = _names(similarity, keys)
    lines = similarity.groupby(keys, sort=False)
    for n, ((_, rows), colour, marker) in enumerate(zip(lines, cycle(COLOURS), cycle(MARKERS))):
        layers = rows["layer"]
        if len(lines) > 1:  # intervals side by side
            layers = layers + 0.3 * (n / (len(lines) - 1) - 0.5)
        ends = rows["score"] - rows["low"], rows["high"] - rows["score"]
        ax.errorbar(layers, rows["score"], yerr=ends, fmt="none", ecolor=colour, elinewidth=0.8)
        ax.plot(layers, rows["score"], color=colour, marker=marker, markersize=5, label=name(rows))
    _draw_level(ax, similarity["shuffled_95"].max(), "95% of shuffled targets", ":")
    ax.axhline(0, color="grey", linewidth=0.8)
    ax.set_ylabel("Spearman correlation of dissimilarities")
    ax.set_title(title, fontsize=10)
    return _over_layers(ax, similarity["layer"], legend=len(lines) > 1, own=own)


def draw_knowledge(knowledge: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What else a layer knows: a line per target, and dashed that of the random-weights control.

    Args:
        knowledge: what `what_layers_know` returned, of one corpus.
        ax: where to draw; by default a new figure.
    """
    own, ax = ax is None, ax or _axes()
    if knowledge["random_weights"].all():  # nothing that they could be the control of
        knowledge = knowledge.assign(random_weights=False)
    for (target, rows), colour, marker in zip(
        knowledge.groupby("target", sort=False), cycle(COLOURS), cycle(MARKERS)
    ):
        metric = STATISTICS[rows["metric"].iloc[0]].title
        for _, model in rows.groupby("model", sort=False):
            random = bool(model["random_weights"].iloc[0])
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
    if "split" in knowledge:  # that of the speaker is another one
        splits, norms = (list(knowledge[name].unique()) for name in ("split", "feature_norm"))
        title += f", split {' or '.join(splits)}, norm {' or '.join(norms)}"
    random = knowledge["random_weights"].any()
    ax.set_title(f"{title}; dashed: random weights" if random else title, fontsize=10)
    ax.set_ylabel("score (%)")
    ax.set_ylim(min(0, knowledge["score"].min()) - 3, 103)
    return _over_layers(ax, knowledge["layer"], legend=True, own=own)


def draw_health(health: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Whether layers are fit to be probed, in percent.

    Args:
        health: what `layer_health` returned.
        ax: where to draw; by default a new figure.
    """
    own, ax = ax is None, ax or _axes()
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
    _say_whose(ax, health, findings or "no layer is degenerate")
    return _over_layers(ax, health["layer"], legend=True, own=own)


@checked
def draw_projection(
    points: pd.DataFrame,
    colour: Literal["emotion", "speaker", "gender", "sentence"] = "emotion",
    ax: Axes | None = None,
) -> Axes:
    """The utterances of a layer in two dimensions.

    Args:
        points: what `project_layer` returned.
        colour: the column that colours them.
        ax: where to draw; by default a new figure.
    """
    own, ax = ax is None, ax or _axes()
    names = sorted(points[colour].unique())
    for name, shade, marker in zip(names, cycle(COLOURS), cycle(MARKERS)):
        rows = points[points[colour] == name]
        ax.scatter(
            rows["x"],
            rows["y"],
            s=22,
            color=shade,
            marker=marker,
            alpha=0.75,
            linewidths=0,
            label=name or "not known",
        )
    ax.set_xticks([])
    ax.set_yticks([])
    _say_whose(ax, points)
    _beside(ax, own, title=colour)
    return ax


def draw_transfer(
    matrix: pd.DataFrame, ax: Axes | None = None, *, measure: str = "macro-F1"
) -> Axes:
    """Heat map of scores across corpora: rows are trained on, columns tested on.

    Args:
        matrix: what `transfer_matrix` returned.
        ax: where to draw; by default a new figure.
        measure: the name beside the colours; CCC and Pearson are drawn from 0 to 1, all others in
            percent.
    """
    ax = _score_map(matrix, ax, measure)
    _say_whose(ax, matrix)
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
        measure: as for `draw_transfer`.
    """
    ax = _score_map(scores, ax, measure)
    _say_whose(ax, scores)
    ax.set_xlabel("layer")
    return ax


def draw_confusion(predictions: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Heat map of what is mistaken for what, in percent of each true class; rows are true.

    Args:
        predictions: what `load_predictions` returned, of one run or of several, concatenated.
        ax: where to draw; by default a new figure.
    """
    counts = confusion(predictions)
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    shares.index = [f"{name} ({n})" for name, n in counts.sum(axis=1).items()]
    own, ax = ax is None, _percent_map(shares, ax, "answers to a true class")
    if own:
        _say_whose(ax, predictions)
    ax.set_xlabel("answered")
    ax.set_ylabel("true (answers)")
    ax.set_xticks(ax.get_xticks(), counts.columns, rotation=45, ha="right", rotation_mode="anchor")
    return ax


@checked
def draw_groups(
    predictions: pd.DataFrame,
    column: str = "speaker",
    ax: Axes | None = None,
) -> Axes:
    """How many answers are right in each group, with Wilson's 95% interval; lowest on top.

    Args:
        predictions: as for `draw_confusion`, with the column.
        column: speaker, or another one that was joined to the table.
        ax: where to draw; by default a new figure.
    """
    table = by_group(predictions, column).sort_values("share", ascending=False)
    own, ax = ax is None, ax or _axes(5.4, 1.6 + 0.3 * len(table))
    if own:
        _say_whose(ax, predictions)
    places = np.arange(len(table))
    ends = table["share"] - table["low"], table["high"] - table["share"]
    ax.errorbar(
        table["share"],
        places,
        xerr=np.clip(ends, 0, None),
        fmt="o",
        color=COLOURS[0],
        capsize=3,
    )
    everyone = 100 * table["right"].sum() / table["clips"].sum()
    ax.axvline(everyone, color="grey", linestyle="--", linewidth=1)
    ax.set_yticks(places, [f"{row.name} ({row.clips})" for row in table.itertuples(index=False)])
    ax.set_ylim(-0.7, len(table) - 0.3)
    ax.set_xlim(0, 102)
    ax.set_xlabel("right answers (%); dashed: all")
    ax.set_ylabel(f"{column} (answers)")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def draw_answers(predictions: pd.DataFrame, title: str) -> Axes:
    """What is mistaken for what, and beside it how each speaker fares; the first of two Axes.

    Args:
        predictions: as for `draw_confusion`.
        title: of both.
    """
    n_classes = len(confusion(predictions))
    n_speakers = predictions["speaker"].nunique()
    height = 2.2 + max(0.36 * max(n_classes, 5), 0.3 * n_speakers)
    width = 3.2 + 0.5 * max(n_classes, 5)
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(width + 4.6, min(height, 40)),
        width_ratios=(width, 4.6),
        layout="constrained",
    )
    figure.suptitle(title, fontsize=10)
    draw_confusion(predictions, axes[0])
    draw_groups(predictions, "speaker", axes[1])
    return axes[0]


def _score_map(scores: pd.DataFrame, ax: Axes | None, measure: str) -> Axes:
    """Scores in percent, or those whose best is 1."""
    return _percent_map(scores, ax, measure, best=1.0 if measure in BEST_IS_1 else 100.0)


def _percent_map(
    scores: pd.DataFrame, ax: Axes | None, measure: str, *, best: float = 100.0
) -> Axes:
    """A coloured cell with its number for each score, 0 to the best; nothing where one is missing.

    Scores below 0 are coloured as 0.
    """
    n_rows, n_columns = scores.shape
    longest = max(len(str(name)) for name in scores.index)
    ax = ax or _axes(2.4 + 0.09 * longest + 0.5 * max(n_columns, 5), 2 + 0.36 * max(n_rows, 5))
    values = scores.to_numpy(dtype=float)
    image = ax.imshow(values, cmap="cividis", vmin=0, vmax=best, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value < 0.55 * best else "black"
            text = f"{value:.0f}" if best > 1 else f"{value:.2f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    ax.set_xticks(range(n_columns), [str(name) for name in scores.columns])
    ax.set_yticks(range(n_rows), [str(name) for name in scores.index])
    cast(Figure, ax.figure).colorbar(image, ax=ax, label=f"{measure} (%)" if best > 1 else measure)
    return ax


@checked
def draw_learning_curve(
    curve: pd.DataFrame, ax: Axes | None = None, *, over: Literal["speakers", "clips"] = "speakers"
) -> Axes:
    """Score against the size of the training set: mean and standard deviation over the runs.

    Args:
        curve: what `learning_curve` returned, or several of them, concatenated.
        ax: where to draw; by default a new figure.
        over: what is counted; clips are the mean of the runs.
    """
    own, ax = ax is None, ax or _axes()
    curve = with_target(curve)
    keys = ["model", "corpus", "target", "split", "head", "layer", "feature_norm"]
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
    ax.set_ylabel(
        f"{_score_axis(curve['metric'])}, mean ± standard deviation over runs", fontsize=9
    )
    ax.set_ylim(min(0, curve["score"].min()), _top(curve["metric"]))
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        _beside(ax, own)
    return ax


def _say_whose(ax: Axes, table: pd.DataFrame, *more: str) -> None:
    """The title: whose values these are, if the table knows it, and what else there is to say."""
    lines = [*filter(None, [table.attrs.get("about")]), *more]
    ax.set_title("\n".join(textwrap.fill(line, TITLE_WIDTH) for line in lines), fontsize=10)


def _score_axis(metrics: pd.Series) -> str:
    """The name of the axis that these scores share."""
    return " or ".join(STATISTICS[metric].axis for metric in metrics.unique())


def _top(metrics: pd.Series) -> float | None:
    """Where the axis of these scores ends: just above the best that there can be, if there is."""
    if any(STATISTICS[metric].in_percent for metric in metrics.unique()):
        return 102.0
    return 1.02 if set(metrics) <= {"ccc", "pearson"} else None


def _axes(width: float = 6.8, height: float = 4.2) -> Axes:
    """A new figure, in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _over_layers(ax: Axes, layers: pd.Series, *, legend: bool, own: bool) -> Axes:
    numbers = sorted(set(layers))
    ax.set_xticks(numbers[:: 1 if len(numbers) <= 13 else 4])
    ax.set_xlabel("layer")
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        _beside(ax, own)
    return ax


def _beside(ax: Axes, own: bool, title: str = "") -> None:
    """A legend to the right; a figure of our own grows by as much, so that axes keep their size.

    In a figure of somebody else's it stands inside, where least is drawn.
    """
    _, names = ax.get_legend_handles_labels()
    columns = 1 + (len(names) - 1) // LEGEND_ROWS
    style = {"title": title or None, "frameon": False, "fontsize": 9, "ncols": columns}
    if not own:
        ax.legend(**style | {"fontsize": 8, "frameon": True, "framealpha": 0.7, "loc": "best"})
        return
    figure = cast(Figure, ax.figure)
    legend = ax.legend(**style, loc="center left", bbox_to_anchor=(1.01, 0.5))
    box = legend.get_window_extent()
    width, height = figure.get_size_inches()
    figure.set_size_inches(
        width + box.width / figure.dpi + 0.1, max(height, box.height / figure.dpi + 0.8)
    )


def _names(table: pd.DataFrame, keys: Sequence[str]) -> tuple[Callable[..., str], str]:
    """How to name a line, by what differs between lines, and a title of what they share."""
    words = {
        "feature_norm": "norm {}",
        "split": "split {}",
        "dissimilarity": "{} dissimilarity",
    }
    differing = [key for key in keys if len(set(table[key])) > 1]

    def name(rows: pd.DataFrame, which: Sequence[str] = differing) -> str:
        return ", ".join(words.get(key, "{}").format(rows[key].iloc[0]) for key in which)

    return name, name(table, [key for key in keys if key not in differing])
