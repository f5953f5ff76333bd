"""One head on its way through the epochs: its recipe, its optimiser, its history, its best state.

Source of the recipe: D'Asaro et al. 2024, section 4.2; Feng and Narayanan 2023, arXiv:2306.05350.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from lsmprobe.config import ProbeConfig
from lsmprobe.errors import TrainingError
from lsmprobe.probing.heads import Probe, draw_from, weighs_layers
from lsmprobe.probing.objectives import Objective
from lsmprobe.probing.seeds import DROPOUT, seed_of


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; the defaults, those of the flags, reproduce the paper."""

    epochs: int = ProbeConfig.epochs
    batch_size: int = ProbeConfig.batch_size  # utterances
    lr: float = ProbeConfig.lr
    weight_decay: float = ProbeConfig.weight_decay  # coupled, as Adam has it
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    scheduler: Literal["plateau", "cosine", "none"] = ProbeConfig.scheduler
    class_weights: Literal["balanced", "none"] = ProbeConfig.class_weights
    epoch_choice: str = ProbeConfig.epoch_choice  # best, loss, last, or a score of the objective
    validation_loss: Literal["utterances", "batches"] = ProbeConfig.validation_loss  # a mean of
    scalar_lr: float | None = ProbeConfig.scalar_lr  # of Multi-Layer's scalars; None: as the rest
    scalar_weight_decay: float | None = ProbeConfig.scalar_weight_decay


@dataclass(frozen=True)
class Member:
    """One head to be trained: what it is, the layers it reads, and its seed."""

    name: str
    probe: Probe
    layers: tuple[
        int, ...
    ]  # exactly one, unless the head weighs layers; then neighbours, as stored
    seed: int
    recipe: Recipe = Recipe()
    fold: int = 0  # of the run, from 0
    own_draws: bool = False  # nothing in its head draws from torch's global generator

    @property
    def weighs_layers(self) -> bool:
        """Whether the head takes a stack of layers."""
        return weighs_layers(self.probe.head)


class Trainer:
    """One member on its way: a step for each batch, then what it answers, epoch by epoch.

    Args:
        member: what is trained, in place.
        objective: what is learned.
        targets: of the training set; its classes are weighted, or its numbers scaled.
        n_outputs: of the head.
        device: where it is trained.
    """

    probabilities: Float[np.ndarray, "test outputs"]  # once it is tested
    shares_pools = False

    def __init__(
        self,
        member: Member,
        objective: Objective,
        targets: Num[Tensor, "train ..."],
        n_outputs: int,
        device: str,
    ) -> None:
        recipe = member.recipe
        self.member = member
        self.recipe = recipe
        self.objective = objective
        self.n_outputs = n_outputs
        balanced = recipe.class_weights == "balanced"
        self.loss = objective.loss(targets, n_outputs, balanced).to(device)
        self.device = device
        self.probe = member.probe
        self.probe.scale = objective.scale(targets)
        self.probe.to(device)
        self.optimiser = torch.optim.Adam(
            _parameter_groups(self.probe, recipe),
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            betas=recipe.betas,
            eps=recipe.eps,
            fused=True,  # one pass over the parameters: most of a small head's step is bookkeeping
        )
        self.scheduler = _scheduler(self.optimiser, recipe)
        self.history: list[dict[str, float | None]] = []
        self.best_epoch = 0
        self.best_value = -np.inf
        self.best_state: dict[str, Tensor] = {}
        self.n_steps = 0
        self.epoch_loss = torch.zeros((), device=device)
        self.epoch_utterances = 0
        self.answers: list[Tensor] = []
        own = device == "cpu" and member.own_draws
        self.draws = torch.Generator() if own else None  # None: torch's global ones
        draw_from(self.probe, self.draws)

    def step(
        self,
        frames: Sequence[Float[Tensor, "*layers _ dim"]],
        lengths: Int[Tensor, " batch"],
        targets: Num[Tensor, "batch ..."],
    ) -> None:
        """Learn from a batch."""
        # Dropout depends on the run, the fold and the step, not on what trains with this one.
        seed = seed_of(DROPOUT, self.member.seed, self.member.fold, self.n_steps)
        (torch if self.draws is None else self.draws).manual_seed(seed)
        self.probe.train()
        loss = self.loss(self.probe(frames, lengths), targets.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.n_steps += 1
        self.count_loss(loss.detach() * len(targets), len(targets))

    def count_loss(self, loss_sum: Float[Tensor, ""], n_utterances: int) -> None:
        """Towards the mean of the epoch."""
        self.epoch_loss += loss_sum
        self.epoch_utterances += n_utterances

    @torch.no_grad()
    def answer(
        self, frames: Sequence[Float[Tensor, "*layers _ dim"]], lengths: Int[Tensor, " batch"]
    ) -> None:
        """Keep the head's outputs for a batch until `end_epoch` or `end_test`."""
        self.probe.eval()
        self.keep(self.probe(frames, lengths))

    def keep(self, outputs: Float[Tensor, "batch outputs"]) -> None:
        """As `answer` does, of outputs that were computed elsewhere."""
        self.answers.append(outputs.cpu())

    def _answered(self) -> Float[Tensor, "utterances outputs"]:
        """The outputs that were kept."""
        answers, self.answers = self.answers, []
        return torch.cat(answers)

    def end_epoch(self, epoch: int, targets: Num[Tensor, "validation ..."]) -> None:
        """All of validation is answered: score the epoch, and keep the head if it is the best.

        Raises:
            TrainingError: a loss that is not finite.
        """
        logits = self._answered()
        validation_loss = self._validation_loss(logits, targets)
        answers = self.objective.answers_to(logits)
        validation_score = self.objective.score(targets.numpy(), answers, self.n_outputs)
        train_loss = self.epoch_loss.item() / self.epoch_utterances
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss or 0.0)):
            raise TrainingError(
                f"{self.member.name}: at epoch {epoch} the loss is {train_loss} in training and "
                f"{validation_loss} in validation; expected finite numbers. Lower --lr."
            )
        self.history.append(
            {
                "lr": self.optimiser.param_groups[-1]["lr"],
                "train_loss": train_loss,
                "validation_loss": validation_loss,
                "validation_score": validation_score,
            }
        )
        self.epoch_loss.zero_()
        self.epoch_utterances = 0
        loss = -validation_score if validation_loss is None else validation_loss
        values: dict[str, Callable[[], float]] = {
            "best": lambda: validation_score,
            "loss": lambda: -loss,
            "last": lambda: epoch,
            **{
                name: partial(score, targets.numpy(), answers, self.n_outputs)
                for name, score in self.objective.other_scores.items()
            },
        }
        value = values[self.recipe.epoch_choice]()
        if value > self.best_value:  # the earliest on ties
            self.best_value = value
            self.best_epoch = epoch
            self.best_state = {k: v.clone() for k, v in self.probe.state_dict().items()}
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if validation_loss is not None:
                self.scheduler.step(validation_loss)
        elif self.scheduler is not None:
            self.scheduler.step()
        if epoch == self.recipe.epochs:
            self.probe.load_state_dict(self.best_state, assign=True)  # no longer part of a stack

    def end_test(self) -> None:
        """All of the test set is answered, by the best epoch's head."""
        self.probabilities = self.objective.kept(self._answered()).numpy()
        draw_from(self.probe, None)

    def _validation_loss(
        self,
        logits: Float[Tensor, "validation outputs"],
        targets: Num[Tensor, "validation ..."],
    ) -> float | None:
        """None where the objective has no loss for these utterances."""
        if not self.objective.has_loss(self.loss, targets.to(self.device)):
            return None
        if self.recipe.validation_loss == "utterances":
            return self.loss(logits.to(self.device), targets.to(self.device)).item()
        # The mean of batches, as reference [15] has it; a batch of no weighted class has no loss.
        size = self.recipe.batch_size
        batches = zip(logits.split(size), targets.split(size), strict=True)
        losses = [self.loss(a.to(self.device), b.to(self.device)).item() for a, b in batches]
        return float(np.nanmean(losses))


def _parameter_groups(probe: Probe, recipe: Recipe) -> list[dict[str, object]]:
    """Multi-Layer's scalars in a group of their own, so that they may learn at another rate."""
    scalars = [probe.head.scalars] if hasattr(probe.head, "scalars") else []
    own = {id(p) for p in scalars}
    groups: list[dict[str, object]] = []
    if scalars:
        group: dict[str, object] = {"params": scalars}
        if recipe.scalar_lr is not None:
            group["lr"] = recipe.scalar_lr
        if recipe.scalar_weight_decay is not None:
            group["weight_decay"] = recipe.scalar_weight_decay
        groups.append(group)
    return [*groups, {"params": [p for p in probe.parameters() if id(p) not in own]}]


def _scheduler(
    optimiser: torch.optim.Optimizer, recipe: Recipe
) -> torch.optim.lr_scheduler.LRScheduler | None:
    if recipe.scheduler == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, patience=5, factor=0.5, min_lr=5e-5
        )
    if recipe.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    return None
