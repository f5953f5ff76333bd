"""The table of measures: how the answers of a run are read from its record, scored and shown.

An objective names its measure (probing/objectives.py); records, tables and comparisons ask the row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Num

from lsmprobe.errors import ResultsError, nearest
from lsmprobe.results.alarms import Alarm, divergence_alarms, run_alarms
from lsmprobe.results.distributions import best_constant, jensen_shannon, most_frequent
from lsmprobe.results.scores import (
    STATISTICS,
    RunAnswers,
    Shuffled,
    Statistic,
    bootstrap_interval,
    class_statistics,
    label_statistics,
    score_of,
    scores,
    shuffled_answers,
    target_statistics,
)

Answers = Num[np.ndarray, "utterances *targets"]
EMOTION = ("emotion",)  # what is learned where a record names no target


@dataclass(frozen=True)
class Evaluation:
    """What a run scores on its test set, as plain values, and what is suspicious about it."""

    scores: dict[str, Any]
    alarms: list[Alarm]


@dataclass(frozen=True)
class Measure:
    """A row. Every score of it is a column of the table of results, the first decides."""

    name: str
    scores: tuple[str, ...]  # keys of `scores.STATISTICS`
    decimals: int  # that a table shows
    constant: str  # column: what the best constant answer scores
    shuffled: str  # column: what the run's own answers score, shuffled; NAME_95 its 95% point
    unit: str  # for captions, before what is the same of all rows
    score_unit: str  # of the score that decides; empty where it has none
    evaluate: Callable[[Answers, Answers, np.ndarray, Sequence[str]], Evaluation]
    """From truth, answers, speakers and the names of the outputs: every score, the interval of the
    first over speakers and utterances, the constant and the shuffled answers, and the alarms."""
    tested: Callable[[Mapping[str, Any]], RunAnswers]
    """What a record was tested on and answered, in the order of its keys."""
    predictions: Callable[[Mapping[str, Any]], pd.DataFrame]
    """Of a record, one row per test utterance: truth, answer and what else is kept of it."""
    group_scores: tuple[str, ...]  # of a group of utterances; by the first groups are compared
    output_scores: Callable[[int], dict[str, Statistic]]
    """Of one class, or of one of several targets, by its number: title and how each is computed."""
    wrong_by: Callable[[pd.DataFrame, Sequence[str]], np.ndarray]
    """From what `predictions` gives and the names of the outputs: how wrong each answer is; not a
    number for one that is right."""
    error_columns: Callable[[pd.DataFrame, Sequence[str]], dict[str, tuple[str, int | None]]]
    """From the same: title -> (column, decimals; None: text), of a table of the worst answers,
    which has `wrong_by` and `runs` too."""
    errors: str  # the title of that table
    output: str = "target"  # what an output is of
    n_of_output: Callable[[Answers, int], int] = lambda truth, number: len(truth)
    """From the truth and the number of an output: the utterances that it is scored on."""
    classes: bool = False  # an answer names a class, with probabilities `p_CLASS`
    references: Mapping[str, str] = field(default_factory=dict)
    """Score -> column: what the best constant answer has of a score beyond the first; tables show
    that score with its interval."""

    @property
    def score(self) -> str:
        """The score that decides."""
        return self.scores[0]

    def constant_answer(self, truth: Answers, score: str, n_outputs: int) -> float:
        """What the best constant answer scores: the most frequent class, the mean, or the median.

        UAR, which is the same for every constant class, is that of one.
        """
        best = np.median(truth, axis=0) if score == "mae" else truth.mean(0)
        if self.name == CLASSES.name:
            best = np.bincount(truth).argmax()
        constant = np.broadcast_to(best, truth.shape).astype(truth.dtype)
        return score_of(truth, constant, n_outputs, score)

    @property
    def title(self) -> str:
        """Of the score that decides, as tables show it."""
        return STATISTICS[self.score].title

    @property
    def within(self) -> str:
        """The column of a table of transfer for the score within the corpus that is tested."""
        return self.constant.replace("constant", "within")

    @property
    def title_with_unit(self) -> str:
        """The title as a sentence begins or an axis has it: "Macro-F1 in percent"."""
        unit = f" in {self.score_unit}" if self.score_unit else ""
        return f"{self.title[:1].upper()}{self.title[1:]}{unit}"

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of the table of results, and where a record's `scores` hold each."""
        first, *others = self.scores
        return {
            first: (first,),
            f"{first}_low": ("interval", "low"),
            f"{first}_high": ("interval", "high"),
            **{name: (name,) for name in others},
            self.constant: (self.constant,),
            self.shuffled: ("shuffled", "mean"),
            f"{self.shuffled}_95": ("shuffled", "point_95"),
            **{column: (column,) for column in self.references.values()},
            **{
                f"{name}_{end}": ("intervals", name, end)
                for name in self.references
                for end in ("low", "high")
            },
        }

    def decimals_of(self, score: str) -> int:
        """The decimals that a table shows of one of its scores."""
        own = STATISTICS[score].decimals if score in STATISTICS else None
        return self.decimals if own is None else own


def target_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of the table of utterances that a run learned."""
    return tuple(record.get("target", EMOTION))


def _sorted(record: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(record["predictions"]).sort_values("key")


def _evaluate_classes(
    truth: Answers, guesses: Answers, speakers: np.ndarray, classes: Sequence[str]
) -> Evaluation:
    n_classes = len(classes)
    interval = bootstrap_interval(truth, guesses, speakers, n_classes)
    shuffled = shuffled_answers(truth, guesses, n_classes)
    scored = scores(truth, guesses, n_classes)
    alarms = run_alarms(
        truth,
        guesses,
        n_classes,
        score=scored["macro_f1"],
        low=interval.low,
        constant=scored["constant_f1"],
        shuffled_95=shuffled.point_95,
    )
    found = {**scored, "shuffled": asdict(shuffled), "interval": asdict(interval)}
    return Evaluation(found, alarms)


def _tested_classes(record: Mapping[str, Any]) -> RunAnswers:
    number = {name: at for at, name in enumerate(record["classes"])}
    table = _sorted(record)
    truth = table["truth"] if "truth" in table else table["emotion"]
    labels, guesses = (np.array([number[n] for n in each]) for each in (truth, table["predicted"]))
    return RunAnswers(labels, guesses, table["speaker"].to_numpy())


def _predicted_classes(record: Mapping[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(record["predictions"], dtype=object)
    chances = np.array(table.pop("probabilities").tolist(), dtype=np.float64)
    names = [f"p_{name}" for name in record["classes"]]
    return table.join(pd.DataFrame(chances, columns=names))


def _evaluate_numbers(
    truth: Answers, answers: Answers, speakers: np.ndarray, names: Sequence[str]
) -> Evaluation:
    row = MEASURES["numbers"]
    scored = {name: score_of(truth, answers, len(names), name) for name in row.scores}
    intervals = {
        name: bootstrap_interval(truth, answers, speakers, len(names), score=name)
        for name in row.scores
    }
    shuffled = shuffled_answers(truth, answers, len(names), score=row.score, n_shuffles=500)
    by_target = {
        name: {s: score_of(truth[:, at], answers[:, at], 1, s) for s in row.scores}
        for at, name in enumerate(names)
    }
    alarms = []
    still = [name for at, name in enumerate(names) if not np.ptp(answers[:, at])]
    if still:
        alarms.append(Alarm("one-answer", f"one and the same number for {', '.join(still)}."))
    score, low = scored[row.score], intervals[row.score].low
    if score <= shuffled.point_95:
        reached = f"{shuffled.point_95:.3f}"
        text = f"its CCC, {score:.3f}, is within what shuffled answers reach, {reached}."
        alarms.append(Alarm("not-above-constant", text))
    elif low <= 0:
        text = f"its interval, from {low:.3f}, reaches the best constant answer, 0."
        alarms.append(Alarm("not-above-constant", text))
    found = {
        **scored,
        row.constant: 0.0,
        "by_target": by_target,
        "shuffled": asdict(shuffled),
        "interval": asdict(intervals[row.score]),
        "intervals": {name: asdict(found) for name, found in intervals.items()},
    }
    return Evaluation(found, alarms)


def _tested_numbers(record: Mapping[str, Any]) -> RunAnswers:
    table = _sorted(record)
    truth, answers = (
        np.array([[each[name] for name in record["classes"]] for each in table[column]])
        for column in ("truth", "predicted")
    )
    return RunAnswers(truth, answers, table["speaker"].to_numpy())


def _predicted_numbers(record: Mapping[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame(record["predictions"], dtype=object)
    columns = {}
    for name in record["classes"]:
        columns[name] = [float(each[name]) for each in table["truth"]]
        columns[f"predicted_{name}"] = [float(each[name]) for each in table["predicted"]]
    return table[["key", "speaker", "emotion"]].join(pd.DataFrame(columns))


def truth_column(table: pd.DataFrame) -> str:
    """The column of `predictions` that an answer with a class is compared with."""
    return "truth" if "truth" in table else "emotion"


def _confidence_of_errors(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """The chance, 0 to 1, that a head gave to the class that it wrongly answered."""
    chances = table[[f"p_{name}" for name in classes]].max(axis=1).to_numpy(np.float64)
    return np.where(table.predicted == table[truth_column(table)], np.nan, chances)


def _distance(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The absolute error; of several targets its mean, each in its own standard deviations."""
    errors = []
    for name in names:
        truth, answer = (table[c].to_numpy(np.float64) for c in (name, f"predicted_{name}"))
        unit = truth.std() if len(names) > 1 and truth.std() > 0 else 1.0
        errors.append(np.abs(answer - truth) / unit)
    return np.mean(errors, axis=0)


def _errors_of_numbers(
    table: pd.DataFrame, names: Sequence[str]
) -> dict[str, tuple[str, int | None]]:
    own: dict[str, tuple[str, int | None]] = {}
    for name in names:
        own |= {name: (name, 3), f"answered {name}": (f"predicted_{name}", 3)}
    return {**own, "error": ("wrong_by", 3)}


def _evaluate_shares(
    truth: Answers, answers: Answers, speakers: np.ndarray, classes: Sequence[str]
) -> Evaluation:
    row, n_classes = MEASURES["shares"], len(classes)
    scored = {name: score_of(truth, answers, n_classes, name) for name in row.scores}
    intervals = {
        name: bootstrap_interval(truth, answers, speakers, n_classes, score=name)
        for name in row.scores
    }
    constant = np.tile(best_constant(truth), (len(truth), 1))
    constant_jsd = score_of(truth, constant, n_classes, "jsd")
    dealt = shuffled_answers(truth, answers, n_classes, score="jsd", n_shuffles=500)
    found: dict[str, Any] = {"constant_plurality_f1": 0.0, "confusion": None}
    shuffled, alarms = Shuffled(0.0, 0.0), []
    labels = most_frequent(truth)
    agreed = labels >= 0
    if agreed.any():
        said, guesses = labels[agreed], answers.argmax(1)[agreed]
        own = scores(said, guesses, n_classes)
        found["constant_plurality_f1"] = own["constant_f1"]
        found |= {"per_class_f1": own["per_class_f1"], "confusion": own["confusion"]}
        shuffled = shuffled_answers(said, guesses, n_classes)
        alarms = run_alarms(
            said,
            guesses,
            n_classes,
            score=scored[row.score],
            low=intervals[row.score].low,
            constant=own["constant_f1"],
            shuffled_95=shuffled.point_95,
        )
    alarms += divergence_alarms(
        score=scored["jsd"],
        high=intervals["jsd"].high,
        constant=constant_jsd,
        shuffled_95=dealt.point_95,
    )
    found |= {
        **scored,
        "constant_jsd": constant_jsd,
        "n_agreed": int(agreed.sum()),
        "shuffled": asdict(shuffled),
        "shuffled_jsd": asdict(dealt),
        "interval": asdict(intervals[row.score]),
        "intervals": {name: asdict(each) for name, each in intervals.items()},
    }
    return Evaluation(found, alarms)


def _shares_of(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    return np.array([[each[name] for name in classes] for each in table["truth"]], np.float64)


def _tested_shares(record: Mapping[str, Any]) -> RunAnswers:
    table = _sorted(record)
    answers = np.array(table["probabilities"].tolist(), dtype=np.float64)
    truth = _shares_of(table, record["classes"])
    return RunAnswers(truth, answers, table["speaker"].to_numpy())


def _predicted_shares(record: Mapping[str, Any]) -> pd.DataFrame:
    classes = list(record["classes"])
    table = pd.DataFrame(record["predictions"], dtype=object)
    truth = _shares_of(table, classes)
    chances = np.array(table.pop("probabilities").tolist(), dtype=np.float64)
    named = np.array([*classes, ""], dtype=object)  # nothing where several have most votes
    table["truth"] = named[most_frequent(truth)]
    shares = pd.DataFrame(truth, columns=[f"share_{name}" for name in classes])
    return table.join(shares).join(pd.DataFrame(chances, columns=[f"p_{n}" for n in classes]))


def _divergence(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """The Jensen-Shannon divergence of the answer from what raters said, in bits."""
    pair = ([f"{kind}_{name}" for name in classes] for kind in ("share", "p"))
    return jensen_shannon(*(table[columns].to_numpy(np.float64) for columns in pair))


CLASSES = Measure(
    name="classes",
    scores=("macro_f1", "uar", "accuracy"),
    decimals=1,
    constant="constant_f1",
    shuffled="shuffled_f1",
    unit="percent",
    score_unit="percent",
    evaluate=_evaluate_classes,
    tested=_tested_classes,
    predictions=_predicted_classes,
    group_scores=("accuracy", "uar"),
    output_scores=class_statistics,
    wrong_by=_confidence_of_errors,
    error_columns=lambda table, classes: {
        "true class": (truth_column(table), None),
        "answered": ("predicted", None),
        "confidence": ("wrong_by", 2),
        "runs wrong": ("runs", None),
    },
    errors="The most confident errors.",
    output="class",
    n_of_output=lambda truth, number: int((truth == number).sum()),
    classes=True,
)
NUMBERS = Measure(
    name="numbers",
    scores=("ccc", "pearson", "rmse", "mae"),
    decimals=3,
    constant="constant_ccc",
    shuffled="shuffled_ccc",
    unit="CCC and Pearson from -1 to 1, RMSE and MAE in the target's unit",
    score_unit="",
    evaluate=_evaluate_numbers,
    tested=_tested_numbers,
    predictions=_predicted_numbers,
    group_scores=("ccc", "rmse"),
    output_scores=target_statistics,
    wrong_by=_distance,
    error_columns=_errors_of_numbers,
    errors="The largest errors.",
)
SHARES = Measure(
    name="shares",
    scores=("plurality_f1", "plurality_accuracy", "jsd"),
    decimals=1,
    constant="constant_plurality_f1",
    shuffled="shuffled_plurality_f1",
    unit="percent, of the most frequent label where there is one; JSD in bits, 0 to 1, lower is "
    "better, of all utterances",
    score_unit="percent",
    evaluate=_evaluate_shares,
    tested=_tested_shares,
    predictions=_predicted_shares,
    group_scores=("plurality_accuracy", "jsd"),
    output_scores=label_statistics,
    wrong_by=_divergence,
    error_columns=lambda table, classes: {
        "most frequent": ("truth", None),
        "answered": ("predicted", None),
        "JSD": ("wrong_by", 3),
    },
    errors="The largest divergences.",
    output="class",
    n_of_output=lambda truth, number: int((most_frequent(truth) == number).sum()),
    classes=True,
    references={"jsd": "constant_jsd"},
)
MEASURES: dict[str, Measure] = {row.name: row for row in (CLASSES, NUMBERS, SHARES)}


def measure_of(record: Mapping[str, Any]) -> Measure:
    """The row that a record was scored by; records without a name are of classes.

    Raises:
        ResultsError: there is no such row here.
    """
    name = record.get("measure", CLASSES.name)
    if name not in MEASURES:
        raise ResultsError(
            f"the record is scored as {name!r}, which is not known here; {nearest(name, MEASURES)}"
        )
    return MEASURES[name]
