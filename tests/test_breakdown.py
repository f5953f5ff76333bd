"""What a score is made of: classes, groups and errors as the records have them; runs by name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from simulated import EMOTIONS, simulated_record, write_records
from sklearn.metrics import precision_recall_fscore_support

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cli import main
from lsmprobe.errors import ResultsError
from lsmprobe.report.recorded_caches import Caches
from lsmprobe.report.scores_of_run import items_of_runs
from lsmprobe.results.breakdown import (
    answers_of,
    confusion_of,
    duration_bins,
    largest_errors,
    scores_by_group,
    scores_by_output,
    worst_group,
)
from lsmprobe.results.find import find_run, find_runs
from lsmprobe.results.records import load_results
from lsmprobe.results.scores import score_of


@pytest.fixture(scope="module")
def runs():
    return [simulated_record("m", "c", "linear", seed, 4) for seed in (0, 1)]


def numbers_record(n=40, seed=0):
    """A record of two targets as `probe` writes it, with answers that are noisy truths."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, 2)) * (1, 20) + (0, 100)
    answers = truth + rng.standard_normal((n, 2)) * (0.5, 30)
    names = ["valence", "pitch"]
    predictions = [
        {
            "key": f"{i:03d}.wav",
            "speaker": f"s{i % 5}",
            "emotion": EMOTIONS[i % 7],
            "truth": dict(zip(names, truth[i].tolist(), strict=True)),
            "predicted": dict(zip(names, answers[i].tolist(), strict=True)),
        }
        for i in range(n)
    ]
    changes = {"classes": names, "predictions": predictions, "target": names}
    record = simulated_record("m", "c", "linear", 0, 4, **changes)
    record |= {"measure": "numbers", "objective": "ccc"}
    interval = {"low": 0.4, "high": 0.9, "over": "utterances only"}
    scores = {"ccc": 0.7, "pearson": 0.8, "rmse": 1.0, "mae": 1.0, "constant_ccc": 0.0}
    return record | {"scores": scores | {"interval": interval}}, truth, answers


def test_the_scores_of_classes_are_those_of_scikit_learn(runs):
    table = scores_by_output(runs).set_index("name")
    each = []
    for record in runs:
        said = pd.DataFrame(record["predictions"])
        each.append(
            precision_recall_fscore_support(
                said.emotion, said.predicted, labels=EMOTIONS, zero_division=0
            )
        )
    means = 100 * np.mean(each, axis=0)[:3]
    for name, expected in zip(("precision", "recall", "f1"), means, strict=True):
        np.testing.assert_allclose(table.loc[list(EMOTIONS), name], expected)
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    f1 = [100 * one[2] for one in each]
    np.testing.assert_allclose(table.f1_std, np.std(f1, axis=0, ddof=1))
    assert confusion_of(runs).to_numpy().sum() == 80


def test_a_class_that_is_not_there_has_no_recall():
    record = simulated_record("m", "c", "linear", 0, 4, emotions=("anger", "joy"))
    record["classes"] = ["anger", "joy", "rage"]
    record["predictions"] = [
        one | {"probabilities": [*one["probabilities"], 0.0]} for one in record["predictions"]
    ]
    rage = scores_by_output([record]).set_index("name").loc["rage"]
    assert rage.n == 0 and rage.precision == 0
    assert rage[["recall", "recall_low", "f1", "f1_high"]].isna().all()


def test_a_group_is_scored_by_its_own_answers_and_the_worst_is_named(runs):
    speaker = {one["key"]: one["speaker"] for one in runs[0]["predictions"]}
    table = scores_by_group(runs, speaker).set_index("group")
    said = answers_of(runs)
    right = said.wrong_by.isna()
    own = 100 * said.assign(right=right).pivot_table("right", "seed", "speaker")
    np.testing.assert_allclose(table.accuracy, own.mean()[table.index])
    np.testing.assert_allclose(table.accuracy_std, own.std(ddof=1)[table.index])
    assert (table.n == 8).all() and (table.speakers == 1).all()
    assert worst_group(table.reset_index(), "accuracy") == own.mean().idxmin()


def test_small_groups_are_taken_together_and_no_utterance_is_lost(runs):
    keys = [one["key"] for one in runs[0]["predictions"]]
    groups = dict.fromkeys(keys[:20], "many") | dict(zip(keys[20:26], "aabbcc", strict=True))
    table = scores_by_group(runs, groups)
    assert dict(zip(table.group, table.n, strict=True)) == {
        "many": 20,
        "not known": 14,
        "others": 6,
    }
    assert worst_group(table, "accuracy") is None  # one group alone has a name


def test_numbers_are_broken_down_by_target_and_by_group():
    record, truth, answers = numbers_record()
    table = scores_by_output([record]).set_index("name")
    for at, name in enumerate(("valence", "pitch")):
        for score in ("ccc", "pearson", "rmse", "mae"):
            expected = score_of(truth[:, at], answers[:, at], 1, score)
            assert table.loc[name, score] == pytest.approx(expected)
    groups = {one["key"]: one["speaker"] for one in record["predictions"]}
    by_speaker = scores_by_group([record], groups).set_index("group")
    own = np.arange(40) % 5 == 3
    assert by_speaker.loc["s3", "ccc"] == pytest.approx(
        score_of(truth[own], answers[own], 2, "ccc")
    )
    with pytest.raises(ResultsError, match="no confusion matrix"):
        confusion_of([record])
    distance = (np.abs(answers - truth) / truth.std(0)).mean(1)
    assert largest_errors([record], 3).key[0] == f"{distance.argmax():03d}.wav"


def test_the_most_confident_errors_come_first_and_each_utterance_once(runs):
    table = largest_errors(runs, 8)
    assert table.key.is_unique and (table.emotion != table.predicted).all()
    assert (table.wrong_by.diff().dropna() <= 0).all()
    wrong = answers_of(runs).query("emotion != predicted")
    assert table.wrong_by[0] == pytest.approx(wrong[[f"p_{e}" for e in EMOTIONS]].max(axis=None))
    assert table.runs[0] == (wrong.key == table.key[0]).sum()


def test_bins_of_duration_hold_equally_many():
    seconds = pd.Series([*np.linspace(1, 5, 40), np.nan], index=[f"{i}" for i in range(41)])
    bins = duration_bins(seconds)
    assert sorted(bins.value_counts()) == [1, 10, 10, 10, 10]
    assert bins.iloc[0] == "1.00 to 2.00 s" and bins.iloc[-1] == ""
    assert set(duration_bins(pd.Series([2.0, 2.0]))) == {""}


def test_runs_are_a_table_or_records_of_one_experiment(results, runs):
    table = load_results(results)
    own = table[table.corpus == "c"]
    pd.testing.assert_frame_equal(confusion_of(own), confusion_of(runs))
    with pytest.raises(ResultsError, match="of 2 experiments"):
        confusion_of(table)


@pytest.fixture
def results(tmp_path, runs):
    other = simulated_record("m", "d", "multilayer", 0, None)
    return write_records(tmp_path / "results", [*runs, other])


def test_a_run_has_short_names_and_one_that_is_ambiguous_is_told(results, runs):
    path = find_run("multilayer", results)
    assert path.parent.name == "d"
    assert find_run(path, results) == path
    assert find_run("m/c seed1", results).name.startswith("linear-layer04-seed1")
    assert len(find_runs(runs[0]["experiment"][:8], results)) == 2
    with pytest.raises(ResultsError, match=r"may mean 2 runs.*linear-layer04-seed0.*results ls"):
        find_run("linear", results)
    with pytest.raises(ResultsError, match="has 'whisper' in its name"):
        find_run("whisper", results)


def test_an_experiment_of_a_number_alone_is_found(results):
    path = next(results.glob("m/d/*.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"experiment": "0123456789ab"}))
    assert find_run("01234567", results) == path


def run_command(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 0


def test_results_ls_says_in_a_line_each_what_is_there(results, capsys):
    run_command("results", "ls", "--results-dir", results)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "m on c, Linear, layer 4, split speaker: macro-F1" in lines[0] and "2 runs" in lines[0]
    assert "m on d, Multi-Layer" in lines[1] and lines[1].endswith("1 run")
    run_command("results", "find", "multilayer", "--results-dir", results)
    assert capsys.readouterr().out.strip() == str(find_run("multilayer", results))


def test_the_command_prints_and_writes_everything(results, tmp_path, capsys, runs):
    run_command("scores", "linear", "--results-dir", results, "--cache-dir", tmp_path / "none")
    out = capsys.readouterr().out
    folder = results / "scores" / runs[0]["experiment"]
    for said in ("Confusion matrix", "precision", "Scores by speaker", "Worst: s", "confident"):
        assert said in out
    files = {path.name for path in folder.iterdir()}
    assert files == {
        *("scores.md", "confusion.csv", "confusion.png", "confusion.pdf"),
        *("by-class.csv", "by-speaker.csv", "errors.csv"),
    }
    assert len(pd.read_csv(folder / "by-class.csv")) == 7


def test_what_the_cache_knows_groups_too_and_a_column_that_it_lacks_is_one_line(tmp_path, rng):
    lengths = np.arange(40) % 20 + 5
    table = utterance_table(
        [f"s{i % 5}" for i in range(40)], [EMOTIONS[i % 7] for i in range(40)], lengths
    )
    table["gender"] = ["female", "male"] * 20
    states = [torch.zeros(5, int(n), 2) for n in lengths]
    path = write_cache(tmp_path / "m" / "c.h5", table, states)
    record = simulated_record("m", "c", "linear", 0, 4)
    record["cache"] = {
        "file": "m/c.h5",
        "hash": FeatureCache(path).identity_hash,
        "identity": {"random_init": 0},
    }
    items = items_of_runs([record], caches=Caches(tmp_path))
    assert "weights are random" in items[1]
    names = [getattr(item, "name", "") for item in items]
    assert {"by-speaker", "by-gender", "by-duration", "errors"} <= set(names)
    assert items[-1].data["clip"][0].startswith("nowhere/")
    with pytest.raises(ResultsError, match="no column 'accent'"):
        items_of_runs([record], caches=Caches(tmp_path), by=["accent"])
    with pytest.raises(ResultsError, match="name its --cache-dir"):
        items_of_runs([record], caches=Caches(Path("nowhere")), by=["accent"])
