"""Each truth of the compiled steps, compared with torch's own gradients and Adam."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from lsmprobe.probing import linear_kernel
from lsmprobe.probing.heads import LinearHead
from lsmprobe.probing.linear_kernel import ROWS, CompiledStack
from lsmprobe.probing.linear_stack import LinearStack

# A large eps: of a gradient near zero, Adam's step would else be as large as that of any other, and
# its sign would be that of a rounding error.
SETTINGS = {"lr": 1e-2, "weight_decay": 1e-2, "betas": (0.8, 0.95), "eps": 1e-3}


def heads_and_optimisers(members, dim, hidden, classes):
    torch.manual_seed(0)
    heads = [LinearHead(dim, classes, hidden=hidden) for _ in range(members)]
    optimisers = []
    for number, head in enumerate(heads):
        own = SETTINGS | {"lr": SETTINGS["lr"] * (number + 1)}
        optimisers.append(torch.optim.Adam(head.parameters(), fused=True, **own))
    return heads, optimisers


def made_up(members, utterances, dim, classes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(members, utterances, dim, generator=rng)
    targets = torch.randint(0, classes, (members, utterances), generator=rng)
    return means, targets, torch.rand(members, classes, generator=rng) + 0.1


def trained_plainly(heads, optimisers, means, targets, weights, size):
    """The sums of losses, by torch's gradients and each optimiser's own steps."""
    sums = []
    ones = torch.ones(means.shape[1], dtype=torch.long)
    for head, optimiser, x, y, w in zip(heads, optimisers, means, targets, weights, strict=True):
        losses = []
        for some, true in zip(x.split(size), y.split(size), strict=True):
            optimiser.zero_grad()
            loss = cross_entropy(head(some, ones[: len(some)]), true, weight=w)
            loss.backward()
            optimiser.step()
            losses.append(loss.item() * len(some))
        sums.append(sum(losses))
    return torch.tensor(sums)


def assert_same(ours, theirs):
    for mine, plain in zip(ours, theirs, strict=True):
        for p, q in zip(mine.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


@given(
    members=st.integers(1, 3),
    utterances=st.integers(1, 20),
    size=st.integers(1, 9),
    dim=st.integers(1, 40),
    fours=st.integers(1, 4),
    classes=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_steps_and_losses_are_those_of_torch(members, utterances, size, dim, fours, classes, seed):
    means, targets, weights = made_up(members, utterances, dim, classes, seed)
    ours, plain = (heads_and_optimisers(members, dim, ROWS * fours, classes) for _ in range(2))
    stack = CompiledStack(*ours, weights)
    for _ in range(2):
        expected = trained_plainly(*plain, means, targets, weights, size)
        torch.testing.assert_close(
            stack.learn(means, targets, size), expected, rtol=1e-4, atol=1e-5
        )
    assert_same(ours[0], plain[0])
    ones = torch.ones(utterances, dtype=torch.long)
    said = torch.stack([head(x, ones) for head, x in zip(plain[0], means, strict=True)])
    torch.testing.assert_close(stack.logits(means), said.detach(), rtol=1e-4, atol=1e-4)


def test_what_one_stack_began_the_other_goes_on_with():
    """The moments and the number of steps lie in the optimisers, whose settings may change."""
    means, targets, weights = made_up(2, 12, 6, 3)
    mixed, plain = (heads_and_optimisers(2, 6, 8, 3) for _ in range(2))
    for kind in (LinearStack, CompiledStack, LinearStack):
        kind(*mixed, weights).learn(means, targets, 4)
        trained_plainly(*plain, means, targets, weights, 4)
        for optimiser in (*mixed[1], *plain[1]):
            optimiser.param_groups[0]["lr"] *= 0.5
    assert_same(mixed[0], plain[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_reported(bad):
    means, targets, weights = made_up(1, 8, 6, 3)
    means[0, 5, 2] = bad
    stack = CompiledStack(*heads_and_optimisers(1, 6, 8, 3), weights)
    assert not stack.learn(means, targets, 4).isfinite().any()


@pytest.mark.parametrize("bad", [-100, -1, 3])
def test_a_target_that_is_no_class_is_an_error(bad):
    means, targets, weights = made_up(1, 8, 6, 3)
    targets[0, 5] = bad
    stack = CompiledStack(*heads_and_optimisers(1, 6, 8, 3), weights)
    with pytest.raises(IndexError, match=f"{bad}.*expected 0 to 2"):
        stack.learn(means, targets, 4)


@pytest.fixture
def caching():
    """The module of numba that keeps what is compiled; no loops are at hand from before."""
    linear_kernel._loops.cache_clear()
    yield numba.core.caching
    linear_kernel._loops.cache_clear()


def no_folder(caching, monkeypatch):
    owner = caching.CacheImpl if hasattr(caching, "CacheImpl") else caching._CacheImpl
    monkeypatch.setattr(owner, "_locator_classes", [])


def full_disk(caching, monkeypatch):
    def save(*args):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *args: None)
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", save)


def damaged_file(caching, monkeypatch):
    monkeypatch.setattr(caching.IndexDataCacheFile, "load", lambda *args: pickle.loads(b"\x80"))


@pytest.mark.parametrize("trouble", [no_folder, full_disk, damaged_file])
def test_it_trains_where_what_is_compiled_cannot_be_kept(trouble, caching, monkeypatch, caplog):
    caplog.set_level("INFO", logger="lsmprobe")
    trouble(caching, monkeypatch)
    means, targets, weights = made_up(1, 8, 6, 3)
    ours, plain = (heads_and_optimisers(1, 6, 8, 3) for _ in range(2))
    CompiledStack(*ours, weights).learn(means, targets, 4)
    trained_plainly(*plain, means, targets, weights, 4)
    assert_same(ours[0], plain[0])
    assert not linear_kernel._loops().stats.cache_hits
    [said] = caplog.messages
    assert "NUMBA_CACHE_DIR" in said


def test_whole_numbers_among_the_settings_do_not_compile_again():
    means, targets, weights = made_up(1, 8, 6, 3)
    heads, [optimiser] = heads_and_optimisers(1, 6, 8, 3)
    optimiser.param_groups[0]["weight_decay"] = 0
    CompiledStack(heads, [optimiser], weights).learn(means, targets, 4)
    assert len(linear_kernel._loops().signatures) == 1


@pytest.mark.slow
def test_it_is_compiled_once_for_all_processes(tmp_path):
    """A second process reads what the first one compiled."""
    code = """
import test_linear_kernel as made
from lsmprobe.probing.linear_kernel import CompiledStack, _loops
means, targets, weights = made.made_up(1, 8, 6, 3)
CompiledStack(*made.heads_and_optimisers(1, 6, 8, 3), weights).learn(means, targets, 4)
print(sum(_loops().stats.cache_misses.values()))
"""
    own = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    for misses in "10":
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=own
        )
        assert out.stdout.strip() == misses
