"""A codec is a row: a made-up one passes through the writer, the reader, merge and verify."""

import numpy as np
import pytest
import torch
from conftest import utterance_table, write_cache

from lsmprobe.arguments import check
from lsmprobe.cache.codecs import CODECS, Codec, codec_of
from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.parts import part_path, plan_part
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_cache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.config import StoreDtype
from lsmprobe.errors import CacheError


@pytest.mark.parametrize("name", CODECS)
def test_what_is_stored_is_what_it_was_rounded_to(name):
    codec = CODECS[name]
    states = torch.randn(3, 50, 7) * torch.logspace(-6, 4, 7)
    rounded = codec.round(states)
    stored = codec.encode(rounded)
    assert stored.dtype == codec.dtype and stored.shape == states.shape
    np.testing.assert_array_equal(codec.decode(stored), rounded.float().numpy())
    assert torch.equal(codec.round(rounded), rounded)  # rounding twice is rounding once


def test_flags_take_every_codec():
    assert {check("store_dtype", name, StoreDtype) for name in CODECS} == set(CODECS)


@pytest.fixture
def eighths(monkeypatch):
    """Whole eighths up to 16 in a byte: a row, and nothing else."""
    codec = Codec(
        name="eighths",
        stored="i1",
        largest=15.9,
        round=lambda states: (states * 8).round(),
        encode=lambda states: states.numpy().astype("i1"),
        decode=lambda stored: stored.astype(np.float32) / 8,
    )
    monkeypatch.setitem(CODECS, codec.name, codec)
    return codec


def test_a_made_up_codec_is_written_read_verified_and_merged(tmp_path, eighths):
    frames = [5, 3, 8, 2]
    table = utterance_table("abcd", ["anger", "fear"] * 2, frames)
    states = [torch.randn(2, n, 6) for n in frames]
    path = write_cache(tmp_path / "m" / "c.h5", table, states, dtype="eighths")
    plan = CachePlan(table, 2, 6, "frames", "eighths", {"model": "m", "random_init": None})
    parts = tmp_path / "p" / "c.h5"
    for number in range(2):
        part = plan_part(plan, number, 2)
        with CacheWriter.open(part_path(parts, number, 2), part) as writer:
            for row, key in enumerate(part.utterances["key"]):
                index = list(table["key"]).index(key)
                writer.write(row, states[index], f"{index:064x}")
    merge_cache(parts)
    for file in (path, parts):
        cache = FeatureCache(file)
        assert not verify_cache(file).damaged
        for i, hidden in enumerate(states):
            expected = (hidden[1] * 8).round() / 8
            np.testing.assert_array_equal(cache.frames(i, 1), expected.numpy())
    with (
        CacheWriter.open(tmp_path / "m" / "d.h5", plan) as writer,
        pytest.raises(CacheError, match=r"eighths holds up to 15\.9\. Use --store-dtype float16"),
    ):
        writer.write(0, states[0] * 100, "0" * 64)


def test_a_codec_that_is_not_known_is_one_line(tmp_path, eighths, monkeypatch):
    path = write_cache(
        tmp_path / "m" / "c.h5",
        utterance_table("ab", ["anger", "fear"], [2, 2]),
        [torch.zeros(1, 2, 3)] * 2,
        dtype="eighths",
    )
    monkeypatch.delitem(CODECS, "eighths")
    with pytest.raises(
        CacheError, match=r"c\.h5: its frames are stored as 'eighths'; expected one of"
    ):
        FeatureCache(path)
    with pytest.raises(CacheError, match="expected one of float16, bfloat16, float32"):
        codec_of("int4")
