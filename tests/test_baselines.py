import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cli import main
from lsmprobe.commands import baseline_command
from lsmprobe.config import BaselineCommand, BaselineConfig, ExtractConfig, ProbeConfig
from lsmprobe.errors import CacheError, CorpusError, SettingsError, TrainingError
from lsmprobe.experiments import baseline
from lsmprobe.experiments.baseline import train_baseline
from lsmprobe.experiments.spectrogram_transformer import SIZES, Size
from lsmprobe.extraction.stage import extract
from lsmprobe.probing.stage import probe
from lsmprobe.results.records import load_record, load_results

EMOTIONS = {"anger": 300.0, "neutrality": 1000.0, "sadness": 3000.0}  # Hz


@pytest.fixture(autouse=True)
def _tiny_is_smaller_still(monkeypatch):
    monkeypatch.setitem(SIZES, "ast-tiny", Size(12, 1, 1, 64))


@pytest.fixture
def tones(tmp_path, write_wav, rng):
    """A corpus of 6 speakers x 3 emotions x 2 clips of 0.2 to 0.5 s, a tone in noise each."""
    rows = []
    for speaker in range(6):
        for emotion, frequency in EMOTIONS.items():
            for take in range(2):
                t = np.arange(rng.integers(3200, 8000)) / 16_000
                tone = 0.3 * np.sin(2 * np.pi * frequency * t)
                name = f"s{speaker}-{emotion}-{take}.wav"
                write_wav(tmp_path / "tones" / name, tone + rng.normal(0, 0.02, len(t)))
                rows.append({"path": name, "emotion": emotion, "speaker": f"s{speaker}"})
    manifest = tmp_path / "tones" / "tones.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return str(manifest)


def config(tmp_path, tones, **settings):
    return BaselineConfig(
        **{
            "dataset": tones,
            "size": "ast-tiny",
            "cache_dir": tmp_path / "cache",
            "results_dir": tmp_path / "results",
            "device": "cpu",
            "runs": 2,
            "epochs": 2,
            **settings,
        }
    )


def test_a_run_is_one_more_column_of_the_results(tmp_path, tones):
    train_baseline(config(tmp_path, tones))
    results = load_results(tmp_path / "results")
    assert results.model.tolist() == ["ast-tiny"] * 2
    assert results["head"].tolist() == ["ast"] * 2
    assert results.corpus.tolist() == ["tones"] * 2
    assert results.seed.tolist() == [0, 1]
    assert results.layer.isna().all()
    assert results.layer_weights.isna().all()
    assert len(set(results.experiment)) == 1
    assert not results.random_weights.any()  # they were trained; the control's were not
    record = load_record(tmp_path / results.path[0])
    truth = [p["emotion"] for p in record["predictions"]]
    guess = [p["predicted"] for p in record["predictions"]]
    expected = f1_score(truth, guess, labels=record["classes"], average="macro", zero_division=0)
    assert results.macro_f1[0] == pytest.approx(100 * expected)
    assert record["cache"]["file"] == "fbank/tones.h5"
    assert record["settings"]["size"] == "ast-tiny"
    assert record["settings"]["time_mask"] == 96
    assert not list((tmp_path / "results").rglob("*.safetensors"))


@pytest.mark.parametrize("split", ["auto", "kfold:3"])
def test_who_is_tested_is_the_same_as_when_probing(tmp_path, tones, split):
    extract(
        ExtractConfig(model="logmel", dataset=tones, cache_dir=tmp_path / "cache", device="cpu")
    )
    probed = probe(
        ProbeConfig(
            model=("logmel",),
            head="linear",
            runs=1,
            epochs=1,
            split=split,
            split_seed=3,
            cache_dir=tmp_path / "cache",
            results_dir=tmp_path / "results",
            device="cpu",
        )
    )
    trained = train_baseline(config(tmp_path, tones, runs=1, split=split, split_seed=3))
    assert trained.split_hash[0] == probed.split_hash[0]
    keys = [
        [p["key"] for p in load_record(tmp_path / results.path[0])["predictions"]]
        for results in (trained, probed)
    ]
    assert keys[0] == keys[1]


@pytest.fixture
def trained(monkeypatch):
    """The seeds that have been trained; Ctrl-C comes when `trained.stop` begins."""

    class Seeds(list):
        stop = None

    seeds, train = Seeds(), baseline.train

    def watched(*args, seed, **settings):
        if seed == seeds.stop:
            raise KeyboardInterrupt
        seeds.append(seed)
        return train(*args, seed=seed, **settings)

    monkeypatch.setattr(baseline, "train", watched)
    return seeds


def test_finished_runs_are_skipped_unless_forced(tmp_path, tones, trained):
    first = train_baseline(config(tmp_path, tones, runs=1))
    more = train_baseline(config(tmp_path, tones, runs=2))
    assert trained == [0, 1]
    assert more.macro_f1[0] == first.macro_f1[0]
    again = train_baseline(config(tmp_path, tones, runs=2, force=True))
    assert trained == [0, 1, 0, 1]
    when = ["seconds", "created"]
    pd.testing.assert_frame_equal(again.drop(columns=when), more.drop(columns=when))


def test_a_stopped_run_loses_the_running_seed_alone(tmp_path, tones, trained):
    trained.stop = 1
    with pytest.raises(KeyboardInterrupt):
        train_baseline(config(tmp_path, tones, runs=3))
    assert load_results(tmp_path / "results").seed.tolist() == [0]
    trained.stop = None
    train_baseline(config(tmp_path, tones, runs=3))
    assert trained == [0, 1, 2]


def test_a_run_that_breaks_down_costs_no_other(tmp_path, tones, monkeypatch, capsys):
    train = baseline.train

    def broken(*args, seed, **settings):
        if seed == 0:
            raise TrainingError("the loss is not finite")
        return train(*args, seed=seed, **settings)

    monkeypatch.setattr(baseline, "train", broken)
    asked = config(tmp_path, tones, epochs=1)
    assert baseline_command(BaselineCommand(**vars(asked))) == 1
    printed = capsys.readouterr()
    assert "records:" in printed.out and "ast-tiny on tones, " in printed.err
    assert load_results(tmp_path / "results").seed.tolist() == [1]
    with pytest.raises(TrainingError, match="not finite"):
        train_baseline(asked)


def test_the_filterbanks_are_computed_once(tmp_path, tones):
    train_baseline(config(tmp_path, tones, runs=1))
    cache = FeatureCache(tmp_path / "cache" / "fbank" / "tones.h5")
    assert cache.is_finished
    for path in (tmp_path / "tones").glob("*.wav"):
        path.unlink()  # nothing but the cache is read from now on
    assert len(train_baseline(config(tmp_path, tones, runs=2))) == 2


def test_other_sizes_and_settings_are_other_experiments(tmp_path, tones, monkeypatch):
    monkeypatch.setitem(SIZES, "ast", Size(12, 2, 1, 64))
    for settings in ({}, {"size": "ast"}, {"lr": 1e-3}, {"time_mask": 0}):
        train_baseline(config(tmp_path, tones, runs=1, epochs=1, **settings))
    results = load_results(tmp_path / "results")
    assert len(set(results.experiment)) == 4
    assert sorted(results.model) == ["ast", "ast-tiny", "ast-tiny", "ast-tiny"]


def test_every_speaker_is_tested_once_when_one_is_left_out(tmp_path, tones):
    results = train_baseline(config(tmp_path, tones, runs=1, epochs=1, split="loso"))
    record = load_record(tmp_path / results.path[0])
    assert len(record["folds"]) == 6
    assert results.n_test[0] == 36
    assert math.isfinite(record["folds"][5]["history"][0]["train_loss"])


def test_labels_can_be_merged_and_left_out(tmp_path, tones):
    merged = train_baseline(config(tmp_path, tones, runs=1, map=("anger=high", "sadness=low")))
    classes = load_record(tmp_path / merged.path[0])["classes"]
    assert classes == ["high", "low", "neutrality"]
    with pytest.raises(SettingsError, match="no emotion 'joy'"):
        train_baseline(config(tmp_path, tones, emotions=("joy",)))


def test_bad_input_is_one_line(tmp_path, tones):
    with pytest.raises(CorpusError, match="nowhere"):
        train_baseline(config(tmp_path, str(tmp_path / "nowhere.csv")))
    with pytest.raises(SettingsError, match="--time-mask is 600; expected 0 to 512"):
        config(tmp_path, tones, time_mask=600)


def test_a_clip_that_cannot_be_read_is_left_out_on_purpose_only(tmp_path, tones):
    (tmp_path / "tones" / "s0-anger-0.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match="--skip-unreadable leaves them out"):
        train_baseline(config(tmp_path, tones))
    kept = train_baseline(config(tmp_path, tones, skip_unreadable=True, split="loso", epochs=1))
    assert kept.n_test.tolist() == [35, 35]


def test_means_alone_are_no_input(tmp_path, tones):
    settings = ExtractConfig(
        model="fbank", dataset=tones, cache_dir=tmp_path / "cache", store="pooled", device="cpu"
    )
    extract(settings)
    with pytest.raises(CacheError, match="pooled"):
        train_baseline(config(tmp_path, tones))


def test_the_command_prints_the_scores(tmp_path, tones, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["baseline", "--dataset", tones, "--size", "ast-tiny", "--runs", "1", "--epochs", "1"])
    assert left.value.code == 0
    assert "ast-tiny" in capsys.readouterr().out
    assert len(load_results("results")) == 1


def test_a_baseline_learns_other_columns_also_those_that_labels_add(tmp_path, tones):
    table = pd.read_csv(tones)
    labels = tmp_path / "own.csv"
    hertz = table.emotion.map(EMOTIONS)
    votes = table.emotion.where(table.index % 2 == 0, table.emotion + "; anger")
    added = {
        "votes": votes,
        "pitch": hertz.map(math.log2),
        "group": np.where(hertz > 500, "high", "low"),
    }
    table.rename(columns={"path": "key"})[["key"]].assign(**added).to_csv(labels, index=False)
    asked = {"labels": labels, "runs": 1, "epochs": 1}
    [numbers] = train_baseline(config(tmp_path, tones, target="pitch", **asked)).itertuples()
    assert (numbers.target, numbers.measure) == ("pitch", "numbers") and abs(numbers.ccc) <= 1
    said = load_record(tmp_path / numbers.path)["predictions"][0]
    assert said["truth"]["pitch"] == pytest.approx(math.log2(EMOTIONS[said["emotion"]]), abs=1e-5)
    [words] = train_baseline(config(tmp_path, tones, target="group", **asked)).itertuples()
    assert (words.target, words.measure) == ("group", "classes")
    soft = config(tmp_path, tones, target="votes", target_kind="votes", **asked)
    [shares] = train_baseline(soft).itertuples()
    assert shares.measure == "shares" and 0 < shares.jsd < 1
