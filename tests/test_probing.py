import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from sklearn.metrics import f1_score

from lsmprobe.cache.plan import CachePlan
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cache.writer import CacheWriter
from lsmprobe.config import ProbeConfig
from lsmprobe.errors import CacheError, LsmprobeError, SettingsError, SplitError
from lsmprobe.layers.probes import probe_layers
from lsmprobe.layers.similarity import layer_similarity
from lsmprobe.layers.weights import layer_weights
from lsmprobe.probing.stage import probe, probe_all
from lsmprobe.probing.task import find_caches
from lsmprobe.results.records import load_head, load_record, load_results

QUICK = {"epochs": 4, "runs": 2, "device": "cpu"}


def config(tmp_path, **settings):
    return ProbeConfig(
        cache_dir=tmp_path / "cache", results_dir=tmp_path / "results", **{**QUICK, **settings}
    )


SLOW = [pytest.param(norm, marks=pytest.mark.slow) for norm in ("zscore", "layernorm")]


@pytest.mark.parametrize("feature_norm", ["none", *SLOW])
def test_weights_and_layer_curve_find_the_planted_layer_and_the_last_layer_is_at_chance(
    tmp_path, planted_cache, feature_norm
):
    planted_cache(layer=3)
    settings = {
        "feature_norm": feature_norm,
        "epochs": 12,
        "lr": 2e-3,
        "hidden": 64,
        "runs": 1,
        "split": "kfold:5",
    }
    curve = probe(config(tmp_path, head="linear", layer="all", **settings))
    f1 = curve.groupby("layer").macro_f1.mean()
    assert f1.idxmax() == 3
    assert f1[3] > 80
    assert f1.drop(3).max() < 45  # chance is 25
    assert abs(f1[5] - 25) < 12
    # Scalars at a rate of their own: a dozen short epochs are enough for them to move.
    results = probe(config(tmp_path, head="multilayer", **settings, scalar_lr=0.05))
    weights = layer_weights(results).set_index("layer").weight
    assert weights.index.tolist() == [1, 2, 3, 4, 5]
    assert weights.idxmax() == 3
    assert results.macro_f1.min() > 60


def test_a_record_holds_all_that_a_reader_could_ask(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache())
    results = probe(config(tmp_path, head="multilayer", runs=1))
    record = load_record(tmp_path / results.path[0])
    assert record["cache"]["hash"] == cache.identity_hash
    assert record["seed"] == 0
    assert record["layers"] == [1, 2, 3, 4, 5]
    assert sum(record["layer_weights"]) == pytest.approx(1)
    assert record["settings"]["lr"] == 5e-4
    assert len(record["folds"][0]["history"]) == 4
    assert {"train_loss", "validation_loss", "validation_score", "lr"} == set(
        record["folds"][0]["history"][0]
    )
    assert {"torch", "numpy", "lsmprobe"} <= set(record["versions"])
    truth = [p["emotion"] for p in record["predictions"]]
    guess = [p["predicted"] for p in record["predictions"]]
    expected = 100 * f1_score(
        truth, guess, labels=record["classes"], average="macro", zero_division=0
    )
    assert record["scores"]["macro_f1"] == pytest.approx(expected)
    for prediction in record["predictions"]:
        assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-4)
        best = int(np.argmax(prediction["probabilities"]))
        assert record["classes"][best] == prediction["predicted"]
    split = json.loads(next((tmp_path / "results" / "splits").glob("*.json")).read_text())
    assert record["split"]["hash"] == split["hash"]
    assert {p["key"] for p in record["predictions"]} == set(split["folds"][0]["test"])


def test_the_saved_head_gives_the_recorded_probabilities(tmp_path, planted_cache):
    from lsmprobe.probing.heads import LinearHead

    cache = FeatureCache(planted_cache())
    results = probe(config(tmp_path, head="linear", layer=3, runs=1))
    record = load_record(tmp_path / results.path[0])
    head = LinearHead(16, 4)
    tensors = load_head(tmp_path / results.path[0])
    head.load_state_dict({name.removeprefix("0.head."): t for name, t in tensors.items()})
    row = cache.utterances.index[cache.utterances.key == record["predictions"][0]["key"]][0]
    logits = head(torch.tensor(np.array(cache.pooled[row, 3]))[None], torch.tensor([1]))
    expected = record["predictions"][0]["probabilities"]
    assert torch.softmax(logits, 1)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_zscore_statistics_come_from_the_training_set_alone(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache())
    results = probe(config(tmp_path, head="all", layer=3, runs=1, feature_norm="zscore"))
    split = json.loads(next((tmp_path / "results" / "splits").glob("*.json")).read_text())
    train = np.flatnonzero(cache.utterances.key.isin(split["folds"][0]["train"]))
    heads = {r["head"]: load_head(tmp_path / r["path"]) for r in results.to_dict("records")}
    np.testing.assert_allclose(
        heads["linear"]["0.norm.mean"], cache.pooled[train, 3].mean(0), atol=1e-5
    )
    frames = np.concatenate([cache.frames(int(i), 3) for i in train]).astype(np.float64)
    for head, row in (("nonlinear", slice(None)), ("multilayer", 2)):  # Multi-Layer: layers 1 to 5
        np.testing.assert_allclose(heads[head]["0.norm.mean"][row], frames.mean(0), atol=1e-3)
        np.testing.assert_allclose(heads[head]["0.norm.std"][row], frames.std(0), atol=1e-3)


def test_a_cache_of_some_layers_gives_what_the_whole_one_gives(tmp_path, planted_cache):
    whole = FeatureCache(planted_cache())
    kept = (0, 2, 3)
    identity = whole.identity | {"stored_layers": list(kept), "model_layers": 6}
    states = [
        torch.stack([torch.from_numpy(np.array(whole.frames(i, layer))) for layer in range(6)])
        for i in range(len(whole.lengths))
    ]
    plan = CachePlan(whole.utterances, 3, 16, "frames", "float16", identity)
    path = tmp_path / "some" / "cache" / "planted" / "made.h5"
    with CacheWriter.open(path, plan) as writer:
        for index, hidden in enumerate(states):
            writer.write(index, hidden, f"{index:064x}")
    asked = {"head": "all", "layer": 3, "runs": 1, "epochs": 3, "feature_norm": "zscore"}
    some = probe(config(tmp_path / "some", **asked)).set_index("head")
    full = probe(config(tmp_path, **asked)).set_index("head")
    assert some.layer[["linear", "nonlinear"]].tolist() == [3, 3]
    assert some.n_layers.tolist() == [6, 6, 6]
    for head in ("linear", "nonlinear"):
        assert some.macro_f1[head] == pytest.approx(full.macro_f1[head], abs=5)
    assert load_record(Path(some.path["multilayer"]))["layers"] == [2, 3]
    with pytest.raises(SettingsError, match=r"--layer 4: .*made\.h5 holds layers 0, 2, 3 of 6"):
        probe(config(tmp_path / "some", head="linear", layer=4))
    similar = layer_similarity(path)
    assert list(similar.index) == list(similar.columns) == list(kept)
    curve = probe_layers(path, "emotion")
    assert curve.layer.tolist() == list(kept)
    assert curve.score.idxmax() == 2


def test_finished_runs_are_skipped_unless_forced(tmp_path, planted_cache):
    planted_cache()
    first = probe(config(tmp_path, head="linear"))
    before = [p.stat().st_mtime_ns for p in map(type(tmp_path), first.path)]
    again = probe(config(tmp_path, head="linear"))
    pd.testing.assert_frame_equal(first, again)
    assert [p.stat().st_mtime_ns for p in map(type(tmp_path), again.path)] == before
    forced = probe(config(tmp_path, head="linear", force=True))
    assert [p.stat().st_mtime_ns for p in map(type(tmp_path), forced.path)] != before
    when = ["seconds", "created"]
    pd.testing.assert_frame_equal(first.drop(columns=when), forced.drop(columns=when))


def test_other_settings_are_other_runs(tmp_path, planted_cache):
    planted_cache()
    for settings in ({}, {"lr": 1e-3}, {"feature_norm": "zscore"}, {"split": "loso"}):
        probe(config(tmp_path, head="linear", runs=1, epochs=1, **settings))
    assert len(load_results(tmp_path / "results")) == 4


def test_leave_one_speaker_out_tests_everyone_once(tmp_path, planted_cache):
    cache = FeatureCache(planted_cache())
    results = probe(config(tmp_path, head="linear", split="loso", runs=1, epochs=1))
    record = load_record(tmp_path / results.path[0])
    assert len(record["folds"]) == 10
    assert sorted(p["key"] for p in record["predictions"]) == sorted(cache.utterances.key)
    assert results.n_test[0] == 160


def test_a_split_can_be_given_back(tmp_path, planted_cache):
    planted_cache()
    first = probe(config(tmp_path, head="linear", runs=1))
    [split] = (tmp_path / "results" / "splits").glob("*.json")
    back = probe(config(tmp_path, head="linear", runs=1, split=str(split)))
    assert back.split_hash[0] == first.split_hash[0]
    assert back.macro_f1[0] == first.macro_f1[0]


def test_resplit_gives_every_run_a_split_of_its_own(tmp_path, planted_cache):
    planted_cache()
    results = probe(config(tmp_path, head="linear", resplit=True, runs=3, epochs=1))
    assert results.split_hash.nunique() == 3


def test_labels_can_be_merged_and_kept_out(tmp_path, planted_cache):
    planted_cache()
    merged = probe(config(tmp_path, head="linear", runs=1, map=("anger=high", "happiness=high")))
    assert load_record(tmp_path / merged.path[0])["classes"] == ["high", "neutrality", "sadness"]
    kept = probe(config(tmp_path, head="linear", runs=1, emotions=("anger", "sadness")))
    assert load_record(tmp_path / kept.path[0])["classes"] == ["anger", "sadness"]
    with pytest.raises(SettingsError, match="no emotion 'joy'"):
        probe(config(tmp_path, emotions=("joy",)))


def test_pooled_caches_feed_the_linear_head_and_say_so(tmp_path, planted_cache, caplog):
    planted_cache(store="pooled")
    assert set(probe(config(tmp_path, head="all"))["head"]) == {"linear"}
    assert "holds pooled means only" in caplog.text
    with pytest.raises(CacheError, match="use --head linear, or run lsmprobe extract again"):
        probe(config(tmp_path, head="multilayer", model=("planted",), dataset=("made",)))
    with pytest.raises(CacheError, match="no finished cache that --head multilayer can read"):
        probe(config(tmp_path, head="multilayer"))


def test_a_pooled_cache_gives_the_linear_head_the_same_numbers(tmp_path, planted_cache):
    planted_cache(folder=tmp_path / "frames", store="frames")
    planted_cache(folder=tmp_path / "pooled", store="pooled")
    scores = [
        probe(
            ProbeConfig(
                head="linear",
                cache_dir=tmp_path / store,
                results_dir=tmp_path / f"results-{store}",
                **QUICK,
            )
        ).macro_f1.tolist()
        for store in ("frames", "pooled")
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ("planned",)}, "did you mean planted"),
        ({"dataset": ("maid",)}, "did you mean made"),
        ({"layer": 9, "head": "linear"}, "planted has layers 0 to 5"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, planted_cache, settings, message):
    planted_cache()
    with pytest.raises(LsmprobeError, match=message):
        probe(config(tmp_path, **settings))


def test_what_suffices_is_what_is_asked_for(tmp_path, planted_cache):
    planted_cache()
    write_cache(
        tmp_path / "cache" / "other" / "c.h5",
        utterance_table("ab", ["anger", "fear"], [1, 1]),
        [torch.zeros(1, 1, 3)] * 2,
    )
    for head, flag in (("linear", " --store pooled"), ("all", "")):
        asked = config(tmp_path, model=("planted",), dataset=("c",), head=head)
        with pytest.raises(CacheError, match=f"--model planted --dataset c{flag} first"):
            probe(asked)


def test_an_empty_cache_folder_says_what_to_run(tmp_path):
    with pytest.raises(CacheError, match="run lsmprobe extract first"):
        probe(config(tmp_path))


def test_all_names_what_is_there(tmp_path, planted_cache):
    path = planted_cache()
    assert find_caches(config(tmp_path)) == [("planted", "made", path)]
    assert find_caches(config(tmp_path, model=("all",), dataset=("all",))) == [
        ("planted", "made", path)
    ]


def tiny(tmp_path, name, speakers, emotions):
    states = [torch.randn(2, 5, 4) for _ in speakers]
    table = utterance_table(speakers, emotions, [5] * len(speakers))
    write_cache(tmp_path / "cache" / "tiny" / f"{name}.h5", table, states)


@pytest.mark.parametrize(
    ("speakers", "emotions", "error", "message"),
    [
        (["a"] * 8, ["x", "y"] * 4, SplitError, "speaker"),
        (["a", "b"] * 4, ["x", "y"] * 4, SplitError, "2 speakers"),
        ([*"abcdefgh"], ["x"] * 7 + ["y"], SettingsError, "'y' occurs once"),
        ([*"abcdefgh"], ["x"] * 8, SettingsError, "two or more"),
    ],
)
def test_corpora_that_cannot_be_probed_are_refused(tmp_path, speakers, emotions, error, message):
    tiny(tmp_path, "bad", speakers, emotions)
    with pytest.raises(error, match=message):
        probe(config(tmp_path))


def test_one_cache_that_fails_does_not_stop_the_others(tmp_path, planted_cache):
    planted_cache()
    tiny(tmp_path, "bad", ["a"] * 8, ["x", "y"] * 4)
    results, failures = probe_all(config(tmp_path, head="linear"))
    assert len(results) == 2
    assert [*failures] == ["tiny on bad"]
    with pytest.raises(SplitError):
        probe(config(tmp_path, head="linear"))


def unfinished(tmp_path):
    table = utterance_table([*"abcdefgh"], ["x", "y"] * 4, [5] * 8)
    path = tmp_path / "cache" / "tiny" / "half.h5"
    with CacheWriter.open(path, CachePlan(table, 2, 4, "frames", "float16", {})) as writer:
        writer.write(0, torch.randn(2, 5, 4), "0" * 64)


def test_an_unfinished_cache_is_passed_over_where_none_is_named_and_refused_where_it_is(
    tmp_path, planted_cache, caplog
):
    planted_cache()
    unfinished(tmp_path)
    assert set(probe(config(tmp_path, head="linear")).model) == {"planted"}
    assert "half.h5: not finished" in caplog.text
    with pytest.raises(CacheError, match="7 of 8 utterances are still to come"):
        probe(config(tmp_path, model=("tiny",), dataset=("half",)))


def test_only_unfinished_caches_is_an_error(tmp_path):
    unfinished(tmp_path)
    with pytest.raises(CacheError, match="no finished cache"):
        probe(config(tmp_path))


def test_other_labels_are_other_runs_though_the_classes_have_the_same_names(
    tmp_path, planted_cache
):
    planted_cache()
    settings = {"head": "linear", "split": "loso", "runs": 1}
    one = probe(config(tmp_path, map=("anger=happiness",), **settings))
    other = probe(config(tmp_path, map=("anger=sadness",), **settings))
    assert one.path[0] != other.path[0]
    truths = [
        {p["key"]: p["emotion"] for p in load_record(tmp_path / r.path[0])["predictions"]}
        for r in (one, other)
    ]
    assert truths[0] != truths[1]


def test_a_damaged_record_is_made_again(tmp_path, planted_cache):
    planted_cache()
    first = probe(config(tmp_path, head="linear", runs=1))
    (tmp_path / first.path[0]).write_text('{"format"')
    again = probe(config(tmp_path, head="linear", runs=1))
    assert again.macro_f1.tolist() == first.macro_f1.tolist()


def test_runs_of_one_experiment_differ_in_their_seed_alone(tmp_path, planted_cache):
    planted_cache()
    same = probe(config(tmp_path, head="linear", runs=3, epochs=1, resplit=True))
    assert len(set(same.experiment)) == 1
    other = probe(config(tmp_path, head="linear", runs=1, epochs=2, resplit=True))
    assert other.experiment[0] != same.experiment[0]


def test_a_record_has_an_alarm_where_the_speaker_tells_the_emotion(tmp_path):
    rows = [(f"s{s}", "anger" if s % 2 else "fear") for s in range(10) for _ in range(6)]
    states = [torch.randn(2, 3, 5) for _ in rows]
    table = utterance_table([s for s, _ in rows], [e for _, e in rows], [3] * len(rows))
    write_cache(tmp_path / "cache" / "m" / "c.h5", table, states)
    results = probe(config(tmp_path, head="linear", runs=1, epochs=1, layer=0))
    alarms = load_record(Path(results["path"][0]))["alarms"]
    [alarm] = [alarm for alarm in alarms if alarm["code"] == "confounded"]
    assert "speaker and emotion are nearly one variable here" in alarm["text"]


def test_an_emotion_of_one_speaker_alone_stops_no_fold_and_is_said(tmp_path, caplog):
    """Four speakers show two emotions each and one a third: loso leaves that one out once."""
    rows = [(f"s{s}", e) for s in range(4) for e in ("anger", "fear") for _ in range(4)]
    rows += [("s9", "guilt")] * 8
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 3, 5, generator=generator) for _ in rows]
    table = utterance_table([s for s, _ in rows], [e for _, e in rows], [3] * len(rows))
    write_cache(tmp_path / "cache" / "m" / "c.h5", table, states)
    results = probe(config(tmp_path, head="all", split="loso", runs=1, epochs=2, layer=None))
    assert len(results) == 3
    record = load_record(Path(results["path"][0]))
    losses = [epoch["validation_loss"] for fold in record["folds"] for epoch in fold["history"]]
    assert None in losses and any(isinstance(loss, float) for loss in losses)
    assert "has no validation loss" in caplog.text
