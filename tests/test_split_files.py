import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_splits import parts_of

from lsmprobe.errors import SplitError
from lsmprobe.splits.file import PARTS, load_split, save_split, split_hash
from lsmprobe.splits.kinds import given_split, k_fold_speakers, make_split

KEYS = [f"Colère/{number}.wav" for number in range(30)] + ["caf\udce9.wav", "x#0.5-1.0"]

ONE = {"train": ["a", "c"], "validation": ["b"], "test": ["d"]}


def some_split():
    return k_fold_speakers(np.arange(32) // 4, ["x"] * 32, 4)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(32)))
def test_a_saved_split_is_loaded_in_any_order_of_the_utterances(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("splits") / "new" / "split.json"
    split = some_split()
    save_split(path, split, KEYS)
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]
    keys = [KEYS[number] for number in order]
    loaded = load_split(path, keys)
    assert (loaded.kind, loaded.seed, loaded.notes) == (split.kind, split.seed, split.notes)
    for fold, saved in zip(loaded.folds, split.folds, strict=True):
        for part in PARTS:
            assert {keys[i] for i in getattr(fold, part)} == {KEYS[i] for i in getattr(saved, part)}
            assert (np.diff(getattr(fold, part)) > 0).all()
    assert split_hash(loaded, keys) == split_hash(split, KEYS)


def test_the_hash_is_the_one_that_the_docs_describe():
    split = given_split(["test", "train", "validation", "train"])
    text = '[[["a", "c"], ["b"], ["d"]]]'
    assert split_hash(split, ["d", "c", "b", "a"]) == hashlib.sha256(text.encode()).hexdigest()


def test_a_file_made_by_hand_is_a_split(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"train": ["c", "a"], "validation": ["b"], "test": ["d"]}))
    utterances = pd.DataFrame({"key": list("abcd"), "speaker": list("sttu"), "emotion": ["x"] * 4})
    split = make_split(str(path), utterances)
    assert split.kind == "file"
    assert [part.tolist() for part in parts_of(split.folds[0]).values()] == [[0, 2], [1], [3]]
    assert split.notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ["a", "zzz"]}, "1 key not in this corpus, first 'zzz'"),
        ({"train": ["a"]}, "1 key of the corpus not listed, first 'c'"),
        ({"train": ["a", "c", "c"]}, "1 key listed twice, first 'c' in train;"),
        ({"train": ["a", "c", "d"]}, "1 key listed twice, first 'd' in train and test"),
        ({"train": []}, "`train` is not a list of keys"),
        ({"test": None}, "`test` is not a list of keys"),
        ({"test": [1]}, "`test` is not a list of keys"),
        ({"folds": ["abc"]}, "fold 0: `train` is not a list"),
        ({"folds": 3}, "`folds` is 3; expected a list"),
        ({"folds": [ONE, ONE]}, "1 key in the test sets of several folds, first 'd'"),
        ({"hash": "00"}, "was changed"),
        ({"format": "other"}, "format 'other' version 1; expected 'lsmprobe split' version 1 or 2"),
        ({"version": 3}, "version 3; expected"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, message):
    path = tmp_path / "split.json"
    record = ONE | change
    path.write_text(json.dumps(record))
    with pytest.raises(SplitError, match=message):
        load_split(path, list("abcd"))


@pytest.mark.parametrize("text", ["", "no json", "[1, 2]", "\ufffe", "[" * 100_000])
def test_a_file_that_is_something_else_is_refused(tmp_path, text):
    path = tmp_path / "split.json"
    path.write_text(text, encoding="utf-16")
    with pytest.raises(SplitError, match=r"split\.json"):
        load_split(path, list("abcd"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SplitError, match=r"split\.json"):
        load_split(path, list("abcd"))


def test_one_key_moved_to_another_part_is_noticed(tmp_path):
    path = tmp_path / "split.json"
    save_split(path, some_split(), KEYS)
    record = json.loads(path.read_text())
    fold = record["folds"][0]
    fold["test"].append(fold["train"].pop())
    path.write_text(json.dumps(record))
    with pytest.raises(SplitError, match="its hash is of other lists"):
        load_split(path, KEYS)


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "split.json"
    save_split(path, some_split(), KEYS)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_split(path, given_split(["train", "validation", "test"]), ["a", "b", "c"])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["split.json"]
