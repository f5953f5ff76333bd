import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe.probing.batches import FrameFeatures, HeldFrames, PooledFeatures

LAYERS, DIM = 3, 4


def frame_features(lengths, dtype="float16", budget=None):
    """Features of random frames, and a list of what is read from them: (utterance, layer)."""
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(LAYERS, n, DIM)).astype(dtype) for n in lengths]
    asked = []

    def read(utterance, layer):
        asked.append((utterance, layer))
        return states[utterance][layer]

    return FrameFeatures(read, np.array(lengths), budget), asked


def packed(features, utterances, layers):
    """(layers, frames, dim) and lengths, straight from the arrays."""
    arrays = [
        np.concatenate([features.read(int(u), layer) for u in utterances]) for layer in layers
    ]
    return torch.from_numpy(np.stack(arrays)), features.lengths[utterances].tolist()


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    dtype=st.sampled_from(["float16", "float32"]),
    data=st.data(),
)
def test_a_batch_of_held_frames_is_the_batch_read_straight_from_the_arrays(lengths, dtype, data):
    features, _ = frame_features(lengths, dtype)
    some = st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True)
    pool = np.array(data.draw(some))
    layers = data.draw(st.sampled_from([[0], [1, 2], [0, 1, 2]]))
    held = HeldFrames(features, layers, int(features.lengths[pool].sum()), "cpu").fill(pool)
    for _ in range(3):
        batch = np.array(data.draw(st.lists(st.sampled_from(pool.tolist()), min_size=1)))
        pieces, counts = held.batch(batch, layers)
        expected, same = packed(features, batch, layers)
        assert torch.cat(pieces, 1).dtype == getattr(torch, dtype)
        assert torch.equal(torch.cat(pieces, 1), expected)
        assert counts.tolist() == same


def test_on_a_cpu_no_frame_is_copied_on_its_way_to_a_head():
    features, _ = frame_features([3, 1, 5])
    held = HeldFrames(features, [0, 1], 9, "cpu").fill(np.arange(3))
    pieces, _ = held.batch(np.array([2, 0]), [0, 1])
    assert {piece.untyped_storage().data_ptr() for piece in pieces} == {
        held._frames.untyped_storage().data_ptr()
    }


def test_a_memory_mapped_layer_is_read_as_it_lies_in_the_file(tmp_path, rng):
    lengths = rng.integers(50, 300, 20)
    offsets = np.cumsum(lengths) - lengths
    states = rng.normal(size=(2, lengths.sum(), 64)).astype(np.float16)
    states.tofile(tmp_path / "states")
    mapped = np.memmap(tmp_path / "states", np.float16, "r").reshape(states.shape)
    features = FrameFeatures(lambda u, layer: mapped[layer, offsets[u] :][: lengths[u]], lengths)
    [held] = features.through([np.arange(20)[::-1]], [0, 1], "cpu")
    pieces, _ = held.batch(np.arange(20), [0, 1])
    np.testing.assert_array_equal(torch.cat(pieces, 1).numpy(), states)


def test_what_fits_into_the_budget_is_read_once_and_what_does_not_pool_by_pool():
    pools = [np.array([0, 1]), np.array([2]), np.array([1, 0])]
    for budget, reads in ((10**6, 3), (0, 5)):
        features, asked = frame_features([2, 3, 4], budget=budget)
        twin, _ = frame_features([2, 3, 4])  # what it reads is not counted
        for pool, held in zip(pools, features.through(pools, [0, 2], "cpu"), strict=True):
            pieces, _ = held.batch(pool, [0, 2])
            assert torch.equal(torch.cat(pieces, 1), packed(twin, pool, [0, 2])[0])
        of_pools = [utterance for utterance, layer in asked[1:] if layer == 2]
        assert len(of_pools) == reads


def test_the_budget_is_to_the_byte():
    pools = [np.array([0, 1]), np.array([1])]
    for spare, together in ((0, True), (-1, False)):
        features, _ = frame_features([2, 3], budget=5 * LAYERS * DIM * 2 + spare)
        first, second = features.through(pools, [0, 1, 2], "cpu")
        assert (first is second) == together


def test_the_next_pool_is_read_while_this_one_trains():
    features, _ = frame_features([2, 3, 4], budget=0)
    arrived = threading.Event()

    def read(utterance, layer):
        if utterance == 2:
            arrived.set()
        return features.read(utterance, layer)

    pools = [np.array([0]), np.array([2])]
    at_hand = FrameFeatures(read, features.lengths, 0).through(pools, [0], "cpu")
    next(at_hand)
    assert arrived.wait(10)
    at_hand.close()


def test_two_pools_are_in_memory_however_many_there_are():
    features, _ = frame_features([3] * 40, budget=0)
    pools = [np.arange(i, i + 4) for i in range(0, 40, 4)]
    held = {id(at_hand._frames) for at_hand in features.through(pools, [0, 1], "cpu")}
    assert len(held) == 2


def test_an_error_of_the_read_ahead_reaches_the_training():
    def read(utterance, layer):
        if utterance == 1:
            raise OSError("the disk is gone")
        return np.zeros((2, DIM), np.float16)

    pools = [np.array([0]), np.array([1])]
    at_hand = FrameFeatures(read, np.array([2, 2]), 0).through(pools, [0], "cpu")
    with pytest.raises(OSError, match="the disk is gone"):
        list(at_hand)


def test_pooled_means_are_utterances_of_one_frame():
    means = torch.randn(5, LAYERS, DIM)
    [features] = PooledFeatures(means).through([np.arange(5)], [0], "cpu")
    [frames], lengths = features.batch(np.array([4, 1]), [2, 0])
    assert lengths.tolist() == [1, 1]
    assert torch.equal(frames, torch.stack([means[[4, 1], 2], means[[4, 1], 0]]))
