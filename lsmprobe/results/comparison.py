"""Are two sets of runs different on the same test utterances? docs/statistics.md says how and why.

Runs come in pairs, one of A and one of B with the same seed, and only their means are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Int, Num, Shaped
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests

from lsmprobe.arguments import checked
from lsmprobe.errors import ResultsError, counted
from lsmprobe.results.bootstrap import CONFIDENCE, N_RESAMPLES, interval_ends
from lsmprobe.results.measures import measure_of, target_of
from lsmprobe.results.records import NAMED_BY, labels_hash_of, load_record, with_target
from lsmprobe.results.scores import (
    STATISTICS,
    RunAnswers,
    Runs,
    Statistic,
    Truth,
    mean_over_drawn_runs,
    resampled_scores,
    run_draws,
)

FEATURES = "features"  # what a note calls the caches that were read
N_PERMUTATIONS = 9999  # up to 13 speakers every one of the 2^n swaps is made instead
MIN_SPEAKERS = 6  # 2 / 2^5 = 0.0625: with five speakers no p can be below 0.05


@dataclass(frozen=True)
class Comparison:
    """The score of A less that of B, each a mean over its runs; macro-F1 in percentage points.

    `low` and `high` are the ends of the interval, `over` what was resampled for it. `p` is NaN
    where there are too few speakers for a test, and `note` then says so; else it is empty.
    """

    difference: float
    low: float
    high: float
    p: float
    over: str
    note: str


def compare(
    labels: Truth,
    speakers: Shaped[np.ndarray, " utterances"],
    a: Runs,
    b: Runs,
    n_outputs: int,
    *,
    score: str = "macro_f1",
    n_resamples: int = N_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """A's predictions against B's.

    - The interval is a percentile bootstrap. Each resample draws pairs of runs and, for all of them
      together, speakers and then their utterances, as `scores.bootstrap_interval` does.
    - `p` is two-sided, of a permutation test: were A and B alike, then for any speaker all runs'
      predictions could as well have come from the other side. All swaps are made if they are few.

    Args:
        labels: the class of every test utterance, 0 to `n_outputs - 1`, or its numbers.
        speakers: who says it.
        a: predictions of each run; run i of A and run i of B are a pair.
        b: as `a`.
        n_outputs: classes of the corpus, or numbers of an utterance.
        score: a key of `scores.STATISTICS`.
        n_resamples: of the bootstrap.
        confidence: of the interval.
        seed: of everything that is drawn.

    Source: Sellam et al. 2022, arXiv:2106.16163 (bootstrap over runs and test examples together);
    Noreen 1989 (approximate randomisation).
    """
    scores, over = resampled_scores(
        labels,
        np.concatenate([a, b]),
        speakers,
        n_outputs,
        score=score,
        n_resamples=n_resamples,
        seed=seed,
    )
    differences = scores[: len(a)] - scores[len(a) :]
    rng = run_draws(seed)
    low, high = interval_ends(mean_over_drawn_runs(differences, rng), confidence)
    difference, p = _permutation(labels, speakers, a, b, n_outputs, STATISTICS[score], rng)
    over = over if len(a) == 1 else f"runs; {over}"
    return Comparison(difference, low, high, p, over, too_small(speakers))


def compare_records(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> Comparison:
    """The runs of A against those of B with the same seeds; each a record as `load_record` gives.

    Raises:
        ResultsError: they were not tested on the same utterances, or have no seed in common.
    """
    runs = [{record["seed"]: record for record in side} for side in (a, b)]
    seeds = sorted(set(runs[0]) & set(runs[1]))
    if not seeds:
        raise ResultsError(
            f"runs with seeds {sorted(runs[0])} and {sorted(runs[1])} cannot be paired; expected "
            "common seeds. Probe both with the same --seed."
        )
    first = runs[0][seeds[0]]
    measure, outputs = measure_of(first), first["classes"]
    answered: list[RunAnswers] = []
    for record in (side[seed] for side in runs for seed in seeds):
        same = (_asked(record), record["classes"]) == (_asked(first), outputs)
        tested = measure.tested(record) if same else None
        if tested is None or (answered and not tested.same_test_set(answered[0])):
            raise ResultsError(
                f"{record['head']} of {record['model']} on {record['corpus']}, seed "
                f"{record['seed']}, was tested on other utterances or labels than what it is "
                "compared with; expected the same. Probe both with the same --split."
            )
        answered.append(tested)
    predictions = np.stack([each.predictions for each in answered])
    return compare(
        answered[0].labels,
        answered[0].speakers,
        predictions[: len(seeds)],
        predictions[len(seeds) :],
        len(outputs),
        score=measure.score,
    )


def _asked(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two runs must share to be compared, but for the truth itself."""
    keys = sorted(each["key"] for each in record["predictions"])
    return measure_of(record).name, target_of(record), keys


@checked
def compare_runs(
    results: pd.DataFrame, between: Literal["model", "head", "layer", "feature_norm"]
) -> pd.DataFrame:
    """Every two models (heads, layers, ...) on the same test utterances, paired and tested.

    Args:
        results: what `load_results` or `probe` returned; what is neither compared nor the same of
            all runs (corpus, split, head, ...) makes a group of its own.
        between: the column in which A and B differ. Two models are compared on the one layer that
            each was probed on, since they may differ in depth, and so are two heads, since
            Multi-Layer reads all of them.

    Returns:
        One row per group and pair: the group's columns, a, b, the fields of `Comparison`
        (difference, low and high in the measure's unit: percentage points of macro-F1) and p_holm,
        which is corrected for all tests of the table. `note` also says in which settings of
        training, labels and features (another extraction) A and B differ besides.

    Raises:
        ResultsError: there is nothing to compare, two runs of one side have the same seed, or as
            `compare_records`.
    """
    results = with_target(results)
    depth = ["layer"] if between in ("model", "head") else []
    same = [key for key in NAMED_BY if key not in (between, *depth)]
    rows = []
    for about, runs in results.groupby(same, sort=False, dropna=False):
        if runs.duplicated([between, "seed"]).any():
            raise ResultsError(
                f"{', '.join(map(str, about))}: several runs with one {between} and seed; expected "
                "one. They differ in layer or settings: keep one of them."
            )
        sides = {
            side: [load_record(Path(path)) for path in own["path"]]
            for side, own in runs.groupby(between, sort=False)
        }
        for a, b in combinations(sides, 2):
            found = asdict(compare_records(sides[a], sides[b]))
            further = _also_differ(sides[a][0], sides[b][0], but=between)
            found["note"] = " ".join(filter(None, (further, found["note"])))
            rows.append({**dict(zip(same, about, strict=True)), "a": a, "b": b, **found})
    if not rows:
        raise ResultsError(
            f"no two runs here differ in {between} and agree in {', '.join(same)}; probe another."
        )
    return add_holm(pd.DataFrame(rows))


def _also_differ(a: Mapping[str, Any], b: Mapping[str, Any], *, but: str) -> str:
    """A sentence on settings that both sides have, labels and features, if not compared."""
    one, other = _told(a), _told(b)
    names = [n for n in one if n != but and n in other and one[n] != other[n]]
    told = [f"{name} ({one[name]} and {other[name]})" for name in names]
    if but == "model":  # each has a cache of its own
        told = [each for each in told if not each.startswith(f"{FEATURES} (")]
    return f"They differ in {', '.join(told)} too." if told else ""


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, the labels that it learned and the cache that it read, by name."""
    file = record.get("labels", {}).get("file") or "the cache's own"
    cache = record.get("cache", {})
    about = {"labels": f"{file}, {labels_hash_of(record)[:6]}"}
    if "hash" in cache:
        about[FEATURES] = f"{cache.get('file', 'cache')}, {cache['hash'][:6]}"
    return {**record.get("settings", {}), **about}


def add_holm(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `p_holm`: its `p` corrected for how many tests the table holds.

    Rows without a test (`p` is NaN) stay so and do not count.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    tested = comparisons.p.notna().to_numpy()
    corrected = np.full(len(comparisons), np.nan)
    if tested.any():
        _, corrected[tested], *_ = multipletests(comparisons.p[tested], method="holm")
    return comparisons.assign(p_holm=corrected)


def too_small(speakers: Shaped[np.ndarray, " utterances"]) -> str:
    """What these test speakers cannot show, in one sentence; empty if there are enough.

    >>> too_small(np.array(["anna"]))
    'The test set has 1 speaker: no test is made, and no interval says anything of other speakers.'
    >>> too_small(np.arange(6))
    ''
    """
    n = len(np.unique(speakers))
    if n <= 2:
        return (
            f"The test set has {counted(n, 'speaker')}: no test is made, and no interval says "
            "anything of other speakers."
        )
    if n < MIN_SPEAKERS:
        return (
            f"The test set has {n} speakers: no test is made, since its p could not be below "
            f"{2 / 2**n:.2g}; take intervals over so few as too narrow."
        )
    return ""


def _permutation(
    labels: Truth,
    speakers: Shaped[np.ndarray, " utterances"],
    a: Runs,
    b: Runs,
    n_outputs: int,
    statistic: Statistic,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The difference of the means over runs, and its p (NaN if there are too few speakers)."""
    names, speaker_of = np.unique(speakers, return_inverse=True)
    by_speaker = [_sums(labels, side, speaker_of, n_outputs, statistic) for side in (a, b)]

    def difference(
        of_a: Int[np.ndarray, "*swaps speakers"],
        of_b: Int[np.ndarray, "*swaps speakers"],
        axis: int = -1,
    ) -> Any:
        """One for each swap; 0 and 1 say whose predictions of a speaker are taken, A's or B's."""
        means = []
        for side in (of_a, of_b):
            whole = np.tensordot(1 - side, by_speaker[0], 1) + np.tensordot(side, by_speaker[1], 1)
            means.append(statistic.of(whole).mean(axis=-1))
        return np.round(means[0] - means[1], 9)  # ties are ties, whatever the order of adding

    own, other = np.zeros(len(names), dtype=int), np.ones(len(names), dtype=int)
    observed = float(difference(own, other))
    if len(names) < MIN_SPEAKERS:
        return observed, np.nan
    test = permutation_test(
        (own, other),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=N_PERMUTATIONS,
        batch=1000,
        axis=-1,
        rng=rng,
    )
    return observed, float(test.pvalue)


def _sums(
    labels: Truth,
    predictions: Runs,
    speaker_of: Int[np.ndarray, " utterances"],
    n_outputs: int,
    statistic: Statistic,
) -> Num[np.ndarray, "speakers runs parts"]:
    """The sums of each speaker and run."""
    parts = np.stack([statistic.parts(labels, run, n_outputs) for run in predictions], axis=1)
    sums = np.zeros((speaker_of.max() + 1, *parts.shape[1:]), dtype=parts.dtype)
    np.add.at(sums, speaker_of, parts)
    return sums
