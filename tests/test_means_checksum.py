"""The checksum of means: who needs means alone reads and compares nothing else."""

import dataclasses
import hashlib
import os

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xxhash
from conftest import utterance_table, write_cache
from test_cache import assert_right, digest, extents, fill, finished, plan_of, states
from test_cache_parts import finished_parts
from test_cache_tools import flip, with_audio

from lsmprobe.cache import file as cache_file
from lsmprobe.cache.export import export_cache
from lsmprobe.cache.file import CacheFile
from lsmprobe.cache.layout import MEANS_CHECKSUM
from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.parts import part_path, plan_part, verified_mark
from lsmprobe.cache.prune import prunable
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_cache, verify_once
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.cluster.stages import STAGES
from lsmprobe.config import ProbeConfig, SensitivityConfig
from lsmprobe.errors import CacheError
from lsmprobe.experiments.learning_curves import learning_curve
from lsmprobe.extraction.resume import planned_files
from lsmprobe.layers.dissimilarity import layer_geometry, representational_similarity
from lsmprobe.layers.health import layer_health
from lsmprobe.layers.probes import layer_answers, probe_layers, sweep_layers
from lsmprobe.layers.projection import project_layer
from lsmprobe.layers.similarity import layer_similarity
from lsmprobe.layers.weights import layer_drops, layer_shares
from lsmprobe.probing.stage import probe
from lsmprobe.probing.task import read_task
from lsmprobe.progress import silent
from lsmprobe.results.records import load_results

DAMAGED = "has 1 damaged utterance \\('001.wav' first\\)"


def before_there_was_one(plan):
    """The plan of a file that has no checksums of means."""
    return dataclasses.replace(plan, means_checksum=False)


def of_utterance(path, name, row):
    """First and last byte of what a member holds of an utterance."""
    file = CacheFile(path)
    member = file.members[name]
    first, count = row, 1
    if name in file.per_frame:
        first, count = file.columns["offset"][row], file.columns["frames"][row]
    start = member.offset + int(first) * member.row_nbytes
    return start, start + int(count) * member.row_nbytes


def overwrite_frames(path):
    """Noise in the place of every frame of every layer."""
    rng = np.random.default_rng(0)
    with path.open("r+b") as file:
        for name, (start, end) in extents(path).items():
            if name.startswith("layers/"):
                file.seek(start)
                file.write(rng.bytes(end - start))


@pytest.fixture
def bytes_read(monkeypatch):
    """Every place that the comparison of checksums reads: first and last byte."""
    found, read = [], os.pread

    def pread(descriptor, nbytes, offset):
        found.append((offset, offset + nbytes))
        return read(descriptor, nbytes, offset)

    monkeypatch.setattr(cache_file.os, "pread", pread)
    return found


def touches_frames(path, places):
    frames = [extent for name, extent in extents(path).items() if name.startswith("layers/")]
    return any(start < e and s < end for start, end in places for s, e in frames)


# The column


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_it_covers_what_is_stored_of_an_utterance_but_its_frames(tmp_path, dtype):
    path = finished(tmp_path / "c.h5", plan_of(dtype=dtype))
    with h5py.File(path) as file:
        for row, stored in enumerate(file["utterances/means_checksum"]):
            pooled = [
                file[f"pooled/{n}"][row] for n in ("mean", "std", "scale") if n in file["pooled"]
            ]
            text = b"".join(each.tobytes() for each in pooled) + digest(row).encode()
            assert stored == xxhash.xxh3_64_intdigest(text)
        assert file.attrs["version"] == 3


def test_a_cache_of_means_alone_has_none_and_is_as_it_was(tmp_path):
    plan = plan_of(store="pooled")
    path = finished(tmp_path / "c.h5", plan)
    with h5py.File(path) as file:
        assert "means_checksum" not in file["utterances"]
        assert file.attrs["version"] == 1
    older = finished(tmp_path / "older.h5", before_there_was_one(plan))
    assert path.read_bytes() == older.read_bytes()


@pytest.mark.parametrize(
    "name", ["pooled/mean", "pooled/std", "utterances/sha256", "utterances/means_checksum"]
)
def test_a_reader_of_means_names_a_flipped_bit_in_what_it_reads(tmp_path, name):
    path = finished(tmp_path / "c.h5", plan_of())
    flip(path, of_utterance(path, name, 1)[0])
    for reads in ("means", "frames"):
        with pytest.raises(CacheError, match=DAMAGED):
            verify_once(FeatureCache(path), reads=reads)
    assert verify_cache(path, repair=True).damaged == ("001.wav",)
    with CacheWriter.open(path, plan_of()) as writer:
        fill(writer)
    verify_once(FeatureCache(path))


def test_a_flipped_bit_in_frames_is_for_readers_of_frames(tmp_path, bytes_read):
    path = finished(tmp_path / "c.h5", plan_of())
    flip(path, of_utterance(path, "layers/01", 1)[0])
    bytes_read.clear()
    found = verify_cache(path, reads="means")
    assert not touches_frames(path, bytes_read)
    assert (found.damaged, found.n_utterances) == ((), 6)
    assert round(found.gigabytes * 1e9) == 6 * (2 * 3 * 5 * 4 + 64)
    assert "none damaged (means alone, " in str(found)
    assert verify_cache(path).damaged == ("001.wav",)
    assert touches_frames(path, bytes_read)


# The mark of what was verified


def test_means_that_were_verified_are_no_frames_that_were(tmp_path):
    path = finished(tmp_path / "m" / "c.h5", plan_of())
    flip(path, of_utterance(path, "layers/01", 1)[0])
    for _ in range(2):
        verify_once(FeatureCache(path), reads="means")
        with pytest.raises(CacheError, match=DAMAGED):
            verify_once(FeatureCache(path))


def test_frames_that_were_verified_are_means_that_were(tmp_path, bytes_read):
    path = finished(tmp_path / "m" / "c.h5", plan_of())
    verify_once(FeatureCache(path), reads="means")
    verify_once(FeatureCache(path))
    mark = verified_mark(path).read_bytes()
    bytes_read.clear()
    verify_once(FeatureCache(path), reads="means")
    verify_once(FeatureCache(path))
    assert verified_mark(path).read_bytes() == mark
    assert bytes_read == []


# Who reads what


def config_of(kind, folder, cache, **settings):
    """Of a command that trains on a cache as little as it can."""
    folders = {"cache_dir": cache.path.parents[1], "results_dir": folder / "results"}
    return kind(epochs=1, runs=1, device="cpu", **folders, **settings)


def swept(folder, cache, of=sweep_layers, **settings):
    """The table of a function that trains heads."""
    return of(cache, epochs=1, runs=1, device="cpu", results_dir=folder / "results", **settings)


def exported(folder, cache, **settings):
    """A table of the array."""
    export_cache(cache.path, folder / "out", **settings)
    return pd.DataFrame(np.load(folder / "out.npy").reshape(-1, cache.dim))


def planned(folder, cache):
    """What the pieces of a sensitivity analysis are called, which reads the cache as it does."""
    config = config_of(SensitivityConfig, folder, cache, head="linear")
    pieces, failures = STAGES[SensitivityConfig].plan(config, silent)
    assert not failures
    return pd.Series([piece.name for piece in pieces])


READ_MEANS = {
    "probe --head linear": lambda folder, cache: probe(
        config_of(ProbeConfig, folder, cache, head="linear")
    ),
    "sensitivity --head linear": planned,
    "sweep_layers": swept,
    "learning_curve": lambda *of: swept(*of, of=learning_curve, sizes=[2]),
    "probe_layers": lambda folder, cache: probe_layers(cache),
    "layer_answers": lambda folder, cache: layer_answers(cache),
    "layer_health": lambda folder, cache: layer_health(cache),
    "layer_similarity": lambda folder, cache: layer_similarity(cache),
    "layer_geometry": lambda folder, cache: layer_geometry(cache, most=20),
    "representational_similarity": lambda folder, cache: representational_similarity(
        cache, ["emotion"], most=20, results_dir=folder / "results"
    ),
    "project_layer": lambda folder, cache: project_layer(cache, 2),
    "cache export": exported,
}


@pytest.mark.parametrize("name", READ_MEANS)
def test_what_reads_means_gives_the_same_whatever_the_frames_hold(
    tmp_path, planted_cache, bytes_read, name
):
    path = planted_cache()
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        table = READ_MEANS[name](folder, FeatureCache(path))
        found.append(table.drop(columns=["path", "seconds", "created"], errors="ignore"))
        overwrite_frames(path)  # so the mark of what was verified counts no more
    assert found[0].to_csv() == found[1].to_csv()
    assert bytes_read
    assert not touches_frames(path, bytes_read)


def test_shares_of_layers_need_no_frames_and_drops_do(tmp_path, planted_cache):
    path = planted_cache()
    probe(config_of(ProbeConfig, tmp_path, FeatureCache(path), head="multilayer"))
    results = load_results(tmp_path / "results")
    expected = layer_shares(FeatureCache(path), results)
    overwrite_frames(path)
    pd.testing.assert_frame_equal(layer_shares(FeatureCache(path), results), expected)
    with pytest.raises(CacheError, match="160 damaged utterances"):
        layer_drops(FeatureCache(path), results)


def test_health_verifies_frames_where_it_must_look_at_them(tmp_path):
    states = [torch.full((2, 4, 8), 65_000.0) + torch.randn(2, 4, 8) for _ in range(6)]
    table = utterance_table(["s"] * 6, ["anger"] * 6, [4] * 6)
    path = write_cache(tmp_path / "m" / "c.h5", table, states)
    assert (layer_health(FeatureCache(path)).overflowed_units == 1).all()
    flip(path, of_utterance(path, "layers/01", 1)[0])
    with pytest.raises(CacheError, match=DAMAGED):
        layer_health(FeatureCache(path))


READ_FRAMES = {
    "probe --head nonlinear": lambda folder, cache: probe(
        config_of(ProbeConfig, folder, cache, head="nonlinear")
    ),
    "sweep_layers of nonlinear": lambda *of: swept(*of, head="nonlinear"),
    "layer_similarity of frames": lambda folder, cache: layer_similarity(cache, rows="frames"),
    "cache export --frames": lambda *of: exported(*of, layer=1, frames=True),
}


@pytest.mark.parametrize("name", READ_FRAMES)
def test_what_reads_frames_refuses_damaged_ones_where_means_were_verified(
    tmp_path, planted_cache, name
):
    path = planted_cache()
    flip(path, of_utterance(path, "layers/03", 1)[0])
    verify_once(FeatureCache(path), reads="means")
    with pytest.raises(CacheError, match=DAMAGED):
        READ_FRAMES[name](tmp_path, FeatureCache(path))


def test_a_task_of_which_means_were_verified_gives_no_frames(planted_cache):
    task = read_task(ProbeConfig(), "planted", "made", planted_cache(), reads="means")
    with pytest.raises(AssertionError):
        task.read(0, 1)


# Files from before there was such a column


def test_an_older_file_is_verified_whole_by_who_reads_means(tmp_path, bytes_read):
    path = finished(tmp_path / "m" / "c.h5", before_there_was_one(plan_of()))
    assert_right(FeatureCache(path), plan_of())
    bytes_read.clear()
    verify_once(FeatureCache(path), reads="means")
    assert touches_frames(path, bytes_read)
    bytes_read.clear()
    verify_once(FeatureCache(path))
    assert bytes_read == []
    flip(path, of_utterance(path, "layers/01", 1)[0])
    with pytest.raises(CacheError, match=DAMAGED):
        verify_once(FeatureCache(path), reads="means")


def test_an_older_file_is_continued_as_it_was_begun(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with CacheWriter.open(path, before_there_was_one(plan)) as writer:
        fill(writer, [0, 3])
    with CacheWriter.open(path, plan) as writer:
        assert writer.remaining == [1, 2, 4, 5]
        fill(writer)
    assert path.read_bytes() == finished(tmp_path / "b.h5", before_there_was_one(plan)).read_bytes()


def test_an_older_file_that_is_continued_in_a_copy_gets_the_column(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with CacheWriter.open(path, before_there_was_one(plan)) as writer:
        fill(writer, [0, 3, 4])
    flip(path, of_utterance(path, "layers/02", 3)[0])
    with CacheWriter.open(path, plan, "a lease") as writer:
        assert writer.remaining == [1, 2, 3, 5]
        fill(writer)
    assert path.read_bytes() == finished(tmp_path / "b.h5", plan).read_bytes()


def older_part(path, plan, number, count):
    """Make a part of a cache again, as it was before there was a checksum of means."""
    part, file = plan_part(plan, number, count), part_path(path, number, count)
    keys = plan.utterances["key"].tolist()
    file.unlink()
    with CacheWriter.open(file, before_there_was_one(part)) as writer:
        for index, key in enumerate(part.utterances["key"]):
            writer.write(index, states(plan, keys.index(key)), digest(keys.index(key)))
    return file


def test_parts_with_and_without_it_are_one_cache_and_merge_to_a_file_with_it(tmp_path, bytes_read):
    plan = plan_of()
    path = finished_parts(tmp_path / "m" / "c.h5", plan)
    older = older_part(path, plan, 1, 3)
    assert_right(FeatureCache(path), plan)
    bytes_read.clear()
    verify_once(FeatureCache(path), reads="means")  # of the older part everything
    assert verified_mark(older).read_bytes()[:6] != b"means "
    assert verified_mark(part_path(path, 0, 3)).read_bytes()[:6] == b"means "
    merge_cache(path)
    assert path.read_bytes() == finished(tmp_path / "whole.h5", plan).read_bytes()
    assert sorted(prunable(path, named=True)) == [part_path(path, number, 3) for number in range(3)]


def test_of_an_older_file_that_cannot_be_opened_what_is_undamaged_is_taken_over(tmp_path):
    plan, path = with_audio(tmp_path, before_there_was_one(plan_of()))
    flip(path, of_utterance(path, "layers/01", 1)[0])
    flip(path, path.read_bytes().index(b"000.wav"))
    plan = dataclasses.replace(plan, means_checksum=True)
    [(beside, _)] = planned_files(path, plan, replaces=True)
    with CacheWriter.open(beside, plan) as writer:
        assert writer.remaining == [1]
        writer.write(1, states(plan, 1), hashlib.sha256(b"\1").hexdigest())
    assert verify_cache(beside).damaged == ()
    assert MEANS_CHECKSUM in CacheFile(beside).members


@pytest.mark.parametrize("layers", [1, 3, 40])
@pytest.mark.parametrize("n", [1, 600])
def test_without_the_column_everything_else_lies_where_it_lies_with_it(tmp_path, layers, n):
    plan = plan_of([2] * n, layers=layers)
    found = []
    for each in (plan, before_there_was_one(plan)):
        path = tmp_path / f"{each.means_checksum}.h5"
        with CacheWriter.open(path, each):
            found.append(extents(path))
    assert {name: found[0][name] for name in found[1]} == found[1]
