import json

import pandas as pd
import pytest
import torch

from lsmprobe.errors import ResultsError
from lsmprobe.results import (
    is_finished,
    load_head,
    load_record,
    load_results,
    record_path,
    run_id,
    save_run,
)


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
        "predictions": [{}, {}],
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
