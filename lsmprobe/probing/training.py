"""Train many heads from one read of the features.

Where memory holds the training set, every seed goes through it in an order of its own each epoch.
Where it does not, an epoch goes through it in pools of a few batches that all seeds share, and
within a pool each seed has its own order: a pool is read once and trains every head of every seed.
Then runs are not independent, and their records say so. What a member draws depends on its seed,
fold and step alone, not on what trains with it.

Source of the recipe: D'Asaro et al. 2024, section 4.2; Feng and Narayanan 2023, arXiv:2306.05350.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lsmprobe.config import ProbeConfig
from lsmprobe.errors import TrainingError
from lsmprobe.machine import keep_freed_memory
from lsmprobe.probing.batches import Batches, Features, PooledFeatures
from lsmprobe.probing.heads import LinearHead, Probe, weighs_layers
from lsmprobe.probing.linear_stack import LinearStack, joint_step
from lsmprobe.probing.objectives import CLASSIFICATION, Objective, Targets
from lsmprobe.probing.seeds import DROPOUT, ORDER, seed_of

POOL = 4  # batches; 1 GB of a large model's frames at 3 s an utterance, and two may be in memory
STACK = 4  # Linear heads; the moments of more would not stay in a processor's cache


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

    @property
    def weighs_layers(self) -> bool:
        """Whether the head takes a stack of layers."""
        return weighs_layers(self.probe.head)


@dataclass(frozen=True)
class Fit:
    """A trained member at the epoch chosen on validation, and what it says of the test set."""

    member: Member
    history: list[dict[str, float | None]]
    """One entry per epoch, the first is epoch 1; `validation_loss` is None where there is none."""
    best_epoch: int  # counted from 1
    probabilities: Float[np.ndarray, "test outputs"]  # or what else the objective keeps
    shared_pools: bool = False  # whether all seeds saw the same few batches at about the same time


def fit(
    members: Sequence[Member],
    features: Features,
    targets: Targets,
    fold: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_outputs: int,
    *,
    objective: Objective = CLASSIFICATION,
    device: str = "cpu",
    on_epoch: Callable[[], None] = lambda: None,
) -> list[Fit]:
    """Train on one fold, choose each member's epoch on validation, score the test set once.

    Args:
        members: the heads, freshly initialised; they are moved to `device` and trained in place.
            Their recipes may differ in all but epochs and batch size.
        features: where batches come from.
        targets: of every utterance, as the objective gives them: for classification its class, 0
            to n_outputs - 1.
        fold: indices of the training, validation and test utterances.
        n_outputs: of the heads: for classification the classes of the corpus, whether or not all of
            them occur in the fold.
        objective: what is learned: its loss, its answers, and the score that chooses the epoch.
        device: where the heads are trained.
        on_epoch: called once per epoch and member.

    Returns:
        One Fit per member, in order.

    Raises:
        TrainingError: a loss that is not finite.
    """
    keep_freed_memory()
    given = torch.from_numpy(targets)
    truth = given.float() if given.is_floating_point() else given.long()
    [(epochs, batch_size)] = {(m.recipe.epochs, m.recipe.batch_size) for m in members}
    course = _Course(*fold, truth, epochs, batch_size)
    trainers = [_Trainer(member, objective, course, n_outputs, device) for member in members]
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        groups = _groups(trainers, features, course, device, stacks=objective.stacks)
        for epoch in range(1, course.epochs + 1):
            for group in groups:
                group.train(epoch)
                for trainer, logits in zip(
                    group.trainers, group.logits(course.validation), strict=True
                ):
                    trainer.end_epoch(epoch, logits, truth[course.validation])
                    on_epoch()
        for group in groups:
            for trainer in group.trainers:
                trainer.restore_best()
            for trainer, logits in zip(group.trainers, group.logits(course.test), strict=True):
                trainer.probabilities = objective.kept(logits).numpy()
        shared = {t.member.name: group.shares_pools for group in groups for t in group.trainers}
    return [
        Fit(t.member, t.history, t.best_epoch, t.probabilities, shared[t.member.name])
        for t in trainers
    ]


@dataclass(frozen=True)
class _Course:
    """What is learned from when; the same for all members of a fit."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    targets: Num[Tensor, "utterances ..."]
    epochs: int
    batch_size: int

    def pools(self, epoch: int) -> list[np.ndarray]:
        """The training set in an order of the epoch's own, cut into pools."""
        return self.cut(np.random.default_rng(epoch).permutation(self.train))

    def cut(self, utterances: np.ndarray) -> list[np.ndarray]:
        """Pools of some utterances; the last one may be smaller."""
        return _cut(utterances, POOL * self.batch_size)

    def shuffled(self, utterances: np.ndarray, member: Member, epoch: int) -> np.ndarray:
        """Some utterances in the order that a member sees them in."""
        seed = seed_of(ORDER, member.seed, member.fold, epoch)
        return np.random.default_rng(seed).permutation(utterances)


def _cut(utterances: np.ndarray, size: int) -> list[np.ndarray]:
    return [utterances[start : start + size] for start in range(0, len(utterances), size)]


class _Trainer:
    """One member on its way through the epochs: its optimiser, its history, its best state."""

    probabilities: Float[np.ndarray, "test outputs"]  # once it is tested

    def __init__(
        self, member: Member, objective: Objective, course: _Course, n_outputs: int, device: str
    ) -> None:
        recipe = member.recipe
        self.member = member
        self.recipe = recipe
        self.objective = objective
        self.n_outputs = n_outputs
        balanced = recipe.class_weights == "balanced"
        self.loss = objective.loss(course.targets[course.train], n_outputs, balanced).to(device)
        self.device = device
        self.probe = member.probe
        self.probe.scale = objective.scale(course.targets[course.train])
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

    def step(
        self,
        frames: Sequence[Float[Tensor, "*layers _ dim"]],
        lengths: Int[Tensor, " batch"],
        targets: Num[Tensor, "batch ..."],
    ) -> None:
        # Dropout depends on the run, the fold and the step, not on what trains with this one.
        torch.manual_seed(seed_of(DROPOUT, self.member.seed, self.member.fold, self.n_steps))
        self.probe.train()
        loss = self.loss(self.probe(frames, lengths), targets.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.n_steps += 1
        self.count_loss(loss.detach() * len(targets), len(targets))

    def count_loss(self, loss_sum: Float[Tensor, ""], n_utterances: int) -> None:
        self.epoch_loss += loss_sum
        self.epoch_utterances += n_utterances

    @torch.no_grad()
    def logits(
        self, frames: Sequence[Float[Tensor, "*layers _ dim"]], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch outputs"]:
        self.probe.eval()
        return self.probe(frames, lengths).cpu()

    def end_epoch(
        self,
        epoch: int,
        logits: Float[Tensor, "validation outputs"],
        targets: Num[Tensor, "validation ..."],
    ) -> None:
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

    def restore_best(self) -> None:
        self.probe.load_state_dict(self.best_state, assign=True)  # no longer part of a stack


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


def _groups(
    trainers: Sequence[_Trainer], features: Features, course: _Course, device: str, *, stacks: bool
) -> list["_Packed | _Stacked"]:
    """Linear heads over pooled means as stacks of like shape; all the others share batches."""
    shapes: dict[tuple[int, ...], list[_Trainer]] = {}
    others = []
    for trainer in trainers:
        head = trainer.probe.head
        if stacks and isinstance(head, LinearHead) and isinstance(features, PooledFeatures):
            shapes.setdefault(head.project.weight.shape, []).append(trainer)
        else:
            others.append(trainer)
    groups: list[_Packed | _Stacked] = [_Packed(others, features, course, device)] if others else []
    if isinstance(features, PooledFeatures):
        for alike in shapes.values():
            size = STACK if device == "cpu" else len(alike)
            for start in range(0, len(alike), size):
                groups.append(_Stacked(alike[start : start + size], features, course))
    return groups


class _Packed:
    """Trainers of any heads, layers and seeds; a pool is read once for all of them."""

    def __init__(
        self, trainers: list[_Trainer], features: Features, course: _Course, device: str
    ) -> None:
        self.trainers = trainers
        self._course = course
        self._layers = sorted({layer for t in trainers for layer in t.member.layers})
        every = np.concatenate([course.train, course.validation, course.test])
        held = features.all_of(np.unique(every), self._layers, device)
        self.shares_pools = held is None
        if held is not None:
            self._at_hand: Iterator[Batches] = itertools.repeat(held)
            return
        asked = [
            pool
            for epoch in range(1, course.epochs + 1)
            for pool in (*course.pools(epoch), *course.cut(course.validation))
        ]
        asked += course.cut(course.test)
        self._at_hand = features.through(asked, self._layers, device)

    def train(self, epoch: int) -> None:
        course = self._course
        by_seed: dict[int, list[_Trainer]] = {}
        for trainer in self.trainers:
            by_seed.setdefault(trainer.member.seed, []).append(trainer)
        for pool in course.pools(epoch) if self.shares_pools else [course.train]:
            at_hand = next(self._at_hand)
            for alike in by_seed.values():
                order = course.shuffled(pool, alike[0].member, epoch)
                for batch in _cut(order, course.batch_size):
                    for trainer, frames, lengths in self._hand_out(at_hand, batch, alike):
                        trainer.step(frames, lengths, course.targets[batch])

    def logits(self, utterances: np.ndarray) -> list[Tensor]:
        found: list[list[Tensor]] = [[] for _ in self.trainers]
        for pool in self._course.cut(utterances):
            at_hand = next(self._at_hand)
            for batch in _cut(pool, self._course.batch_size):
                handed = self._hand_out(at_hand, batch, self.trainers)
                for parts, (trainer, frames, lengths) in zip(found, handed, strict=True):
                    parts.append(trainer.logits(frames, lengths))
        return [torch.cat(parts) for parts in found]

    def _hand_out(
        self, at_hand: Batches, batch: np.ndarray, trainers: Sequence[_Trainer]
    ) -> Iterator[tuple[_Trainer, list[Tensor], Tensor]]:
        """Gather a batch once, and hand each trainer the layers that it wants."""
        pieces, lengths = at_hand.batch(batch, self._layers)
        for trainer in trainers:
            layers = trainer.member.layers
            first = self._layers.index(layers[0])
            wanted = slice(
                first, first + len(layers)
            )  # a view, as none that is stored lies between
            assert tuple(self._layers[wanted]) == layers
            chosen = wanted if trainer.member.weighs_layers else first
            yield trainer, [piece[chosen] for piece in pieces], lengths


class _Stacked:
    """Linear trainers of one shape over pooled means, of any layers and seeds, as one."""

    shares_pools = False

    def __init__(self, trainers: list[_Trainer], features: PooledFeatures, course: _Course) -> None:
        self.trainers = trainers
        self._features = features
        self._course = course
        heads = [t.probe.head for t in trainers if isinstance(t.probe.head, LinearHead)]
        ones = torch.ones(heads[0].classify.out_features, device=features.means.device)
        losses = [t.loss for t in trainers if isinstance(t.loss, nn.CrossEntropyLoss)]
        assert len(losses) == len(trainers), "an objective that stacks has the cross entropy"
        weights = [ones if loss.weight is None else loss.weight for loss in losses]
        self._class_weights = torch.stack(weights)
        self._stack = LinearStack(heads)

    def train(self, epoch: int) -> None:
        course, size = self._course, self._course.batch_size
        device = self._features.means.device
        places = torch.tensor([self._features.places(t.member.layers) for t in self.trainers])
        loss_sums = torch.zeros(len(self.trainers), device=device)
        step = joint_step([t.optimiser for t in self.trainers])
        whole = torch.from_numpy(
            np.stack([course.shuffled(course.train, t.member, epoch) for t in self.trainers])
        )
        for orders in whole.split(POOL * size, 1):  # in pieces, since a gathered copy takes memory
            means = self._features.means[orders, places]
            for trainer, of_one in zip(self.trainers, means, strict=True):
                of_one.copy_(trainer.probe.norm(of_one))
            targets = course.targets[orders].to(device)
            for x, y in zip(means.split(size, 1), targets.split(size, 1), strict=True):
                loss_sums += self._stack.loss(x, y, self._class_weights) * y.shape[1]
                step()
        for trainer, loss_sum in zip(self.trainers, loss_sums, strict=True):
            trainer.count_loss(loss_sum, len(course.train))

    def logits(self, utterances: np.ndarray) -> list[Tensor]:
        found = []
        for trainer in self.trainers:
            [means], lengths = self._features.batch(utterances, trainer.member.layers)
            found.append(trainer.logits([means[0]], lengths))
        return found
