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
    """

    def __init__(self, heads: Sequence[LinearHead]) -> None:
        columns = list(zip(*(head.parameters() for head in heads), strict=True))
        self._parameters = [torch.stack([p.detach() for p in column]) for column in columns]
        self._gradients = [torch.zeros_like(stacked) for stacked in self._parameters]
        for column, stacked, gradient in zip(
            columns, self._parameters, self._gradients, strict=True
        ):
            for number, parameter in enumerate(column):
                parameter.data, parameter.grad = stacked[number], gradient[number]

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
        weights: Float[Tensor, "members classes"],
    ) -> Float[Tensor, " members"]:
        """The weighted cross entropy of each head; its gradient is left in the parameters."""
        project, project_bias, classify, _ = self._parameters
        d_project, d_project_bias, d_classify, d_classify_bias = self._gradients
        log_p = torch.log_softmax(self.logits(means), -1)
        share = weights.gather(1, targets)
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


def joint_step(optimisers: Sequence[torch.optim.Adam]) -> Callable[[], None]:
    """What steps all these optimisers, as each would step alone, until their settings change.

    In as few calls as there are different settings: `Adam.step` takes longer to look its tensors up
    than to update a small head. Optimisers that took no step yet have no moments, and step alone.
    """
    if not all(optimiser.state for optimiser in optimisers):
        return lambda: _call_all([optimiser.step for optimiser in optimisers])
    alike: dict[tuple[float, ...], list[tuple[Tensor, ...]]] = defaultdict(list)
    for optimiser in optimisers:
        [group] = optimiser.param_groups
        settings = group["lr"], group["weight_decay"], *group["betas"], group["eps"]
        for p in group["params"]:
            state = optimiser.state[p]
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
