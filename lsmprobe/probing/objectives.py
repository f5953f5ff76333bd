"""The table of objectives: what a head learns of a target, how it answers and how it is scored.

A new objective is a row: training, the names of runs and records ask it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lsmprobe.errors import ResultsError, SettingsError, nearest
from lsmprobe.results.measures import CLASSES, NUMBERS, SHARES, Evaluation, Measure
from lsmprobe.results.scores import score_of

Targets = Num[np.ndarray, "utterances ..."]
Answers = Num[np.ndarray, "utterances ..."]
Score = Callable[[Targets, Answers, int], float]  # of the number of outputs; higher is better
CHOICES = ("best", "loss", "last")  # of an epoch, whatever is learned


@dataclass(frozen=True)
class Objective:
    """A row. `names` are those of a task's outputs: its classes, or the columns that it learns.

    Answers are compared with targets, so the two have one shape.
    """

    name: str
    measure: Measure  # how answers are scored
    score: Score  # the measure's first: it chooses the epoch
    targets: Callable[[pd.DataFrame, Sequence[str]], Targets]
    """From the columns that are learned and the names: whole numbers for classes, else real
    numbers."""
    loss: Callable[[Tensor, int, bool], nn.Module]
    """From the targets of the training set, the number of outputs and whether classes are balanced:
    a module that takes outputs and targets of a batch and gives their mean loss."""
    has_loss: Callable[[nn.Module, Tensor], bool]
    """Whether a loss is defined for these targets; without it the score chooses the epoch."""
    kept: Callable[[Float[Tensor, "utterances outputs"]], Float[Tensor, "utterances outputs"]]
    """What a record keeps of a head's outputs."""
    answers: Callable[[Float[np.ndarray, "utterances outputs"]], Answers]
    """From what is kept of outputs."""
    shown: Callable[[np.ndarray, Any, Sequence[str]], dict[str, Any]]
    """From what is kept of one utterance, its answer and the names: its line in a record."""
    truth: Callable[[Any, Sequence[str]], Any]
    """From the target of one utterance and the names: what a record says of it."""
    scale: Callable[[Tensor], nn.Module] = lambda targets: nn.Identity()
    """From the targets of the training set: what a head's outputs go through."""
    load_scale: Callable[[Mapping[str, Tensor]], nn.Module] = lambda saved: nn.Identity()
    """The same from the buffers that it was saved with."""
    other_scores: Mapping[str, Score] = field(default_factory=dict)
    """By the name that `--epoch-choice` has for them."""
    stacks: bool = False  # its loss is the cross entropy that `LinearStack` has by hand
    raw: bool = False  # answers can be read off outputs as they are too, which is quicker
    idle: tuple[str, ...] = ()  # fields of `ProbeConfig` that change nothing of what it learns

    def evaluate(
        self, targets: Targets, answers: Answers, speakers: np.ndarray, names: Sequence[str]
    ) -> Evaluation:
        """Every score of a test set, the interval, the best constant answer, and the alarms."""
        return self.measure.evaluate(targets, answers, speakers, names)

    def answers_to(self, outputs: Float[Tensor, "utterances outputs"]) -> Answers:
        """The answers that a head's outputs stand for."""
        return self.answers((outputs if self.raw else self.kept(outputs)).numpy())

    @property
    def title(self) -> str:
        """Of the score that chooses the epoch, for messages."""
        return self.measure.title

    @property
    def epoch_choices(self) -> tuple[str, ...]:
        """What `--epoch-choice` may be."""
        return (*CHOICES, *self.other_scores)

    def can_flip(self, choice: str, value: object) -> bool:
        """Whether a field of `ProbeConfig` may have this value, and decides anything."""
        if choice == "epoch_choice":
            return value in self.epoch_choices
        return choice not in self.idle


def balanced_weights(targets: Int[Tensor, " train"], n_classes: int) -> Float[Tensor, " classes"]:
    """Weights inverse to the counts, N / (k n_c); 0 for a class that does not occur."""
    counts = torch.bincount(targets, minlength=n_classes).float()
    weights = len(targets) / (n_classes * counts)
    return torch.where(counts > 0, weights, 0.0)


def _class_numbers(columns: pd.DataFrame, classes: Sequence[str]) -> Int[np.ndarray, " utterances"]:
    number = {name: at for at, name in enumerate(classes)}
    return np.array([number[name] for name in columns.iloc[:, 0]])


def _cross_entropy(targets: Tensor, n_classes: int, balanced: bool) -> nn.Module:
    return nn.CrossEntropyLoss(balanced_weights(targets, n_classes) if balanced else None)


def _any_weight(loss: nn.Module, targets: Tensor) -> bool:
    """False where training has none of the classes that these targets have."""
    assert isinstance(loss, nn.CrossEntropyLoss)
    return loss.weight is None or bool(loss.weight[targets].any())


def _shown_class(chances: np.ndarray, guess: Any, classes: Sequence[str]) -> dict[str, Any]:
    rounded = [round(float(p), 6) for p in chances]
    return {"predicted": classes[guess], "probabilities": rounded}


class CCCLoss(nn.Module):
    """One minus the concordance correlation of a batch, the mean over its targets.

    A batch of one utterance, or of one number throughout, has no correlation: its loss is 1.

    Source: Lin 1989; as a loss Trigeorgis et al. 2016, ICASSP.
    """

    def forward(
        self, outputs: Float[Tensor, "batch targets"], targets: Float[Tensor, "batch targets"]
    ) -> Float[Tensor, ""]:
        """The loss."""
        a, y = outputs - outputs.mean(0), targets - targets.mean(0)
        apart = (outputs.mean(0) - targets.mean(0)).square()
        around = a.square().mean(0) + y.square().mean(0) + apart
        tiny = torch.finfo(around.dtype).tiny
        return (1 - 2 * (a * y).mean(0) / around.clamp(min=tiny)).mean()


class ScaledMSE(nn.Module):
    """The squared error in units of the training set's variance, the mean over targets."""

    def __init__(self, targets: Float[Tensor, "train targets"]) -> None:
        super().__init__()
        self.register_buffer("variance", _spread(targets).square())

    def forward(
        self, outputs: Float[Tensor, "batch targets"], targets: Float[Tensor, "batch targets"]
    ) -> Float[Tensor, ""]:
        """The loss."""
        assert isinstance(self.variance, Tensor)
        return ((outputs - targets).square() / self.variance).mean()


class SoftCrossEntropy(nn.Module):
    """The cross entropy with a distribution as the target, a weighted mean over utterances.

    With the targets of a training set an utterance weighs as much as its votes do on average, each
    inversely to the votes that its class has in all; what is learned of one utterance stays its
    whole distribution. Of distributions that are certain this is the loss of classes.

    Source: as a loss for raters' votes Ando et al. 2018, ICASSP; Chou and Lee 2019, ICASSP.
    """

    def __init__(self, targets: Float[Tensor, "train classes"] | None = None) -> None:
        super().__init__()
        weights = None
        if targets is not None:
            votes = targets.sum(0)
            share = len(targets) / (targets.shape[1] * votes)
            weights = torch.where(votes > 0, share, 0.0)
        self.register_buffer("weights", weights)

    def weights_of(self, targets: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
        """How much each utterance weighs."""
        if isinstance(self.weights, Tensor):
            return targets @ self.weights
        return torch.ones_like(targets[:, 0])

    def forward(
        self, outputs: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, ""]:
        """The loss."""
        weights = self.weights_of(targets)
        own = -(targets * torch.log_softmax(outputs, 1)).sum(1)
        return (weights * own).sum() / weights.sum()


class Rescale(nn.Module):
    """Outputs around 0 as numbers in the target's unit: times a standard deviation, plus a mean.

    So a head starts from the training set's mean, whatever the unit.
    """

    def __init__(self, mean: Float[Tensor, " targets"], std: Float[Tensor, " targets"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, outputs: Float[Tensor, "batch targets"]) -> Float[Tensor, "batch targets"]:
        """Numbers in the target's unit."""
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        return outputs * self.std + self.mean


def _spread(targets: Float[Tensor, "train targets"]) -> Float[Tensor, " targets"]:
    """The standard deviation over the training set; 1 where all are alike."""
    std = targets.std(0, correction=0)
    return torch.where(std > 0, std, 1.0)


def _columns(
    columns: pd.DataFrame, names: Sequence[str]
) -> Float[np.ndarray, "utterances targets"]:
    return np.array(columns[list(names)], dtype=np.float32)


def _distributions(
    columns: pd.DataFrame, classes: Sequence[str]
) -> Float[np.ndarray, "utterances classes"]:
    """Shares of classes that sum to 1: from a column for each class, or from raters' votes."""
    if all(map(pd.api.types.is_numeric_dtype, columns.dtypes)):
        found = np.array(columns[list(classes)], dtype=np.float64)
    else:
        found = votes_of(columns, classes)
    return (found / found.sum(1, keepdims=True)).astype(np.float32)


def votes_of(
    columns: pd.DataFrame, classes: Sequence[str]
) -> Float[np.ndarray, "utterances classes"]:
    """How many votes each class has: the words of all columns, several in one with ";" between."""
    place = {name: at for at, name in enumerate(classes)}
    counts = np.zeros((len(columns), len(classes)))
    for row, said in enumerate(columns.itertuples(index=False, name=None)):
        for word in votes_in(said):
            if word in place:
                counts[row, place[word]] += 1
    return counts


def votes_in(said: Sequence[Any]) -> list[str]:
    """The votes in the columns of one utterance.

    >>> votes_in(["anger", "anger; fear", ""])
    ['anger', 'anger', 'fear']
    """
    words = (word.strip() for each in said for word in str(each).split(";"))
    return [word for word in words if word]


def _named(values: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    return {name: round(float(v), 6) for name, v in zip(names, values, strict=True)}


CLASSIFICATION = Objective(
    name="classification",
    measure=CLASSES,
    score=partial(score_of, score=CLASSES.score),
    targets=_class_numbers,
    loss=_cross_entropy,
    has_loss=_any_weight,
    kept=lambda logits: torch.softmax(logits, 1),
    answers=lambda chances: chances.argmax(1),
    shown=_shown_class,
    truth=lambda target, classes: classes[target],
    other_scores={"uar": partial(score_of, score="uar")},
    stacks=True,
    raw=True,
    idle=("regression_loss",),
)
REGRESSION = Objective(
    name="ccc",
    measure=NUMBERS,
    score=partial(score_of, score=NUMBERS.score),
    targets=_columns,
    loss=lambda targets, n_outputs, balanced: CCCLoss(),
    has_loss=lambda loss, targets: True,
    kept=lambda outputs: outputs,
    answers=lambda kept: kept,
    shown=lambda kept, answer, names: {"predicted": _named(answer, names)},
    truth=_named,
    scale=lambda targets: Rescale(targets.mean(0), _spread(targets)),
    load_scale=lambda saved: Rescale(saved["mean"], saved["std"]),
    raw=True,
    idle=("class_weights",),
)
DISTRIBUTION = Objective(
    name="shares",
    measure=SHARES,
    score=partial(score_of, score=SHARES.score),
    targets=_distributions,
    loss=lambda targets, n_outputs, balanced: SoftCrossEntropy(targets if balanced else None),
    has_loss=lambda loss, targets: bool(cast(SoftCrossEntropy, loss).weights_of(targets).any()),
    kept=lambda logits: torch.softmax(logits, 1),
    answers=lambda chances: chances,
    shown=lambda chances, answer, classes: _shown_class(chances, chances.argmax(), classes),
    truth=_named,
    other_scores={"jsd": lambda truth, answers, n: -score_of(truth, answers, n, "jsd")},
    idle=("regression_loss",),
)
LEAST_SQUARES = replace(
    REGRESSION, name="mse", loss=lambda targets, n_outputs, balanced: ScaledMSE(targets)
)
OBJECTIVES: dict[str, Objective] = {
    row.name: row for row in (CLASSIFICATION, REGRESSION, LEAST_SQUARES, DISTRIBUTION)
}


def check_epoch_choice(choice: str, objective: Objective) -> None:
    """Refuse a score that the objective has not.

    Raises:
        SettingsError: it has none of that name.
    """
    if choice not in objective.epoch_choices:
        raise SettingsError(
            f"--epoch-choice is {choice!r}, which is not a score of this target; expected one of "
            f"{', '.join(objective.epoch_choices)}."
        )


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
