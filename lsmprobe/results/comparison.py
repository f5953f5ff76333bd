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
from jaxtyping import Int, Shaped
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests

from lsmprobe.arguments import checked
from lsmprobe.errors import ResultsError
from lsmprobe.results.bootstrap import CONFIDENCE, N_RESAMPLES, interval_ends
from lsmprobe.results.records import load_record
from lsmprobe.results.scores import (
    macro_f1_of,
    mean_over_drawn_runs,
    resampled_scores,
    run_draws,
)

N_PERMUTATIONS = 9999  # up to 13 speakers every one of the 2^n swaps is made instead
MIN_SPEAKERS = 6  # 2 / 2^5 = 0.0625: with five speakers no p can be below 0.05


@dataclass(frozen=True)
class Comparison:
    """Macro-F1 of A less that of B, in percentage points, each a mean over its runs.

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
    labels: Int[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    a: Int[np.ndarray, "runs utterances"],
    b: Int[np.ndarray, "runs utterances"],
    n_classes: int,
    *,
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
        labels: the class of every test utterance, 0 to `n_classes - 1`.
        speakers: who says it.
        a: predictions of each run; run i of A and run i of B are a pair.
        b: as `a`.
        n_classes: of the corpus.
        n_resamples: of the bootstrap.
        confidence: of the interval.
        seed: of everything that is drawn.

    Source: Sellam et al. 2022, arXiv:2106.16163 (bootstrap over runs and test examples together);
    Noreen 1989 (approximate randomisation).
    """
    scores, over = resampled_scores(
        labels, np.vstack([a, b]), speakers, n_classes, n_resamples=n_resamples, seed=seed
    )
    differences = scores[: len(a)] - scores[len(a) :]
    rng = run_draws(seed)
    low, high = interval_ends(mean_over_drawn_runs(differences, rng), confidence)
    difference, p = _permutation(labels, speakers, a, b, n_classes, rng)
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
    classes = list(runs[0][seeds[0]]["classes"])
    tested: pd.DataFrame | None = None
    guesses = []
    for record in (side[seed] for side in runs for seed in seeds):
        table = pd.DataFrame(record["predictions"]).set_index("key").sort_index()
        same = tested is None or tested.equals(table[["emotion", "speaker"]])
        if not same or record["classes"] != classes:
            raise ResultsError(
                f"{record['head']} of {record['model']} on {record['corpus']}, seed "
                f"{record['seed']}, was tested on other utterances or labels than what it is "
                "compared with; expected the same. Probe both with the same --split."
            )
        tested = table[["emotion", "speaker"]]
        guesses.append(_numbered(table.predicted, classes))
    assert tested is not None
    return compare(
        _numbered(tested.emotion, classes),
        tested.speaker.to_numpy(),
        np.stack(guesses[: len(seeds)]),
        np.stack(guesses[len(seeds) :]),
        len(classes),
    )


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
        (difference, low and high in percentage points of macro-F1) and p_holm, which is corrected
        for all tests of the table.

    Raises:
        ResultsError: there is nothing to compare, two runs of one side have the same seed, or as
            `compare_records`.
    """
    keys = ["model", "corpus", "split", "feature_norm", "head", "layer"]
    depth = ["layer"] if between in ("model", "head") else []
    same = [key for key in keys if key not in (between, *depth)]
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
            rows.append({**dict(zip(same, about, strict=True)), "a": a, "b": b, **found})
    if not rows:
        raise ResultsError(
            f"no two runs here differ in {between} and agree in {', '.join(same)}; probe another."
        )
    return add_holm(pd.DataFrame(rows))


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
            f"The test set has {n} speaker{'s' * (n > 1)}: no test is made, and no interval says "
            "anything of other speakers."
        )
    if n < MIN_SPEAKERS:
        return (
            f"The test set has {n} speakers: no test is made, since its p could not be below "
            f"{2 / 2**n:.2g}; take intervals over so few as too narrow."
        )
    return ""


def _permutation(
    labels: Int[np.ndarray, " utterances"],
    speakers: Shaped[np.ndarray, " utterances"],
    a: Int[np.ndarray, "runs utterances"],
    b: Int[np.ndarray, "runs utterances"],
    n_classes: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The difference of the means over runs, and its p (NaN if there are too few speakers)."""
    names, speaker_of = np.unique(speakers, return_inverse=True)
    by_speaker = [_confusions(labels, side, speaker_of, n_classes) for side in (a, b)]

    def difference(
        of_a: Int[np.ndarray, "*swaps speakers"],
        of_b: Int[np.ndarray, "*swaps speakers"],
        axis: int = -1,
    ) -> Any:
        """One for each swap; 0 and 1 say whose predictions of a speaker are taken, A's or B's."""
        means = []
        for side in (of_a, of_b):
            whole = np.tensordot(1 - side, by_speaker[0], 1) + np.tensordot(side, by_speaker[1], 1)
            means.append(macro_f1_of(whole).mean(axis=-1))
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


def _confusions(
    labels: Int[np.ndarray, " utterances"],
    predictions: Int[np.ndarray, "runs utterances"],
    speaker_of: Int[np.ndarray, " utterances"],
    n_classes: int,
) -> Int[np.ndarray, "speakers runs classes classes"]:
    """A confusion matrix for each speaker and run."""
    shape = speaker_of.max() + 1, len(predictions), n_classes, n_classes
    counts = np.zeros(shape, dtype=np.int64)
    runs = np.arange(len(predictions))[:, None]
    np.add.at(counts, (speaker_of[None], runs, labels[None], predictions), 1)
    return counts


def _numbered(emotions: pd.Series, classes: list[str]) -> Int[np.ndarray, " utterances"]:
    return np.array([classes.index(emotion) for emotion in emotions])
