"""The weights that Multi-Layer heads learned, and what they say of the layers.

A stage: it reads caches and records, and hands arrays to the modules that compute.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import kendalltau, spearmanr
from torch import Tensor, nn

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.errors import ResultsError
from lsmprobe.probing.heads import MultiLayerHead, Probe
from lsmprobe.probing.norms import NormaliseVectors, Standardise, frame_statistics
from lsmprobe.probing.record import saved_probe
from lsmprobe.results.records import load_head, load_record
from lsmprobe.results.scores import macro_f1

EXPERIMENT = ["model", "random_weights", "corpus", "split", "feature_norm", "experiment"]
log = logging.getLogger(__name__)


def layer_weights(
    results: pd.DataFrame, per: Literal["experiment", "run"] = "experiment"
) -> pd.DataFrame:
    """The weights that Multi-Layer heads learned: one row per experiment (or run) and layer.

    Where runs differ more from each other than layers do, the log warns: such weights show no
    pattern. Compared are the deviation over runs (root mean square over the layers) and the
    deviation of the mean weights over the layers.

    Args:
        results: what `load_results` or `probe` returned.
        per: `experiment` averages over its runs, which differ in their seed alone.

    Returns:
        Columns model, random_weights, corpus, split, feature_norm, experiment, layer, weight. Per
        experiment also std (over the runs, ddof 1; missing for one run), runs, and noisy (whether
        the log warned); per run its seed. The weights of a run or experiment sum to 1.
    """
    rows = results[results["layer_weights"].notna()]
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
            *experiment[["model", "corpus", "split", "feature_norm"]].iloc[0],
        )
    return weights


def _is_noisy(weights: pd.DataFrame) -> bool:
    spread = np.sqrt(np.mean(weights["std"] ** 2))
    return bool(spread > np.std(weights["weight"]))  # never for one run, whose spread is missing


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


def layer_shares(cache: FeatureCache, results: pd.DataFrame) -> pd.DataFrame:
    """Each layer's share of the weighted sum: layers differ in scale, so a weight alone misleads.

    A layer adds its weight times the root mean square of its frames (after the head's own feature
    normalisation), and that root mean square is exact: E[x^2] = mean^2 + std^2 over all frames.

    Args:
        cache: what the heads were trained on.
        results: what `load_results` or `probe` returned; the Multi-Layer runs of this cache count.

    Returns:
        One row per run and layer: as `layer_weights(results, per="run")`, and rms and share. The
        shares of a run sum to 1. Of several folds, all three are means.

    Raises:
        ResultsError: no Multi-Layer run of this cache among the results, or a head is missing.
        CacheError: utterances are damaged.
    """
    lengths = torch.from_numpy(cache.lengths)
    mean, std = frame_statistics(_tensor(cache.pooled), _tensor(cache.pooled_std), lengths)
    parts = []
    for row, record, probes in _multilayer_runs(cache, results):
        layers = record["layers"]
        weights = torch.stack([_head(probe).layer_weights.detach() for probe in probes])
        rms = torch.stack([_rms_behind(probe.norm, mean[layers], std[layers]) for probe in probes])
        share = weights * rms / (weights * rms).sum(1, keepdim=True)
        columns = {"weight": weights, "rms": rms, "share": share}
        values = {name: folds.mean(0).double().numpy() for name, folds in columns.items()}
        parts.append(pd.DataFrame({**row, "layer": layers, **values}))
    return pd.concat(parts, ignore_index=True)


def _rms_behind(
    norm: nn.Module, mean: Float[Tensor, "layers dim"], std: Float[Tensor, "layers dim"]
) -> Float[Tensor, " layers"]:
    """Root mean square of the frames behind a normalisation, from their mean and deviation."""
    if isinstance(norm, NormaliseVectors):  # every frame has mean 0 and deviation 1
        return torch.ones(len(mean))
    if isinstance(norm, Standardise):
        mean, std = (mean - norm.mean) / norm.std, std / norm.std
    return (mean.double() ** 2 + std.double() ** 2).mean(1).sqrt().float()


def layer_drops(cache: FeatureCache, results: pd.DataFrame) -> pd.DataFrame:
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
        ResultsError: no Multi-Layer run of this cache among the results, a head is missing, or
            there is a single layer.
        CacheError: the cache holds pooled means only, or utterances are damaged.
    """
    row_of = {key: row for row, key in enumerate(cache.utterances["key"])}
    parts = []
    for row, record, probes in _multilayer_runs(cache, results):
        classes, layers = record["classes"], record["layers"]
        if len(layers) < 2:
            raise ResultsError(f"{row['model']} has one layer to weigh; none can be left out.")
        tested = np.array([row_of[p["key"]] for p in record["predictions"]])
        truth = np.array([classes.index(p["emotion"]) for p in record["predictions"]])
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


def rank_agreement(weights: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    """Whether layers that weigh more also score higher alone.

    Args:
        weights: columns experiment, layer and weight (and share, which is then compared too).
        curve: columns layer and score, as `probe_layers` gives for one cache and target.

    Returns:
        One row per experiment and value (weight, share): layers (compared), kendall and spearman
        (-1 to 1) with kendall_p and spearman_p. With four layers no agreement is significant.

    Raises:
        ResultsError: the curve is of several models, targets, ..., whose mean means nothing.

    Source: Kendall 1938; Spearman 1904, as SciPy has them.
    """
    about = [
        name for name in ("model", "corpus", "target", "head", "feature_norm") if name in curve
    ]
    for name in about:
        if len(found := curve[name].unique()) > 1:
            raise ResultsError(
                f"the curve has several values of {name} ({', '.join(map(str, found))}); choose "
                f'one: curve[curve["{name}"] == {found[0]!r}].'
            )
    scores = curve.groupby("layer")["score"].mean()
    rows = []
    for value in [name for name in ("weight", "share") if name in weights]:
        for experiment, group in weights.groupby("experiment"):
            means = group.groupby("layer")[value].mean()
            pairs = pd.concat([means, scores], axis=1, join="inner")
            tau, rho = kendalltau(*pairs.to_numpy().T), spearmanr(*pairs.to_numpy().T)
            rows.append(
                {
                    "experiment": experiment,
                    "value": value,
                    "layers": len(pairs),
                    "kendall": tau.statistic,
                    "kendall_p": tau.pvalue,
                    "spearman": rho.statistic,
                    "spearman_p": rho.pvalue,
                }
            )
    return pd.DataFrame(rows)


def _multilayer_runs(
    cache: FeatureCache, results: pd.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[Probe]]]:
    """Of every Multi-Layer run on this cache: what names it, its record, its heads, one per fold.

    Raises:
        ResultsError: there is none.
    """
    weighing = results["layer_weights"].notna()
    own = results[weighing & (results["cache_hash"] == cache.identity_hash)]
    if own.empty:
        raise ResultsError(
            f"no Multi-Layer run on {cache.path} among these {len(results)} results; run "
            "probe.py --head multilayer on it first."
        )
    verify_once(cache)
    for row in own.to_dict("records"):
        path = Path(row["path"])
        record, tensors = load_record(path), load_head(path)
        probes = [saved_probe(record, tensors, fold) for fold in range(len(record["folds"]))]
        yield {name: row[name] for name in (*EXPERIMENT, "seed")}, record, probes


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
