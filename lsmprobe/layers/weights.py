"""The weights that Multi-Layer heads learned, and what they say of the layers.

A stage: it reads caches and records, and hands arrays to the modules that compute.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn

from lsmprobe.arguments import checked
from lsmprobe.cache.layout import Reads
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.errors import ResultsError, counted
from lsmprobe.layers.agreement import agreement_p
from lsmprobe.layers.similarity import blocks_of_layer
from lsmprobe.layers.targets import OWN_LABELS, labels_of
from lsmprobe.probing.heads import MultiLayerHead, Probe
from lsmprobe.probing.norms import Standardise, frame_statistics
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.table import Moments
from lsmprobe.results.measures import CLASSES, measure_of
from lsmprobe.results.records import load_head, load_record
from lsmprobe.results.scores import macro_f1

EXPERIMENT = ["model", "random_weights", "corpus", "labels", "split", "feature_norm", "experiment"]
# What a figure or a table calls weights by.
WEIGHTS_NAMED_BY = ["model", "corpus", "split", "feature_norm"]
SAME = ["model", "random_weights", "corpus", "labels"]  # what weights and a curve must share
ONE_OF = ["target", "head", "feature_norm", "split", "metric"]  # what a curve must be one of
log = logging.getLogger(__name__)


@checked
def layer_weights(
    results: pd.DataFrame, per: Literal["experiment", "run"] = "experiment"
) -> pd.DataFrame:
    """The weights that Multi-Layer heads learned: one row per experiment (or run) and layer.

    Where runs differ more from each other than layers do, the log warns: such weights show no
    pattern. It compares the standard deviation over runs (root mean square over the layers) with
    that of the mean weights over the layers.

    Args:
        results: what `load_results` or `probe` returned.
        per: `experiment` averages over its runs, which differ in their seed alone.

    Returns:
        Columns model, random_weights, corpus, labels (how they were merged and chosen), split,
        feature_norm, experiment, layer, weight. Per experiment also std (over the runs, ddof 1;
        missing for one run), runs, and noisy (whether the log warned); per run its seed. The
        weights of a run or experiment sum to 1.
    """
    rows = _with_labels(results[results["layer_weights"].notna()])
    single = rows[[*EXPERIMENT, "seed"]].assign(layer=rows["layers"], weight=rows["layer_weights"])
    single = single.explode(["layer", "weight"], ignore_index=True)
    single = single.astype({"layer": "int64", "weight": "float64"})
    if per == "run":
        return single
    groups = single.groupby([*EXPERIMENT, "layer"], sort=True)
    weights = groups.agg(
        weight=("weight", "mean"), std=("weight", "std"), runs=("weight", "size")
    ).reset_index()
    noisy = weights.groupby("experiment").apply(_is_noisy, include_groups=False)
    weights["noisy"] = weights["experiment"].map(noisy.to_dict()).astype(bool)
    for _, experiment in weights[weights["noisy"]].groupby("experiment"):
        log.warning(
            "%s on %s (%s, %s): the learned weights differ more between runs than between layers; "
            "they show no pattern",
            *experiment[WEIGHTS_NAMED_BY].iloc[0],
        )
    return weights


def _with_labels(results: pd.DataFrame) -> pd.DataFrame:
    """With the column `labels`: how they were merged and chosen."""
    settings = results["settings"] if "settings" in results else [{}] * len(results)
    files = results["labels_file"] if "labels_file" in results else [""] * len(results)
    of_runs = zip(settings, files, strict=True)
    return results.assign(labels=[labels_of(*run) for run in of_runs])


def _is_noisy(weights: pd.DataFrame) -> bool:
    spread = np.sqrt(np.mean(weights["std"] ** 2))
    return bool(spread > np.std(weights["weight"]))  # never for one run, whose spread is missing


@checked
def average_weights(weights: pd.DataFrame, *over: Literal["corpus", "model"]) -> pd.DataFrame:
    """Layer weights averaged over corpora, models, or both; each experiment counts once.

    Models of different depth are kept apart: their layers have no common scale.

    Args:
        weights: what `layer_weights` returned.
        over: what is averaged over.

    Returns:
        Columns as in `weights` without what is averaged over: n_layers, layer, weight (mean of the
        experiments), std (over them, ddof 1) and averaged (how many).

    Raises:
        ResultsError: two experiments of one model, corpus, split and normalisation.
    """
    rest = [name for name in EXPERIMENT if name not in (*over, "experiment")]
    twice = weights.duplicated([*rest, *over, "layer"])
    if twice.any():
        model, corpus = weights.loc[twice.idxmax(), ["model", "corpus"]]
        raise ResultsError(
            f"{model} on {corpus} has several experiments with one split and normalisation; "
            "keep one of them, by the column experiment, before averaging."
        )
    n_layers = weights.groupby("experiment")["layer"].transform("size")
    groups = weights.assign(n_layers=n_layers).groupby([*rest, "n_layers", "layer"], sort=True)
    return groups.agg(
        weight=("weight", "mean"), std=("weight", "std"), averaged=("weight", "size")
    ).reset_index()


@checked
def layer_shares(
    cache: FeatureCache | str | Path,
    results: pd.DataFrame,
    by: Literal["standard_deviation", "root_mean_square"] = "standard_deviation",
) -> pd.DataFrame:
    """Each layer's share of the weighted sum: layers differ in scale, so a weight alone misleads.

    A layer adds its weight times the size of its frames behind the head's own feature
    normalisation. Its size is by how much they vary (each dimension around its mean, over all
    frames): a mean that is the same in every frame tells a head nothing.

    Args:
        cache: what the heads were trained on.
        results: what `load_results` or `probe` returned; the Multi-Layer runs of this cache count.
        by: `standard_deviation` over frames, root mean square over dims; or `root_mean_square`,
            which counts constant means too. Both are exact: E[x^2] = mean^2 + std^2.

    Returns:
        One row per run and layer: as `layer_weights(results, per="run")`, and size and share. The
        shares of a run sum to 1. Of several folds, all three are means.

    Raises:
        ResultsError: no Multi-Layer run of this cache among the results, or a head is missing.
        CacheError: utterances are damaged.
    """
    cache = FeatureCache.of(cache)
    size_of, parts = SIZES[by], []
    for row, record, probes in _multilayer_runs(cache, results, reads="means"):
        layers = record["layers"]
        weights = torch.stack([_head(probe).layer_weights.detach() for probe in probes])
        moments = moments_behind([probe.norm for probe in probes], cache, layers)
        size = torch.stack([size_of(mean, std) for mean, std in moments])
        share = weights * size / (weights * size).sum(1, keepdim=True)
        columns = {"weight": weights, "size": size, "share": share}
        values = {name: folds.mean(0).double().numpy() for name, folds in columns.items()}
        parts.append(pd.DataFrame({**row, "layer": layers, **values}))
    return pd.concat(parts, ignore_index=True)


def moments_behind(
    norms: Sequence[nn.Module], cache: FeatureCache, layers: list[int]
) -> list[Moments]:
    """Mean and standard deviation over all frames behind each normalisation, (layers, dim) each.

    Exact. Behind none and behind `zscore` they follow from the pooled statistics; for any other one
    all frames are read, once for all normalisations that are alike.
    """
    lengths = torch.from_numpy(cache.lengths)
    places = [cache.place(layer) for layer in layers]
    means, stds = (_tensor(array[:, places]) for array in (cache.pooled, cache.pooled_std))
    mean, std = frame_statistics(means, stds, lengths)
    streamed: dict[str, Moments] = {}
    found = []
    for norm in norms:
        if isinstance(norm, Standardise):
            found.append(((mean - norm.mean) / norm.std, std / norm.std))
        elif isinstance(norm, nn.Identity):
            found.append((mean, std))
        else:
            kind = repr((norm, norm.state_dict()))
            if kind not in streamed:
                streamed[kind] = _moments_of_frames(norm, cache, layers)
            found.append(streamed[kind])
    return found


@torch.no_grad()
def _moments_of_frames(norm: nn.Module, cache: FeatureCache, layers: list[int]) -> Moments:
    """Mean and standard deviation behind a normalisation that treats each vector by itself."""
    verify_once(cache)
    utterances = np.arange(len(cache.lengths))
    sums = torch.zeros(2, len(layers), cache.dim, dtype=torch.float64)
    for row, layer in enumerate(layers):
        for block in blocks_of_layer(cache, utterances, layer, "frames"):
            frames = norm(_tensor(block).float()).double()
            sums[:, row] += torch.stack([frames.sum(0), (frames**2).sum(0)])
    mean, square = sums / int(cache.lengths.sum())
    return mean.float(), (square - mean**2).clamp(min=0).sqrt().float()


def _standard_deviation(
    mean: Float[Tensor, "layers dim"], std: Float[Tensor, "layers dim"]
) -> Float[Tensor, " layers"]:
    return std.double().square().mean(1).sqrt().float()


def _root_mean_square(
    mean: Float[Tensor, "layers dim"], std: Float[Tensor, "layers dim"]
) -> Float[Tensor, " layers"]:
    return (mean.double().square() + std.double().square()).mean(1).sqrt().float()


# How large a layer is, from mean and standard deviation of its frames.
SIZES = {"standard_deviation": _standard_deviation, "root_mean_square": _root_mean_square}


@checked
def layer_drops(cache: FeatureCache | str | Path, results: pd.DataFrame) -> pd.DataFrame:
    """What the score loses when one layer is left out of the sum, without training again.

    Its weight becomes 0 and the others are scaled up to sum to 1; the test utterances of the run
    are scored once more. A drop says how much the trained head leans on the layer, not what the
    layer holds: a head trained without it might do as well.

    Args:
        cache: what the heads were trained on, with frames.
        results: as for `layer_shares`.

    Returns:
        One row per run and layer: as `layer_weights(results, per="run")`, and macro_f1 (with every
        layer), without (macro-F1 without this one) and drop; in percent.

    Raises:
        ResultsError: no Multi-Layer run of this cache among the results, a head is missing, there
            is a single layer, or a run did not learn classes.
        CacheError: the cache holds pooled means only, or utterances are damaged.
    """
    cache = FeatureCache.of(cache)
    row_of = {key: row for row, key in enumerate(cache.utterances["key"])}
    parts = []
    for row, record, probes in _multilayer_runs(cache, results, reads="frames"):
        classes, layers = record["classes"], record["layers"]
        if len(layers) < 2:
            raise ResultsError(f"{row['model']} has one layer to weigh; none can be left out.")
        if (measure := measure_of(record)) is not CLASSES:
            raise ResultsError(
                f"{row['model']}: the run learned {measure.name}; expected classes, whose macro-F1 "
                "drops."
            )
        tested = np.array([row_of[p["key"]] for p in record["predictions"]])
        truth = np.array(
            [classes.index(p.get("truth", p["emotion"])) for p in record["predictions"]]
        )
        ends = np.cumsum([fold["n_test"] for fold in record["folds"]])[:-1]
        answers = [
            _answers_without(probe, cache, rows, layers)
            for probe, rows in zip(probes, np.split(tested, ends), strict=True)
        ]
        scores = [macro_f1(truth, answer, len(classes)) for answer in np.concatenate(answers, 1)]
        columns = {
            "weight": record["layer_weights"],
            "macro_f1": scores[0],
            "without": scores[1:],
            "drop": scores[0] - np.array(scores[1:]),
        }
        parts.append(pd.DataFrame({**row, "layer": layers, **columns}))
    return pd.concat(parts, ignore_index=True)


def _head(probe: Probe) -> MultiLayerHead:
    assert isinstance(probe.head, MultiLayerHead)
    return probe.head


@torch.no_grad()
def _answers_without(
    probe: Probe, cache: FeatureCache, rows: np.ndarray, layers: list[int]
) -> np.ndarray:
    """The predicted classes with every layer, then without each: (1 + layers, utterances)."""
    head, n = _head(probe), len(layers)
    kept = torch.cat([torch.ones(1, n), 1 - torch.eye(n)])
    weights = kept * head.layer_weights
    weights = weights / weights.sum(1, keepdim=True)
    answers = []
    for start in range(0, len(rows), 32):
        batch = rows[start : start + 32]
        lengths = torch.from_numpy(cache.lengths[batch])
        packed = [np.concatenate([cache.frames(int(i), layer) for i in batch]) for layer in layers]
        frames = probe.norm(_tensor(np.stack(packed)).float())
        logits = [head.nonlinear(torch.tensordot(w, frames, dims=1), lengths) for w in weights]
        answers.append(torch.stack(logits).argmax(-1))
    return torch.cat(answers, 1).numpy()


@checked
def rank_agreement(weights: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    """Whether layers that weigh more also score higher alone.

    Compared is what belongs together: weights and a curve of the same model, corpus and labels.
    What has no counterpart is named in the log.

    Args:
        weights: columns experiment, layer and weight (and share, which is then compared too).
        curve: columns layer and score, as `probe_layers` gives for the emotion; of several models
            or corpora, concatenated, each experiment is compared with its own.

    Returns:
        One row per experiment and value (weight, share): what both are of, layers (compared),
        kendall and spearman (-1 to 1) with kendall_p and spearman_p, which allow for neighbouring
        layers being alike (see agreement.py) and are never below 2 / 2^(layers - 1).

    Raises:
        ResultsError: nothing belongs together, or an experiment has several curves.

    Source: Kendall 1938; Spearman 1904, as SciPy has them.
    """
    _one_curve_each(curve)
    same = [name for name in SAME if name in weights and name in curve]
    curves = _by(same, curve)
    rows, alone = [], []
    for about, group in _by([*same, "experiment"], weights).items():
        if about[:-1] not in curves:
            alone.append(_told(about[:-1]))
            continue
        scores = curves[about[:-1]].groupby("layer")["score"].mean()
        for value in [name for name in ("weight", "share") if name in group]:
            means = group.groupby("layer")[value].mean()
            pairs = pd.concat([means, scores], axis=1, join="inner")
            named = dict(zip([*same, "experiment"], about, strict=True))
            rows.append({**named, "value": value, **_agreement(pairs.to_numpy(float))})
    if alone and rows:
        log.warning("no curve of the same model, corpus and labels: %s", "; ".join(alone))
    if not rows:
        raise ResultsError(
            f"weights of {'; '.join(alone)} and curves of "
            f"{'; '.join(map(_told, curves))} do not belong together; expected the same model, "
            "corpus and labels."
        )
    return pd.DataFrame(rows)


def _one_curve_each(curve: pd.DataFrame) -> None:
    """Refuse what would be averaged over, and what is no curve of the emotion.

    Raises:
        ResultsError: as `rank_agreement`.
    """
    for name in [name for name in ONE_OF if name in curve]:
        if len(found := curve[name].unique()) > 1:
            raise ResultsError(
                f"the curve has several values of {name} ({', '.join(map(str, found))}); choose "
                f'one: curve[curve["{name}"] == {found[0]!r}].'
            )
    if "target" in curve and (curve["target"] != "emotion").any():
        raise ResultsError(
            f"the curve is of the {curve['target'].iloc[0]}; the weights were learned for the "
            'emotion. Take probe_layers(cache, "emotion").'
        )


def _agreement(pairs: Float[np.ndarray, "layers 2"]) -> dict[str, float | int]:
    """Of the values and scores of layers."""
    one, other = pairs.T
    if len(pairs) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        missing = ("kendall", "kendall_p", "spearman", "spearman_p")
        return {"layers": len(pairs), **dict.fromkeys(missing, np.nan)}
    kendall_p, spearman_p = agreement_p(one, other)
    return {
        "layers": len(pairs),
        "kendall": float(kendalltau(one, other).statistic),
        "kendall_p": kendall_p,
        "spearman": float(spearmanr(one, other).statistic),
        "spearman_p": spearman_p,
    }


def _told(about: tuple[Any, ...]) -> str:
    """A model and a corpus, and labels if they are not the corpus's own."""
    return " on ".join(value for value in about if isinstance(value, str) and value != OWN_LABELS)


def _by(names: list[str], table: pd.DataFrame) -> dict[tuple[Any, ...], pd.DataFrame]:
    """The rows of each combination of values; of no names, all of them."""
    return dict(iter(table.groupby(names, sort=False))) if names else {(): table}


def _multilayer_runs(
    cache: FeatureCache, results: pd.DataFrame, *, reads: Reads
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Probe]]]:
    """Of every Multi-Layer run on this cache: what names it, its record, its heads, one per fold.

    What is to be read of the cache is verified.

    Raises:
        ResultsError: there is none.
    """
    weighing = results["layer_weights"].notna()
    own = _with_labels(results[weighing & (results["cache_hash"] == cache.identity_hash)])
    if own.empty:
        raise ResultsError(
            f"no Multi-Layer run on {cache.path} among {counted(len(results), 'result')}; run "
            "lsmprobe probe --head multilayer on it first."
        )
    verify_once(cache, reads=reads)
    for row in own.to_dict("records"):
        path = Path(row["path"])
        record = load_record(path)
        tensors = load_head(path, record)
        probes = [saved_probe(record, tensors, fold) for fold in range(len(record["folds"]))]
        yield {name: row[name] for name in (*EXPERIMENT, "seed")}, record, probes


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
