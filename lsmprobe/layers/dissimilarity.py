"""How utterances lie to each other: dissimilarity matrices of layers and targets, compared by rank.

A matrix is its upper triangle, a value for each pair of utterances in the order of
scipy.spatial.distance.pdist. Only the order of the pairs counts, so it is kept as places.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Shaped
from scipy.spatial.distance import pdist, squareform

from lsmprobe.arguments import Within, checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_once
from lsmprobe.config import Seed
from lsmprobe.errors import SettingsError, counted
from lsmprobe.layers.probes import KindName, TargetName, find_asked
from lsmprobe.layers.regression import NormName
from lsmprobe.layers.similarity import same_utterances
from lsmprobe.layers.targets import Target, labels_of
from lsmprobe.probing.norms import pooled_statistics
from lsmprobe.probing.table import NORMS
from lsmprobe.probing.targets import NAMED
from lsmprobe.progress import Progress, automatic
from lsmprobe.results.bootstrap import (
    interval_ends,
    resampled_over,
    resamples,
    resampling_bias,
)

DissimilarityName = Literal["correlation", "cosine", "euclidean"]
Most = Annotated[int, Within(10, 2000)]
N_RESAMPLES = 500  # each ranks every layer's pairs again
N_SHUFFLES = 500
MEASURE = "Spearman correlation of dissimilarities"
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Order:
    """The pairs of a dissimilarity matrix, put in order."""

    place: Int[np.ndarray, " pairs"]  # 0 is the most alike; equal dissimilarities share a place
    n_places: int

    @classmethod
    def of(cls, dissimilarities: Float[np.ndarray, " pairs"]) -> "Order":
        """Of a matrix; one that is not defined everywhere orders nothing, as a constant one."""
        if np.isnan(dissimilarities).any():
            dissimilarities = np.zeros_like(dissimilarities)
        values, place = np.unique(dissimilarities, return_inverse=True)
        return cls(place.astype(np.int32).ravel(), len(values))

    def ranks(
        self, kept: Int[np.ndarray, " kept"] | slice, weights: Float[np.ndarray, " kept"]
    ) -> Float[np.ndarray, " kept"]:
        """The rank of each pair from the middle; equal ones share their mean rank.

        Args:
            kept: which pairs there are.
            weights: how often each of them is there.
        """
        place = self.place[kept]
        there = np.bincount(place, weights, self.n_places)
        return (np.cumsum(there) - there / 2 - weights.sum() / 2)[place]

    @property
    def largest(self) -> float:
        """The rank correlation with an order that agrees and has no two pairs in one place.

        The standard deviation of these ranks by that of the ranks 1 to n, whose variance is
        (n^2 - 1) / 12: for two classes of pairs about sqrt(3 p (1 - p)), p the share of one.
        """
        n = len(self.place)
        variance = np.square(self.ranks(slice(None), np.ones(n))).mean()
        return float(np.sqrt(variance / ((n**2 - 1) / 12))) if n > 1 else float("nan")


def rank_correlation(
    one: Float[np.ndarray, " pairs"],
    other: Float[np.ndarray, " pairs"],
    weights: Float[np.ndarray, " pairs"],
) -> float:
    """Pearson's correlation of `Order.ranks`, which have a mean of 0; NaN where one is constant."""
    scale = (weights @ one**2) * (weights @ other**2)
    return float((weights * one) @ other / scale**0.5) if scale > 0 else float("nan")


def of_target(target: Target, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, " pairs"]:
    """The dissimilarities of utterances in a target: 0 or 1 of classes, |a - b| of numbers.

    Several columns of numbers are divided by their standard deviations, then the distance is
    Euclidean. What differs by rounding alone is equal.

    Args:
        target: with its values.
        rows: positions among the utterances that have it.
    """
    values = target.truth[rows].reshape(len(rows), -1).astype(np.float64)
    if target.classes:
        return pdist(values, "hamming")
    spread = values.std(0)
    distances = pdist(values / np.where(spread > 0, spread, 1), "euclidean")
    return np.round(distances, 9)


def orders_of_layers(
    cache: FeatureCache,
    rows: Int[np.ndarray, " rows"],
    dissimilarity: DissimilarityName,
    feature_norm: NormName,
) -> dict[int, Order]:
    """Of every layer, how the means over frames of these utterances lie to each other."""
    found = {}
    for layer in cache.layers:
        means = torch.from_numpy(np.array(cache.pooled[rows, cache.place(layer)]))
        norm = NORMS[feature_norm].fit(partial(pooled_statistics, means))
        found[layer] = Order.of(pdist(norm(means).double().numpy(), dissimilarity))
    return found


def pair_weights(
    speakers: Shaped[np.ndarray, " utterances"], *, n_resamples: int, seed: int = 0
) -> Iterator[tuple[Int[np.ndarray, " kept"], Float[np.ndarray, " kept"]]]:
    """Of each bootstrap resample the pairs it has, and how often it has each.

    Speakers, then utterances are drawn, as for every score. An utterance drawn twice is a pair with
    itself, whose dissimilarity of 0 no data has: such pairs are left out.
    """
    n = len(speakers)
    drawn = np.zeros((n_resamples, n))
    for own, times in resamples(np.arange(n), speakers, n_resamples=n_resamples, seed=seed):
        drawn[:, own] = times
    first, second = np.triu_indices(n, 1)
    for times in drawn:
        weights = times[first] * times[second]
        kept = np.flatnonzero(weights)
        yield kept, weights[kept]


@checked
def representational_similarity(
    cache: FeatureCache | str | Path,
    targets: Sequence[TargetName | str] | None = None,
    *,
    dissimilarity: DissimilarityName = "correlation",
    feature_norm: NormName = "zscore",
    target_kind: KindName = "auto",
    labels: str | Path | None = None,
    most: Most = 1000,
    seed: Seed = 0,
    results_dir: str | Path = "results",
    progress: Progress = automatic,
) -> pd.DataFrame:
    """Whether utterances that differ in a target lie apart in a layer; nothing is trained.

    For each layer the dissimilarity of every two utterances' means is compared with that of their
    targets by Spearman's rank correlation.

    Args:
        cache: whose layers.
        targets: each as in `probe_layers`; by default emotion, speaker, gender and sentence,
            and the log names what this corpus lacks of these. Classes are as dissimilar as 0 (the
            same) or 1, numbers as their difference; several columns of numbers, named with commas,
            as their Euclidean distance in standard deviations.
        dissimilarity: of two utterances in a layer: 1 - Pearson's correlation over the dims, 1 -
            cosine, or the Euclidean distance.
        feature_norm: of the dims before that, as in `probe_layers`; without it a few dims of
            enormous size decide.
        target_kind: as in `probe_layers`, of all targets.
        labels: as in `probe_layers`.
        most: utterances that are compared; of more, so many are drawn. Pairs grow with their
            square.
        seed: of that draw, the resamples and the shuffles.
        results_dir: where energy and pitch are kept.
        progress: how progress is shown.

    Returns:
        One row per target and layer: model, corpus, target, layer; score, -1 to 1, low and high
        (its 95% interval), metric (spearman); random_weights, labels, dissimilarity, feature_norm;
        interval_over; shuffled and shuffled_95 (targets dealt out at random to the utterances:
        mean, and the point that 95% do not exceed); largest (the highest score that the target's
        ties allow any layer); n_utterances and left_out (of those with the target, by `most`);
        seed. Scores are NaN where a layer does not vary.

    Raises:
        LsmprobeError: no such target, one that is constant, missing or half empty, missing audio,
            damage.

    Source: Kriegeskorte et al. 2008, doi:10.3389/neuro.06.004.2008; shuffles as Mantel 1967, "The
    detection of disease clustering and a generalized regression approach".
    """
    cache = FeatureCache.of(cache)
    utterances, found = _found(cache, targets, target_kind, labels, results_dir, progress)
    together: dict[Any, list[Target]] = {}  # those of the same utterances share their resamples
    for target in found:
        # Of the speaker all speakers are there, so that its interval is over utterances.
        together.setdefault((target.rows.tobytes(), target.name == "speaker"), []).append(target)
    tables = {}
    for (_, is_speaker), alike in together.items():
        of_known = _drawn(len(alike[0].rows), most, seed, alike[0].name)
        rows = alike[0].rows[of_known]
        speakers = utterances["speaker"].to_numpy(str)[rows]
        speakers = np.full_like(speakers, "") if is_speaker else speakers
        layers = orders_of_layers(cache, rows, dissimilarity, feature_norm)
        orders = [Order.of(of_target(target, of_known)) for target in alike]
        scores = _scores(layers, orders, speakers, seed, progress)
        for target, order, of_layers in zip(alike, orders, scores, strict=True):
            about = {"model": cache.model, "corpus": cache.corpus, "target": target.name}
            tables[target.name] = pd.DataFrame([about | row for row in of_layers]).assign(
                metric="spearman",
                random_weights=cache.identity.get("random_init") is not None,
                labels=labels_of({}, labels),
                dissimilarity=dissimilarity,
                feature_norm=feature_norm,
                interval_over=resampled_over(speakers),
                largest=order.largest,
                n_utterances=len(rows),
                left_out=len(alike[0].rows) - len(rows),
                seed=seed,
            )
    return pd.concat([tables[target.name] for target in found], ignore_index=True)


def _found(
    cache: FeatureCache,
    targets: Sequence[str] | None,
    kind: str,
    labels: str | Path | None,
    results_dir: str | Path,
    progress: Progress,
) -> tuple[pd.DataFrame, list[Target]]:
    """The utterances, and the targets asked for; of those that nobody named, what is there.

    Raises:
        LsmprobeError: as `representational_similarity`.
    """
    found: dict[str, Target] = {}
    for name in NAMED if targets is None else targets:
        try:
            utterances, target = find_asked(
                cache, name, kind, labels, results_dir, progress, together=targets or ()
            )
            found[target.name] = target
        except SettingsError as error:
            if targets is not None:
                raise
            log.warning("skipping %s: %s", name, str(error).removeprefix("target: "))
    if not found:
        raise SettingsError("no target is left to compare layers with; expected one or more.")
    return utterances, list(found.values())


def _drawn(n: int, most: int, seed: int, what: str) -> Int[np.ndarray, " rows"]:
    """All positions up to n, or as many as are compared, drawn; then it is said."""
    if n <= most:
        return np.arange(n)
    log.warning(
        "%s: %s of %d are drawn and compared; %d are left out (most=%d)",
        *(what, counted(most, "utterance"), n, n - most, most),
    )
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _scores(
    layers: Mapping[int, Order],
    targets: Sequence[Order],
    speakers: Shaped[np.ndarray, " utterances"],
    seed: int,
    progress: Progress,
) -> list[list[dict[str, Any]]]:
    """Of each target a row per layer: the score, its interval and what shuffled targets score."""
    every, once = slice(None), np.ones(len(targets[0].place))
    ranks = [order.ranks(every, once) for order in layers.values()]
    of_targets = [order.ranks(every, once) for order in targets]
    observed = _correlations(ranks, of_targets, once)
    resampled = np.stack(
        [
            _correlations(
                (order.ranks(kept, weights) for order in layers.values()),
                [order.ranks(kept, weights) for order in targets],
                weights,
            )
            for kept, weights in progress(
                pair_weights(speakers, n_resamples=N_RESAMPLES, seed=seed),
                desc="resamples",
                total=N_RESAMPLES,
                delay=5,
            )
        ]
    )
    shuffled = _shuffled(ranks, of_targets, len(speakers), seed, progress)
    return [
        [
            {"layer": layer, "score": observed[i, j]}
            | _ends(resampled[:, i, j], observed[i, j])
            | {
                "shuffled": shuffled[:, i, j].mean(),
                "shuffled_95": np.quantile(shuffled[:, i, j], 0.95),
            }
            for i, layer in enumerate(layers)
        ]
        for j in range(len(targets))
    ]


def _correlations(
    ones: Iterable[np.ndarray], others: Sequence[np.ndarray], weights: np.ndarray
) -> Float[np.ndarray, "ones others"]:
    return np.array([[rank_correlation(a, b, weights) for b in others] for a in ones])


def _ends(values: Float[np.ndarray, " resamples"], observed: float) -> dict[str, float]:
    """The interval, as of every score."""
    if np.isnan(observed):
        return {"low": np.nan, "high": np.nan}
    low, high = interval_ends(values, bias=resampling_bias(values, observed))
    return {"low": low, "high": high}


def _shuffled(
    layers: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    n: int,
    seed: int,
    progress: Progress,
) -> Float[np.ndarray, "shuffles layers targets"]:
    """The scores of targets that are dealt out to the utterances anew, rows with their columns."""
    rng = np.random.default_rng([seed, 1])  # not the stream of the resamples
    first, second = np.triu_indices(n, 1)
    square = [squareform(ranks) for ranks in targets]
    with np.errstate(invalid="ignore"):  # a layer that does not vary has no score
        ours = np.stack([ranks / np.sqrt(ranks @ ranks) for ranks in layers]).astype(np.float32)
        theirs = [np.sqrt(ranks @ ranks) for ranks in targets]
    found = np.empty((N_SHUFFLES, len(layers), len(targets)))
    for k in progress(range(N_SHUFFLES), desc="shuffles", delay=5):
        order = rng.permutation(n)
        for j, (ranks, size) in enumerate(zip(square, theirs, strict=True)):
            dealt = ranks[order[first], order[second]] / size
            found[k, :, j] = ours @ dealt.astype(np.float32)
    return found


@checked
def layer_geometry(
    cache: FeatureCache | str | Path,
    other: FeatureCache | str | Path | None = None,
    *,
    dissimilarity: DissimilarityName = "correlation",
    feature_norm: NormName = "zscore",
    most: Most = 1000,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Whether the same utterances lie apart in every two layers, of one model or of two.

    As `layer_similarity`, by Spearman's rank correlation of dissimilarities. Two layers are 1 if
    all pairs of utterances are in the same order, whatever the dims.

    Args:
        cache: the first model.
        other: the second one; by default the first again.
        dissimilarity: as in `representational_similarity`.
        feature_norm: as in `representational_similarity`.
        most: as in `representational_similarity`.
        seed: of the draw of utterances, where there are more.

    Returns:
        Layers of `cache` as index, layers of `other` as columns, values from -1 to 1, NaN where a
        layer does not vary. Its `attrs` hold the measure's name, n_utterances and left_out.

    Raises:
        CacheError: fewer than four utterances in common, or damaged ones.

    Source: as `representational_similarity`.
    """
    cache = FeatureCache.of(cache)
    other = cache if other is None else FeatureCache.of(other)
    for each in {cache, other}:
        verify_once(each, reads="means")
    ours, theirs = same_utterances(cache, other)
    drawn = _drawn(len(ours), most, seed, cache.corpus)
    every, once = slice(None), np.ones(len(drawn) * (len(drawn) - 1) // 2)
    rows, columns = (
        [order.ranks(every, once) for order in layers.values()]
        for layers in (
            orders_of_layers(cache, ours[drawn], dissimilarity, feature_norm),
            orders_of_layers(other, theirs[drawn], dissimilarity, feature_norm),
        )
    )
    values = pd.DataFrame(
        _correlations(rows, columns, once),
        index=pd.Index(cache.layers, name=cache.model),
        columns=pd.Index(other.layers, name=other.model),
    )
    corpora = " and ".join(dict.fromkeys((cache.corpus, other.corpus)))
    left_out = len(ours) - len(drawn)
    about = {"measure": MEASURE, "n_utterances": len(drawn), "left_out": left_out}
    values.attrs |= about | {"corpus": corpora}
    return values
