import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from lsmprobe.probing.heads import LinearHead
from lsmprobe.probing.linear_stack import LinearStack, joint_step

DIM, CLASSES = 5, 3


def heads_and_batches(members, batch, seed=0):
    torch.manual_seed(seed)
    heads = [LinearHead(DIM, CLASSES, hidden=4).double() for _ in range(members)]
    means = torch.randn(members, batch, DIM, dtype=torch.double)
    targets = torch.randint(0, CLASSES, (members, batch))
    return heads, means, targets, torch.rand(members, CLASSES, dtype=torch.double) + 0.1


def optimisers(heads):
    return [torch.optim.Adam(head.parameters(), fused=True) for head in heads]


@given(members=st.integers(1, 5), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_losses_and_gradients_are_those_of_each_head_alone(members, batch, seed):
    heads, means, targets, weights = heads_and_batches(members, batch, seed)
    losses, gradients = [], []
    for head, x, y, w in zip(heads, means, targets, weights, strict=True):
        losses.append(cross_entropy(head(x, torch.ones(batch, dtype=torch.long)), y, weight=w))
        gradients.append(torch.autograd.grad(losses[-1], list(head.parameters())))
    stack = LinearStack(heads, optimisers(heads), weights)
    torch.testing.assert_close(stack.loss(means, targets), torch.stack(losses).detach())
    for head, expected in zip(heads, gradients, strict=True):
        for parameter, gradient in zip(head.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


def test_logits_are_those_of_each_head_alone():
    heads, means, _, weights = heads_and_batches(3, 4)
    ones = torch.ones(4, dtype=torch.long)
    alone = torch.stack([head(x, ones) for head, x in zip(heads, means, strict=True)])
    stack = LinearStack(heads, optimisers(heads), weights)
    torch.testing.assert_close(stack.logits(means), alone.detach())


def test_what_trains_a_head_trains_the_stack():
    heads, means, targets, weights = heads_and_batches(2, 6)
    stack = LinearStack(heads, optimisers(heads), weights)
    before = stack.loss(means, targets)
    torch.optim.SGD(heads[1].parameters(), lr=0.1).step()
    after = stack.loss(means, targets)
    assert after[0] == before[0]
    assert after[1] < before[1]


def test_a_joint_step_is_each_optimisers_own_step_to_the_bit():
    settings = (
        {"lr": 1e-2},
        {"lr": 1e-2},
        {"lr": 3e-3, "weight_decay": 1e-2},
        {"lr": 1e-2, "betas": (0.8, 0.9)},
    )

    def heads_and_optimisers():
        torch.manual_seed(0)
        heads = [LinearHead(DIM, CLASSES, hidden=4) for _ in settings]
        for parameter in (p for head in heads for p in head.parameters()):
            parameter.grad = torch.zeros_like(parameter)
        return heads, [
            torch.optim.Adam(head.parameters(), fused=True, **own)
            for head, own in zip(heads, settings, strict=True)
        ]

    (alone, apart), (stacked, together) = heads_and_optimisers(), heads_and_optimisers()
    for round_ in range(4):
        together[1].param_groups[0]["lr"] = apart[1].param_groups[0]["lr"] = 1e-2 / (1 + round_)
        step = joint_step(together)
        for _ in range(3):
            for ours, theirs in zip(stacked, alone, strict=True):
                for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                    p.grad.copy_(torch.sin(p.detach()))
                    q.grad.copy_(torch.sin(q.detach()))
            step()
            for optimiser in apart:
                optimiser.step()
    for ours, theirs in zip(stacked, alone, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, q)
