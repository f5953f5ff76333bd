"""The table of objectives: what a head learns of a target, how it answers and how it is scored.

A new objective is a row: training, the names of runs and records ask it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lsmprobe.errors import ResultsError, nearest
from lsmprobe.results.alarms import Alarm, run_alarms
from lsmprobe.results.scores import bootstrap_interval, macro_f1, scores, shuffled_answers

Targets = Num[np.ndarray, "utterances ..."]
Answers = Num[np.ndarray, "utterances ..."]


class Evaluation(NamedTuple):
    """What a run scores on its test set, as plain values, and what is suspicious about it."""

    scores: dict[str, Any]
    alarms: list[Alarm]


@dataclass(frozen=True)
class Objective:
    """A row. `names` are those of a task: its classes, or the columns that it learns.

    Answers are compared with targets, so the two have one shape.
    """

    name: str
    title: str  # of the score that chooses the epoch, for messages
    n_outputs: Callable[[Sequence[str]], int]
    """From the names, how many values a head puts out for an utterance."""
    targets: Callable[[pd.DataFrame, Sequence[str]], Targets]
    """From the table of utterances and the names: whole numbers for classes, else real numbers."""
    loss: Callable[[Tensor, int, bool], nn.Module]
    """From the targets of the training set, the number of outputs and whether classes are balanced:
    a module that takes outputs and targets of a batch and gives their mean loss."""
    has_loss: Callable[[nn.Module, Tensor], bool]
    """Whether a loss is defined for these targets; without it the score chooses the epoch."""
    kept: Callable[[Float[Tensor, "utterances outputs"]], Float[Tensor, "utterances outputs"]]
    """What a record keeps of a head's outputs."""
    answers: Callable[[Float[np.ndarray, "utterances outputs"]], Answers]
    """From outputs, or from what is kept of them."""
    score: Callable[[Targets, Answers, int], float]
    """Chooses the epoch, from targets, answers and the number of outputs; higher is better."""
    evaluate: Callable[[Targets, Answers, np.ndarray, int], Evaluation]
    """From targets, answers, speakers and the number of outputs: every score, the interval over
    speakers and utterances, the best constant answer, and the alarms."""
    shown: Callable[[np.ndarray, Any, Sequence[str]], dict[str, Any]]
    """From what is kept of one utterance, its answer and the names: its line in a record."""
    stacks: bool = False  # its loss is the cross entropy that `LinearStack` has by hand


def balanced_weights(targets: Int[Tensor, " train"], n_classes: int) -> Float[Tensor, " classes"]:
    """Weights inverse to the counts, N / (k n_c); 0 for a class that does not occur."""
    counts = torch.bincount(targets, minlength=n_classes).float()
    weights = len(targets) / (n_classes * counts)
    return torch.where(counts > 0, weights, 0.0)


def _class_numbers(table: pd.DataFrame, classes: Sequence[str]) -> Int[np.ndarray, " utterances"]:
    return np.array([classes.index(emotion) for emotion in table.emotion])


def _cross_entropy(targets: Tensor, n_classes: int, balanced: bool) -> nn.Module:
    return nn.CrossEntropyLoss(balanced_weights(targets, n_classes) if balanced else None)


def _any_weight(loss: nn.Module, targets: Tensor) -> bool:
    """False where training has none of the classes that these targets have."""
    assert isinstance(loss, nn.CrossEntropyLoss)
    return loss.weight is None or bool(loss.weight[targets].any())


def _evaluate_classes(
    truth: Targets, guesses: Answers, speakers: np.ndarray, n_classes: int
) -> Evaluation:
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


def _shown_class(chances: np.ndarray, guess: Any, classes: Sequence[str]) -> dict[str, Any]:
    rounded = [round(float(p), 6) for p in chances]
    return {"predicted": classes[guess], "probabilities": rounded}


CLASSIFICATION = Objective(
    name="classification",
    title="macro-F1",
    n_outputs=len,
    targets=_class_numbers,
    loss=_cross_entropy,
    has_loss=_any_weight,
    kept=lambda logits: torch.softmax(logits, 1),
    answers=lambda chances: chances.argmax(1),
    score=macro_f1,
    evaluate=_evaluate_classes,
    shown=_shown_class,
    stacks=True,
)
OBJECTIVES: dict[str, Objective] = {CLASSIFICATION.name: CLASSIFICATION}


def objective_of(record: Mapping[str, Any]) -> Objective:
    """The row that a record was made with; records without a name are of classification.

    Raises:
        ResultsError: there is no such row here.
    """
    name = record.get("objective", CLASSIFICATION.name)
    if name not in OBJECTIVES:
        raise ResultsError(
            f"the record has an objective called {name!r}, which is not known here; "
            f"{nearest(name, OBJECTIVES)}"
        )
    return OBJECTIVES[name]
