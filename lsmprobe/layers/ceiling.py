"""The noise ceiling: what a layer could score at best, as far as raters agree.

Each rating in turn is the truth. A score is read off sums over utterances, as in results/scores.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from lsmprobe.arguments import checked
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import Seed
from lsmprobe.errors import SettingsError, counted, nearest
from lsmprobe.layers.targets import labels_of, of_arguments
from lsmprobe.probing.objectives import votes_of
from lsmprobe.probing.targets import (
    Read,
    check_numbers,
    read_target,
    say_what_may_be_missing,
    target_columns,
)
from lsmprobe.probing.task import labelled
from lsmprobe.results import agreement
from lsmprobe.results.bootstrap import interval_ends, resampled_over, resamples, resampling_bias
from lsmprobe.results.measures import CLASSES
from lsmprobe.results.scores import STATISTICS

ONE, MEAN = "one rating", "mean of the ratings"
Votes = Float[np.ndarray, "utterances classes"]
Ratings = Float[np.ndarray, "utterances raters"]  # NaN where a rater did not rate
Parts = Float[np.ndarray, "utterances parts"]
Of = Callable[[Float[np.ndarray, "draws parts"]], Float[np.ndarray, " draws"]]


class Bound(NamedTuple):
    """A ceiling before it is computed: what each utterance adds, and what their sums score."""

    metric: str
    against: str
    bound: str  # lower or upper
    parts: Parts
    of: Of


def consensus(votes: Votes) -> Votes:
    """The most frequent class of each row as a distribution; equal ones share it."""
    ahead = votes == votes.max(1, keepdims=True)
    return ahead / ahead.sum(1, keepdims=True)


def others_cells(votes: Votes) -> Parts:
    """Votes by answers of each utterance, where each vote is answered by the others' consensus."""
    n, n_classes = votes.shape
    cells = np.zeros((n, n_classes, n_classes))
    for voted in range(n_classes):
        others = votes - np.eye(n_classes)[voted]
        cells[:, voted] = votes[:, voted, None] * consensus(others)
    return cells.reshape(n, -1)


def best_cells(votes: Votes, weights: Float[np.ndarray, " classes"]) -> Parts:
    """Votes by answers, where an utterance has one answer: the class whose votes weigh most.

    With equal weights no answers have a higher accuracy; with weights of one over the votes for the
    class in all utterances, none have a higher UAR, which is a mean of shares of just that size.
    """
    answers = consensus(votes * weights)
    return (votes[:, :, None] * answers[:, None, :]).reshape(len(votes), -1)


def bounds_of_votes(votes: Votes) -> list[Bound]:
    """Lower and upper ceilings of all scores of classes, against one vote."""
    lower, alike = others_cells(votes), np.ones(votes.shape[1])
    found = []
    for name in CLASSES.scores:
        weights = 1 / np.maximum(votes.sum(0), 1) if name == "uar" else alike
        for bound, parts in (("lower", lower), ("upper", best_cells(votes, weights))):
            of = partial(_of_classes, STATISTICS[name].of, parts.sum(0))
            found.append(Bound(name, ONE, bound, parts, of))
    return found


def _of_classes(of: Callable[..., np.ndarray], whole: np.ndarray, sums: np.ndarray) -> np.ndarray:
    return of(sums, whole)


def others_moments(ratings: Ratings) -> Parts:
    """What `agreement.moments` says of each utterance's ratings, each answered by the others' mean.

    Every utterance has two ratings or more.
    """
    utterance, rater = np.nonzero(~np.isnan(ratings))
    truth, n = ratings[utterance, rater], (~np.isnan(ratings)).sum(1)[utterance]
    answers = (np.nansum(ratings, axis=1)[utterance] - truth) / (n - 1)
    starts = np.flatnonzero(np.diff(utterance, prepend=-1))
    return np.add.reduceat(agreement.moments(truth, answers), starts)


def variance_parts(ratings: Ratings) -> Parts:
    """What each utterance adds to the sums of `reliability`.

    1, its mean m, m^2, the squares around m, its number of ratings k, and 1 / k; of ratings from
    which the mean of their rater was taken.
    """
    ratings = ratings - np.nanmean(ratings, axis=0)
    k = (~np.isnan(ratings)).sum(1)
    m = np.nanmean(ratings, axis=1)
    around = np.nanvar(ratings, axis=1) * k
    return np.stack([np.ones(len(k)), m, m**2, around, k, 1 / k], axis=1)


def reliability(
    sums: Float[np.ndarray, "draws parts"],
    n_raters: int,
    *,
    of_mean: bool,
    levels: float = 0.0,
) -> Float[np.ndarray, " draws"]:
    """The share of the ratings' variance that belongs to the utterances, 0 to 1.

    With v the variance of utterances' means and e that of ratings around them, v holds e / k of
    noise (k: ratings), so the utterances' own is v - e / k. Of the mean of the ratings its share is
    (v - e / k) / v, Cronbach's alpha where nobody left out a rating, of one rating
    (v - e / k) / (v - e / k + e + levels). Spearman and Brown's formula leads from one to the
    other.

    Args:
        sums: of `variance_parts`.
        n_raters: whose means were taken from the ratings.
        of_mean: of the mean of an utterance's ratings; else of one of them.
        levels: the variance of the raters' means, which is noise to who answers for one of them.

    Source: Shrout and Fleiss 1979, "Intraclass correlations: uses in assessing rater reliability".
    """
    n, m, mm, around, k, shares = np.moveaxis(sums, -1, 0)
    v = (mm - m**2 / n) / (n - 1)
    e = around / (k - n - (n_raters - 1))
    own = np.maximum(v - e * shares / n, 0)
    total = v if of_mean else own + e + levels
    return np.divide(own, total, out=np.full_like(own, np.nan), where=total > 0)


def bounds_of_numbers(ratings: Ratings) -> list[Bound]:
    """Ceilings of CCC and Pearson, against one rating and against the mean of the ratings.

    No answer correlates with a rating by more than the root of its reliability (Spearman 1904), and
    no CCC is above the correlation. How high a rater rates on the whole is the same for every
    utterance: noise in one rating of whom you will, and none in the mean of all.
    """
    ratings = ratings[:, ~np.isnan(ratings).all(0)]
    others, parts = others_moments(ratings), variance_parts(ratings)
    rater = np.nonzero(~np.isnan(ratings))[1]
    levels = float(np.nanmean(ratings, axis=0)[rater].var())
    root = partial(_root, n_raters=ratings.shape[1])
    found = []
    for name, of in (("ccc", agreement.ccc), ("pearson", agreement.pearson)):
        found += [
            Bound(name, ONE, "lower", others, of),
            Bound(name, ONE, "upper", parts, partial(root, of_mean=False, levels=levels)),
            Bound(name, MEAN, "upper", parts, partial(root, of_mean=True)),
        ]
    return found


def _root(sums: np.ndarray, **settings: Any) -> np.ndarray:
    return np.sqrt(reliability(sums, **settings))


@checked
def noise_ceiling(
    cache: FeatureCache | str | Path,
    raters: str,
    *,
    kind: Literal["auto", "votes", "shares", "numbers"] = "auto",
    labels: str | Path | None = None,
    seed: Seed = 0,
) -> pd.DataFrame:
    """What a layer could score at best, as far as raters agree on what they heard.

    Against one rating: every rating of every utterance is the truth once. The lower ceiling is what
    the other raters score together: their most frequent class (equal ones by equal parts), or
    their mean. The upper one is what no answer to the utterance can exceed: of accuracy and UAR
    exactly, on these ratings; of macro-F1 it is the score of the most frequent class, which
    another rule may pass by a little; of CCC and Pearson the root of the reliability.
    Against the mean of the ratings, for numbers: the root of its reliability.

    Args:
        cache: of the corpus; its features are not read.
        raters: columns of the table of utterances, with commas: one for each rater, words or
            numbers, empty where somebody did not rate. Or one column of votes with ";" between; or
            with kind "shares" one column for each class, with counts of votes.
        kind: votes are words, numbers are numbers; auto is one of these two.
        labels: as in `probe_layers`.
        seed: of the resamples.

    Returns:
        One row per metric and bound: corpus, raters, metric, against (one rating, or mean of the
        ratings), bound (lower or upper), score, low and high (its 95% interval), in percent of
        classes and up to 1 of numbers; interval_over, n_utterances, left_out (with fewer than two
        ratings), ratings (of an utterance, mean), labels, seed.

    Raises:
        SettingsError: a column is missing or of the wrong kind, or no utterance has two ratings.
        CacheError: labels are missing or damaged.

    Source: Nili et al. 2014, doi:10.1371/journal.pcbi.1003553, of lower and upper ceilings;
    Spearman 1904, "The proof and measurement of association between two things".
    """
    cache = FeatureCache.of(cache)
    columns = target_columns(raters)
    utterances = labelled(cache, cache.corpus, Path(labels) if labels else None, columns)
    found = _ratings(utterances, columns, kind, cache.corpus)
    several = found.n_ratings >= 2
    if several.sum() < 2:
        raise SettingsError(
            f"raters: {counted(several.sum(), 'utterance')} of {cache.corpus} "
            f"with two or more ratings in {','.join(columns)}; expected two or more such "
            "utterances. One rater alone says nothing of how far raters agree; name a column for "
            'each, or add them with labels="FILE.csv".'
        )
    speakers = found.table["speaker"].to_numpy(str)[several]
    bounds = found.bounds(found.said[several])
    about = {"corpus": cache.corpus, "raters": ",".join(columns)}
    rows = [
        about
        | {"metric": each.metric, "against": each.against, "bound": each.bound}
        | _with_interval(each, speakers, seed)
        for each in bounds
    ]
    return pd.DataFrame(rows).assign(
        interval_over=resampled_over(speakers),
        n_utterances=int(several.sum()),
        left_out=len(utterances) - int(several.sum()),
        ratings=found.n_ratings[several].mean(),
        labels=labels_of({}, labels),
        seed=seed,
    )


class _Rated(NamedTuple):
    """What raters said: a row per utterance of the table."""

    table: pd.DataFrame
    said: Float[np.ndarray, "utterances columns"]  # counts of votes, or numbers
    n_ratings: Shaped[np.ndarray, " utterances"]
    bounds: Callable[[np.ndarray], list[Bound]]


def _ratings(table: pd.DataFrame, columns: tuple[str, ...], kind: str, corpus: str) -> _Rated:
    for name in columns:
        if name not in table:
            raise SettingsError(
                f"raters: {corpus} has no column {name!r}; "
                f"{nearest(name, [each for each in table if each != 'key'])} Add columns with "
                'labels="FILE.csv".'
            )
    words = [name for name in columns if not pd.api.types.is_numeric_dtype(table[name])]
    if kind == "auto":
        kind = "votes" if words else "numbers"
    if kind == "votes":
        found = _read(table, columns, corpus, kind)
        votes = votes_of(found.table[list(columns)], found.names)
        return _Rated(found.table, votes, votes.sum(1), bounds_of_votes)
    if words:
        raise SettingsError(
            f"raters: {words[0]!r} of {corpus} holds words (the first is "
            f'{table[words[0]].iloc[0]!r}); expected numbers, or kind="votes".'
        )
    if kind == "numbers":
        with _of_raters():
            for name in columns:
                check_numbers(table, name, corpus)
            say_what_may_be_missing(table, columns, corpus)
        ratings = table[list(columns)].to_numpy(np.float64)
        if np.all(np.isnan(ratings) | (ratings == np.fmax.reduce(ratings, axis=0))):
            raise SettingsError(
                f"raters: no rater of {corpus} tells two utterances apart in {','.join(columns)}: "
                "each always gives the same number; expected ratings that differ, since no layer "
                "can answer these better than a constant. Name other columns."
            )
        return _Rated(table, ratings, (~np.isnan(ratings)).sum(1), bounds_of_numbers)
    found = _read(table, columns, corpus, kind)
    votes = found.table[list(columns)].to_numpy(np.float64)
    if (votes % 1).any():
        raise SettingsError(
            f"raters: {','.join(columns)} of {corpus} are shares, which do not say how many raters "
            'there were; expected counts of votes, or a column for each rater with kind="votes".'
        )
    return _Rated(found.table, votes, votes.sum(1), bounds_of_votes)


def _read(table: pd.DataFrame, columns: tuple[str, ...], corpus: str, kind: str) -> Read:
    with _of_raters():
        return read_target(table, columns, corpus=corpus, kind=kind)


@contextmanager
def _of_raters() -> Iterator[None]:
    """What is said of a target, as said of raters."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(of_arguments(str(error)).replace("target:", "raters:")) from error


def _with_interval(
    bound: Bound, speakers: Shaped[np.ndarray, " utterances"], seed: int
) -> dict[str, float]:
    """The score, and its interval as of every score: speakers, then utterances are drawn."""
    parts, kind_of = np.unique(bound.parts, axis=0, return_inverse=True)
    sums = sum(c @ parts[own] for own, c in resamples(kind_of.ravel(), speakers, seed=seed))
    observed = float(bound.of(bound.parts.sum(0)[None])[0])
    if np.isnan(observed):
        return {"score": observed, "low": np.nan, "high": np.nan}
    values = bound.of(sums)
    low, high = interval_ends(values, bias=resampling_bias(values, observed))
    return {"score": observed, "low": low, "high": high}
