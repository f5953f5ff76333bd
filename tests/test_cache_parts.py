import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from test_cache import FRAMES, assert_right, digest, fill, finished, plan_of, reidentified, states

from lsmprobe.cache.parts import (
    added_path,
    cache_files,
    cache_of,
    cache_paths,
    part_path,
    plan_added,
    plan_part,
    replacement_path,
)
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter, put_in_place
from lsmprobe.errors import CacheError


def finished_part(path, plan, number, count):
    """Part `number` of `count`, with the states that the whole plan would have there."""
    part = plan_part(plan, number, count)
    whole = plan.utterances["key"].tolist()
    with CacheWriter.open(part_path(path, number, count), part) as writer:
        for index in writer.remaining:
            row = whole.index(part.utterances["key"][index])
            writer.write(index, states(plan, row), digest(row))


def finished_parts(path, plan, count=3):
    for number in range(count):
        finished_part(path, plan, number, count)
    return path


def finished_in_two_steps(path, plan, n_first):
    """The first utterances in a file, the others added later."""
    first = plan.utterances[:n_first]
    finished(path, dataclasses.replace(plan, utterances=first))
    rows = range(n_first, len(plan.utterances))
    where, added = plan_added(plan, rows, path)
    with CacheWriter.open(where, added) as writer:
        for index, row in enumerate(rows):
            writer.write(index, states(plan, row), digest(row))
    return path


@given(samples=st.lists(st.integers(0, 10**7), min_size=1, max_size=60), count=st.integers(1, 8))
def test_the_parts_are_consecutive_hold_all_and_are_about_equally_long(samples, count):
    assume(any(samples))
    plan = plan_of([1] * len(samples), samples=samples)
    assume(len(samples) < 8 or max(samples) * count < sum(samples))
    try:
        parts = [plan_part(plan, number, count) for number in range(count)]
    except CacheError as error:
        assert f"cannot be cut into {count} parts" in str(error)
        assert max(samples) * count >= sum(samples)  # one clip is as long as a part
        return
    assert [k for p in parts for k in p.utterances["key"]] == plan.utterances["key"].tolist()
    for part in parts:
        assert abs(part.utterances["samples"].sum() - sum(samples) / count) <= max(samples)


def test_the_cut_worked_by_hand():
    """10 s in 2 parts: an utterance is where its middle is, at 1, 4, 7.5 and 9.5 s."""
    plan = plan_of([1] * 4, samples=[32_000, 64_000, 48_000, 16_000])
    keys = [plan_part(plan, number, 2).utterances["key"].tolist() for number in (0, 1)]
    assert keys == [["000.wav", "001.wav"], ["002.wav", "003.wav"]]


@pytest.mark.parametrize("store", ["frames", "pooled"])
@pytest.mark.parametrize("made", ["in parts", "in two steps"])
def test_several_files_read_as_one(tmp_path, made, store):
    plan = plan_of(store=store)
    whole = FeatureCache(finished(tmp_path / "whole" / "c.h5", plan))
    path = tmp_path / "c.h5"
    make = finished_parts if made == "in parts" else finished_in_two_steps
    cache = FeatureCache(make(path, plan, 3))
    assert len(cache.files) > 1
    assert cache.is_finished
    assert_right(cache, plan)
    pd.testing.assert_frame_equal(cache.utterances, whole.utterances)
    assert cache.identity == whole.identity == plan.identity
    assert cache.identity_hash == whole.identity_hash
    np.testing.assert_array_equal(cache.pooled, whole.pooled)
    np.testing.assert_array_equal(cache.pooled_std, whole.pooled_std)
    some = np.array([4, 0, 3])
    for each in (cache, whole):
        np.testing.assert_array_equal(each.means_of(some, [2, 0]), whole.pooled[some][:, [2, 0]])
        np.testing.assert_array_equal(each.stds_of(some, [1]), whole.pooled_std[some][:, [1]])
    np.testing.assert_array_equal(cache.lengths, whole.lengths)
    if store == "frames":
        with pytest.raises(CacheError, match=r"parts, which cannot be one view.*cache merge"):
            cache.layer(1)


def test_clips_added_in_between_stand_where_their_keys_say(tmp_path):
    """As in the table of a corpus, which is sorted by key."""
    plan, path = plan_of(), tmp_path / "c.h5"
    first = plan.utterances.iloc[[0, 2, 4]].reset_index(drop=True)
    with CacheWriter.open(path, dataclasses.replace(plan, utterances=first)) as writer:
        for index, row in enumerate((0, 2, 4)):
            writer.write(index, states(plan, row), digest(row))
    where, added = plan_added(plan, [1, 3, 5], path)
    assert where == added_path(path, 1) == tmp_path / "c.added-01.h5"
    with CacheWriter.open(where, added) as writer:
        for index, row in enumerate((1, 3, 5)):
            writer.write(index, states(plan, row), digest(row))
    cache = FeatureCache(path)
    assert cache.utterances["key"].tolist() == plan.utterances["key"].tolist()
    assert_right(cache, plan)
    assert plan_added(plan, [1], path)[0] == tmp_path / "c.added-02.h5"


def test_a_missing_part_is_an_unfinished_cache(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_part(path, plan, 1, 4)
    with pytest.raises(CacheError, match=r"of its 4 parts there is no 0, 2, 3. Run .*--part 0/4"):
        FeatureCache(path)
    cache = FeatureCache(path, allow_unfinished=True)
    assert cache.missing_parts == [0, 2, 3]
    assert not cache.is_finished
    assert_right(cache, plan)


def test_an_unfinished_part_is_an_unfinished_cache(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_part(path, plan, 0, 2)
    with CacheWriter.open(part_path(path, 1, 2), plan_part(plan, 1, 2)):
        to_come = len(plan_part(plan, 1, 2).utterances)
    with pytest.raises(CacheError, match=f"unfinished: {to_come} of 6 utterances"):
        FeatureCache(path)
    assert_right(FeatureCache(path, allow_unfinished=True), plan)


def test_a_part_by_itself_is_a_cache(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_part(path, plan, 1, 2)
    cache = FeatureCache(part_path(path, 1, 2))
    assert cache.is_finished
    assert_right(cache, plan)
    assert cache.layer(0).shape == (int(cache.lengths.sum()), 5)


def test_parts_of_another_kind_are_refused_with_what_differs(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_part(path, plan, 0, 2)
    other = reidentified(plan, model={"name": "tiny", "revision": "r2"}, norm=None)
    finished_part(path, other, 1, 2)
    with pytest.raises(CacheError, match=r"part-01-of-02.h5 does not go with c.part-00") as caught:
        FeatureCache(path, allow_unfinished=True)
    assert "model.revision is 'r2' and not 'r1'" in str(caught.value)


def test_parts_of_another_list_of_utterances_are_refused(tmp_path):
    path = tmp_path / "c.h5"
    finished_part(path, plan_of(), 0, 2)
    finished_part(path, plan_of([*FRAMES, 8]), 1, 2)
    with pytest.raises(CacheError, match="another list of utterances"):
        FeatureCache(path, allow_unfinished=True)


def test_two_sets_of_parts_are_refused(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_part(path, plan, 0, 2)
    finished_part(path, plan, 1, 3)
    with pytest.raises(CacheError, match="in 2 and in 3 parts; expected one set"):
        FeatureCache(path, allow_unfinished=True)


def test_a_renamed_part_is_refused(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_part(path, plan, 0, 2)
    part_path(path, 0, 2).rename(part_path(path, 1, 2))
    with pytest.raises(CacheError, match="was made as part 0 of 2; expected what its name says"):
        FeatureCache(path, allow_unfinished=True)


@pytest.mark.parametrize("name", ["part", "versions"])
@pytest.mark.parametrize("value", [3, "x", [1], None])
def test_an_identity_of_another_kind_is_refused(tmp_path, name, value):
    plan = plan_of()
    with pytest.raises(CacheError, match=f"{name} in its identity is not an object"):
        finished(tmp_path / "c.h5", reidentified(plan, **{name: value}))


@pytest.mark.parametrize("part", [{"number": [0], "of": {}}, {"added_to": 3}])
def test_whatever_a_foreign_file_says_of_its_part_is_at_worst_refused(tmp_path, part):
    plan = plan_of()
    foreign = reidentified(plan, **plan.identity, part=part)
    for name in ("c.part-00-of-01.h5", "d.added-01.h5", "e.h5"):
        finished(tmp_path / name, foreign)
    finished(tmp_path / "d.h5", plan)
    with pytest.raises(CacheError, match="was made as part"):
        FeatureCache(tmp_path / "c.h5")
    assert_right(FeatureCache(tmp_path / "d.h5"), plan)
    with pytest.raises(CacheError, match="holds a part of a cache"):
        FeatureCache(tmp_path / "e.h5")


def test_an_utterance_in_two_files_is_refused(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    finished_in_two_steps(path, plan, 5)
    where, added = plan_added(plan, [5], path)
    with CacheWriter.open(where, added) as writer:
        writer.write(0, states(plan, 5), digest(5))
    with pytest.raises(CacheError, match=r"has '005\.wav' in two of its parts"):
        FeatureCache(path)


def test_what_a_killed_merge_or_replacement_left_does_not_count(tmp_path):
    """The whole file is there already, its parts and additions are not yet removed."""
    plan = plan_of()
    path = finished_parts(tmp_path / "c.h5", plan_of(FRAMES[:5]))
    where, added = plan_added(plan, [5], path)
    with CacheWriter.open(where, added) as writer:
        writer.write(0, states(plan, 5), digest(5))
    assert len(FeatureCache(path).files) == 4
    finished(path, plan)
    cache = FeatureCache(path)
    assert [file.path for file in cache.files] == [path]
    assert_right(cache, plan)


def test_a_replacement_takes_the_place_in_one_step(tmp_path):
    path, plan = finished_parts(tmp_path / "c.h5", plan_of()), plan_of(dim=6)
    finished(replacement_path(path), plan)
    old = FeatureCache(path)
    put_in_place(replacement_path(path), path)
    assert_right(FeatureCache(path), plan)
    assert cache_files(path) == [path]
    for i in range(6):  # whoever has it open goes on reading it
        expected = states(plan_of(), i)[1].half().numpy()
        np.testing.assert_array_equal(old.frames(i, 1), expected)


def test_writers_of_different_parts_do_not_mind_each_other(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    with (
        CacheWriter.open(part_path(path, 0, 2), plan_part(plan, 0, 2)),
        CacheWriter.open(part_path(path, 1, 2), plan_part(plan, 1, 2)) as writer,
        pytest.raises(CacheError, match="is being written by another process"),
    ):
        CacheWriter.open(writer.path, writer.plan)


def test_a_resumed_part_is_that_of_the_same_plan(tmp_path):
    path, plan = tmp_path / "c.h5", plan_of()
    part = plan_part(plan, 0, 2)
    with CacheWriter.open(part_path(path, 0, 2), part) as writer:
        fill(writer, [0])
    with CacheWriter.open(part_path(path, 0, 2), plan_part(plan, 0, 2)) as writer:
        assert writer.remaining == list(range(1, len(part.utterances)))


def test_names(tmp_path):
    folder = tmp_path / "my.model"
    folder.mkdir()
    for name in (
        "a.b.h5",
        "a.b.part-00-of-16.h5",
        "a.b.added-01.h5",
        "c.part-100-of-128.h5",
        ".a.b.h5.0123abcd.tmp",
        ".a.b.replacement.h5",
        "notes.txt",
    ):
        (folder / name).write_bytes(b"")
    assert [path.name for path in cache_paths(tmp_path)] == ["a.b.h5", "c.h5"]
    assert [path.name for path in cache_files(folder / "a.b.h5")] == [
        "a.b.h5",
        "a.b.part-00-of-16.h5",
        "a.b.added-01.h5",
    ]
    assert cache_of(folder / "c.part-100-of-128.h5") == folder / "c.h5"
    assert cache_files(tmp_path / "nowhere" / "c.h5") == []
