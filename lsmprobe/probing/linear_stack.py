"""Linear heads trained as one: parameters stacked, so that few operations train many heads."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.adam import adam

from lsmprobe.probing.heads import LinearHead


class LinearStack:
    """Linear heads of one shape over pooled means.

    Their parameters, and their parameters' gradients, become views of this stack's: whatever trains
    one trains the other.

    Args:
        heads: all on one device.
        optimisers: theirs, in order; their settings may change.
        class_weights: of each head's loss.
    """

    def __init__(
        self,
        heads: Sequence[LinearHead],
        optimisers: Sequence[torch.optim.Adam],
        class_weights: Float[Tensor, "members classes"],
    ) -> None:
        self._optimisers = optimisers
        self._class_weights = class_weights
        take_over(optimisers)
        columns = list(zip(*(head.parameters() for head in heads), strict=True))
        self._parameters = [torch.stack([p.detach() for p in column]) for column in columns]
        self._gradients = [torch.zeros_like(stacked) for stacked in self._parameters]
        for column, stacked, gradient in zip(
            columns, self._parameters, self._gradients, strict=True
        ):
            for number, parameter in enumerate(column):
                parameter.data, parameter.grad = stacked[number], gradient[number]

    def learn(
        self,
        means: Float[Tensor, "members utterances dim"],
        targets: Int[Tensor, "members utterances"],
        size: int,
    ) -> Float[Tensor, " members"]:
        """A step for each batch of so many utterances; the sum of the utterances' losses."""
        loss_sums = torch.zeros(len(means), device=means.device)
        step = joint_step(self._optimisers)
        for x, y in zip(means.split(size, 1), targets.split(size, 1), strict=True):
            loss_sums += self.loss(x, y) * y.shape[1]
            step()
        return loss_sums

    def logits(
        self, means: Float[Tensor, "members batch dim"]
    ) -> Float[Tensor, "members batch classes"]:
        """What each head says of its own batch."""
        project, project_bias, classify, classify_bias = self._parameters
        # C (P x + p) + c = (C P) x + (C p + c): no utterance passes the hidden dimensions, which
        # are more than the classes and cost most.
        maps = torch.bmm(classify, project)
        offsets = torch.baddbmm(classify_bias[:, None], project_bias[:, None], classify.mT)
        return torch.baddbmm(offsets, means, maps.mT)

    def loss(
        self,
        means: Float[Tensor, "members batch dim"],
        targets: Int[Tensor, "members batch"],
    ) -> Float[Tensor, " members"]:
        """The weighted cross entropy of each head; its gradient is left in the parameters."""
        project, project_bias, classify, _ = self._parameters
        d_project, d_project_bias, d_classify, d_classify_bias = self._gradients
        log_p = torch.log_softmax(self.logits(means), -1)
        share = self._class_weights.gather(1, targets)
        share /= share.sum(1, keepdim=True)
        truth = targets[..., None]
        loss = -(share * log_p.gather(2, truth)[..., 0]).sum(1)

        # With E = dloss/dlogits: dC = G P^T + e p^T and dP = C^T G, where G = E^T x and e = E^T 1.
        errors = log_p.exp_()
        errors.scatter_add_(2, truth, torch.full_like(truth, -1, dtype=errors.dtype))
        errors *= share[..., None]
        map_gradient = torch.bmm(errors.mT, means)
        torch.sum(errors, 1, out=d_classify_bias)
        torch.bmm(classify.mT, map_gradient, out=d_project)
        torch.sum(classify * d_classify_bias[..., None], 1, out=d_project_bias)
        outer = d_classify_bias[..., None] * project_bias[:, None]
        torch.baddbmm(outer, map_gradient, project.mT, out=d_classify)
        return loss


def take_over(optimisers: Sequence[torch.optim.Adam]) -> None:
    """From here on others take these optimisers' steps."""
    for optimiser in optimisers:
        optimiser.zero_grad()
        optimiser.step()  # of no gradients; a schedule warns of an optimiser that never stepped


def settings_of(optimiser: torch.optim.Adam) -> tuple[float, float, float, float, float]:
    """Learning rate, weight decay, both betas and eps, as they are now.

    As floats: compiled loops would be compiled again for an int.
    """
    [group] = optimiser.param_groups
    beta1, beta2 = map(float, group["betas"])
    return float(group["lr"]), float(group["weight_decay"]), beta1, beta2, float(group["eps"])


def moments_of(optimiser: torch.optim.Adam, parameter: Tensor) -> dict[str, Tensor]:
    """What an optimiser keeps of a parameter; before its first step, what that would begin with."""
    kept: dict[str, Tensor] = optimiser.state[parameter]
    if not kept:
        kept["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        kept["exp_avg"] = torch.zeros_like(parameter.detach())
        kept["exp_avg_sq"] = torch.zeros_like(parameter.detach())
    return kept


def joint_step(optimisers: Sequence[torch.optim.Adam]) -> Callable[[], None]:
    """What steps all these optimisers, as each would step alone, until their settings change.

    In as few calls as there are different settings: `Adam.step` takes longer to look its tensors up
    than to update a small head.
    """
    alike: dict[tuple[float, ...], list[tuple[Tensor, ...]]] = defaultdict(list)
    for optimiser in optimisers:
        [group] = optimiser.param_groups
        settings = settings_of(optimiser)
        for p in group["params"]:
            state = moments_of(optimiser, p)
            alike[settings].append(
                (p, p.grad, state["exp_avg"], state["exp_avg_sq"], state["step"])
            )
    calls = []
    for (lr, weight_decay, beta1, beta2, eps), rows in alike.items():
        parameters, gradients, means, squares, steps = map(list, zip(*rows, strict=True))
        calls.append(
            partial(
                adam,
                parameters,
                gradients,
                means,
                squares,
                [],  # no maxima: not AMSGrad
                steps,
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=lr,
                weight_decay=weight_decay,
                beta1=beta1,
                beta2=beta2,
                eps=eps,
            )
        )
    return lambda: _call_all(calls)


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()
