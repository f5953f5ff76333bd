"""What the layers hold, as DataFrames: learned weights, similarity, health, pictures of a layer.

A stage: it reads caches and records, and hands arrays to the modules that compute.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import kendalltau, spearmanr
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor, nn
from tqdm import tqdm

from lsmprobe.alarms import layer_alarms
from lsmprobe.cache import FeatureCache
from lsmprobe.errors import CacheError, ResultsError
from lsmprobe.evaluation import macro_f1
from lsmprobe.heads import (
    LinearHead,
    MultiLayerHead,
    NonLinearHead,
    NormaliseVectors,
    Probe,
    Standardise,
    frame_statistics,
    pooled_statistics,
)
from lsmprobe.health import constant_units, effective_rank, may_reach, mean_cosine, variances
from lsmprobe.results import load_head, load_record
from lsmprobe.similarity import Sums, cka, sums, svcca

EXPERIMENT = ["model", "random_weights", "corpus", "split", "feature_norm", "experiment"]
BLOCK = 8192  # rows read at once
FLOAT16_LIMIT = 64_504.0  # transformers clamps float16 states to the largest value less 1000

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------ learned weights


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
    rows = results[results["head"] == "multilayer"]
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
        CacheError: the cache holds pooled means only.
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

    Source: Kendall 1938; Spearman 1904, as SciPy has them.
    """
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
    own = results[
        (results["head"] == "multilayer") & (results["cache_hash"] == cache.identity_hash)
    ]
    if own.empty:
        raise ResultsError(
            f"no Multi-Layer run on {cache.path} among these {len(results)} results; run "
            "probe.py --head multilayer on it first."
        )
    for row in own.to_dict("records"):
        path = Path(row["path"])
        record, tensors = load_record(path), load_head(path)
        probes = [saved_probe(record, tensors, fold) for fold in range(len(record["folds"]))]
        yield {name: row[name] for name in (*EXPERIMENT, "seed")}, record, probes


def saved_probe(record: Mapping[str, Any], tensors: Mapping[str, Tensor], fold: int = 0) -> Probe:
    """The head that a run trained on one fold, ready to be used.

    Args:
        record: of the run, as `load_record` gives it.
        tensors: of the run, as `load_head` gives them.
        fold: counted from 0.
    """
    own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{fold}.")}
    settings, n_classes = record["settings"], len(record["classes"])
    norm: nn.Module = nn.Identity()
    if settings["feature_norm"] == "layernorm":
        norm = NormaliseVectors()
    elif settings["feature_norm"] == "zscore":
        norm = Standardise(own["norm.mean"], own["norm.std"])
    head: nn.Module
    if record["head"] == "linear":
        hidden, dim = own["head.project.weight"].shape
        head = LinearHead(dim, n_classes, hidden=hidden)
    elif record["head"] == "nonlinear":
        hidden, dim = own["head.per_frame.0.weight"].shape
        head = NonLinearHead(dim, n_classes, hidden=hidden)
    else:
        hidden, dim = own["head.nonlinear.per_frame.0.weight"].shape
        head = MultiLayerHead(len(record["layers"]), dim, n_classes, hidden=hidden)
    probe = Probe(norm, head)
    probe.load_state_dict(own)
    return probe.eval()


# ------------------------------------------------------------------------------------ similarity


def layer_similarity(
    cache: FeatureCache,
    other: FeatureCache | None = None,
    *,
    measure: Literal["cka", "svcca"] = "cka",
    rows: Literal["utterances", "frames"] = "utterances",
) -> pd.DataFrame:
    """How alike every two layers are, of one model or of two on the same utterances.

    Args:
        cache: the first model.
        other: the second one; by default the first again.
        measure: debiased linear CKA, or SVCCA (see similarity.py).
        rows: what is compared, means of utterances or single frames. Frames take longer, and both
            models must have as many of each utterance. SVCCA wants many rows.

    Returns:
        Layers of `cache` as index, layers of `other` as columns, values up to 1.

    Raises:
        CacheError: fewer than four utterances in common, frames that do not match, or none stored.
    """
    other = other or cache
    ours, theirs = _same_utterances(cache, other)
    if rows == "frames" and (cache.lengths[ours] != other.lengths[theirs]).any():
        raise CacheError(
            f"{cache.path} and {other.path} differ in their numbers of frames, so frames cannot be "
            'matched; compare rows="utterances".'
        )

    def of_cache(layer: int) -> Iterator[np.ndarray]:
        return _blocks(cache, ours, layer, rows)

    def of_other(layer: int) -> Iterator[np.ndarray]:
        return _blocks(other, theirs, layer, rows)

    compare: Callable[[Sums, Sums, Sums], float] = cka if measure == "cka" else svcca
    mine = [_sums(of_cache(layer), of_cache(layer)) for layer in cache.layers]
    yours = mine
    if other is not cache:
        yours = [_sums(of_other(layer), of_other(layer)) for layer in other.layers]
    values = pd.DataFrame(index=cache.layers, columns=other.layers, dtype="float64")
    for one in tqdm(cache.layers, "layers", delay=5):
        for two in other.layers:
            if other is cache and two < one:
                values.loc[one, two] = values.loc[two, one]
            else:
                both = _sums(of_cache(one), of_other(two))
                values.loc[one, two] = compare(both, mine[one], yours[two])
    values.index.name, values.columns.name = cache.path.parent.name, other.path.parent.name
    return values


def _sums(one: Iterator[np.ndarray], other: Iterator[np.ndarray]) -> Sums:
    return sums(zip(one, other, strict=True))


def _same_utterances(
    cache: FeatureCache, other: FeatureCache
) -> tuple[Int[np.ndarray, " common"], Int[np.ndarray, " common"]]:
    """The rows of the utterances that both have, in the same order."""
    key = ["key", "sha256"]  # the same name and the same audio
    one, two = (c.utterances[key].reset_index(names="row") for c in (cache, other))
    both = one.merge(two, on=key)
    if len(both) < 4:
        raise CacheError(
            f"{cache.path} and {other.path} have {len(both)} utterances in common; expected at "
            "least 4. Similarity compares models on the same corpus."
        )
    return both["row_x"].to_numpy(), both["row_y"].to_numpy()


def _blocks(
    cache: FeatureCache, utterances: np.ndarray, layer: int, rows: str
) -> Iterator[Float[np.ndarray, "rows dim"]]:
    """One layer of some utterances, a block of rows at a time; equal lengths make equal blocks."""
    if rows == "utterances":
        for start in range(0, len(utterances), BLOCK):
            yield cache.pooled[utterances[start : start + BLOCK], layer]
        return
    before = np.cumsum(cache.lengths[utterances]) // BLOCK
    for block in np.split(utterances, np.flatnonzero(np.diff(before)) + 1):
        yield np.concatenate([cache.frames(int(i), layer) for i in block])


# ---------------------------------------------------------------------------------------- health


def layer_health(cache: FeatureCache) -> pd.DataFrame:
    """Whether each layer is fit to be probed.

    Returns:
        One row per layer:

        - layer
        - time_variance, clip_variance: of frames within a clip and of clips' means, mean over dims
        - clip_share: the second over the sum of both, 0 to 1
        - effective_rank: in how many directions clips differ (see health.py), and rank_share of it
          in the most that these clips and dims allow
        - mean_cosine: between two clips, 1 if all point one way
        - constant_units: share of the dims that do not vary beyond rounding
        - overflowed_units: share of the dims with NaN, infinity or a value at float16's limit;
          missing where only frames could tell and none are stored
        - findings: sentences that name what is degenerate; empty if nothing is
    """
    rows = []
    for layer in cache.layers:
        means, stds = cache.pooled[:, layer], cache.pooled_std[:, layer]
        over_time, over_clips = (v.mean() for v in variances(means, stds, cache.lengths))
        rank = effective_rank(means)
        values = {
            "time_variance": over_time,
            "clip_variance": over_clips,
            "clip_share": over_clips / (over_time + over_clips or 1),
            "effective_rank": rank,
            "rank_share": rank / min(len(means) - 1, cache.dim),
            "mean_cosine": mean_cosine(means),
            "constant_units": constant_units(means, stds, cache.lengths),
            "overflowed_units": _overflowed(cache, layer),
        }
        can_vary = int(cache.lengths.max()) > 1
        alarms = layer_alarms(means, stds, layer, over_time=can_vary)
        findings = [alarm.text for alarm in alarms]
        for name, what in (("constant_units", "do not vary"), ("overflowed_units", "overflow")):
            if values[name] > 0:
                findings.append(f"layer {layer}: {100 * values[name]:.2g} % of its units {what}.")
        rows.append({"layer": layer, **values, "findings": " ".join(findings)})
    return pd.DataFrame(rows)


def _overflowed(cache: FeatureCache, layer: int) -> float:
    """Share of the dims with a value at the limit; frames are read only where there may be one."""
    half = "float16" in (cache.dtype, cache.identity.get("precision"))
    limit = FLOAT16_LIMIT if half else np.inf
    if not may_reach(cache.pooled[:, layer], cache.pooled_std[:, layer], cache.lengths, limit):
        return 0.0
    if cache.store != "frames":
        return float("nan")
    over = np.zeros(cache.dim, bool)
    for frames in _blocks(cache, np.arange(len(cache.lengths)), layer, "frames"):
        over |= ~(np.abs(frames) < limit).all(0)
    return float(over.mean())


# --------------------------------------------------------------------------------------- pictures


def project_layer(
    cache: FeatureCache, layer: int, method: Literal["pca", "tsne"] = "pca", *, seed: int = 0
) -> pd.DataFrame:
    """A picture of a layer: every utterance as a point in two dimensions.

    The dims are standardised first, else a few of enormous size would be all there is to see.

    Args:
        cache: whose utterances.
        layer: which one.
        method: `pca` keeps distances as well as a plane can; `tsne` keeps neighbours, and its
            distances and cluster sizes mean nothing.
        seed: of t-SNE.

    Returns:
        One row per utterance: x, y, key, emotion, speaker, gender, sentence.

    Raises:
        CacheError: there is no such layer.

    Source: van der Maaten and Hinton 2008, as scikit-learn has it.
    """
    if layer not in cache.layers:
        raise CacheError(f"{cache.path} has layers 0 to {cache.layers[-1]}; got layer {layer}.")
    means = _tensor(cache.pooled[:, layer])
    features = Standardise(*pooled_statistics(means))(means).numpy()
    if method == "pca":
        points = PCA(n_components=2, svd_solver="full").fit_transform(features)
    else:
        perplexity = min(30.0, (len(features) - 1) / 3)
        points = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(features)
    columns = ["key", "emotion", "speaker", "gender", "sentence"]
    return pd.DataFrame(points, columns=["x", "y"]).join(cache.utterances[columns])


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
