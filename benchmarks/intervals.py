"""How often the 95% interval of a score holds the truth, on simulated runs.

    python benchmarks/intervals.py --trials 200    # the tables of docs/statistics.md, two minutes

Seven classes with equally many utterances; wrong answers favour some classes. Every speaker and
every run has a skill of its own around the mean; the truth is the mean over all possible speakers
and runs.
"""

import lsmprobe  # noqa: F401  before torch, which reads once how its threads are to wait

# isort: split
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from machine import write_json
from scipy.stats import norm
from tqdm import tqdm

from lsmprobe.results.bootstrap import interval_ends, resampling_bias
from lsmprobe.results.scores import (
    RunAnswers,
    macro_f1,
    macro_f1_of,
    resampled_scores,
    runs_interval,
    scores,
    shuffled_answers,
)

N_CLASSES = 7
N_RESAMPLES = 500  # a quarter of what a record has


@dataclass(frozen=True)
class World:
    """Where answers come from; skills and spreads are shares of right answers, 0 to 1."""

    n_speakers: int
    clips: int  # of each speaker
    n_runs: int = 1
    skill: float = 0.6
    of_speakers: float = 0.1  # standard deviation of the skill between speakers
    of_runs: float = 0.0  # between runs

    def draw(self, rng: np.random.Generator) -> tuple[list[RunAnswers], float]:
        """The runs of one experiment, and the macro-F1 that they estimate."""
        wrong = rng.dirichlet(np.ones(N_CLASSES), size=N_CLASSES)
        np.fill_diagonal(wrong, 0)
        wrong /= wrong.sum(1, keepdims=True)
        speakers = np.repeat(np.arange(self.n_speakers), self.clips)
        labels = rng.permuted(np.arange(len(speakers)) % N_CLASSES)
        own = rng.normal(0, self.of_speakers, self.n_speakers)[speakers]
        runs = []
        for of_run in rng.normal(0, self.of_runs, self.n_runs):
            right = rng.random(len(labels)) < np.clip(self.skill + own + of_run, 0, 1)
            guess = (rng.random((len(labels), 1)) > np.cumsum(wrong, 1)[labels]).sum(1)
            guess = np.minimum(guess, N_CLASSES - 1)
            runs.append(RunAnswers(labels, np.where(right, labels, guess), speakers))
        confusion = self.skill * np.eye(N_CLASSES) + (1 - self.skill) * wrong
        return runs, float(macro_f1_of(np.round(1e9 * confusion[None]).astype(int))[0])


def percentile(runs: list[RunAnswers], seed: int) -> tuple[float, float]:
    """Plain percentiles of the resamples of one run."""
    [values], _ = _resampled(runs[0], seed)
    return interval_ends(values)


def corrected(runs: list[RunAnswers], seed: int) -> tuple[float, float]:
    """What a record has: the bias-corrected percentiles of one run."""
    [values], observed = _resampled(runs[0], seed)
    return interval_ends(values, bias=resampling_bias(values, observed))


def accelerated(runs: list[RunAnswers], seed: int) -> tuple[float, float]:
    """BCa: with the acceleration of a jackknife over what is resampled first."""
    labels, answers, speakers = runs[0]
    [values], observed = _resampled(runs[0], seed)
    units = speakers if len(np.unique(speakers)) > 2 else np.arange(len(labels))
    left_out = np.array(
        [macro_f1(labels[units != u], answers[units != u], N_CLASSES) for u in np.unique(units)]
    )
    around = left_out.mean() - left_out
    acceleration = (around**3).sum() / (6 * max((around**2).sum(), 1e-12) ** 1.5)
    bias = resampling_bias(values, observed)
    z = bias + norm.ppf([0.025, 0.975])
    low, high = np.quantile(values, norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def multi(runs: list[RunAnswers], seed: int) -> tuple[float, float]:
    """What tables have: runs are resampled too."""
    labels, _, speakers = runs[0]
    answers = np.stack([run.predictions for run in runs])
    found = runs_interval(labels, answers, speakers, N_CLASSES, n_resamples=N_RESAMPLES, seed=seed)
    return found.low, found.high


def mean_of_ends(runs: list[RunAnswers], seed: int) -> tuple[float, float]:
    """What tables had before: the mean of the runs' own ends."""
    low, high = np.mean([corrected([run], seed) for run in runs], axis=0)
    return float(low), float(high)


def _resampled(run: RunAnswers, seed: int) -> tuple[np.ndarray, float]:
    labels, answers, speakers = run
    values, _ = resampled_scores(
        labels, answers[None], speakers, N_CLASSES, n_resamples=N_RESAMPLES, seed=seed
    )
    return values, macro_f1(labels, answers, N_CLASSES)


Method = Callable[[list[RunAnswers], int], tuple[float, float]]


def coverage(world: World, methods: list[Method], trials: int) -> dict[str, str]:
    """Of each method how often, in percent, the truth is in the interval; and below and above."""
    rng = np.random.default_rng(0)
    missed = {method.__name__: np.zeros(2) for method in methods}
    for trial in range(trials):
        runs, truth = world.draw(rng)
        for method in methods:
            low, high = method(runs, trial)
            missed[method.__name__] += truth < low, high < truth
    return {
        name: f"{100 - 100 * n.sum() / trials:.1f} ({100 * n[0] / trials:.1f} / "
        f"{100 * n[1] / trials:.1f})"
        for name, n in missed.items()
    }


def alarm_rates(trials: int) -> pd.DataFrame:
    """How often, in percent, runs that guess stay within what their shuffled answers reach."""
    rng = np.random.default_rng(0)
    even, skewed = np.full(7, 1 / 7), np.array([50, 20, 10, 8, 6, 4, 2]) / 100
    kinds = {
        "even": (even, even),
        "skewed": (skewed, skewed),
        "skewed, answers even": (skewed, even),
    }
    kinds["two, even"] = np.full(2, 0.5), np.full(2, 0.5)
    rows = []
    for n in (55, 120, 535):
        for name, (frequency, answered) in kinds.items():
            within, n_classes = 0, len(frequency)
            for trial in range(trials):
                labels = rng.choice(n_classes, size=n, p=frequency)
                guesses = rng.choice(n_classes, size=n, p=answered)
                reached = shuffled_answers(
                    labels, guesses, n_classes, n_shuffles=N_RESAMPLES, seed=trial
                ).point_95
                within += scores(labels, guesses, n_classes)["macro_f1"] <= reached
            rows.append({"utterances": n, "classes": name, "alarm, percent": 100 * within / trials})
    return pd.DataFrame(rows)


def main(trials: int = 400, quick: bool = False, json: Path | None = None) -> None:
    """Print the tables.

    Args:
        trials: simulated experiments for each row.
        quick: a few trials, to see that it runs.
        json: write the figures here too.
    """
    trials = 4 if quick else trials
    one_run = [World(1, 55, skill=skill, of_speakers=0) for skill in (0.3, 0.6, 0.85)]
    one_run += [World(speakers, 55) for speakers in (1, 3, 5, 10, 20)]
    many = [
        World(10, 30, n_runs=runs, of_runs=spread)
        for runs in (2, 3, 5)
        for spread in (0.0, 0.05, 0.09)
    ]
    many += [World(speakers, 30, n_runs=3, of_runs=0.05) for speakers in (3, 5, 20)]
    for worlds, methods in (
        (one_run, [percentile, corrected, accelerated]),
        (many, [mean_of_ends, multi]),
    ):
        bar = tqdm(worlds, disable=None)
        rows = [vars(w) | coverage(w, methods, trials) for w in bar]
        print(pd.DataFrame(rows).to_markdown(index=False), "\n")
    alarms = alarm_rates(trials)
    print(alarms.to_markdown(index=False, floatfmt=".1f"))
    write_json(json, {"trials": trials, "alarms": alarms["alarm, percent"].tolist()})


if __name__ == "__main__":
    tyro.cli(main)
