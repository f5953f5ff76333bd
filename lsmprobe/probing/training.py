"""Train many heads from one read of the features.

Where memory holds the training set, every seed goes through it in an order of its own each epoch.
Where it does not, an epoch goes through it in pools of a few batches that all seeds share, and
within a pool each seed has its own order: a pool is read once and trains every head of every seed.
Then runs are not independent, and their records say so. What a member draws depends on its seed,
fold and step alone, not on what trains with it.

Source of the recipe: D'Asaro et al. 2024, section 4.2; Feng and Narayanan 2023, arXiv:2306.05350.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lsmprobe.config import ProbeConfig
from lsmprobe.errors import TrainingError
from lsmprobe.machine import keep_freed_memory
from lsmprobe.probing.batches import Batches, Features, PooledFeatures
from lsmprobe.probing.cores import Steps, side_by_side, trainings_at_a_time
from lsmprobe.probing.heads import LinearHead, Probe, draw_from, weighs_layers
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
        for together in _rounds(trainers, features, course, device, stacks=objective.stacks):
            side_by_side(together, device, on_epoch)
    return [
        Fit(t.member, t.history, t.best_epoch, t.probabilities, t.shares_pools) for t in trainers
    ]


class _Pool(NamedTuple):
    """Utterances that are at hand at a time, and what is done with them."""

    of: Literal["train", "validation", "test"]
    epoch: int  # counted from 1; the test follows the last one
    utterances: np.ndarray
    last: bool  # the last one of its set in its epoch


@dataclass(frozen=True)
class _Course:
    """What is learned from when; the same for all members of a fit."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    targets: Num[Tensor, "utterances ..."]
    epochs: int
    batch_size: int

    @property
    def utterances(self) -> Int[np.ndarray, " utterances"]:
        """All of the fold, as they lie in the file."""
        return np.unique(np.concatenate([self.train, self.validation, self.test]))

    def pools(self, *, shared: bool) -> Iterator[_Pool]:
        """Everything from the first epoch to the test; if not shared, a set is one pool.

        The epoch's own order decides which utterances share a pool.
        """
        for epoch in range(1, self.epochs + 1):
            order = np.random.default_rng(epoch).permutation(self.train) if shared else self.train
            yield from self._pools("train", epoch, order, shared)
            yield from self._pools("validation", epoch, self.validation, shared)
        yield from self._pools("test", self.epochs, self.test, shared)

    def _pools(
        self,
        of: Literal["train", "validation", "test"],
        epoch: int,
        utterances: np.ndarray,
        shared: bool,
    ) -> Iterator[_Pool]:
        cut = _cut(utterances, POOL * self.batch_size if shared else len(utterances))
        for number, some in enumerate(cut, start=1):
            yield _Pool(of, epoch, some, number == len(cut))

    def batches(self, pool: _Pool, member: Member) -> list[np.ndarray]:
        """A pool as a member goes through it."""
        utterances = pool.utterances
        if pool.of == "train":
            utterances = self.shuffled(utterances, member, pool.epoch)
        return _cut(utterances, self.batch_size)

    def shuffled(self, utterances: np.ndarray, member: Member, epoch: int) -> np.ndarray:
        """Some utterances in the order that a member sees them in."""
        seed = seed_of(ORDER, member.seed, member.fold, epoch)
        return np.random.default_rng(seed).permutation(utterances)


def _cut(utterances: np.ndarray, size: int) -> list[np.ndarray]:
    return [utterances[start : start + size] for start in range(0, len(utterances), size)]


class _Trainer:
    """One member on its way through the epochs: its optimiser, its history, its best state."""

    probabilities: Float[np.ndarray, "test outputs"]  # once it is tested
    shares_pools = False

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
        self.answers: list[Tensor] = []
        self.draws = torch.Generator()
        draw_from(self.probe, self.draws)

    def step(
        self,
        frames: Sequence[Float[Tensor, "*layers _ dim"]],
        lengths: Int[Tensor, " batch"],
        targets: Num[Tensor, "batch ..."],
    ) -> None:
        # Dropout depends on the run, the fold and the step, not on what trains with this one.
        seed = seed_of(DROPOUT, self.member.seed, self.member.fold, self.n_steps)
        self.draws.manual_seed(seed) if self.device == "cpu" else torch.manual_seed(seed)
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
    def answer(
        self, frames: Sequence[Float[Tensor, "*layers _ dim"]], lengths: Int[Tensor, " batch"]
    ) -> None:
        self.probe.eval()
        self.answers.append(self.probe(frames, lengths).cpu())

    def answered(self) -> Float[Tensor, "utterances outputs"]:
        """Everything since the last time."""
        answers, self.answers = self.answers, []
        return torch.cat(answers)

    def end_epoch(self, epoch: int, targets: Num[Tensor, "validation ..."]) -> None:
        """Of validation everything is answered."""
        logits = self.answered()
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
        """Of the test set everything is answered."""
        self.probabilities = self.objective.kept(self.answered()).numpy()
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


def _rounds(
    trainers: Sequence[_Trainer], features: Features, course: _Course, device: str, *, stacks: bool
) -> Iterator[list[Steps]]:
    """Trainings that may go on side by side; before the next come, these must be over.

    That is all of them at once, but for those that share pools, which go from pool to pool.
    """
    at_a_time = trainings_at_a_time(device)
    stacked: dict[tuple[int, ...], list[_Trainer]] = {}
    packed = []
    for trainer in trainers:
        head = trainer.probe.head
        if stacks and isinstance(head, LinearHead) and isinstance(features, PooledFeatures):
            stacked.setdefault(head.project.weight.shape, []).append(trainer)
        else:
            packed.append(trainer)
    at_once: list[Steps] = []
    if isinstance(features, PooledFeatures):
        for alike in stacked.values():
            size = min(STACK, -(-len(alike) // at_a_time)) if device == "cpu" else len(alike)
            for start in range(0, len(alike), size):
                at_once.append(_Stacked(alike[start : start + size], features, course).steps())
    layers = sorted({layer for trainer in packed for layer in trainer.member.layers})
    packs = [_Packed(alike, layers, course) for alike in _reading_alike(packed, at_a_time)]
    held = features.all_of(course.utterances, layers, device) if packs else None
    if held is not None:
        at_once += [pack.all_steps(held) for pack in packs]
        packs = []
    yield at_once
    if not packs:
        return
    for trainer in packed:
        trainer.shares_pools = True
    pools = list(course.pools(shared=True))
    read = features.through([pool.utterances for pool in pools], layers, device)
    for pool, at_hand in zip(pools, read, strict=True):
        yield [pack.steps(pool, at_hand) for pack in packs]


def _reading_alike(trainers: Sequence[_Trainer], at_a_time: int) -> list[list[_Trainer]]:
    """Those of one seed, which see the same batches; each alone, if seeds are too few for cores."""
    by_seed: dict[int, list[_Trainer]] = {}
    for trainer in trainers:
        by_seed.setdefault(trainer.member.seed, []).append(trainer)
    if len(by_seed) < at_a_time:
        return [[trainer] for trainer in trainers]
    return list(by_seed.values())


class _Packed:
    """Trainers of one seed, of any heads and layers; a batch is gathered once for all of them."""

    def __init__(
        self, trainers: Sequence[_Trainer], layers: Sequence[int], course: _Course
    ) -> None:
        self._trainers = trainers
        self._layers = layers  # all that are at hand, others' too
        self._course = course

    def all_steps(self, at_hand: Batches) -> Steps:
        """All epochs and the test, where all utterances are at hand."""
        for pool in self._course.pools(shared=False):
            yield from self.steps(pool, at_hand)

    def steps(self, pool: _Pool, at_hand: Batches) -> Steps:
        """One pool."""
        course = self._course
        for batch in course.batches(pool, self._trainers[0].member):
            for trainer, frames, lengths in self._hand_out(at_hand, batch):
                if pool.of == "train":
                    trainer.step(frames, lengths, course.targets[batch])
                else:
                    trainer.answer(frames, lengths)
            yield 0
        if pool.of == "validation" and pool.last:
            for trainer in self._trainers:
                trainer.end_epoch(pool.epoch, course.targets[course.validation])
            yield len(self._trainers)
        if pool.of == "test" and pool.last:
            for trainer in self._trainers:
                trainer.end_test()

    def _hand_out(
        self, at_hand: Batches, batch: np.ndarray
    ) -> Iterator[tuple[_Trainer, list[Tensor], Tensor]]:
        """Gather a batch once, and hand each trainer the layers that it wants."""
        pieces, lengths = at_hand.batch(batch, self._layers)
        for trainer in self._trainers:
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

    def __init__(self, trainers: list[_Trainer], features: PooledFeatures, course: _Course) -> None:
        self._trainers = trainers
        self._features = features
        self._course = course
        heads = [t.probe.head for t in trainers if isinstance(t.probe.head, LinearHead)]
        ones = torch.ones(heads[0].classify.out_features, device=features.means.device)
        losses = [t.loss for t in trainers if isinstance(t.loss, nn.CrossEntropyLoss)]
        assert len(losses) == len(trainers), "an objective that stacks has the cross entropy"
        weights = [ones if loss.weight is None else loss.weight for loss in losses]
        self._class_weights = torch.stack(weights)
        self._stack = LinearStack(heads)

    def steps(self) -> Steps:
        """All epochs, a step each, and the test."""
        course = self._course
        for epoch in range(1, course.epochs + 1):
            self._learn(epoch)
            self._answer(course.validation)
            for trainer in self._trainers:
                trainer.end_epoch(epoch, course.targets[course.validation])
            yield len(self._trainers)
        self._answer(course.test)
        for trainer in self._trainers:
            trainer.end_test()

    def _learn(self, epoch: int) -> None:
        course, size = self._course, self._course.batch_size
        device = self._features.means.device
        places = torch.tensor([self._features.places(t.member.layers) for t in self._trainers])
        loss_sums = torch.zeros(len(self._trainers), device=device)
        step = joint_step([t.optimiser for t in self._trainers])
        whole = torch.from_numpy(
            np.stack([course.shuffled(course.train, t.member, epoch) for t in self._trainers])
        )
        for orders in whole.split(POOL * size, 1):  # in pieces, since a gathered copy takes memory
            means = self._features.means[orders, places]
            for trainer, of_one in zip(self._trainers, means, strict=True):
                of_one.copy_(trainer.probe.norm(of_one))
            targets = course.targets[orders].to(device)
            for x, y in zip(means.split(size, 1), targets.split(size, 1), strict=True):
                loss_sums += self._stack.loss(x, y, self._class_weights) * y.shape[1]
                step()
        for trainer, loss_sum in zip(self._trainers, loss_sums, strict=True):
            trainer.count_loss(loss_sum, len(course.train))

    def _answer(self, utterances: np.ndarray) -> None:
        for trainer in self._trainers:
            [means], lengths = self._features.batch(utterances, trainer.member.layers)
            trainer.answer([means[0]], lengths)
