import contextlib
import csv
import dataclasses
import errno
import hashlib
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache import (
    FRAMES,
    assert_right,
    digest,
    extents,
    fill,
    finished,
    forks,
    in_fork,
    plan_of,
    reidentified,
    states,
)
from test_cache_parts import finished_in_two_steps, finished_part, finished_parts

from lsmprobe.cache import file as cache_file
from lsmprobe.cache import verify
from lsmprobe.cache.catalogue import cache_info, list_caches, named_caches
from lsmprobe.cache.export import export_cache
from lsmprobe.cache.lock import sole_writer
from lsmprobe.cache.merge import merge_cache
from lsmprobe.cache.parts import added_path, part_path, plan_added, plan_part, replacement_path
from lsmprobe.cache.prune import prunable, prunable_in
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.verify import verify_cache, verify_once
from lsmprobe.cache.writer import CacheWriter, put_in_place
from lsmprobe.cli import main
from lsmprobe.config import ExportCacheConfig
from lsmprobe.errors import CacheError, SettingsError
from lsmprobe.extraction.resume import planned_files


def flip(path, byte):
    content = bytearray(path.read_bytes())
    content[byte] ^= 16
    path.write_bytes(content)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


# Verify and repair


@settings(max_examples=8)
@given(data=st.data())
def test_verify_names_exactly_the_utterances_that_were_damaged(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flipped")
    plan = plan_of(store=data.draw(st.sampled_from(["frames", "pooled"])))
    path = finished(folder / "c.h5", plan)
    whole = path.read_bytes()
    hurt = set()
    for _ in range(data.draw(st.integers(0, 3))):
        row = data.draw(st.integers(0, len(FRAMES) - 1))
        members = ["pooled/mean", "pooled/std", "utterances/sha256", "utterances/checksum"]
        of_frames = ["layers/00", "layers/02", "utterances/means_checksum"]
        members += of_frames if plan.store == "frames" else []
        name = data.draw(st.sampled_from(members))
        member = cache_file.CacheFile(path).members[name]
        first = sum(FRAMES[:row]) if name.startswith("layers/") else row
        count = FRAMES[row] if name.startswith("layers/") else 1
        inside = data.draw(st.integers(0, count * member.row_nbytes - 1))
        flip(path, member.offset + first * member.row_nbytes + inside)
        hurt.add(f"{row:03d}.wav")
    if path.read_bytes() == whole:  # a bit flipped twice
        hurt = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "BLOCK_BYTES", data.draw(st.sampled_from([1, 300, 10**6])))
        found = verify_cache(path)
    assert found.n_utterances == len(FRAMES)
    assert set(found.damaged) <= hurt
    if len(hurt) <= 1:
        assert set(found.damaged) == hurt


@pytest.mark.parametrize("block", [1, 200, 10**6])
def test_repair_marks_the_damaged_ones_and_extraction_makes_only_them_again(
    tmp_path, monkeypatch, block
):
    monkeypatch.setattr(verify, "BLOCK_BYTES", block)
    plan = plan_of()
    path = finished_parts(tmp_path / "c.h5", plan, 2)
    part = part_path(path, 1, 2)
    start, _ = extents(part)["layers/01"]
    flip(part, start)
    [damaged] = verify_cache(path).damaged
    assert damaged == plan_part(plan, 1, 2).utterances["key"][0]
    assert FeatureCache(path).is_finished  # nothing is changed unasked
    assert verify_cache(path, repair=True).damaged == (damaged,)
    with CacheWriter.open(part, plan_part(plan, 1, 2)) as writer:
        assert writer.remaining == [0]
        row = plan.utterances["key"].tolist().index(damaged)
        writer.write(0, states(plan, row), digest(row))
    assert verify_cache(path).damaged == ()
    assert_right(FeatureCache(path), plan)


def test_verify_reads_only_what_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "BLOCK_BYTES", 200)
    path = tmp_path / "c.h5"
    with CacheWriter.open(path, plan_of()) as writer:
        fill(writer, [1, 2, 4])
    found = verify_cache(path)
    assert (found.n_utterances, found.damaged) == (3, ())
    # Of three utterances with 5 + 1 + 7 frames: three layers as float16, two statistics, a digest.
    assert round(found.gigabytes * 1e9) == 13 * 3 * 5 * 2 + 3 * (2 * 3 * 5 * 4 + 64)
    assert str(found).endswith("; unfinished: 3 of 6 clips done")


def test_what_the_disk_does_not_give_is_damaged_and_the_rest_is_told_apart(tmp_path, monkeypatch):
    path = finished(tmp_path / "c.h5", plan_of())
    bad, _ = extents(path)["layers/01"]
    read = os.pread

    def pread(descriptor, nbytes, offset):
        if offset <= bad < offset + nbytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, nbytes, offset)

    monkeypatch.setattr(cache_file.os, "pread", pread)
    assert verify_cache(path).damaged == ("000.wav",)


def test_a_file_that_was_replaced_meanwhile_is_never_marked(tmp_path):
    path = finished(tmp_path / "c.h5", plan_of())
    cache = FeatureCache(path)
    finished(tmp_path / "other.h5", plan_of(dim=6)).replace(path)
    before = path.read_bytes()
    with pytest.raises(CacheError, match="was replaced in the meantime"):
        verify.mark_for_extraction(cache.files[0], [0])
    with pytest.raises(CacheError, match="was replaced in the meantime"):
        cache.verify(0)
    assert path.read_bytes() == before


def test_repair_waits_for_no_writer(tmp_path):
    path = finished(tmp_path / "c.h5", plan_of())
    flip(path, extents(path)["layers/01"][0])
    with CacheWriter.open(path, plan_of()), pytest.raises(CacheError, match="is being written by"):
        verify_cache(path, repair=True)
    assert len(FeatureCache(path).utterances) == len(FRAMES)


def test_a_clip_that_was_mended_and_then_damaged_is_extracted_again(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with CacheWriter.open(path, plan) as writer:
        writer.skip(2)
        fill(writer)
    with CacheWriter.open(path, plan) as writer:
        writer.write(2, states(plan, 2), digest(2))
    flip(path, extents(path)["pooled/mean"][0] + 2 * 3 * 5 * 4)
    assert verify_cache(path, repair=True).damaged == ("002.wav",)
    assert not FeatureCache(path, allow_unfinished=True).is_finished
    with CacheWriter.open(path, plan) as writer:
        assert writer.remaining == [2]


# Merge


@pytest.mark.parametrize("store", ["frames", "pooled"])
def test_a_merged_file_is_the_file_that_one_run_would_have_written(tmp_path, store):
    plan = plan_of(store=store)
    whole = finished(tmp_path / "whole.h5", plan).read_bytes()
    path = finished_parts(tmp_path / "a.h5", plan)
    merge_cache(path)
    assert path.read_bytes() == whole
    assert len(names(tmp_path)) == 5  # the parts are kept unless asked
    merge_cache(finished_parts(tmp_path / "b.h5", plan), remove_parts=True)
    merge_cache(finished_in_two_steps(tmp_path / "c.h5", plan, 4), remove_parts=True)
    assert (tmp_path / "b.h5").read_bytes() == (tmp_path / "c.h5").read_bytes() == whole
    assert [n for n in names(tmp_path) if n[0] in "bc"] == ["b.h5", "c.h5"]


def test_skipped_clips_stay_skipped_in_a_merged_file(tmp_path):
    plan = plan_of([3, 0, 2, 4])
    path = finished_part(tmp_path / "c.h5", plan, 1, 2) or tmp_path / "c.h5"
    part = plan_part(plan, 0, 2)
    with CacheWriter.open(part_path(path, 0, 2), part) as writer:
        fill(writer, [0])
        for index in writer.remaining:
            writer.skip(index)
    merge_cache(path, remove_parts=True)
    cache = FeatureCache(path)
    assert cache.missing[["key", "skipped"]].to_numpy().tolist()[0] == ["001.wav", True]
    assert_right(cache, plan)


def test_what_cannot_be_merged_is_left_as_it_is(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with pytest.raises(CacheError, match="no cache file"):
        merge_cache(path)
    finished_part(path, plan, 0, 2)
    with pytest.raises(CacheError, match="there is no 1"):
        merge_cache(path)
    finished_part(path, plan, 1, 2)
    part = part_path(path, 1, 2)
    with sole_writer(part), pytest.raises(CacheError, match="is being written by"):
        merge_cache(path)
    flip(part, extents(part)["pooled/mean"][0])
    with pytest.raises(CacheError, match=r"damaged utterances .*--repair, then lsmprobe extract"):
        merge_cache(path)
    assert names(tmp_path) == ["c.part-00-of-02.h5", "c.part-01-of-02.h5"]
    finished(tmp_path / "one.h5", plan)
    with pytest.raises(CacheError, match="is one file already"):
        merge_cache(tmp_path / "one.h5")


def test_a_full_disk_leaves_the_parts(tmp_path, monkeypatch):
    path = finished_parts(tmp_path / "c.h5", plan_of())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache_file.os, "posix_fallocate", full)
    with pytest.raises(CacheError, match="No space left"):
        merge_cache(path)
    assert len(names(tmp_path)) == 3
    assert_right(FeatureCache(path), plan_of())


@forks
@pytest.mark.parametrize("nth", [0, 19, 40, 74, 78])
def test_a_merge_that_is_killed_loses_nothing_and_can_be_repeated(tmp_path, nth):
    """At the nth time that it changes something on the disk: laying out, copying, tidying up."""
    plan = plan_of()
    path = finished_parts(tmp_path / "c.h5", plan)
    before = FeatureCache(path).identity_hash

    def killed():
        left = [nth]

        def kill_at(act):
            def counted(*arguments, **named):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), 9)
                return act(*arguments, **named)

            return counted

        for home, name in ((os, "pwrite"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
            setattr(home, name, kill_at(getattr(home, name)))
        merge_cache(path, remove_parts=True)

    assert in_fork(killed) == -9
    assert FeatureCache(path).identity_hash == before
    assert_right(FeatureCache(path), plan)
    for left in prunable(path, named=True):
        left.unlink()
    if not path.exists():
        merge_cache(path, remove_parts=True)
    assert names(tmp_path) == ["c.h5"]
    assert FeatureCache(path).identity_hash == before


# Prune


def test_prune_finds_what_was_left_over_and_nothing_else(tmp_path):
    folder = tmp_path / "model"
    plan = plan_of()
    path = finished_parts(folder / "c.h5", plan)
    merge_cache(path)
    finished(folder / "whole.h5", plan)
    with CacheWriter.open(folder / "begun.h5", plan):
        pass
    with CacheWriter.open(replacement_path(folder / "whole.h5"), plan_of(dim=6)):
        pass
    left = [".c.h5.0123abcd.tmp", ".gone.h5.0123abcd.tmp", ".whole.h5.lock"]
    left += [".c.part-09-of-10.h5.verified", ".gone.h5.verified", ".c.labels.csv.0123abcd.tmp"]
    for name in (*left, ".whole.h5.verified"):
        (folder / name).write_bytes(b"")
    parts = [part_path(path, number, 3).name for number in range(3)]
    found = prunable_in(tmp_path)
    assert sorted(file.name for file in found) == sorted([*left, *parts])
    assert found[folder / parts[0]] == "its clips are in c.h5"
    of_c = [left[0], left[3], left[5]]
    assert sorted(f.name for f in prunable(path, named=True)) == sorted([*of_c, *parts])
    assert found[folder / left[4]] == "says that gone.h5 was verified, which is gone"
    named = prunable(folder / "begun.h5", named=True)
    assert named == {folder / "begun.h5": "unfinished: 0 of 6 clips done"}
    named = prunable(folder / "whole.h5", named=True)
    assert [file.name for file in named] == [left[2], ".whole.replacement.h5"]
    with pytest.raises(CacheError, match="no cache file"):
        prunable(folder / "other.h5", named=True)
    with pytest.raises(CacheError, match="no cache file"):
        prunable(tmp_path / "nowhere" / "other.h5", named=True)


@pytest.mark.parametrize("how", ["merge", "replace", "prune"])
def test_a_file_that_goes_takes_its_mark_along(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = finished_parts(tmp_path / "cache" / "m" / "c.h5", plan_of())
    verify_once(FeatureCache(path))
    assert len(names(path.parent)) == 6
    if how == "replace":
        put_in_place(finished(replacement_path(path), plan_of()), path)
    else:
        merge_cache(path, remove_parts=how == "merge")
    if how == "prune":
        with pytest.raises(SystemExit):
            main(["cache", "prune", "--yes"])
    assert names(path.parent) == ["c.h5"]


def test_prune_leaves_what_is_at_work(tmp_path):
    path = tmp_path / "model" / "c.h5"
    with CacheWriter.open(path, plan_of()):
        (path.parent / ".c.h5.0123abcd.tmp").write_bytes(b"")  # as of a merge that is going on
        assert prunable_in(tmp_path) == prunable(path, named=True) == {}
    assert len(prunable_in(tmp_path)) == 1


def test_an_addition_to_another_plan_is_left_over(tmp_path):
    plan = plan_of()
    path = finished_in_two_steps(tmp_path / "m" / "c.h5", plan, 4)
    merge_cache(path)
    assert list(prunable_in(tmp_path)) == [added_path(path, 1)]
    where, _ = plan_added(plan, [5], path)
    assert where == added_path(path, 2)


def damage_data(path):
    flip(path, extents(path)["layers/01"][0])


def damage_structure(path):
    path.write_bytes(path.read_bytes()[:-1000])


def make_unfinished(path):
    with CacheWriter.open(path, plan_of()) as writer:
        writer.done[:] = False
    verify.mark_for_extraction(cache_file.CacheFile(path), [3])


@pytest.mark.parametrize("damage", [damage_data, damage_structure, make_unfinished])
def test_the_only_good_copy_is_never_offered(tmp_path, damage, caplog):
    path = finished_parts(tmp_path / "m" / "c.h5", plan_of())
    merge_cache(path)
    assert len(prunable_in(tmp_path)) == 3
    damage(path)
    parts = [part_path(path, number, 3) for number in range(3)]
    lost = [file for file in parts if b"003.wav" in file.read_bytes()]
    offered = prunable_in(tmp_path)
    assert not set(offered) & (set(lost) if damage is make_unfinished else set(parts))
    assert "kept: " in caplog.text
    with contextlib.suppress(CacheError):
        assert not set(prunable(path, named=True)) & set(parts)


def test_both_copies_of_a_clip_are_never_offered_at_once(tmp_path):
    """The whole file is unfinished; what it has, its parts have too."""
    path = finished_parts(tmp_path / "m" / "c.h5", plan_of())
    with CacheWriter.open(path, plan_of()) as writer:
        fill(writer, range(6 - 1))
    assert list(prunable(path, named=True)) == [path]


def test_an_addition_that_holds_clips_of_its_own_stays(tmp_path, caplog):
    path = finished_in_two_steps(tmp_path / "m" / "c.h5", plan_of(), 4)
    finished(path.with_name("other.h5"), plan_of(FRAMES[:5])).replace(path)
    assert prunable_in(tmp_path) == prunable(path, named=True) == {}
    assert "c.added-01.h5 has 1 clip that c.h5 does not hold" in caplog.text


def test_what_is_no_cache_is_never_offered(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "notes.h5").write_bytes(b"my notes")
    (folder / ".c.h5.lock").mkdir()
    (folder / "deep.h5").mkdir()
    with h5py.File(folder / "thesis.h5", "w") as file:
        file.create_dataset("results", data=[1.0])
    (folder / ".thesis.replacement.h5").write_bytes(b"a foreign file, too")
    damage_structure(finished(folder / "damaged.h5", plan_of()))
    assert prunable_in(tmp_path) == {}
    for name in ("notes", "thesis", "deep", "damaged"):
        with pytest.raises(CacheError):
            prunable(folder / f"{name}.h5", named=True)


def test_a_replacement_is_listed_and_may_be_given_up(tmp_path):
    path = finished(tmp_path / "m" / "c.h5", plan_of())
    beside = replacement_path(path)
    with CacheWriter.open(beside, plan_of(dim=6)) as writer:
        fill(writer, [0, 1])
        assert prunable(path, named=True) == {}
    assert list_caches(tmp_path).state[0] == "finished; being replaced, 2 of 6 clips done"
    assert prunable(path, named=True) == {beside: "an unfinished replacement: 2 of 6 clips done"}
    with CacheWriter.open(beside, plan_of(dim=6)) as writer:
        fill(writer)
    assert prunable(path, named=True) == {}  # it needs only to be put in place


# Replace


def with_audio(folder, plan):
    """The plan, its audio files, and a cache of it."""
    paths = [str(folder / f"{row}.wav") for row in range(len(FRAMES))]
    for row, path in enumerate(paths):
        Path(path).write_bytes(bytes([row]))
    plan = dataclasses.replace(plan, utterances=plan.utterances.assign(path=paths))
    with CacheWriter.open(folder / "c.h5", plan) as writer:
        for row in range(len(FRAMES)):
            writer.write(row, states(plan, row), hashlib.sha256(bytes([row])).hexdigest())
    return plan, folder / "c.h5"


def test_of_a_file_that_cannot_be_opened_what_is_undamaged_is_taken_over(tmp_path, caplog):
    plan, path = with_audio(tmp_path, plan_of())
    before = path.read_bytes()
    flip(path, extents(path)["layers/01"][0] + 3 * plan.dim * 2)  # in the second utterance
    flip(path, before.index(b"000.wav"))
    with pytest.raises(CacheError, match=r"does not add up\. Keep it, .*--replace"):
        planned_files(path, plan)
    caplog.set_level("INFO")
    [(beside, _)] = planned_files(path, plan, replaces=True)
    assert beside == replacement_path(path)
    assert "5 clips, undamaged" in caplog.text
    assert "--replace" not in caplog.text
    with CacheWriter.open(beside, plan) as writer:
        assert writer.remaining == [1]
        writer.write(1, states(plan, 1), hashlib.sha256(b"\1").hexdigest())
    assert beside.read_bytes() == before


@pytest.mark.parametrize("other", [plan_of(dtype="bfloat16"), plan_of()])
def test_of_a_damaged_file_of_another_plan_nothing_is_taken_over(tmp_path, other):
    plan, path = with_audio(tmp_path, plan_of())
    flip(path, path.read_bytes().index(b"000.wav"))
    identity = {"model": {"name": "tiny", "revision": "r2"}, "norm": None}
    utterances = plan.utterances
    other = dataclasses.replace(other, utterances=utterances, identity=identity)
    [(beside, _)] = planned_files(path, other, replaces=True)
    assert CacheWriter.open(beside, other).remaining == list(range(6))


def test_what_replaces_says_only_what_differs(tmp_path, caplog):
    plan, path = with_audio(tmp_path, plan_of())
    other = dataclasses.replace(plan, dim=6)
    with pytest.raises(CacheError, match="--replace to build it again"):
        planned_files(path, other)
    [(beside, _)] = planned_files(path, other, replaces=True)
    assert beside == replacement_path(path)
    [line] = caplog.messages
    assert line.endswith("c.h5 was planned differently: dim was 5, is now 6.")
    with sole_writer(path), pytest.raises(CacheError, match="is being written by another process"):
        planned_files(path, other, replaces=True)


# List, info, export


def test_a_list_says_what_there_is(tmp_path):
    plan = plan_of()
    finished(tmp_path / "m" / "a.h5", plan)
    finished_part(tmp_path / "m" / "b.h5", plan, 0, 2)
    with CacheWriter.open(tmp_path / "n" / "a.h5", plan_of(store="pooled")) as writer:
        fill(writer, [0, 1])
    (tmp_path / "n" / "b.h5").write_bytes(b"no cache")
    table = list_caches(tmp_path)
    assert table[["model", "corpus"]].to_numpy().tolist() == [
        ["m", "a"],
        ["m", "b"],
        ["n", "a"],
        ["n", "b"],
    ]
    assert table.clips.tolist()[:3] == ["6/6", "3/?", "2/6"]
    assert table.store.tolist()[:3] == ["frames, float16", "frames, float16", "pooled"]
    assert table.state[0] == "finished"
    assert "1 of 2 parts, unfinished: of its 2 parts there is no 1" in table.state[1]
    assert "4 of 6 utterances are still to come" in table.state[2]
    assert "not an HDF5 file" in table.state[3]
    assert table.gigabytes[0] == pytest.approx((tmp_path / "m" / "a.h5").stat().st_size / 1e9, 0.01)
    assert named_caches([], tmp_path) == [tmp_path / m / f"{c}.h5" for m in "mn" for c in "ab"]
    with pytest.raises(CacheError, match="holds no cache"):
        named_caches([], tmp_path / "m")


def test_info_tells_the_identity(tmp_path):
    info = cache_info(finished(tmp_path / "c.h5", plan_of()))
    assert info["model.revision"] == "r1"
    assert info["frames"] == sum(FRAMES)
    assert info["emotions"] == "anger 6"
    assert info["identity"] == FeatureCache(tmp_path / "c.h5").identity_hash


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_exported_is_what_the_cache_holds(tmp_path, dtype):
    paths = pd.Series(["a\nb", "c\udce9", *"defg"], dtype=object)
    plan = plan_of(dtype=dtype, path=paths)
    cache = FeatureCache(finished_parts(tmp_path / "c.h5", plan))
    said = export_cache(cache.path, tmp_path / "all")
    np.testing.assert_array_equal(np.load(tmp_path / "all.npy"), cache.pooled)
    assert "6 x 3 x 5 of float32" in said
    export_cache(cache.path, tmp_path / "mean.1", layer=1)
    np.testing.assert_array_equal(np.load(tmp_path / "mean.1.npy"), cache.pooled[:, 1])
    export_cache(cache.path, tmp_path / "frames", layer=2, frames=True)
    rows = np.load(tmp_path / "frames.npy")
    with open(tmp_path / "frames.csv", newline="", errors="surrogateescape") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == paths.tolist()
    for i, row in enumerate(table):
        start = int(row["offset"])
        mine = rows[start : start + int(row["frames"])]
        np.testing.assert_array_equal(mine, cache.frames(i, 2))
    assert len(names(tmp_path)) == 3 + 3 + 6  # parts, their marks, what was exported
    with pytest.raises(CacheError, match="has layers 0 to 2; got layer 3"):
        export_cache(cache.path, tmp_path / "x", layer=3)


@forks
@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("limit", [0, 100, 1000, 20_000])
def test_an_export_that_does_not_fit_is_one_line_and_leaves_nothing(tmp_path, frames, limit):
    path = finished(tmp_path / "c.h5", plan_of([500, 500], layers=4, dim=800, store="frames"))
    verify_once(FeatureCache(path))  # without a limit: its bar goes where pytest keeps the output

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(CacheError, match=r"x\.npy cannot be written: File too large; it needs"):
            export_cache(path, tmp_path / "x", layer=1 if frames else None, frames=frames)

    assert in_fork(limited) == 0
    assert names(tmp_path) == [".c.h5.verified", "c.h5"]


def test_an_export_to_nowhere(tmp_path):
    path = finished(tmp_path / "c.h5", plan_of())
    with pytest.raises(CacheError, match=r"There is no folder .*/typo; make it"):
        export_cache(path, tmp_path / "typo" / "x")
    for out in ("", ".", ".."):
        with pytest.raises(SettingsError, match="is a folder; expected a name"):
            ExportCacheConfig(path, Path(out))


def test_what_a_killed_export_left_is_removed(tmp_path):
    path = finished(tmp_path / "m" / "c.h5", plan_of())
    left = path.with_name(".out.npy.0123abcd.tmp")
    left.write_bytes(b"")
    assert list(prunable_in(tmp_path)) == [left]
    export_cache(path, path.with_name("out"))
    assert names(path.parent) == [".c.h5.verified", "c.h5", "out.csv", "out.npy"]


# On the command line


def test_what_a_file_says_of_itself_stays_in_its_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nasty = "\x1b[31mred\nsecond line\x07"
    identity = {"revision": nasty, nasty: nasty, "versions": {nasty: nasty}}
    plan = reidentified(plan_of(key=[f"{nasty}{row}" for row in range(6)]), **identity)
    path = finished(tmp_path / "cache" / "m" / "c.h5", plan)
    flip(path, extents(path)["pooled/std"][0])
    for arguments in (["ls"], ["info", "cache/m/c.h5"], ["verify"], ["prune"]):
        with pytest.raises(SystemExit):
            main(["cache", *arguments])
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "\x07" not in said
        assert not any(line.startswith("second") for line in said.splitlines())


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plan = plan_of()
    path = finished_parts(tmp_path / "cache" / "m" / "c.h5", plan, 2)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["cache", *arguments])
        return ended.value.code, capsys.readouterr().out

    assert "finished" in run("ls")[1]
    assert "model.revision" in run("info", "cache/m/c.h5")[1]
    assert run("verify")[0] == 0
    flip(part_path(path, 0, 2), extents(part_path(path, 0, 2))["pooled/std"][0])
    code, said = run("verify", "cache/m/c.h5", "--repair")
    assert code == 1
    assert "1 of 6 clips is damaged" in said
    assert "000.wav" in said
    assert "run lsmprobe extract again" in said
    assert "lsmprobe: " in str(run("merge", "cache/m/c.h5")[0])
    with CacheWriter.open(part_path(path, 0, 2), plan_part(plan, 0, 2)) as writer:
        fill(writer)
    assert run("merge", "cache/m/c.h5")[0] == 0
    assert "2 files would be removed; add --yes" in run("prune")[1]
    assert "2 files removed" in run("prune", "--yes")[1]
    assert "nothing to remove" in run("prune", "all")[1]
    assert names(path.parent) == ["c.h5"]
    assert run("export", "cache/m/c.h5", "out", "--layer", "1")[0] == 0
    assert run("export", "cache/m/c.h5", "means.npy")[1].startswith("means.npy: 6 x 3 x 5")
    assert "cache is a folder; expected" in str(run("export", "cache/m/c.h5", "cache")[0])
    assert "--frames needs --layer" in str(run("export", "cache/m/c.h5", "out", "--frames")[0])
    (path.parent / "bad.h5").write_bytes(b"")
    code, said = run("verify", "all")
    assert code == 1
    assert "c.h5: 6 clips, none damaged" in said
    assert "bad.h5 is not an HDF5 file" in said


def test_a_cache_says_what_it_is_in_a_line_and_in_a_notebook(tmp_path):
    folder = tmp_path / "<b>model"
    path = write_cache(
        folder / "c.h5", utterance_table(["s", "t"], ["joy", "<i>fear"], [5, 6]), states_of(5, 6)
    )
    cache = FeatureCache(path)
    assert (cache.model, cache.corpus) == ("<b>model", "c")
    assert repr(cache) == (
        f"<FeatureCache {path}: 2 utterances of 0.0 min, 3 layers of 4 dimensions, frames as "
        "float16>"
    )
    page = cache._repr_html_()
    assert "&lt;b&gt;model on c" in page and "&lt;i&gt;fear 1, joy 1" in page
    assert "<b>" not in page and "<i>" not in page
    labels = path.with_name("c.labels.csv")
    if labels.exists():
        labels.unlink()
        assert "labels" in FeatureCache(path)._repr_html_()


def states_of(*lengths):
    return [torch.randn(3, n, 4) for n in lengths]
