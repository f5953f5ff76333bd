import copy
import fcntl
import json
import os
import shutil

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsmprobe.errors import ResultsError
from lsmprobe.results.breakdown import records_of
from lsmprobe.results.records import (
    is_finished,
    load_head,
    load_predictions,
    load_record,
    load_results,
    record_path,
    run_id,
    save_run,
)
from lsmprobe.results.score_table import score_table


def record(**changes):
    return {
        "model": "m",
        "corpus": "c",
        "head": "linear",
        "layer": 4,
        "seed": 0,
        "experiment": "e",
        "settings": {"feature_norm": "none"},
        "split": {"kind": "speaker", "hash": "h"},
        "cache": {"hash": "x", "identity": {"random_init": None}},
        "n_layers": 5,
        "layers": [4],
        "layer_weights": None,
        "folds": [{"best_epoch": 3}],
        "scores": {
            "macro_f1": 50.0,
            "uar": 51.0,
            "accuracy": 52.0,
            "constant_f1": 5.0,
            "interval": {"low": 40.0, "high": 60.0, "over": "utterances only"},
        },
        "classes": ["anger", "fear"],
        "predictions": [
            {
                "key": f"{number}.wav",
                "speaker": "s",
                "emotion": "fear",
                "predicted": "anger",
                "probabilities": [0.75, 0.25],
            }
            for number in range(2)
        ],
        "seconds": 1.5,
        **changes,
    }


def test_a_saved_run_comes_back(tmp_path):
    path = record_path(tmp_path, "m", "c", "linear", 4, 0, "abc")
    assert path == tmp_path / "m" / "c" / "linear-layer04-seed0-abc.json"
    save_run(path, record(), {"0.head.weight": torch.ones(2)})
    assert load_record(path)["scores"]["macro_f1"] == 50.0
    assert load_head(path)["0.head.weight"].tolist() == [1.0, 1.0]
    table = load_results(tmp_path)
    row = table.iloc[0]
    assert (row.model, row.corpus, row["head"], row.layer, row.seed) == ("m", "c", "linear", 4, 0)
    assert (row.macro_f1, row.uar, row.accuracy, row.constant_f1) == (50, 51, 52, 5)


def test_multilayer_has_weights_and_no_layer(tmp_path):
    path = record_path(tmp_path, "m", "c", "multilayer", None, 1, "abc")
    save_run(path, record(head="multilayer", layer=None, layer_weights=[0.4, 0.6]), {})
    [row] = load_results(tmp_path).to_dict("records")
    assert pd.isna(row["layer"])
    assert row["layer_weights"] == [0.4, 0.6]


def test_an_empty_folder_gives_an_empty_table_with_all_columns(tmp_path):
    table = load_results(tmp_path)
    assert len(table) == 0
    assert {"model", "corpus", "head", "layer", "seed", "macro_f1", "uar"} <= set(table.columns)


def test_a_damaged_record_is_named_and_left_out(tmp_path, caplog):
    save_run(tmp_path / "good-seed0.json", record(), {})
    (tmp_path / "cut-seed0.json").write_text('{"format": "lsmprobe-run", "ver')
    (tmp_path / "other-seed0.json").write_text('{"format": "lsmprobe-run", "version": 99}')
    (tmp_path / "list-seed0.json").write_text("[1]")
    (tmp_path / "lacks-seed0.json").write_text('{"format": "lsmprobe-run", "version": 1}')
    words = json.dumps({**load_record(tmp_path / "good-seed0.json"), "seconds": "long"})
    (tmp_path / "words-seed0.json").write_text(words)
    assert len(load_results(tmp_path)) == 1
    for name in ("cut", "other", "list", "lacks", "words"):
        assert f"{name}-seed0.json" in caplog.text
        assert not is_finished(tmp_path / f"{name}-seed0.json")
    assert is_finished(tmp_path / "good-seed0.json")
    assert not is_finished(tmp_path / "nowhere.json")


def test_split_files_are_not_mistaken_for_records(tmp_path, caplog):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "c-speaker-abc.json").write_text("{}")
    assert len(load_results(tmp_path)) == 0
    assert not caplog.text


def test_messages_say_what_was_expected(tmp_path):
    with pytest.raises(ResultsError, match="expected the --results-dir"):
        load_results(tmp_path / "missing")
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"format": "lsmprobe-run", "version": 2}))
    with pytest.raises(ResultsError, match="expected lsmprobe-run 1"):
        load_record(path)


def test_nothing_is_left_beside_the_record(tmp_path):
    save_run(tmp_path / "r.json", record(), {})
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    save_run(tmp_path / "r.json", record(), {"0.head.weight": torch.ones(2)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.json", "r.safetensors"]


def test_a_record_never_holds_a_number_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_run(tmp_path / "r.json", record(seconds=float("nan")), {})
    assert not (tmp_path / "r.json").exists()


def test_a_run_is_named_by_everything_that_decides_its_numbers():
    base = {"seed": 0, "settings": {"lr": 5e-4}}
    assert run_id(base) == run_id({"settings": {"lr": 5e-4}, "seed": 0})
    assert run_id(base) != run_id({**base, "seed": 1})
    assert run_id(base) != run_id({**base, "settings": {"lr": 1e-3}})


def test_the_predictions_of_a_run_are_a_table(tmp_path):
    save_run(tmp_path / "r.json", record(), {})
    table = load_predictions(str(tmp_path / "r.json"))
    assert table.columns.tolist() == [
        *("key", "speaker", "emotion", "predicted"),
        *("p_anger", "p_fear"),
    ]
    assert table.iloc[1].tolist() == ["1.wav", "s", "fear", "anger", 0.75, 0.25]
    assert len(table) == 2
    cut = record()
    del cut["predictions"][1]["probabilities"]
    save_run(tmp_path / "r.json", cut, {})
    with pytest.raises(ResultsError, match="not a readable record"):
        load_predictions(tmp_path / "r.json")


def test_names_that_are_no_unicode_come_back(tmp_path):
    folder = tmp_path / "caf\udce9"
    odd = record()
    odd["predictions"][0]["key"] = "caf\udce9.wav"
    save_run(folder / "r.json", odd, {})
    assert load_results(folder).path.tolist() == [str(folder / "r.json")]
    assert load_predictions(folder / "r.json").key[0] == "caf\udce9.wav"


def test_alarms_are_listed_and_records_without_them_have_none(tmp_path):
    alarms = [{"code": "one-class", "text": "It predicts one class."}]
    save_run(tmp_path / "a.json", record(alarms=alarms), {})
    save_run(tmp_path / "b.json", record(seed=1), {})
    assert load_results(tmp_path).alarms.tolist() == [["one-class"], []]


def test_the_table_says_in_what_experiments_differ(tmp_path):
    save_run(tmp_path / "a.json", record(), {})
    [row] = load_results(tmp_path).to_dict("records")
    assert row["settings"] == {"feature_norm": "none"}
    assert row["cache_identity"] == {"random_init": None}


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=5)
    | st.just("\udce9"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def places(value, path=()):
    """Every place in nested dicts and lists, as a sequence of keys."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] + [place for key, child in children for place in places(child, (*path, key))]


GOOD = json.loads(json.dumps({"format": "lsmprobe-run", "version": 1, **record()}))


@given(place=st.sampled_from(places(GOOD)), value=ANYTHING)
def test_a_record_with_anything_in_any_place_is_a_row_or_left_out(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("results")
    changed = [copy.deepcopy(GOOD)]
    *above, last = (0, *place)
    inner = changed
    for key in above:
        inner = inner[key]
    inner[last] = value
    (folder / "r.json").write_text(json.dumps(changed[0]))
    table = load_results(folder)
    assert len(table) == is_finished(folder / "r.json")
    table.groupby(["model", "corpus", "experiment"]).macro_f1.mean()


def test_a_format_that_is_no_text_is_named_in_text(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(GOOD | {"format": "\udce9"}))
    with pytest.raises(
        ResultsError, match=r"has format \\udce9 1; expected lsmprobe-run 1"
    ) as error:
        load_record(tmp_path / "r.json")
    str(error.value).encode()


@given(st.data())
def test_a_record_that_is_cut_or_of_any_bytes_is_left_out(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("results")
    whole = json.dumps(GOOD).encode()
    cut = data.draw(st.integers(0, len(whole) - 1).map(lambda n: whole[:n]) | st.binary())
    (folder / "r.json").write_bytes(cut)
    assert len(load_results(folder)) == 0


def test_deep_nesting_and_folders_are_left_out_too(tmp_path, caplog):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder.json").mkdir()
    assert len(load_results(tmp_path)) == 0
    assert "deep.json" in caplog.text
    assert "folder.json" in caplog.text


def test_a_run_that_is_there_twice_counts_once(tmp_path, caplog):
    for name in ("a", "copy/a"):
        save_run(tmp_path / f"{name}.json", record(), {})
    save_run(tmp_path / "b.json", record(seed=1), {})
    results = load_results(tmp_path)
    assert results.seed.tolist() == [0, 1]
    assert "copy/a.json: it is the run of" in caplog.text
    joined = pd.concat([results, load_results(tmp_path / "copy")])
    assert score_table(joined).runs.tolist() == [2]
    assert len(records_of(joined)) == 2


def test_a_record_and_its_heads_are_written_with_no_other_process_between(tmp_path, monkeypatch):
    written = []

    def write(path, content):
        other = os.open(path.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        written.append(path.suffix)

    monkeypatch.setattr("lsmprobe.results.records.write_then_rename", write)
    save_run(tmp_path / "m" / "0.json", record(), {"0.w": torch.ones(1)})
    assert written == [".safetensors", ".json"]


def test_a_head_of_another_run_is_refused(tmp_path):
    for seed in (0, 1):
        save_run(tmp_path / f"{seed}.json", record(seed=seed), {"0.w": torch.full((2,), seed)})
    shutil.copy(tmp_path / "1.safetensors", tmp_path / "0.safetensors")
    with pytest.raises(ResultsError, match=r"0\.safetensors has the hash .* that 0\.json was"):
        load_head(tmp_path / "0.json")
    assert load_head(tmp_path / "1.json")["0.w"].tolist() == [1, 1]
    old = json.loads((tmp_path / "0.json").read_text())
    del old["head_sha256"]  # as of before it was there
    (tmp_path / "0.json").write_text(json.dumps(old))
    assert load_head(tmp_path / "0.json")["0.w"].tolist() == [1, 1]
