import errno
import fcntl
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lsmprobe.cache import lock
from lsmprobe.cache import writer as writer_module
from lsmprobe.cache.layout import PAGE, decoded
from lsmprobe.cache.lock import is_being_written
from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.errors import CacheError

GOLDEN = Path(__file__).parent / "golden"
FRAMES = [3, 5, 1, 4, 7, 2]
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def plan_of(frames=FRAMES, *, layers=3, dim=5, store="frames", dtype="float16", **columns):
    n = len(frames)
    table = utterance_table(["s"] * n, ["anger"] * n, frames).assign(**columns)
    identity = {"model": {"name": "tiny", "revision": "r1"}, "norm": None}
    return CachePlan(table, layers, dim, store, dtype, identity)


def states(plan, index):
    """The hidden states of an utterance: the same whenever asked."""
    generator = torch.Generator().manual_seed(index)
    shape = plan.n_layers, int(plan.utterances["frames"][index]), plan.dim
    return 3 * torch.randn(shape, generator=generator) + 1


def digest(index):
    return f"{index:064x}"


def fill(writer, indices=None):
    for index in writer.remaining if indices is None else indices:
        writer.write(index, states(writer.plan, index), digest(index))


def finished(path, plan):
    with CacheWriter.open(path, plan) as writer:
        fill(writer)
    return path


def as_stored(hidden, dtype):
    """What the stored type makes of the states, by torch's own conversion there and back."""
    there = hidden.to(getattr(torch, dtype))
    return there.numpy() if dtype == "float16" else there.float().numpy()


def assert_right(cache, plan):
    """Every utterance that the cache shows is the one that was computed."""
    for i, key in enumerate(cache.utterances["key"]):
        index = plan.utterances["key"].tolist().index(key)
        hidden = states(plan, index)
        assert cache.verify(i)
        assert cache.utterances["sha256"][i] == digest(index)
        wide = hidden.double().numpy()
        np.testing.assert_allclose(cache.pooled[i], wide.mean(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(cache.pooled_std[i], wide.std(1), rtol=1e-5, atol=1e-6)
        for layer in cache.layers if plan.store == "frames" else ():
            expected = as_stored(hidden[layer], plan.dtype)
            np.testing.assert_array_equal(cache.frames(i, layer), expected)


def in_fork(act):
    """Run in a child process; how it ended."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# What is written is read


@settings(max_examples=40)
@given(
    frames=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    layers=st.integers(1, 4),
    dim=st.integers(1, 9),
    store=st.sampled_from(["frames", "pooled"]),
    dtype=st.sampled_from(["float16", "bfloat16", "float32"]),
    data=st.data(),
)
def test_what_is_written_is_read(tmp_path_factory, frames, layers, dim, store, dtype, data):
    assume(any(frames))
    plan = plan_of(frames, layers=layers, dim=dim, store=store, dtype=dtype)
    path = tmp_path_factory.mktemp("made") / "c.h5"
    readable = [i for i, n in enumerate(frames) if n]
    chosen = data.draw(st.permutations(readable))[: data.draw(st.integers(0, len(readable)))]
    with CacheWriter.open(path, plan) as writer:
        fill(writer, chosen)
        for index in set(range(len(frames))) - set(readable):
            writer.skip(index)
    cache = FeatureCache(path, allow_unfinished=True)
    assert cache.utterances["key"].tolist() == [f"{i:03d}.wav" for i in sorted(chosen)]
    assert (list(cache.layers), cache.dim) == (list(range(layers)), dim)
    assert (cache.store, cache.dtype, cache.identity) == (store, dtype, plan.identity)
    assert cache.is_finished == (len(chosen) == len(readable))
    assert cache.missing["skipped"].tolist() == [
        frames[i] == 0 for i in range(len(frames)) if i not in chosen
    ]
    assert cache.pooled.shape == (len(chosen), layers, dim)
    assert_right(cache, plan)
    assert path.stat().st_size <= plan.nbytes <= path.stat().st_size + 1e6


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PATHS = st.binary(max_size=3000).map(lambda raw: raw.replace(b"\0", b"/"))


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(TEXT, PATHS, TEXT), min_size=1, max_size=5, unique_by=lambda r: r[0])
)
def test_any_text_survives(tmp_path_factory, rows):
    keys, raw, labels = zip(*rows, strict=True)
    paths = [os.fsdecode(name) for name in raw]
    starts = [np.nan, *np.arange(1.0, len(keys))]
    # As corpora makes it: Arrow strings, where pyarrow is installed, refuse undecodable bytes.
    as_objects = pd.Series(paths, dtype=object)
    plan = plan_of([1] * len(keys), key=keys, path=as_objects, emotion=labels, start_s=starts)
    path = tmp_path_factory.mktemp("made") / "c.h5"
    table = FeatureCache(finished(path, plan)).utterances
    assert table["key"].tolist() == list(keys)
    assert [os.fsencode(name) for name in table["path"]] == list(raw)
    assert table["emotion"].tolist() == list(labels)
    planned = plan.utterances.drop(columns=["path"])[table.columns.drop(["path", "sha256"])]
    pd.testing.assert_frame_equal(table[planned.columns], planned, check_dtype=False)


def test_text_that_holds_a_null_byte_as_ours_never_does_is_still_that_text():
    text = np.array([b"a\0b", b"", b"c\xe9"], "S3")
    assert decoded(text) == ["a\0b", "", "c\udce9"]
    assert decoded(text[:0]) == []
    assert decoded(text[1:]) == ["", "c\udce9"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_model_may_compute_in_any_floating_type(tmp_path, dtype):
    hidden = states(plan_of([4]), 0).to(dtype)
    cache = FeatureCache(
        write_cache(tmp_path / "c.h5", plan_of([4]).utterances, [hidden], dtype="float32")
    )
    for layer in cache.layers:
        np.testing.assert_array_equal(cache.frames(0, layer), hidden[layer].float().numpy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_states_may_lie_on_a_gpu(tmp_path):
    plan = plan_of()
    with CacheWriter.open(tmp_path / "c.h5", plan) as writer:
        for index in writer.remaining:
            writer.write(index, states(plan, index).cuda(), digest(index))
    assert_right(FeatureCache(tmp_path / "c.h5"), plan)


def test_bfloat16_is_stored_exactly(tmp_path):
    """Every finite bfloat16 below 1e15, and its negative."""
    bits = torch.arange(0x5863, dtype=torch.int16)
    values = bits.view(torch.bfloat16)
    assert 0.99e15 < float(values[-1]) <= 1e15
    hidden = torch.stack([values, -values], 1)[None]
    plan = plan_of([len(values)])
    path = write_cache(tmp_path / "c.h5", plan.utterances, [hidden], dtype="bfloat16")
    cache = FeatureCache(path)
    assert cache.frames(0, 0).dtype == np.float32
    np.testing.assert_array_equal(cache.frames(0, 0), hidden[0].float().numpy())
    np.testing.assert_array_equal(cache.layer(0)[:, 0], bits.numpy().view(np.uint16))


def test_a_layer_and_its_offsets_give_every_utterance(tmp_path):
    plan = plan_of()
    with CacheWriter.open(tmp_path / "c.h5", plan) as writer:
        fill(writer, [4, 0, 3])
    cache = FeatureCache(tmp_path / "c.h5", allow_unfinished=True)
    for i, index in enumerate([0, 3, 4]):
        start, length = cache.offsets[i], cache.lengths[i]
        assert length == FRAMES[index]
        rows = cache.layer(2)[start : start + length]
        np.testing.assert_array_equal(rows, as_stored(states(plan, index)[2], "float16"))


def test_plain_h5py_reads_it(tmp_path):
    plan = plan_of(key=["für", "a\nb", "'\"", "d", "e", "f"])
    finished(tmp_path / "c.h5", plan)
    with h5py.File(tmp_path / "c.h5") as file:
        start, n = file["utterances/offset"][1], file["utterances/frames"][1]
        hidden = file["layers/02"][start : start + n]
        assert file["utterances/key"].asstr()[:].tolist() == plan.utterances["key"].tolist()
        assert json.loads(file.attrs["identity"]) == plan.identity
    np.testing.assert_array_equal(hidden, as_stored(states(plan, 1)[2], "float16"))


def test_arrays_are_views_that_cannot_be_written(tmp_path):
    cache = FeatureCache(finished(tmp_path / "c.h5", plan_of()))
    for array in (cache.frames(1, 1), cache.layer(1), cache.pooled, cache.pooled_std):
        assert array.base is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_pooled_cache_has_no_frames(tmp_path):
    plan = plan_of(store="pooled")
    cache = FeatureCache(finished(tmp_path / "c.h5", plan))
    assert_right(cache, plan)
    with pytest.raises(CacheError, match="--store frames"):
        cache.frames(0, 0)
    assert plan.frames_nbytes == plan_of().frames_nbytes == 2 * sum(FRAMES) * 3 * 5
    assert plan.pooled_nbytes == 2 * 4 * len(FRAMES) * 3 * 5


def test_a_layer_that_is_not_there(tmp_path):
    cache = FeatureCache(finished(tmp_path / "c.h5", plan_of()))
    for layer in (-1, 3):
        with pytest.raises(CacheError, match=f"has layers 0 to 2; got layer {layer}"):
            cache.frames(0, layer)


@forks
def test_it_can_be_pickled_and_read_after_a_fork(tmp_path):
    plan = plan_of()
    cache = FeatureCache(finished(tmp_path / "c.h5", plan))
    assert cache.pooled.any()
    pickled = pickle.dumps(cache)
    assert len(pickled) < 10_000
    assert_right(pickle.loads(pickled), plan)
    assert in_fork(lambda: assert_right(cache, plan)) == 0


class Frames(torch.utils.data.Dataset):
    """What a training script would make of a cache."""

    def __init__(self, cache):
        self.cache = cache

    def __len__(self):
        return len(self.cache.utterances)

    def __getitem__(self, i):
        return i, torch.from_numpy(np.array(self.cache.frames(i, 2)))


@pytest.mark.slow
@forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_workers_of_a_data_loader_read_it(tmp_path, start):
    plan = plan_of()
    cache = FeatureCache(finished(tmp_path / "c.h5", plan))
    assert cache.frames(0, 2).any()  # mapped already, before the workers are there
    loader = torch.utils.data.DataLoader(
        Frames(cache), batch_size=None, num_workers=2, multiprocessing_context=start
    )
    read = dict(loader)
    assert sorted(read) == list(range(len(FRAMES)))
    for i, frames in read.items():
        np.testing.assert_array_equal(frames, as_stored(states(plan, i)[2], "float16"))


def test_where_hdf5_insists_on_a_lock_the_message_names_the_variable(tmp_path):
    path = finished(tmp_path / "c.h5", plan_of())
    code = "import sys, lsmprobe.cache.file as f, pathlib; f.CacheFile(pathlib.Path(sys.argv[1]))"
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = subprocess.run(
            [sys.executable, "-c", code, path],
            env={**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"},
            capture_output=True,
            text=True,
        ).stderr
        assert_right(FeatureCache(path), plan_of())  # without the variable no lock matters
    assert "Set the environment variable HDF5_USE_FILE_LOCKING=FALSE." in said


def test_the_hash_names_the_features(tmp_path):
    plan = plan_of()
    first = FeatureCache(finished(tmp_path / "a.h5", plan)).identity_hash
    assert FeatureCache(finished(tmp_path / "b.h5", plan)).identity_hash == first
    elsewhere = plan_of(path=[f"/mnt/{i}" for i in range(len(FRAMES))])
    assert FeatureCache(finished(tmp_path / "c.h5", elsewhere)).identity_hash == first
    other_dtype = FeatureCache(finished(tmp_path / "d.h5", plan_of(dtype="float32")))
    with CacheWriter.open(tmp_path / "e.h5", plan) as writer:
        for index in writer.remaining:
            writer.write(index, states(plan, index), digest(index + 1))
    assert (
        len({first, other_dtype.identity_hash, FeatureCache(tmp_path / "e.h5").identity_hash}) == 3
    )


@pytest.mark.parametrize("version", [1, 3])
def test_the_golden_files_of_everything(version):
    cache = FeatureCache(GOLDEN / f"cache-v{version}.h5")
    assert cache.utterances["key"].tolist() == ["a.wav", "für Elise/b\n'2'.wav", "d.wav#1.5-1.54"]
    assert os.fsencode(cache.utterances["path"][2]) == b"clips/d\xe9.wav"
    assert cache.utterances["sentence"].tolist() == ["b1", "Für wen?", ""]
    assert cache.utterances["start_s"].isna().tolist() == [True, True, False]
    assert cache.utterances["samples"].tolist() == [960, 320, 640]
    assert cache.missing[["key", "skipped"]].to_numpy().tolist() == [["c.wav", True]]
    assert (cache.dtype, cache.identity) == ("float16", {"model": {"name": "golden"}, "norm": None})
    for i, index in enumerate((0, 1, 3)):
        assert cache.verify(i)
        assert cache.utterances["sha256"][i] == digest(index)
        for layer in (0, 1):
            frame = np.arange([3, 1, 0, 2][index])[:, None]
            expected = index + layer / 4 + frame / 16 + np.arange(4) / 64
            np.testing.assert_array_equal(cache.frames(i, layer), expected)
            np.testing.assert_array_equal(cache.pooled[i, layer], expected.mean(0))
            np.testing.assert_allclose(cache.pooled_std[i, layer], expected.std(0), atol=1e-7)
    assert cache.identity_hash == "ed0b0bcc6de01c5ce418796b04c661b1726302182357fd54492259de3eb183fb"


# The file as such


def extents(path):
    """First and last byte of every dataset, as HDF5 says."""
    with h5py.File(path, locking=False) as file:
        datasets = {f"{group}/{name}": file[group][name] for group in file for name in file[group]}
        return {
            name: (data.id.get_offset(), data.id.get_offset() + data.id.get_storage_size())
            for name, data in datasets.items()
        }


def test_every_dataset_starts_on_a_page_of_its_own(tmp_path):
    with CacheWriter.open(tmp_path / "c.h5", plan_of()):
        laid_out = (tmp_path / "c.h5").read_bytes()
    found = extents(tmp_path / "c.h5")
    pages = [p for start, end in found.values() for p in range(start // PAGE, -(-end // PAGE))]
    assert all(start % PAGE == 0 for start, _ in found.values())
    assert len(pages) == len(set(pages))
    data = np.zeros(len(laid_out), bool)
    for start, end in found.values():
        data[start:end] = True
    metadata = (np.frombuffer(laid_out, np.uint8) != 0) & ~data
    assert not set(np.flatnonzero(metadata) // PAGE) & set(pages)


def test_writing_changes_nothing_but_what_each_utterance_brings(tmp_path):
    path = tmp_path / "c.h5"
    with CacheWriter.open(path, plan_of()):
        before = np.frombuffer(path.read_bytes(), np.uint8)
    after = np.frombuffer(finished(path, plan_of()).read_bytes(), np.uint8)
    assert len(before) == len(after)
    changed = np.flatnonzero(before != after)
    columns = ("sha256", "checksum", "means_checksum", "done")
    brought = {f"utterances/{name}" for name in columns}
    places = [
        span
        for name, span in extents(path).items()
        if name in brought or name.startswith(("layers/", "pooled/"))
    ]
    assert len(changed)
    assert all(any(start <= byte < end for start, end in places) for byte in changed)


def test_the_space_is_reserved_before_anything_is_written(tmp_path):
    path = tmp_path / "c.h5"
    plan = plan_of([200_000], dim=16)
    with CacheWriter.open(path, plan):
        found = path.stat()
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system has no posix_fallocate")
    assert found.st_blocks * 512 >= found.st_size > plan.frames_nbytes == 200_000 * 3 * 16 * 2


# Interruptions


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path):
    plan = plan_of()
    for index in range(len(FRAMES)):
        with CacheWriter.open(tmp_path / "a.h5", plan) as writer:
            assert writer.remaining == list(range(index, len(FRAMES)))
            assert writer.done.tolist() == [i < index for i in range(len(FRAMES))]
            fill(writer, [index])
    assert (tmp_path / "a.h5").read_bytes() == finished(tmp_path / "b.h5", plan).read_bytes()
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a.h5", "b.h5"]


@pytest.mark.slow
@settings(max_examples=40)
@given(data=st.data())
def test_after_a_power_cut_what_is_done_is_right(tmp_path_factory, data):
    """A disk may keep any of the writes since the last fdatasync, whole or in part."""
    path = tmp_path_factory.mktemp("cut") / "c.h5"
    plan = plan_of(store=data.draw(st.sampled_from(["frames", "pooled"])))
    log: list[list[tuple[int, bytes]]] = [[]]  # the writes between two fdatasyncs

    def pwrite(descriptor, values, offset):
        log[-1].append((offset, bytes(values)))
        return len(values)

    with CacheWriter.open(path, plan):
        pass
    with pytest.MonkeyPatch.context() as patch, CacheWriter.open(path, plan) as writer:
        patch.setattr(writer_module.os, "pwrite", pwrite)
        patch.setattr(writer_module, "fdatasync", lambda _: log.append([]))
        patch.setattr(writer_module, "ACKNOWLEDGE_S", data.draw(st.sampled_from([0, 1e9])))
        fill(writer, data.draw(st.permutations(range(len(FRAMES)))))
        writer.flush()
    cut = data.draw(st.integers(0, len(log) - 1))
    lost = data.draw(st.lists(st.integers(0, 2), min_size=len(log[cut]), max_size=len(log[cut])))
    with path.open("r+b") as file:
        for offset, values in (write for group in log[:cut] for write in group):
            os.pwrite(file.fileno(), values, offset)
        for (offset, values), how in zip(log[cut], lost, strict=True):
            os.pwrite(file.fileno(), values[: len(values) * how // 2], offset)
    assert_right(FeatureCache(path, allow_unfinished=True), plan)
    assert_right(FeatureCache(finished(path, plan)), plan)


@pytest.mark.slow
@forks
def test_it_survives_kill_9_at_any_moment(tmp_path, monkeypatch):
    path, plan = tmp_path / "c.h5", plan_of([40] * 60, layers=4, dim=64)
    monkeypatch.setattr(writer_module, "ACKNOWLEDGE_S", 0.002)
    chance, n_kills = random.Random(0), 0
    while True:
        child = os.fork()
        if child == 0:
            try:
                finished(path, plan)
            finally:
                os._exit(0)
        time.sleep(chance.uniform(0, 0.01 * (1 + n_kills)))  # longer each time: it will finish
        os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        n_kills += killed
        if path.exists():
            assert_right(FeatureCache(path, allow_unfinished=True), plan)
        if not killed:
            break
    assert n_kills > 1
    assert FeatureCache(path).is_finished
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]


def test_readers_see_what_is_acknowledged_while_a_writer_works(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with CacheWriter.open(path, plan) as writer:
        fill(writer, [2, 0])
        assert len(FeatureCache(path, allow_unfinished=True).utterances) == 0
        writer.flush()
        early = FeatureCache(path, allow_unfinished=True)
        with pytest.raises(CacheError, match="unfinished: 4 of 6 utterances are still to come"):
            FeatureCache(path)
        fill(writer)
    assert len(early.utterances) == 2
    assert_right(early, plan)
    assert_right(FeatureCache(path), plan)


def test_what_is_written_is_acknowledged_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "ACKNOWLEDGE_S", 0.0)
    with CacheWriter.open(tmp_path / "c.h5", plan_of()) as writer:
        fill(writer, [1])
        assert len(FeatureCache(tmp_path / "c.h5", allow_unfinished=True).utterances) == 1


def test_an_exception_keeps_what_was_written(tmp_path):
    plan = plan_of()
    with pytest.raises(KeyboardInterrupt), CacheWriter.open(tmp_path / "c.h5", plan) as writer:
        fill(writer, [0, 1])
        raise KeyboardInterrupt
    with CacheWriter.open(tmp_path / "c.h5", plan) as writer:
        assert writer.remaining == [2, 3, 4, 5]


def test_skipped_utterances_stand_as_not_done_and_may_come_later(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with CacheWriter.open(path, plan) as writer:
        writer.skip(1)
        fill(writer)
    cache = FeatureCache(path)
    assert cache.is_finished
    assert cache.missing[["key", "skipped"]].to_numpy().tolist() == [["001.wav", True]]
    assert len(cache.utterances) == 5
    assert_right(cache, plan)
    with CacheWriter.open(path, plan) as writer:
        assert writer.remaining == []
        assert np.flatnonzero(writer.skipped).tolist() == [1]
        fill(writer, [1])
    assert len(FeatureCache(path).utterances) == 6
    assert_right(FeatureCache(path), plan)


@pytest.mark.parametrize("failing", ["pwrite", "fdatasync"])
def test_what_may_not_have_reached_the_disk_is_never_acknowledged(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path, plan = tmp_path / "c.h5", plan_of()
    with (
        pytest.raises(CacheError, match="Input/output error"),
        monkeypatch.context() as patch,
        CacheWriter.open(path, plan) as writer,
    ):
        fill(writer, [0])
        writer.flush()
        owner = writer_module.os if failing == "pwrite" else writer_module
        patch.setattr(owner, failing, fail)
        try:
            fill(writer, [1])
            writer.flush()
        finally:
            patch.undo()  # the disk recovers; what was written before is lost all the same
    cache = FeatureCache(path, allow_unfinished=True)
    assert cache.utterances["key"].tolist() == ["000.wav"]
    assert_right(cache, plan)


def test_what_a_kill_during_layout_left_behind_is_removed(tmp_path):
    (tmp_path / ".c.h5.0123abcd.tmp").write_bytes(b"x")
    (tmp_path / ".cc.h5.0123abcd.tmp").write_bytes(b"x")
    finished(tmp_path / "c.h5", plan_of())
    assert {file.name for file in tmp_path.iterdir()} == {"c.h5", ".cc.h5.0123abcd.tmp"}


# What a user can put right


def test_a_second_writer_is_told_of_the_first(tmp_path):
    first = CacheWriter.open(tmp_path / "c.h5", plan_of())
    who = rf"is being written by another process \(process {os.getpid()} on .+ since 20\d\d-"
    with pytest.raises(CacheError, match=who) as caught:
        CacheWriter.open(tmp_path / "c.h5", plan_of())
    assert "\n" not in str(caught.value)
    assert is_being_written(tmp_path / "c.h5")
    first.close()
    assert not is_being_written(tmp_path / "c.h5")
    with CacheWriter.open(tmp_path / "c.h5", plan_of()):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]


@forks
def test_the_lock_of_a_killed_writer_is_free(tmp_path):
    path = tmp_path / "c.h5"

    def killed():
        writer = CacheWriter.open(path, plan_of())
        os.kill(os.getpid(), signal.SIGKILL)
        writer.close()

    assert in_fork(killed) == -signal.SIGKILL
    assert [file.name for file in sorted(tmp_path.iterdir())] == [".c.h5.lock", "c.h5"]
    assert_right(FeatureCache(finished(path, plan_of())), plan_of())
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]


@forks
def test_of_many_that_start_at_once_one_writes(tmp_path):
    """Before there is a file at all; the others are refused, whichever of them it is."""
    path = tmp_path / "c.h5"
    (wait, start), (told, tell), (hold, end) = os.pipe(), os.pipe(), os.pipe()

    def begin():
        os.close(start), os.close(end)
        os.read(wait, 1)  # until the parent closes its side
        try:
            with CacheWriter.open(path, plan_of()) as writer:
                os.write(tell, b"w")
                fill(writer)
                os.read(hold, 1)  # until all the others have tried
        except CacheError as error:
            assert "is being written by another process" in str(error)
            os.write(tell, b"r")
            os._exit(3)

    children = []
    for _ in range(6):
        if (child := os.fork()) == 0:
            try:
                begin()
                os._exit(0)
            finally:
                os.write(tell, b"x")
                os._exit(1)
        children.append(child)
    os.close(start), os.close(tell)
    heard = b"".join(os.read(told, 1) for _ in children)
    os.close(end)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    for descriptor in (wait, told, hold):
        os.close(descriptor)
    assert (sorted(heard), codes) == (sorted(b"wrrrrr"), [0, 3, 3, 3, 3, 3])
    assert_right(FeatureCache(path), plan_of())


def test_a_filesystem_without_locks_will_do(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    assert_right(FeatureCache(finished(tmp_path / "c.h5", plan_of())), plan_of())


def test_a_system_that_cannot_reserve_will_do(tmp_path, monkeypatch):
    monkeypatch.delattr(writer_module.os, "posix_fallocate", raising=False)
    assert_right(FeatureCache(finished(tmp_path / "c.h5", plan_of())), plan_of())
    with pytest.raises(CacheError, match="No space left"):
        CacheWriter.open(tmp_path / "d.h5", plan_of([10**9], dim=10**4))
    assert [file.name for file in tmp_path.iterdir()] == ["c.h5"]


def reidentified(plan, **identity):
    return CachePlan(plan.utterances, plan.n_layers, plan.dim, plan.store, plan.dtype, identity)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (plan_of(dtype="float32"), "dtype was 'float16', is now 'float32'"),
        (plan_of(store="pooled"), "store was 'frames', is now 'pooled'"),
        (plan_of(dim=6), "dim was 5, is now 6"),
        (plan_of(layers=4), "n_layers was 3, is now 4"),
        (
            reidentified(plan_of(), model={"name": "tiny", "revision": "r2"}, norm=None),
            "model.revision was 'r1', is now 'r2'",
        ),
        (
            reidentified(plan_of(), model={"name": "tiny", "revision": "r1"}, norm="zscore"),
            "norm was None, is now 'zscore'",
        ),
        (plan_of([*FRAMES, 1]), "utterances: 1 new"),
        (plan_of(FRAMES[:-2]), "utterances: 2 gone"),
        (plan_of([4, *FRAMES[1:]]), "utterances: 1 changed"),
        (plan_of(key=["001.wav", "000.wav", *(f"00{i}.wav" for i in range(2, 6))]), "2 changed"),
    ],
)
def test_a_file_of_another_plan_is_not_continued(tmp_path, other, expected):
    path = finished(tmp_path / "c.h5", plan_of())
    before = path.read_bytes()
    with pytest.raises(CacheError, match="planned differently") as caught:
        CacheWriter.open(path, other)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_another_order_is_another_plan(tmp_path):
    plan = plan_of([2, 2, 2])
    finished(tmp_path / "c.h5", plan)
    turned = plan.utterances.iloc[[2, 1, 0]].reset_index(drop=True)
    with pytest.raises(CacheError, match="utterances: 2 in another place"):
        CacheWriter.open(
            tmp_path / "c.h5", CachePlan(turned, 3, 5, "frames", "float16", plan.identity)
        )


def test_a_corpus_that_moved_is_the_same_corpus(tmp_path):
    path = tmp_path / "c.h5"
    with CacheWriter.open(path, plan_of()) as writer:
        fill(writer, [0])
    elsewhere = plan_of(path=["/media/elsewhere"] * len(FRAMES))
    with CacheWriter.open(path, elsewhere) as writer:
        assert writer.remaining == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (float("nan"), "float16", "003.wav: layer 1 reaches nan; expected finite"),
        (float("inf"), "float32", "003.wav: layer 1 reaches inf; expected finite"),
        (float("-inf"), "bfloat16", "003.wav: layer 1 reaches inf; expected finite"),
        (
            -65505.0,
            "float16",
            "layer 1 reaches 65505; float16 holds up to 65504. Use --store-dtype bf",
        ),
        (2e15, "float32", "layer 1 reaches 2e.15; expected finite"),
    ],
)
@pytest.mark.parametrize("store", ["frames", "pooled"])
def test_states_that_do_not_fit_stop_the_run(tmp_path, value, dtype, expected, store):
    plan = plan_of(dtype=dtype, store=store)
    hidden = states(plan, 3)
    hidden[1, 2, 3] = value
    with CacheWriter.open(tmp_path / "c.h5", plan) as writer:
        if store == "pooled" and value == -65505.0:  # the statistics are float32
            writer.write(3, hidden, digest(3))
            return
        with pytest.raises(CacheError, match=expected):
            writer.write(3, hidden, digest(3))
        fill(writer)
    assert_right(FeatureCache(tmp_path / "c.h5"), plan)


def test_states_that_do_not_fit_are_one_line_whatever_the_clip_is_called(tmp_path):
    plan = plan_of([3], key=["a\nb.wav"])
    with (
        CacheWriter.open(tmp_path / "c.h5", plan) as writer,
        pytest.raises(CacheError, match=r"^a\\nb\.wav: layer 0 reaches nan"),
    ):
        writer.write(0, torch.full((3, 3, 5), np.nan), digest(0))


def test_the_largest_values_fit(tmp_path):
    for dtype, value in {"float16": 65504.0, "bfloat16": 9e14, "float32": 1e15}.items():
        plan = plan_of([4], dtype=dtype)
        with CacheWriter.open(tmp_path / f"{dtype}.h5", plan) as writer:
            writer.write(0, torch.full((3, 4, 5), value), digest(0))
        cache = FeatureCache(tmp_path / f"{dtype}.h5")
        np.testing.assert_allclose(cache.frames(0, 0).astype(float), value, rtol=1e-2)
        np.testing.assert_allclose(cache.pooled, value, rtol=1e-6)
        np.testing.assert_allclose(cache.pooled_std, 0, atol=1e-6 * value)


def test_a_disk_that_is_too_small(tmp_path):
    plan = plan_of([10**9], layers=25, dim=1024)
    free = shutil.disk_usage(tmp_path).free
    if free > plan.nbytes:
        pytest.skip("this disk holds 50 TB")
    with pytest.raises(
        CacheError, match=r"needs 51200\.\d\d GB, and [0-9.]+ GB are free"
    ) as caught:
        CacheWriter.open(tmp_path / "c.h5", plan)
    assert "--store pooled" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@forks
@pytest.mark.parametrize("limit", [0, 5000, 100_000, 20_000_000])
def test_a_file_size_limit_is_met_before_the_first_utterance(tmp_path, limit):
    plan = plan_of([100_000], layers=13, dim=8)
    assert plan.nbytes > 20_000_000

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(CacheError, match=r"needs 0\.02 GB, and .* are free .File too large"):
            CacheWriter.open(tmp_path / "c.h5", plan)

    assert in_fork(limited) == 0
    assert list(tmp_path.iterdir()) == []


@forks
def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    finished(folder / "there.h5", plan_of())
    (folder / "there.h5").chmod(0o444)
    folder.chmod(0o555)

    def refused():
        os.chdir(tmp_path)  # so that no folder above needs to be passed
        if os.geteuid() == 0:
            os.setuid(65534)  # permissions do not bind root
        for path in ("folder/new.h5", "folder/new/new.h5", "folder/there.h5"):
            with pytest.raises(CacheError, match=f"{path} cannot be written: Permission denied"):
                CacheWriter.open(path, plan_of())
        assert_right(FeatureCache("folder/there.h5"), plan_of())

    tmp_path.chmod(0o755)
    assert in_fork(refused) == 0


def test_a_file_deleted_while_it_is_written(tmp_path):
    writer = CacheWriter.open(tmp_path / "c.h5", plan_of())
    (tmp_path / "c.h5").unlink()
    fill(writer)
    with pytest.raises(CacheError, match="deleted or replaced in the meantime"):
        writer.close()


def test_no_utterance_to_store():
    with pytest.raises(CacheError, match="Not one of 2 utterances"):
        plan_of([0, 0])
    with pytest.raises(CacheError, match="Not one of 0 utterances"):
        plan_of([])


# Files that are no caches


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole") / "c.h5", plan_of())


def test_not_a_cache(tmp_path):
    with pytest.raises(CacheError, match=r"no cache file .*gone.h5. Run lsmprobe extract first"):
        FeatureCache(tmp_path / "gone.h5")
    with pytest.raises(CacheError, match="no cache file"):
        FeatureCache(tmp_path)
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(CacheError, match="no cache file"):
        FeatureCache(tmp_path / "pipe.h5")
    for content in (b"", b"version https://git-lfs.github.com/spec/v1", b"\x89HDF\r\n\x1a"):
        (tmp_path / "text.h5").write_bytes(content)
        with pytest.raises(CacheError, match="not an HDF5 file"):
            FeatureCache(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["layers"] = np.zeros(3)
    with pytest.raises(CacheError, match="an HDF5 file, but not a cache"):
        FeatureCache(tmp_path / "foreign.h5")


@given(data=st.data())
def test_a_truncated_file_is_refused(tmp_path_factory, whole, data):
    content = whole.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "c.h5"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CacheError, match=r"truncated|not an HDF5 file|damaged") as caught:
        FeatureCache(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(CacheError):
        CacheWriter.open(path, plan_of())


@given(data=st.data())
def test_a_flipped_bit_never_surprises(tmp_path_factory, whole, data):
    """Data and table: noticed. HDF5's own metadata: noticed, or it changed nothing."""
    content = bytearray(whole.read_bytes())
    spans = extents(whole)
    name = data.draw(st.sampled_from(sorted(spans)))
    start, end = spans[name] if data.draw(st.booleans()) else (0, len(content))
    byte = data.draw(st.integers(start, end - 1))
    content[byte] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flipped") / "c.h5"
    path.write_bytes(content)
    try:
        cache = FeatureCache(path, allow_unfinished=True)
    except CacheError as error:
        assert "\n" not in str(error)
        return
    touched = {name for name, (start, end) in spans.items() if start <= byte < end}
    intact = [i for i in range(len(cache.utterances)) if cache.verify(i)]
    if touched == {"utterances/done"}:
        assert len(cache.utterances) == len(intact) == len(FRAMES) - 1
    elif touched and touched != {"utterances/skipped"}:
        assert len(intact) == len(FRAMES) - 1
    elif len(intact) == len(cache.utterances):
        assert_right(cache, plan_of())


def edited(whole, path, edit):
    shutil.copy(whole, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def replaced(name, **how):
    def edit(file):
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        file.create_dataset(name, **{"shape": shape, "dtype": dtype} | how)

    return edit


def moved(name, onto):
    """Let HDF5's metadata say that a dataset lies where another one does."""

    def edit(file):
        where = [file[n].id.get_offset().to_bytes(8, "little") for n in (name, onto)]
        path = Path(file.filename)
        file.close()
        content = path.read_bytes()
        assert content.count(where[0]) == 1
        path.write_bytes(content.replace(*where))

    return edit


def linked(name, link):
    def edit(file):
        del file[name]
        file[name] = link

    return edit


def virtual(file):
    del file["layers/01"]
    layout = h5py.VirtualLayout((sum(FRAMES), 5), "<f2")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "layers/01", (sum(FRAMES), 5))
    file.create_virtual_dataset("layers/01", layout)


EDITS = {
    "version": lambda file: file.attrs.modify("version", 4),
    "a version that it does not need": lambda file: file.attrs.modify("version", 2),
    "version of another type": lambda file: file.attrs.create("version", "new"),
    "no version": lambda file: file.attrs.__delitem__("version"),
    "dtype": lambda file: file.attrs.create("dtype", "float64"),
    "dtype of the same width": lambda file: file.attrs.create("dtype", "bfloat16"),
    "identity": lambda file: file.attrs.create("identity", b"{}"),
    "identity that is no JSON": lambda file: file.attrs.create("identity", b"{"),
    "another member": lambda file: file.create_dataset("layers/more", (1,), "<f2"),
    "another group": lambda file: file.create_group("more"),
    "a dataset as group": lambda file: file.create_dataset("more", (3,), "<f2"),
    "a group as dataset": lambda file: file.create_group("layers/03"),
    "missing": lambda file: file.__delitem__("layers/01"),
    "missing table": lambda file: file.__delitem__("utterances/key"),
    "missing pooled": lambda file: file.__delitem__("pooled/mean"),
    "missing checksum of means": lambda file: file.__delitem__("utterances/means_checksum"),
    "soft link": linked("layers/01", h5py.SoftLink("/layers/00")),
    "external link": linked("layers/01", h5py.ExternalLink("elsewhere.h5", "/layers/01")),
    "linked group": linked("pooled", h5py.ExternalLink("elsewhere.h5", "/pooled")),
    "virtual": virtual,
    "external storage": replaced("layers/01", external=[("/etc/hostname", 0, 240)]),
    "chunked": replaced("layers/01", chunks=(1, 5)),
    "compressed": replaced("layers/01", compression="gzip"),
    "checksummed": replaced("layers/01", fletcher32=True),
    "not allocated": replaced("layers/01"),
    "wider": replaced("layers/01", dtype="<f8", data=np.zeros((sum(FRAMES), 5))),
    "big-endian": replaced("layers/01", dtype=">f2", data=np.zeros((sum(FRAMES), 5))),
    "longer": replaced("layers/01", shape=(99, 5), data=np.zeros((99, 5))),
    "overlapping": moved("utterances/done", "utterances/skipped"),
    "huge": replaced("layers/01", shape=(2**33, 2**33)),
    "variable-length text": replaced("utterances/key", dtype=h5py.string_dtype()),
    "scalar": replaced("pooled/mean", shape=(), data=np.float32(1)),
    "empty": linked("pooled/mean", h5py.Empty("<f4")),
    "other frames": lambda file: file["utterances/frames"].write_direct(np.array(FRAMES[::-1])),
}


@pytest.mark.parametrize("how", EDITS)
def test_a_file_that_is_not_as_specified_is_refused(tmp_path, whole, how):
    path = edited(whole, tmp_path / "c.h5", EDITS[how])
    with pytest.raises(
        CacheError, match=r"version|damaged or no cache|cache format 4|stored as 'float64'"
    ) as caught:
        FeatureCache(path, allow_unfinished=True)
    assert "\n" not in str(caught.value)
    before = path.read_bytes()
    with pytest.raises(CacheError):
        CacheWriter.open(path, plan_of())
    assert path.read_bytes() == before


def test_another_version_says_so(tmp_path, whole):
    path = edited(whole, tmp_path / "c.h5", EDITS["version"])
    with pytest.raises(CacheError, match=r"cache format 4; expected 1 to 3\. Delete"):
        FeatureCache(path)


def test_a_file_that_shrank_is_not_mapped(tmp_path, whole):
    shutil.copy(whole, tmp_path / "c.h5")
    pickled = pickle.dumps(FeatureCache(tmp_path / "c.h5"))
    os.truncate(tmp_path / "c.h5", 5000)
    with pytest.raises(CacheError, match="size has changed"):
        pickle.loads(pickled).frames(0, 0)
