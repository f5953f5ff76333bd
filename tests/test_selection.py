"""Some layers, means of frames, and eight bits: what a cache of less than everything holds."""

import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import utterance_table, write_cache
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lsmprobe.cache.catalogue import cache_info, list_caches
from lsmprobe.cache.export import export_cache
from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.parts import part_path, plan_part
from lsmprobe.cache.plan import CachePlan, differences
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.selection import Selection, selection_of, spans, step_means
from lsmprobe.cache.verify import verify_cache
from lsmprobe.cache.writer import CacheWriter, outgoing
from lsmprobe.config import ExtractConfig
from lsmprobe.errors import CacheError, SettingsError
from lsmprobe.experiments.prediction import probabilities
from lsmprobe.probing.heads import NonLinearHead, Probe

GOLDEN = Path(__file__).parent / "golden"
N_LAYERS, DIM = 4, 6
FRAMES = [11, 1, 5, 13, 2, 10]


@given(n_frames=st.integers(1, 70), step=st.floats(1.01, 80))
def test_the_mean_of_the_steps_is_the_mean_of_the_frames(n_frames, step):
    frames = torch.randn(2, n_frames, 3, dtype=torch.float64)
    means = step_means(frames, step)
    assert means.shape[1] == math.ceil(n_frames / step)
    torch.testing.assert_close(means.mean(1), frames.mean(1))


@given(n_frames=st.integers(1, 70), n_spans=st.integers(1, 70))
def test_every_frame_counts_alike_and_spans_are_in_order(n_frames, n_spans):
    n_spans = min(n_frames, n_spans)
    rows, shares = spans(n_frames, n_spans)
    weight = torch.zeros(n_frames, dtype=torch.float64).index_add_(
        0, rows.flatten(), shares.flatten()
    )
    torch.testing.assert_close(weight, torch.full_like(weight, n_spans / n_frames))
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(n_spans, dtype=torch.float64))
    middles = (rows * shares).sum(1)
    expected = (torch.arange(n_spans) + 0.5) * n_frames / n_spans - 0.5
    torch.testing.assert_close(middles.diff(), expected.double().diff(), atol=0.5, rtol=0)


def test_steps_that_end_with_frames_are_plain_means():
    frames = torch.randn(2, 12, 3)
    expected = frames.reshape(2, 4, 3, 3).mean(2)
    torch.testing.assert_close(step_means(frames, 3.0), expected)


def plan_of(selection, *, dtype="float16", frame_ms=20.0):
    table = utterance_table(["s"] * len(FRAMES), ["anger"] * len(FRAMES), FRAMES)
    table["frames"] = [selection.n_frames(n) for n in FRAMES]
    identity = {"model": "m", "random_init": None, **selection.identity(frame_ms)}
    return CachePlan(table, len(selection.layers), DIM, "frames", dtype, identity)


def states_of(index):
    generator = torch.Generator().manual_seed(index)
    spread = torch.logspace(-3, 3, DIM)
    centre = 100 * torch.randn(N_LAYERS, 1, DIM, generator=generator)
    noise = torch.randn(N_LAYERS, FRAMES[index], DIM, generator=generator)
    return spread * (noise + centre / 30)


def written(path, plan):
    rows = {key: number for number, key in enumerate(utterance_table("s" * 6, "a" * 6, FRAMES).key)}
    with CacheWriter.open(path, plan) as writer:
        for index, key in enumerate(plan.utterances.key):
            writer.write(index, states_of(rows[key]), f"{rows[key]:064x}")
    return path


WHOLE = Selection(range(N_LAYERS), N_LAYERS)
SOME = [
    ("int8", WHOLE),
    ("float16", Selection((0, 3), N_LAYERS)),
    ("float32", Selection(range(N_LAYERS), N_LAYERS, 2.5)),
    ("int8", Selection((3,), N_LAYERS, 4.0)),
]


@pytest.mark.parametrize("dtype, selection", SOME)
def test_less_than_everything_is_written_read_verified_merged_and_exported(
    tmp_path, dtype, selection
):
    plan = plan_of(selection, dtype=dtype)
    path = written(tmp_path / "m" / "c.h5", plan)
    parts = tmp_path / "p" / "c.h5"
    for number in range(2):
        written(part_path(parts, number, 2), plan_part(plan, number, 2))
    merge_cache(parts, remove_parts=True)
    assert parts.read_bytes() == path.read_bytes()
    everything = FeatureCache(written(tmp_path / "all" / "c.h5", plan_of(WHOLE, dtype="float32")))
    cache = FeatureCache(path)
    assert not verify_cache(path).damaged
    assert list(cache.layers) == list(selection.layers)
    np.testing.assert_array_equal(cache.pooled, everything.pooled[:, list(selection.layers)])
    for i, layer in [(i, layer) for i in range(6) for layer in cache.layers]:
        exact = step_means(states_of(i)[[layer]], selection.step)[0].numpy()
        found = cache.frames(i, layer)
        assert found.shape == exact.shape
        if dtype == "int8":
            reach = np.abs(exact - exact.mean(0)).max(0)
            rounding = 1e-6 * np.abs(exact).max(0)
            assert (np.abs(found - exact) <= reach / 254 + rounding).all()
        else:
            np.testing.assert_allclose(found, exact, rtol=2**-10, atol=1e-7)
    row = list_caches(tmp_path).set_index("model").loc["m"]
    step = f", every {20 * selection.step:g} ms" if selection.step > 1 else ""
    assert row.store == f"frames, {dtype}{step}"
    held = {(0, 3): "0, 3 of 4", (3,): "3 of 4"}.get(tuple(selection.layers), "4")
    assert str(row.layers) == held
    assert cache_info(path)["frames"] == cache.lengths.sum()
    last = selection.layers[-1]
    export_cache(path, tmp_path / "out", layer=last, frames=True)
    packed = np.concatenate([cache.frames(i, last) for i in range(6)])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), packed)
    export_cache(path, tmp_path / "means", layer=last)
    np.testing.assert_array_equal(np.load(tmp_path / "means.npy"), everything.pooled[:, last])


def test_a_subset_is_exact_and_a_layer_that_is_not_stored_is_one_line(tmp_path):
    everything = FeatureCache(written(tmp_path / "all" / "c.h5", plan_of(WHOLE)))
    some = FeatureCache(written(tmp_path / "c.h5", plan_of(Selection((1, 3), N_LAYERS))))
    for layer in (1, 3):
        for i in range(6):
            np.testing.assert_array_equal(some.frames(i, layer), everything.frames(i, layer))
        stds = everything.pooled_std[:, layer]
        np.testing.assert_array_equal(some.pooled_std[:, some.place(layer)], stds)
    with pytest.raises(
        CacheError, match=r"has layers 1, 3; got layer 2\. Run lsmprobe extract again with that"
    ):
        some.frames(0, 2)
    with pytest.raises(CacheError, match=r"has layers 1, 3; got layer 4\.$"):
        some.frames(0, 4)


def test_another_selection_or_codec_is_another_cache(tmp_path):
    plans = [plan_of(WHOLE), *(plan_of(selection, dtype=dtype) for dtype, selection in SOME)]
    caches = [FeatureCache(written(tmp_path / f"{i}.h5", plan)) for i, plan in enumerate(plans)]
    assert len({cache.identity_hash for cache in caches}) == len(plans)
    for cache, plan in [(c, p) for c in caches for p in plans]:
        assert bool(differences(cache, plan)) == (plan is not plans[caches.index(cache)])
    with h5py.File(caches[0].path) as whole:
        assert "scale" not in whole["pooled"]


def test_a_damaged_scale_is_found(tmp_path):
    path = written(tmp_path / "c.h5", plan_of(WHOLE, dtype="int8"))
    with h5py.File(path, "r+", locking=False) as file:
        file["pooled/scale"][2, 1, 3] *= 2
    assert verify_cache(path).damaged == ("002.wav",)


@pytest.mark.parametrize(
    "identity",
    [
        {"stored_layers": [0, 9], "model_layers": 4},
        {"stored_layers": [1, 0], "model_layers": 4},
        {"stored_layers": [0], "model_layers": 4},
        {"frame_step": {"ms": 10, "frames": 0.5}},
    ],
)
def test_an_identity_that_makes_no_sense_is_refused(identity):
    with pytest.raises(ValueError, match=r"layers|1 layer at"):
        selection_of(identity, 2)


def test_the_golden_file_of_version_2():
    cache = FeatureCache(GOLDEN / "cache-v2.h5")
    assert (cache.dtype, list(cache.layers), cache.lengths.tolist()) == ("int8", [1], [2, 1, 1])
    for i, index in enumerate((0, 1, 3)):
        assert cache.verify(i)
        n = [3, 1, 0, 2][index]
        frames = index + 1 / 4 + np.arange(n)[:, None] / 16 + np.arange(4) / 64
        np.testing.assert_allclose(cache.pooled[i, 0], frames.mean(0), rtol=1e-6)
        if n == 3:  # frames 0 and half of 1, the other half and 2
            steps = np.stack([2 * frames[0] + frames[1], frames[1] + 2 * frames[2]]) / 3
            np.testing.assert_allclose(cache.frames(i, 1), steps, rtol=1e-6)
    assert cache.identity_hash == "519b9c8aea64b6d439b4126ac3aa349b0b1de1362b223f2877ec275c321237ec"


def test_half_precision_on_its_way_is_widened_before_it_is_averaged():
    hidden = (1000 + torch.randn(N_LAYERS, 9, DIM)).half()
    plan = plan_of(Selection(range(N_LAYERS), N_LAYERS, 3.0), dtype="float32")
    expected = step_means(hidden.double(), 3.0).float()
    torch.testing.assert_close(outgoing(hidden, plan).rounded, expected, rtol=1e-6, atol=0)


def config(**fields):
    return ExtractConfig(model="wav2vec2-base", dataset="emodb", **fields)


def test_layers_are_numbers_or_last():
    assert config().layers_among(3) == (0, 1, 2)
    assert config(layers="last").layers_among(3) == (2,)
    assert config(layers="2, 0,2").layers_among(3) == (0, 2)
    with pytest.raises(SettingsError, match="--layers 0,3: wav2vec2-base has layers 0 to 2"):
        config(layers="0,3").layers_among(3)
    with pytest.raises(
        SettingsError, match="expected numbers with commas, such as 0,6,12, or last"
    ):
        config(layers="first")
    with pytest.raises(SettingsError, match="--frame-step does not go with --store pooled"):
        config(frame_step=100.0, store="pooled")


def test_a_head_that_learned_from_steps_is_asked_with_steps():
    probe = Probe(nn.Identity(), NonLinearHead(3, 2)).eval()
    identity = {"frame_step": {"ms": 100.0, "frames": 5.0}}
    record = {"head": "nonlinear", "layer": 1, "layers": [1], "cache": {"identity": identity}}
    hidden = torch.randn(2, 12, 3)
    expected = torch.softmax(probe(step_means(hidden, 5.0)[1], torch.tensor([3]))[0], 0)
    found = probabilities(record, [probe], hidden)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5)


def test_an_unreadable_clip_has_no_steps(tmp_path):
    path = write_cache(
        tmp_path / "m" / "c.h5",
        utterance_table("ab", ["anger", "fear"], [2, 1]),
        [torch.randn(2, 4, 3), torch.randn(2, 2, 3)],
        dtype="int8",
        identity={"model": "m", "frame_step": {"ms": 40.0, "frames": 2.0}},
    )
    assert FeatureCache(path).lengths.tolist() == [2, 1]
