"""Train many heads from one read of the features.

Features come packed (see heads.py). All members that share a seed see the same batches in the same
order, so a batch is read once and trains every one of them; a member's numbers do not depend on who
trains beside it.

Source of the recipe: D'Asaro et al. 2024, section 4.2; Feng and Narayanan 2023, arXiv:2306.05350.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsmprobe.errors import TrainingError
from lsmprobe.heads import MultiLayerHead, Probe


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; the defaults reproduce the paper."""

    epochs: int = 30
    batch_size: int = 32  # utterances
    lr: float = 5e-4
    weight_decay: float = 1e-4  # coupled, as Adam has it
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    scheduler: Literal["plateau", "cosine", "none"] = "plateau"
    class_weights: Literal["balanced", "none"] = "balanced"
    epoch_choice: Literal["best", "loss", "last"] = "best"
    scalar_lr: float | None = None  # of Multi-Layer's scalars; None: as the rest
    scalar_weight_decay: float | None = None


@runtime_checkable
class Features(Protocol):
    """Where batches come from."""

    def batch(
        self, utterances: Int[np.ndarray, " batch"], layers: Sequence[int]
    ) -> tuple[Float[Tensor, "layers frames dim"], Int[Tensor, " batch"]]:
        """The packed frames of some utterances at some layers, float32, and each one's length."""


@dataclass(frozen=True)
class PooledFeatures:
    """The mean over each utterance's frames, as an utterance of one frame."""

    means: Float[Tensor, "utterances layers dim"]

    def batch(
        self, utterances: Int[np.ndarray, " batch"], layers: Sequence[int]
    ) -> tuple[Float[Tensor, "layers batch dim"], Int[Tensor, " batch"]]:
        """One frame per utterance."""
        rows = self.means[torch.from_numpy(utterances)][:, list(layers)]
        return rows.transpose(0, 1), torch.ones(len(utterances), dtype=torch.long)


@dataclass(frozen=True)
class FrameFeatures:
    """Every frame, gathered from arrays that hold a layer each (memory-mapped or in memory)."""

    read: Callable[[int, int], np.ndarray]  # (utterance, layer) -> (frames, dim)
    lengths: Int[np.ndarray, " utterances"]

    def batch(
        self, utterances: Int[np.ndarray, " batch"], layers: Sequence[int]
    ) -> tuple[Float[Tensor, "layers frames dim"], Int[Tensor, " batch"]]:
        """The frames of the utterances one after another; half precision is widened once, here."""
        lengths = self.lengths[utterances]
        ends = np.cumsum(lengths)
        dim = self.read(int(utterances[0]), layers[0]).shape[1]
        packed = np.empty((len(layers), int(ends[-1]), dim), np.float32)
        for position, layer in enumerate(layers):
            for utterance, end, length in zip(utterances, ends, lengths, strict=True):
                packed[position, end - length : end] = self.read(int(utterance), layer)
        return torch.from_numpy(packed), torch.from_numpy(lengths)


@dataclass(frozen=True)
class Member:
    """One head to be trained: what it is, the layers it reads, and its seed."""

    name: str
    probe: Probe
    layers: tuple[int, ...]  # exactly one, unless the head weighs layers
    seed: int
    recipe: Recipe = Recipe()

    @property
    def weighs_layers(self) -> bool:
        """Whether the head takes a stack of layers."""
        return isinstance(self.probe.head, MultiLayerHead)


@dataclass(frozen=True)
class Fit:
    """A trained member at the epoch chosen on validation, and what it says of the test set."""

    member: Member
    history: list[dict[str, float]]  # one entry per epoch, the first is epoch 1
    best_epoch: int  # counted from 1
    probabilities: Float[np.ndarray, "test classes"]


def fit(
    members: Sequence[Member],
    features: Features,
    labels: Int[np.ndarray, " utterances"],
    fold: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_classes: int,
    *,
    score: Callable[[np.ndarray, np.ndarray], float],
    device: str = "cpu",
    on_epoch: Callable[[], None] = lambda: None,
) -> list[Fit]:
    """Train on one fold, choose each member's epoch on validation, score the test set once.

    Args:
        members: the heads, freshly initialised; they are moved to `device` and trained in place.
            Their recipes may differ in all but epochs and batch size.
        features: where batches come from.
        labels: the class of every utterance, 0 to n_classes - 1.
        fold: indices of the training, validation and test utterances.
        n_classes: of the corpus, whether or not all of them occur in the fold.
        score: (labels, predictions) -> the score that chooses the epoch; higher is better.
        device: where the heads are trained.
        on_epoch: called once per epoch and member.

    Returns:
        One Fit per member, in order.

    Raises:
        TrainingError: a loss that is not finite.
    """
    train, validation, test = fold
    targets = torch.from_numpy(labels).long()
    balanced = balanced_weights(targets[train], n_classes).to(device)
    trainers = [_Trainer(member, balanced, device) for member in members]
    epochs, batch_size = _common_rhythm(members)
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        for epoch in range(1, epochs + 1):
            for seed, group in groupby(trainers, key=lambda t: t.member.seed):
                together = list(group)
                for batch in _shuffled(train, batch_size, seed, epoch):
                    for trainer, frames, lengths in _read(together, features, batch, device):
                        trainer.step(frames, lengths, targets[batch])
            outputs = _predict(trainers, features, validation, batch_size, device)
            for trainer, logits in zip(trainers, outputs, strict=True):
                trainer.end_epoch(epoch, logits, targets[validation], score)
                on_epoch()
    for trainer in trainers:
        trainer.restore_best()
    outputs = _predict(trainers, features, test, batch_size, device)
    return [
        Fit(t.member, t.history, t.best_epoch, torch.softmax(logits, 1).numpy())
        for t, logits in zip(trainers, outputs, strict=True)
    ]


def _common_rhythm(members: Sequence[Member]) -> tuple[int, int]:
    """Epochs and batch size, which members that read together share."""
    rhythms = {(member.recipe.epochs, member.recipe.batch_size) for member in members}
    assert len(rhythms) == 1
    return rhythms.pop()


def balanced_weights(targets: Int[Tensor, " train"], n_classes: int) -> Float[Tensor, " classes"]:
    """Weights inverse to the counts, N / (k n_c); 0 for a class that does not occur."""
    counts = torch.bincount(targets, minlength=n_classes).float()
    weights = len(targets) / (n_classes * counts)
    return torch.where(counts > 0, weights, 0.0)


class _Trainer:
    """One member on its way through the epochs: its optimiser, its history, its best state."""

    def __init__(self, member: Member, balanced: Float[Tensor, " classes"], device: str) -> None:
        recipe = member.recipe
        self.member = member
        self.recipe = recipe
        self.loss = nn.CrossEntropyLoss(
            weight=balanced if recipe.class_weights == "balanced" else None
        )
        self.probe = member.probe.to(device)
        self.optimiser = torch.optim.Adam(
            _parameter_groups(self.probe, recipe),
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            betas=recipe.betas,
            eps=recipe.eps,
            fused=True,  # one pass over the parameters: most of a small head's step is bookkeeping
        )
        self.scheduler = _scheduler(self.optimiser, recipe)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best_value = -np.inf
        self.best_state: dict[str, Tensor] = {}
        self.n_steps = 0
        self.epoch_loss = torch.zeros((), device=device)
        self.epoch_utterances = 0

    def step(
        self,
        frames: Float[Tensor, "*layers frames dim"],
        lengths: Int[Tensor, " batch"],
        targets: Int[Tensor, " batch"],
    ) -> None:
        # Dropout depends on the seed and the step alone, not on who trains beside this one.
        torch.manual_seed((self.member.seed << 32) + self.n_steps)
        self.probe.train()
        loss = self.loss(self.probe(frames, lengths), targets.to(frames.device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.n_steps += 1
        self.epoch_loss += loss.detach() * len(targets)
        self.epoch_utterances += len(targets)

    def end_epoch(
        self,
        epoch: int,
        logits: Float[Tensor, "validation classes"],
        targets: Int[Tensor, " validation"],
        score: Callable[[np.ndarray, np.ndarray], float],
    ) -> None:
        device = next(self.probe.parameters()).device
        validation_loss = self.loss(logits.to(device), targets.to(device)).item()
        validation_score = score(targets.numpy(), logits.argmax(1).numpy())
        train_loss = self.epoch_loss.item() / self.epoch_utterances
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            raise TrainingError(
                f"{self.member.name}: at epoch {epoch} the loss is {train_loss} in training and "
                f"{validation_loss} in validation; expected finite numbers. Lower --lr, or use a "
                "split whose validation set has emotions that training has."
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
        value = {"best": validation_score, "loss": -validation_loss, "last": epoch}
        if value[self.recipe.epoch_choice] > self.best_value:  # the earliest on ties
            self.best_value = value[self.recipe.epoch_choice]
            self.best_epoch = epoch
            self.best_state = copy.deepcopy(self.probe.state_dict())
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(validation_loss)
        elif self.scheduler is not None:
            self.scheduler.step()

    def restore_best(self) -> None:
        self.probe.load_state_dict(self.best_state)


def _parameter_groups(probe: Probe, recipe: Recipe) -> list[dict[str, object]]:
    """Multi-Layer's scalars in a group of their own, so that they may learn at another rate."""
    scalars = [probe.head.scalars] if isinstance(probe.head, MultiLayerHead) else []
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


def _shuffled(train: np.ndarray, size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """The batches of one epoch; the last one may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(train)
    return (order[start : start + size] for start in range(0, len(order), size))


def _read(
    trainers: Sequence[_Trainer], features: Features, batch: np.ndarray, device: str
) -> Iterator[tuple[_Trainer, Tensor, Tensor]]:
    """Read a batch once, and hand each trainer the layers that it wants."""
    layers = sorted({layer for trainer in trainers for layer in trainer.member.layers})
    frames, lengths = features.batch(batch, layers)
    frames = frames.to(device)
    for trainer in trainers:
        wanted = [layers.index(layer) for layer in trainer.member.layers]
        if not trainer.member.weighs_layers:
            yield trainer, frames[wanted[0]], lengths
        elif len(wanted) == len(layers):
            yield trainer, frames, lengths
        else:
            yield trainer, frames[wanted], lengths


@torch.no_grad()
def _predict(
    trainers: Sequence[_Trainer],
    features: Features,
    utterances: np.ndarray,
    size: int,
    device: str,
) -> list[Float[Tensor, "utterances classes"]]:
    """The logits of every trainer for some utterances, on the CPU."""
    logits: list[list[Tensor]] = [[] for _ in trainers]
    for trainer in trainers:
        trainer.probe.eval()
    for start in range(0, len(utterances), size):
        batch = utterances[start : start + size]
        for out, (trainer, frames, lengths) in zip(
            logits, _read(trainers, features, batch, device), strict=True
        ):
            out.append(trainer.probe(frames, lengths).cpu())
    return [torch.cat(parts) for parts in logits]
