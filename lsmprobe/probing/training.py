"""Train many heads from one read of the features.

Where memory holds the training set, every seed goes through it in an order of its own each epoch.
Where it does not, an epoch goes through it in pools of a few batches that all seeds share, and
within a pool each seed has its own order: a pool is read once and trains every head of every seed.
Then runs are not independent, and their records say so. What a member draws depends on its seed,
fold and step alone, not on what trains with it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from lsmprobe.machine import keep_freed_memory, share_freed_memory
from lsmprobe.probing.batches import Batches, Features, PooledFeatures
from lsmprobe.probing.cores import Steps, side_by_side, trainings_at_a_time
from lsmprobe.probing.heads import LinearHead
from lsmprobe.probing.linear_stack import LinearStack
from lsmprobe.probing.objectives import CLASSIFICATION, Objective, Targets
from lsmprobe.probing.seeds import ORDER, seed_of
from lsmprobe.probing.trainer import Member, Trainer

if TYPE_CHECKING:
    from lsmprobe.probing.linear_kernel import CompiledStack

POOL = 4  # batches; 1 GB of a large model's frames at 3 s an utterance, and two may be in memory
STACK = 4  # Linear heads; the moments of more would not stay in a processor's cache
ENOUGH_TO_COMPILE = 10**9  # parameters times steps: a second or two of one core without it
LEAST_STACK = 2  # side by side, single heads wait for Python's interpreter, if not compiled


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
    learned = truth[course.train]
    trainers = [Trainer(member, objective, learned, n_outputs, device) for member in members]
    share_freed_memory()
    apart = all(member.own_draws for member in members)  # else all would draw from one generator
    at_a_time = trainings_at_a_time(device) if apart else 1
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        for together in _rounds(trainers, features, course, device, at_a_time, objective.stacks):
            side_by_side(together, at_a_time, on_epoch)
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


def _rounds(
    trainers: Sequence[Trainer],
    features: Features,
    course: _Course,
    device: str,
    at_a_time: int,
    stacks: bool,
) -> Iterator[list[Steps]]:
    """Trainings that may go on side by side; before the next come, these must be over.

    That is all of them at once, but for those that share pools, which go from pool to pool.
    """
    stacked: dict[tuple[int, ...], list[Trainer]] = {}
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
            size = len(alike)
            kind = _kind_of_stack(alike, course, device)
            if device == "cpu":
                least = LEAST_STACK if kind is LinearStack else 1
                size = min(STACK, max(least, -(-len(alike) // at_a_time)))
            for start in range(0, len(alike), size):
                some = alike[start : start + size]
                at_once.append(_Stacked(some, features, course, kind).steps())
    layers = _layers(packed)
    own = isinstance(features, PooledFeatures)  # which copies what is asked for; frames are views
    packs = [
        _Packed(alike, _layers(alike) if own else layers, course)
        for alike in _reading_alike(packed, at_a_time)
    ]
    held = features.all_of(course.utterances, layers, device) if packs else None
    if held is not None:
        at_once += [pack.all_steps(held) for pack in packs]
        packs = []
    if at_once:
        yield at_once
    if not packs:
        return
    for trainer in packed:
        trainer.shares_pools = True
    pools = list(course.pools(shared=True))
    read = features.through([pool.utterances for pool in pools], layers, device)
    for pool, at_hand in zip(pools, read, strict=True):
        yield [pack.steps(pool, at_hand) for pack in packs]


def _layers(trainers: Sequence[Trainer]) -> list[int]:
    return sorted({layer for trainer in trainers for layer in trainer.member.layers})


def _reading_alike(trainers: Sequence[Trainer], at_a_time: int) -> list[list[Trainer]]:
    """Those of one seed, which see the same batches; each alone, if only that fills all cores."""
    by_seed: dict[int, list[Trainer]] = {}
    for trainer in trainers:
        by_seed.setdefault(trainer.member.seed, []).append(trainer)
    if len(by_seed) < at_a_time <= len(trainers):
        return [[trainer] for trainer in trainers]
    return list(by_seed.values())


class _Packed:
    """Trainers of one seed, of any heads and layers; a batch is gathered once for all of them."""

    def __init__(self, trainers: Sequence[Trainer], layers: Sequence[int], course: _Course) -> None:
        self._trainers = trainers
        self._layers = layers  # what a batch is asked for: maybe others' too
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
    ) -> Iterator[tuple[Trainer, list[Tensor], Tensor]]:
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


def _kind_of_stack(
    trainers: Sequence[Trainer], course: _Course, device: str
) -> "type[LinearStack | CompiledStack]":
    """Compiled, on a CPU, where there is so much to train that it pays to load numba."""
    steps = course.epochs * -(-len(course.train) // course.batch_size)
    n_parameters = sum(p.numel() for t in trainers for p in t.probe.parameters())
    if device != "cpu" or steps * n_parameters < ENOUGH_TO_COMPILE:
        return LinearStack
    from lsmprobe.probing.linear_kernel import ROWS, CompiledStack

    heads = [t.probe.head for t in trainers if isinstance(t.probe.head, LinearHead)]
    whole = all(head.project.out_features % ROWS == 0 for head in heads)
    return CompiledStack if whole else LinearStack


class _Stacked:
    """Linear trainers of one shape over pooled means, of any layers and seeds, as one."""

    def __init__(
        self,
        trainers: list[Trainer],
        features: PooledFeatures,
        course: _Course,
        kind: "type[LinearStack | CompiledStack]",
    ) -> None:
        self._trainers = trainers
        self._features = features
        self._course = course
        heads = [t.probe.head for t in trainers if isinstance(t.probe.head, LinearHead)]
        ones = torch.ones(heads[0].classify.out_features, device=features.means.device)
        losses = [t.loss for t in trainers if isinstance(t.loss, nn.CrossEntropyLoss)]
        assert len(losses) == len(trainers), "an objective that stacks has the cross entropy"
        weights = [ones if loss.weight is None else loss.weight for loss in losses]
        self._stack = kind(heads, [t.optimiser for t in trainers], torch.stack(weights))
        self._places = torch.tensor([features.places(t.member.layers) for t in trainers])

    def steps(self) -> Steps:
        """All epochs, a step each, and the test."""
        course = self._course
        for epoch in range(1, course.epochs + 1):
            self._learn(epoch)
            self._validate()
            for trainer in self._trainers:
                trainer.end_epoch(epoch, course.targets[course.validation])
            yield len(self._trainers)
        for trainer in self._trainers:  # each is now the head of its best epoch
            [means], lengths = self._features.batch(course.test, trainer.member.layers)
            trainer.answer([means[0]], lengths)
            trainer.end_test()

    def _learn(self, epoch: int) -> None:
        course = self._course
        orders = [course.shuffled(course.train, t.member, epoch) for t in self._trainers]
        loss_sums = torch.zeros(len(orders), device=self._features.means.device)
        for rows, means in self._normalised(np.stack(orders)):
            targets = course.targets[rows].to(means.device)
            loss_sums += self._stack.learn(means, targets, course.batch_size)
        for trainer, loss_sum in zip(self._trainers, loss_sums, strict=True):
            trainer.count_loss(loss_sum, len(course.train))

    def _validate(self) -> None:
        orders = [self._course.validation] * len(self._trainers)
        for _rows, means in self._normalised(np.stack(orders)):
            for trainer, logits in zip(self._trainers, self._stack.logits(means), strict=True):
                trainer.keep(logits)

    def _normalised(
        self, orders: Int[np.ndarray, "members utterances"]
    ) -> Iterator[tuple[Int[Tensor, "members _"], Float[Tensor, "members _ dim"]]]:
        """Each member's utterances in its order, and what its head sees of them, a pool at a time.

        All at once would be a copy of the features for each member.
        """
        for rows in torch.tensor(orders).split(POOL * self._course.batch_size, 1):
            means = self._features.means[rows, self._places]
            for trainer, of_one in zip(self._trainers, means, strict=True):
                of_one.copy_(trainer.probe.norm(of_one))
            yield rows, means
