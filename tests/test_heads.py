import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lsmprobe.probing import heads
from lsmprobe.probing.heads import (
    Dropout,
    LinearHead,
    MultiLayerHead,
    NonLinearHead,
    Probe,
    mean_per_utterance,
)
from lsmprobe.probing.norms import (
    NormaliseVectors,
    Standardise,
    frame_statistics,
    pooled_statistics,
)

HEADS = {
    "linear": lambda: LinearHead(8, 4),
    "nonlinear": lambda: NonLinearHead(8, 4),
    "multilayer": lambda: MultiLayerHead(3, 8, 4),
}


def some_frames(name, n_frames):
    return torch.randn(3, n_frames, 8) if name == "multilayer" else torch.randn(n_frames, 8)


@pytest.mark.parametrize("name", HEADS)
@given(first=st.integers(1, 12), second=st.integers(1, 12))
def test_an_utterance_scores_the_same_alone_and_packed(name, first, second):
    head, frames = HEADS[name]().eval(), some_frames(name, first + second)
    packed = head(frames, torch.tensor([first, second]))
    alone = head(frames[..., :first, :], torch.tensor([first]))
    torch.testing.assert_close(packed[:1], alone)


def test_linear_scores_the_same_from_frames_and_from_their_means():
    head, frames, lengths = LinearHead(64, 7), torch.randn(300, 64), torch.tensor([120, 1, 179])
    means = torch.stack([u.double().mean(0).float() for u in frames.split([120, 1, 179])])
    from_frames, from_means = head(frames, lengths), head(means, torch.ones(3, dtype=torch.long))
    assert (from_frames - from_means).abs().max() < 1e-6


def test_linear_is_eq_2_read_literally():
    head, frames = LinearHead(8, 4).double(), torch.randn(10, 8, dtype=torch.double)
    projected = frames @ head.project.weight.T + head.project.bias  # every frame
    expected = projected.mean(0) @ head.classify.weight.T + head.classify.bias
    torch.testing.assert_close(head(frames, torch.tensor([10]))[0], expected)


def test_nonlinear_is_eq_3_read_literally():
    head, frames = NonLinearHead(8, 4).double().eval(), torch.randn(10, 8, dtype=torch.double)
    first, second = head.per_frame[0], head.per_frame[3]
    hidden = torch.relu(second(torch.relu(first(frames))))
    utterance = head.project(hidden).mean(0)  # the projection per frame, then the mean
    expected = head.classify(torch.relu(head.per_utterance[0](utterance)))
    torch.testing.assert_close(head(frames, torch.tensor([10]))[0], expected)


def test_nonlinear_has_the_layers_of_the_paper():
    def maps(module):
        return [
            (m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)
        ]

    assert maps(LinearHead(768, 7)) == [(768, 256), (256, 7)]
    assert maps(NonLinearHead(768, 7)) == [(768, 256), *[(256, 256)] * 3, (256, 7)]
    assert [m.p for m in NonLinearHead(768, 7).modules() if isinstance(m, nn.Dropout)] == [0.1, 0.1]


def test_layer_weights_start_equal_and_always_sum_to_one():
    head = MultiLayerHead(5, 8, 4)
    torch.testing.assert_close(head.layer_weights, torch.full((5,), 0.2))
    head.scalars.data = torch.tensor([3.0, -100.0, 0.0, 50.0, 1.0])
    assert head.layer_weights.min() >= 0
    torch.testing.assert_close(head.layer_weights.sum(), torch.tensor(1.0))


def test_multilayer_with_all_weight_on_one_layer_is_nonlinear_on_that_layer():
    head, frames, lengths = (
        MultiLayerHead(3, 8, 4).eval(),
        torch.randn(3, 9, 8),
        torch.tensor([4, 5]),
    )
    head.scalars.data = torch.tensor([0.0, 200.0, 0.0])
    torch.testing.assert_close(head(frames, lengths), head.nonlinear(frames[1], lengths))


NORMS = {
    "none": nn.Identity(),
    "zscore": Standardise(torch.randn(3, 8), torch.rand(3, 8) + 0.5),
    "layernorm": NormaliseVectors(),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_frames", [1, 100, 217])
def test_multilayer_and_its_gradient_are_those_of_the_plain_weighted_sum(
    n_frames, norm, monkeypatch
):
    monkeypatch.setattr(heads, "BLOCK", 100 * 3 * 8)
    probe = Probe(NORMS[norm], MultiLayerHead(3, 8, 4)).double().eval()
    head, lengths = probe.head, torch.tensor([n_frames])
    head.scalars.data = torch.randn(3).double()
    frames = torch.randn(3, n_frames, 8, dtype=torch.double)
    weighted = (head.layer_weights[:, None, None] * probe.norm(frames)).sum(0)
    expected = head.nonlinear(weighted, lengths)
    found = probe(frames, lengths)
    torch.testing.assert_close(found, expected)
    ours, theirs = (
        torch.autograd.grad(logits.square().sum(), list(probe.parameters()))
        for logits in (found, expected)
    )
    torch.testing.assert_close(ours, theirs)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12), layers=st.integers(1, 3))
def test_blocks_hold_every_frame_in_order_and_are_neither_large_nor_needlessly_small(
    lengths, layers
):
    frames = torch.randn(layers, sum(lengths), 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "BLOCK", 240)
        blocks = heads._blocks(frames.split(lengths, 1))
    assert torch.equal(torch.cat(blocks, 1), frames)
    sizes = [block.numel() for block in blocks]
    assert max(sizes) <= 240 + 8 * layers  # a frame is not cut
    if max(lengths) * 8 * layers <= 240:  # else pieces of what was cut lie beside small ones
        assert all(a + b > 240 for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", HEADS)
def test_frames_in_pieces_score_as_in_one(name, norm):
    norm = NORMS[norm] if name == "multilayer" or norm != "zscore" else nn.Identity()
    probe, frames = Probe(norm, HEADS[name]()).double().eval(), some_frames(name, 40).double()
    lengths = torch.tensor([7, 30, 3])
    torch.testing.assert_close(probe(frames.split([7, 33], -2), lengths), probe(frames, lengths))


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_frames_score_as_when_widened_before(name):
    probe, frames = Probe(nn.Identity(), HEADS[name]()).eval(), some_frames(name, 9).half()
    lengths = torch.tensor([4, 5])
    torch.testing.assert_close(probe(frames, lengths), probe(frames.float(), lengths))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_expectation(p):
    values = torch.full((1000, 400), 2.0)
    out = Dropout(p)(values)
    tolerance = 5 * (p * (1 - p) / 1e5) ** 0.5  # five standard errors of a quarter of them
    for lane in range(4):  # of one draw
        dropped = (out.flatten()[lane::4] == 0).float().mean().item()
        assert dropped == pytest.approx(p, abs=tolerance)
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / (1 - p)), rtol=1e-4, atol=0)
    neighbours = (out[:, 1:] == 0).float() * (out[:, :-1] == 0).float()
    assert neighbours.mean().item() == pytest.approx(p * p, abs=tolerance)


@given(p=st.floats(0.001, 0.999), seed=st.integers(0, 99))
def test_dropout_drops_what_draws_below_its_share_and_scales_the_rest(p, seed):
    values, dropped = torch.randn(43, 7), round(p * 2**16)
    torch.manual_seed(seed)
    out = Dropout(p)(values)
    torch.manual_seed(seed)
    draws = torch.empty(76, dtype=torch.int64).random_(-(2**63), None).numpy().view("int16")[:301]
    kept = torch.from_numpy(draws.astype("int64") + 2**15 >= dropped).view(43, 7)
    assert torch.equal(out, torch.where(kept, values * (2**16 / (2**16 - dropped)), 0.0))


def test_dropout_passes_the_gradient_through_what_it_keeps():
    values = torch.ones(7, 3, requires_grad=True)
    out = Dropout(0.4)(values)
    out.sum().backward()
    torch.testing.assert_close(values.grad, out.detach())


def test_dropout_repeats_with_its_seed_and_is_still_outside_training():
    drop, values = Dropout(0.3), torch.ones(50, 3)
    torch.manual_seed(1)
    first = drop(values)
    torch.manual_seed(1)
    assert torch.equal(first, drop(values))
    assert not torch.equal(first, drop(values))
    assert torch.equal(drop.eval()(values), values)


@pytest.mark.parametrize(("p", "kept"), [(0.0, 1.0), (1e-6, 1.0), (1 - 1e-6, 0.0), (1.0, 0.0)])
def test_dropout_of_nothing_and_of_everything_draws_nothing(p, kept):
    state = torch.get_rng_state()
    assert torch.equal(Dropout(p)(torch.ones(5, 3)), torch.full((5, 3), kept))
    assert torch.equal(torch.get_rng_state(), state)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_mean_per_utterance_is_the_mean_of_each(lengths):
    frames = torch.randn(sum(lengths), 3)
    means = mean_per_utterance(frames, torch.tensor(lengths))
    start = 0
    for mean, length in zip(means, lengths, strict=True):
        torch.testing.assert_close(mean, frames[start : start + length].sum(0) / length)
        start += length


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_frame_statistics_are_those_of_all_frames_together(lengths):
    utterances = [torch.randn(2, n, 3) * 2 + 5 for n in lengths]
    means = torch.stack([u.mean(1) for u in utterances])
    stds = torch.stack([u.std(1, correction=0) for u in utterances])
    mean, std = frame_statistics(means, stds, torch.tensor(lengths))
    together = torch.cat(utterances, 1)
    torch.testing.assert_close(mean, together.mean(1))
    torch.testing.assert_close(std, together.std(1, correction=0), atol=1e-4, rtol=1e-4)


def test_pooled_statistics_count_every_utterance_once():
    mean, std = pooled_statistics(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    assert mean.tolist() == [2.0, 0.0]
    assert std.tolist() == [1.0, 0.0]


def test_standardised_frames_have_mean_0_and_deviation_1_per_layer_and_dimension():
    frames = torch.randn(2, 50, 3) * torch.tensor([1.0, 10.0, 0.1]) + 7
    norm = Standardise(frames.mean(1), frames.std(1, correction=0))
    out = norm(frames)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(1, correction=0), torch.ones(2, 3), atol=1e-4, rtol=0)


def test_a_dimension_that_never_varies_stays_finite():
    frames = torch.full((4, 3), 5.0)
    assert (
        Standardise(frames.mean(0), frames.std(0, correction=0))(frames).tolist() == [[0.0] * 3] * 4
    )


def test_a_constant_dimension_stays_finite_though_its_statistics_are_rounded():
    lengths = torch.randint(1, 300, (40,))
    means = torch.full((40, 3), 5.1) + torch.randn(40, 3) * 1e-7
    norm = Standardise(*frame_statistics(means, torch.zeros(40, 3), lengths))
    assert norm(torch.full((4, 3), 5.1).half().float()).abs().max() < 0.01


def test_normalised_vectors_do_not_know_their_scale():
    frames = torch.randn(6, 64)
    torch.testing.assert_close(
        NormaliseVectors()(frames), NormaliseVectors()(frames * 1000), atol=1e-3, rtol=1e-3
    )


def test_a_probe_normalises_before_its_head():
    head, frames, lengths = LinearHead(3, 2), torch.randn(5, 3), torch.tensor([5])
    norm = Standardise(torch.ones(3), torch.full((3,), 2.0))
    torch.testing.assert_close(Probe(norm, head)(frames, lengths), head((frames - 1) / 2, lengths))


@pytest.mark.parametrize("norm", [nn.Identity(), Standardise(torch.randn(8), torch.rand(8) + 1)])
def test_what_is_moved_once_is_what_was_cut_widened_and_joined(norm, monkeypatch):
    """To the last bit: the numbers of a training do not depend on how its frames are moved."""
    monkeypatch.setattr(heads, "BLOCK", 24)  # of three frames
    pieces = [torch.randn(n, 8).half() for n in (1, 4, 7)]
    asked = []
    head = MeanHead(asked)
    Probe(norm, head)(pieces, torch.tensor([1, 4, 7]))
    assert torch.equal(asked[0], norm(torch.cat(pieces).float()))


class MeanHead(nn.Module):
    """Keeps what it is given."""

    def __init__(self, asked):
        super().__init__()
        self.asked, self.classify = asked, nn.Linear(8, 2)

    def forward(self, frames, lengths):
        self.asked.append(frames)
        return self.classify(frames[: len(lengths)])
