"""Linear heads trained by compiled loops on a CPU: a step passes over the parameters once.

The steps are those of `LinearStack`, but for the order of sums. Four of its operations each read or
write all parameters, which are more than a core's own cache holds; here one pass over the rows of
the first map computes their gradients, moves them, and sums up what the next batch needs. The
gradient of the first map never exists as a whole, and no thread waits for Python's interpreter.

Importing this module imports numba, which takes longer than to train a few heads. The first use on
a machine compiles; the result is kept beside this file, or else in the user's cache folder.
"""

import inspect
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from lsmprobe.errors import one_line
from lsmprobe.probing.heads import LinearHead
from lsmprobe.probing.linear_stack import moments_of, settings_of, take_over

log = logging.getLogger(__name__)

ROWS = 4  # of the first map that are at hand at a time: what is loaded serves all of them
TERMS = 4  # of a sum that are added at a time


class Moving(NamedTuple):
    """A parameter and Adam's moments of its gradient, all of one shape."""

    value: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Parameters(NamedTuple):
    """The parameters of a LinearHead."""

    project: Moving  # hidden x dim
    project_bias: Moving
    classify: Moving  # classes x hidden
    classify_bias: Moving


class Room(NamedTuple):
    """The arrays that a step writes to, besides the parameters."""

    maps: Float[np.ndarray, "classes dim"]  # both maps as one, of the parameters as they are
    gradient: Float[np.ndarray, "padded dim"]  # of `maps`; rows of zeros up to a multiple of TERMS
    row: Float[np.ndarray, " dim"]  # of the first map's gradient


class Adam(NamedTuple):
    """Adam's settings."""

    lr: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float


class Rates(NamedTuple):
    """Adam's factors at one step, in float32: with a number of Python's, numba computes in 64."""

    step: np.float32  # lr / (1 - beta1^t)
    root: np.float32  # 1 / sqrt(1 - beta2^t)
    decay: np.float32
    beta1: np.float32
    rest1: np.float32  # 1 - beta1
    beta2: np.float32
    rest2: np.float32
    eps: np.float32


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",  # x / 0 is infinite; to raise Python's error would be a branch
    "fastmath": {"reassoc", "contract", "nsz"},  # sums in any order; NaN stays NaN
}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    plain = inspect.unwrap(function)  # without the check of axes that the tests put around it
    return numba.njit(**OPTIONS)(plain)


@_compiled
def _moved(
    value: np.float32,
    gradient: np.float32,
    first: np.float32,
    second: np.float32,
    rates: Rates,
) -> tuple[np.float32, np.float32, np.float32]:
    """A number after Adam's step, and its moments."""
    gradient += rates.decay * value
    first = rates.beta1 * first + rates.rest1 * gradient
    second = rates.beta2 * second + rates.rest2 * gradient * gradient
    value -= rates.step * first / (np.sqrt(second) * rates.root + rates.eps)
    return value, first, second


@_compiled
def _errors(
    x: Float[np.ndarray, "batch dim"],
    y: Int[np.ndarray, " batch"],
    class_weights: Float[np.ndarray, " classes"],
    maps: Float[np.ndarray, "classes dim"],
    offsets: Float[np.ndarray, " classes"],
) -> tuple[np.float32, Float[np.ndarray, "classes batch"]]:
    """The loss of a batch, and the gradient of its logits."""
    n_classes, dim = maps.shape
    errors = np.empty((n_classes, len(y)), np.float32)
    total = np.float32(0)
    for target in y:
        total += class_weights[target]
    loss = np.float32(0)
    for number, target in enumerate(y):
        greatest = np.float32(-np.inf)
        for k in range(n_classes):
            logit = offsets[k]
            for d in range(dim):
                logit += maps[k, d] * x[number, d]
            errors[k, number] = logit
            greatest = max(greatest, logit)
        summed = np.float32(0)
        for k in range(n_classes):
            summed += np.exp(errors[k, number] - greatest)
        level = greatest + np.log(summed)
        share = class_weights[target] / total
        loss += share * (level - errors[target, number])
        for k in range(n_classes):
            errors[k, number] = share * np.exp(errors[k, number] - level)
        errors[target, number] -= share
    return loss, errors


@_compiled
def _map_gradient(
    errors: Float[np.ndarray, "classes batch"],
    x: Float[np.ndarray, "batch dim"],
    gradient: Float[np.ndarray, "padded dim"],
) -> None:
    """Write the gradient of both maps as one into `gradient`."""
    for k in range(len(errors)):
        for d in range(x.shape[1]):
            gradient[k, d] = 0
        for number in range(len(x)):
            error = errors[k, number]
            for d in range(x.shape[1]):
                gradient[k, d] += error * x[number, d]


@_compiled
def _step(e: Float[np.ndarray, " classes"], of: Parameters, room: Room, rates: Rates) -> None:
    """Adam's step of all parameters; `room.maps` is then that of the moved ones.

    With G the gradient of the map C P, and e that of its offset C p + c, the gradients are
    dC = G P^T + e p^T, dP = C^T G, dp = C^T e and dc = e.
    """
    (value, first, second), bias, classify, classify_bias = of
    maps, gradient, row = room
    n_classes, hidden = classify.value.shape
    dim = value.shape[1]
    d_classify = np.empty((n_classes, ROWS), np.float32)
    column = np.zeros(len(gradient), np.float32)
    maps[:] = 0
    for h in range(0, hidden, ROWS):
        for k in range(n_classes):
            sum0 = sum1 = sum2 = sum3 = np.float32(0)
            for d in range(dim):
                g = gradient[k, d]
                sum0 += g * value[h, d]
                sum1 += g * value[h + 1, d]
                sum2 += g * value[h + 2, d]
                sum3 += g * value[h + 3, d]
            d_classify[k, 0], d_classify[k, 1] = sum0, sum1
            d_classify[k, 2], d_classify[k, 3] = sum2, sum3
        for r in range(h, h + ROWS):
            d_bias = np.float32(0)
            for k in range(n_classes):
                column[k] = classify.value[k, r]
                d_bias += column[k] * e[k]
                classify.value[k, r], classify.first[k, r], classify.second[k, r] = _moved(
                    classify.value[k, r],
                    d_classify[k, r - h] + e[k] * bias.value[r],
                    classify.first[k, r],
                    classify.second[k, r],
                    rates,
                )
            bias.value[r], bias.first[r], bias.second[r] = _moved(
                bias.value[r], d_bias, bias.first[r], bias.second[r], rates
            )
            row[:] = 0
            for k in range(0, len(gradient), TERMS):
                w0, w1, w2, w3 = column[k], column[k + 1], column[k + 2], column[k + 3]
                for d in range(dim):
                    row[d] += (w0 * gradient[k, d] + w1 * gradient[k + 1, d]) + (
                        w2 * gradient[k + 2, d] + w3 * gradient[k + 3, d]
                    )
            for d in range(dim):
                value[r, d], first[r, d], second[r, d] = _moved(
                    value[r, d], row[d], first[r, d], second[r, d], rates
                )
        for k in range(n_classes):
            w0, w1 = classify.value[k, h], classify.value[k, h + 1]
            w2, w3 = classify.value[k, h + 2], classify.value[k, h + 3]
            for d in range(dim):
                maps[k, d] += (w0 * value[h, d] + w1 * value[h + 1, d]) + (
                    w2 * value[h + 2, d] + w3 * value[h + 3, d]
                )
    for k in range(n_classes):
        classify_bias.value[k], classify_bias.first[k], classify_bias.second[k] = _moved(
            classify_bias.value[k], e[k], classify_bias.first[k], classify_bias.second[k], rates
        )


def _learn(
    means: Float[np.ndarray, "utterances dim"],
    targets: Int[np.ndarray, " utterances"],
    size: int,
    class_weights: Float[np.ndarray, " classes"],
    of: Parameters,
    room: Room,
    steps: int,
    adam: Adam,
) -> float:
    """A step for each batch of `size`, after `steps` others; the sum of the utterances' losses."""
    n_classes = len(class_weights)
    offsets, e = np.empty(n_classes, np.float32), np.empty(n_classes, np.float32)
    loss_sum = 0.0
    for start in range(0, len(means), size):
        x, y = means[start : start + size], targets[start : start + size]
        for k in range(n_classes):
            offsets[k] = of.classify_bias.value[k]
            for h in range(len(of.project_bias.value)):
                offsets[k] += of.classify.value[k, h] * of.project_bias.value[h]
        loss, errors = _errors(x, y, class_weights, room.maps, offsets)
        loss_sum += loss * len(y)
        for k in range(n_classes):
            e[k] = errors[k].sum()
        _map_gradient(errors, x, room.gradient)
        steps += 1
        rates = Rates(
            np.float32(adam.lr / (1 - adam.beta1**steps)),
            np.float32(1 / np.sqrt(1 - adam.beta2**steps)),
            np.float32(adam.weight_decay),
            np.float32(adam.beta1),
            np.float32(1 - adam.beta1),
            np.float32(adam.beta2),
            np.float32(1 - adam.beta2),
            np.float32(adam.eps),
        )
        _step(e, of, room, rates)
    return loss_sum


@cache
def _loops() -> Callable[..., Any]:
    """`_learn` compiled, and kept on disk for other processes if that can be done."""

    def moving(*shape: int) -> Moving:
        return Moving(*(np.zeros(shape, np.float32) for _ in range(3)))

    zeros = moving(1).value
    no_utterance = np.zeros((0, 1), np.float32), np.zeros(0, np.int64)
    parameters = Parameters(moving(ROWS, 1), moving(ROWS), moving(1, ROWS), moving(1))
    room = Room(moving(1, 1).value, moving(TERMS, 1).value, zeros)
    plain = inspect.unwrap(_learn)
    try:
        kept = numba.njit(cache=True, **OPTIONS)(plain)
        kept(*no_utterance, 1, zeros, parameters, room, 0, Adam(0.0, 0.0, 0.0, 0.0, 0.0))
    except Exception as error:  # no folder that can be written, a full disk, a damaged file
        log.info(
            "the compiled loops of Linear heads cannot be kept (%s), so every process compiles "
            "them again, for some seconds; let NUMBA_CACHE_DIR name a folder for them",
            one_line(str(error)),
        )
        return numba.njit(**OPTIONS)(plain)
    return kept


class CompiledStack:
    """Linear heads of one shape over pooled means, as `LinearStack` has them.

    While they train here, nothing else may change their parameters.

    Args:
        heads: of float32 numbers in the CPU's memory, with a multiple of ROWS hidden dimensions.
        optimisers: theirs, in order; their moments are kept, and their settings may change.
        class_weights: of each head's loss.
    """

    def __init__(
        self,
        heads: Sequence[LinearHead],
        optimisers: Sequence[torch.optim.Adam],
        class_weights: Float[Tensor, "members classes"],
    ) -> None:
        self._heads = heads
        self._optimisers = optimisers
        self._class_weights = class_weights.numpy()
        assert heads[0].project.out_features % ROWS == 0
        assert all(p.dtype == torch.float32 for head in heads for p in head.parameters())
        take_over(optimisers)
        maps = [(head.classify.weight @ head.project.weight).detach() for head in heads]
        self._maps = torch.stack(maps)
        _, n_classes, dim = self._maps.shape
        # torch's memory begins with a cache line; with NumPy's a step takes half as long again.
        gradient = torch.zeros(-(-n_classes // TERMS) * TERMS, dim).numpy()
        row = torch.zeros(dim).numpy()
        self._rooms = [Room(maps.numpy(), gradient, row) for maps in self._maps]
        self._parameters, self._steps = [], []
        for head, optimiser in zip(heads, optimisers, strict=True):
            moments = [(p.detach(), moments_of(optimiser, p)) for p in head.parameters()]
            moving = [
                Moving(p.numpy(), m["exp_avg"].numpy(), m["exp_avg_sq"].numpy()) for p, m in moments
            ]
            self._parameters.append(Parameters(*moving))
            self._steps.append([m["step"] for _, m in moments])

    def learn(
        self,
        means: Float[Tensor, "members utterances dim"],
        targets: Int[Tensor, "members utterances"],
        size: int,
    ) -> Float[Tensor, " members"]:
        """A step for each batch of so many utterances; the sums of the utterances' losses."""
        n_classes = self._maps.shape[1]
        if targets.numel() and not 0 <= targets.min() <= targets.max() < n_classes:  # else a crash
            found = f"{targets.min()} to {targets.max()}"
            raise IndexError(f"the targets are {found}; expected 0 to {n_classes - 1}.")
        learn = _loops()
        sums = []
        for number, optimiser in enumerate(self._optimisers):
            steps = self._steps[number]
            sums.append(
                learn(
                    means[number].numpy(),
                    targets[number].numpy(),
                    size,
                    self._class_weights[number],
                    self._parameters[number],
                    self._rooms[number],
                    int(steps[0]),
                    Adam(*settings_of(optimiser)),
                )
            )
            for step in steps:
                step += -(-targets.shape[1] // size)
        return torch.tensor(sums)

    @torch.no_grad()
    def logits(
        self, means: Float[Tensor, "members batch dim"]
    ) -> Float[Tensor, "members batch classes"]:
        """What each head says of its own batch."""
        return torch.stack(
            [
                linear(x, maps, head.classify(head.project.bias))
                for x, maps, head in zip(means, self._maps, self._heads, strict=True)
            ]
        )
