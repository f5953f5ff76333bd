"""Flips on planted caches: the right settings, one read, nothing twice, what turns around."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache

import lsmprobe.experiments.sensitivity
import lsmprobe.probing.stage
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.commands import sensitivity_command
from lsmprobe.config import ProbeConfig, SensitivityCommand, SensitivityConfig
from lsmprobe.errors import SettingsError, TrainingError
from lsmprobe.experiments.sensitivity import (
    CHOICES,
    NOTHING_TO_PAIR,
    OTHER_TEST_SET,
    flip_choices,
    planned_flips,
)
from lsmprobe.probing.objectives import CLASSIFICATION
from lsmprobe.probing.stage import probe
from lsmprobe.probing.task import Task, find_caches, read_task
from lsmprobe.progress import silent
from lsmprobe.report.sensitivity import format_sensitivity, save_sensitivity
from lsmprobe.results.comparison import compare_records
from lsmprobe.results.records import load_record, load_results


def config(tmp_path, **settings):
    quick = {"epochs": 2, "runs": 2, "device": "cpu", "hidden": 8, "cache_dir": tmp_path / "cache"}
    return SensitivityConfig(**{**quick, "results_dir": tmp_path / "results", **settings})


def flips_of(config):
    [cache] = find_caches(config)
    return planned_flips(config, read_task(config, *cache))


@pytest.fixture
def only(monkeypatch):
    """Flip nothing but these choices and the split: each flip costs a second or more."""

    def keep(*choices):
        monkeypatch.setattr(
            lsmprobe.experiments.sensitivity, "CHOICES", {c: CHOICES[c] for c in choices}
        )

    return keep


def test_every_choice_of_the_recipe_starts_at_its_default():
    for choice, values in CHOICES.items():
        assert values[0] == getattr(ProbeConfig(), choice)


def test_each_flip_changes_its_own_setting_and_no_other(tmp_path, planted_cache):
    planted_cache()
    first, *flips = flips_of(config(tmp_path))
    settings = {run.head: run.settings for run in first.heads}
    expected = [
        (choice, value)
        for choice, (_, *others) in CHOICES.items()
        for value in others
        if CLASSIFICATION.can_flip(choice, value)
    ]
    assert [f.choice for f in flips] == [c for c, _ in expected] + ["split_seed"]
    for flip, (choice, value) in zip(flips, expected, strict=False):
        for run in flip.heads + flip.curve:
            own = {choice: value} if choice in settings[run.head] else {}
            assert run.settings == {**settings[run.head], **own}
            assert run.split_hash == first.heads[0].split_hash
    assert {run.split_hash for run in flips[-1].heads}.isdisjoint(
        {run.split_hash for run in first.heads}
    )
    assert [(run.layer, run.seed) for run in first.curve] == [
        (n, s) for n in range(6) for s in (0, 1)
    ]


def test_flips_that_change_nothing_are_left_out(tmp_path, planted_cache):
    planted_cache()
    linear = flips_of(config(tmp_path, head="linear", split="loso", feature_norm="zscore"))
    assert [(f.choice, f.value) for f in linear] == [
        ("", ""),
        ("feature_norm", "none"),
        ("feature_norm", "layernorm"),
        ("class_weights", "none"),
        ("scheduler", "none"),
        ("scheduler", "cosine"),
        ("epoch_choice", "uar"),
        ("epoch_choice", "last"),
        ("epoch_choice", "loss"),
        ("validation_loss", "batches"),
    ]
    assert all(flip.curve == [] for flip in flips_of(config(tmp_path, head="multilayer")))


@pytest.mark.slow
def test_all_flips_train_from_one_read_as_ordinary_runs(tmp_path, planted_cache, monkeypatch):
    planted_cache()
    reads = []
    read = Task.read
    monkeypatch.setattr(Task, "read", lambda *wanted: reads.append(wanted) or read(*wanted))
    probed = probe(ProbeConfig(**vars(config(tmp_path, runs=1, epochs=1))))
    before = [path.stat().st_mtime_ns for path in map(Path, probed.path)]
    alone = len(reads)
    reads.clear()
    [found] = flip_choices(config(tmp_path, runs=1, epochs=1))
    # Twelve recipes on one split, one of which reads six layers and not five, and one on another.
    assert len(found.conclusions) == 13
    assert 0 < len(reads) <= (6 / 5 + 1) * alone
    assert [path.stat().st_mtime_ns for path in map(Path, probed.path)] == before  # kept
    # Layer 0 and the scalars concern Multi-Layer alone; Linear reads all six layers.
    counts = load_results(tmp_path / "results")["head"].value_counts().to_dict()
    assert counts == {"linear": 66, "nonlinear": 11, "multilayer": 13}
    reads.clear()
    [again] = flip_choices(config(tmp_path, runs=1, epochs=1))
    assert not reads
    pd.testing.assert_frame_equal(again.scores, found.scores)
    pd.testing.assert_frame_equal(again.conclusions, found.conclusions)


def test_flips_of_a_head_train_from_one_read(tmp_path, planted_cache, only, monkeypatch):
    planted_cache()
    only("class_weights")
    reads = []
    read = Task.read
    monkeypatch.setattr(Task, "read", lambda *wanted: reads.append(wanted) or read(*wanted))
    asked = config(tmp_path, head="nonlinear", runs=1, epochs=1)
    probe(ProbeConfig(**vars(asked)))
    alone = len(reads)
    reads.clear()
    flip_choices(asked)  # what is there is kept; one more recipe on this split, one on another
    assert 0 < len(reads) <= 2 * alone
    reads.clear()
    flip_choices(asked)
    assert not reads


def test_the_table_says_what_the_records_say(tmp_path, planted_cache, only):
    planted_cache(strength=1.0)
    only("class_weights")
    asked = config(tmp_path, head="linear", layer=3, split="kfold:3", lr=0.01)
    [found] = flip_choices(asked)
    paths = {
        (flip.choice, flip.value): [run.path for run in flip.heads] for flip in flips_of(asked)
    }
    plain = [load_record(path) for path in paths["", ""]]
    flipped = [load_record(path) for path in paths["class_weights", "none"]]
    f1 = [[record["scores"]["macro_f1"] for record in side] for side in (plain, flipped)]
    scores = found.scores.set_index(["choice", "value"])
    row = scores.loc["class_weights", "none"]
    assert (row.macro_f1, row["std"]) == pytest.approx((np.mean(f1[1]), np.std(f1[1], ddof=1)))
    assert (row.runs, row.layer) == (2, 3)
    assert row.difference == pytest.approx(np.mean(f1[1]) - np.mean(f1[0]))
    expected = compare_records(flipped, plain)
    assert (row.low, row.high, row.p) == (expected.low, expected.high, expected.p)
    # Ten speakers: every flip is tested, but for the other split.
    assert scores[scores.p.notna()].index.tolist() == list(paths)[1:-1]
    assert scores.p_holm.dropna().min() >= scores.p.min()


def scaled_cache(tmp_path):
    """Layer 1 holds the emotion cleanly at a tiny scale, layer 3 noisily at a scale of one."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(3, 12, generator=generator))
    rows = [(f"s{s}", e) for s in range(8) for e in range(3) for _ in range(4)]
    states = []
    for _, emotion in rows:
        hidden = torch.randn(4, 5, 12, generator=generator)
        hidden[1] = 1e-3 * (hidden[1] + 4 * directions[emotion])
        hidden[3] += 1.2 * directions[emotion]
        states.append(hidden)
    table = utterance_table([s for s, _ in rows], ["xyz"[e] for _, e in rows], [5] * len(rows))
    write_cache(tmp_path / "cache" / "scaled" / "made.h5", table, states, dtype="float32")


@pytest.mark.slow
def test_where_scale_decides_the_normalisation_turns_the_best_layer_around(tmp_path, only):
    scaled_cache(tmp_path)
    only("feature_norm", "class_weights")
    settings = {"head": "linear", "split": "kfold:3", "epochs": 6, "hidden": 16}
    [found] = flip_choices(config(tmp_path, **settings, lr=5e-3, runs=1))
    rows = found.conclusions.set_index(["choice", "value"])
    assert rows.loc["", ""].best_layer == 3
    assert rows.loc["", ""].turned == ""
    assert rows.loc["feature_norm", "zscore"].best_layer == 1
    assert rows.loc["feature_norm", "zscore"].turned == "best_layer"
    assert rows.loc["class_weights", "none"].turned == ""
    text = format_sensitivity(found)
    [line] = [line for line in text.splitlines() if line.startswith("--feature-norm   zscore")][:1]
    assert line.endswith("*")


def test_another_split_is_shown_but_not_compared(tmp_path, planted_cache, only):
    planted_cache()
    only("class_weights")
    [found] = flip_choices(config(tmp_path, head="linear", runs=1))
    row = found.scores.iloc[-1]
    assert (row.choice, row.value, row.note) == ("split_seed", "1", OTHER_TEST_SET)
    assert np.isnan(row.difference)
    assert np.isnan(found.scores["std"]).all()  # one run has no spread
    text = format_sensitivity(found)
    [line] = [line for line in text.splitlines() if line.startswith("--split-seed")][1:]
    assert line.split() == ["--split-seed", "1", "Linear", "-", "-", "-", "-"]
    assert OTHER_TEST_SET in text
    assert "The test set has 1 speaker: no test is made" in text


@pytest.fixture
def break_down(monkeypatch):
    """Let what trains fail where one of its members is such a one."""
    fit = lsmprobe.probing.stage.fit

    def break_down(breaks):
        def fit_or_not(members, *args, **kwargs):
            if any(map(breaks, members)):
                raise TrainingError("the loss is nan")
            return fit(members, *args, **kwargs)

        monkeypatch.setattr(lsmprobe.probing.stage, "fit", fit_or_not)

    return break_down


def test_a_flip_that_breaks_down_is_named_and_stops_nothing_else(
    tmp_path, planted_cache, only, break_down
):
    planted_cache()
    only("class_weights", "validation_loss")
    [whole] = flip_choices(config(tmp_path, head="linear", results_dir=tmp_path / "whole"))
    break_down(lambda member: member.recipe.class_weights == "none")
    [found] = flip_choices(config(tmp_path, head="linear"))
    layers = range(6)
    names = {f"linear on layer {n}, seed {s}, --class-weights none" for n in layers for s in (0, 1)}
    assert found.failures.keys() == names
    broken = found.scores.choice == "class_weights"
    assert found.scores[broken][["runs", "note"]].to_numpy().tolist() == [[0, NOTHING_TO_PAIR]]
    assert found.scores[broken][["macro_f1", "difference", "p"]].isna().all(axis=None)
    numbers = ["choice", "value", "macro_f1", "difference", "low", "high"]
    pd.testing.assert_frame_equal(found.scores[numbers][~broken], whole.scores[numbers][~broken])
    pd.testing.assert_frame_equal(found.conclusions[~broken], whole.conclusions[~broken])
    assert found.conclusions[broken].turned.tolist() == [""]  # nothing is known of it
    text = format_sensitivity(found)
    assert "nan" not in text
    assert "seed 1, --class-weights none" in " ".join(text.split())


@pytest.mark.slow
def test_differences_are_over_the_seeds_that_did_not_fail(
    tmp_path, planted_cache, only, break_down
):
    planted_cache()
    only("class_weights")
    break_down(lambda member: member.recipe.class_weights == "none" and member.seed == 0)
    asked = config(tmp_path, head="linear")
    [found] = flip_choices(asked)
    plain, flipped = (flip.heads[1].path for flip in flips_of(asked)[:2])
    row = found.scores.iloc[1]
    expected = compare_records([load_record(flipped)], [load_record(plain)])
    assert (row.runs, row.difference, row.over) == (1, expected.difference, expected.over)


@pytest.mark.slow
def test_the_files_hold_the_numbers_in_full(tmp_path, planted_cache, only):
    planted_cache()
    only("feature_norm")
    [found] = flip_choices(config(tmp_path, runs=1, epochs=1))
    path = save_sensitivity(found, tmp_path / "results" / "sensitivity")
    assert path.name == "planted-made.md"
    assert "| --feature-norm | zscore |" in " ".join(path.read_text().split())
    for name, table in (("scores", found.scores), ("conclusions", found.conclusions)):
        read = pd.read_csv(path.with_name(f"planted-made-{name}.csv"))
        assert list(read) == list(table)
        assert len(read) == len(table)
        numbers = table.select_dtypes("number").astype(float)
        np.testing.assert_allclose(read[list(numbers)].astype(float), numbers)
    heads = found.scores[found.scores.choice == "feature_norm"]["head"].tolist()
    assert heads == ["linear", "nonlinear", "multilayer"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "all"}, "compares heads on one layer"),
        ({"resplit": True}, "on one test set"),
        ({"runs": 0}, "--runs is 0"),
    ],
)
def test_flags_that_cannot_be_compared_are_refused(tmp_path, settings, message):
    with pytest.raises(SettingsError, match=message):
        config(tmp_path, **settings)


def test_the_command_prints_and_says_where_the_files_are(
    tmp_path, planted_cache, only, monkeypatch, capsys
):
    from lsmprobe.cli import main

    planted_cache()
    only("class_weights")
    monkeypatch.chdir(tmp_path)
    flags = "--model planted --dataset made --head linear --runs 1 --epochs 1 --device cpu"
    with pytest.raises(SystemExit) as exit_:
        main(["sensitivity", *flags.split()])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert "Sensitivity of planted on made." in out
    assert (tmp_path / out.splitlines()[-1]).is_file()


def test_the_command_names_what_failed_and_its_exit_status_says_so(
    tmp_path, planted_cache, only, break_down, capsys
):
    planted_cache()
    only("class_weights")
    break_down(lambda member: member.recipe.class_weights == "none" and member.layers == (5,))
    assert (
        sensitivity_command(SensitivityCommand(**vars(config(tmp_path, head="linear", runs=1))))
        == 1
    )
    printed = capsys.readouterr()
    said = [line for line in printed.err.splitlines() if line.startswith("lsmprobe: ")]
    what = "planted on made, linear on layer 5, seed 0, --class-weights none"
    assert said == [f"lsmprobe: {what}: the loss is nan"]
    assert "Sensitivity of planted on made." in printed.out


def test_numbers_are_flipped_in_what_decides_them_and_scored_by_ccc(
    tmp_path, planted_cache, only, monkeypatch
):
    monkeypatch.setattr(lsmprobe.experiments.sensitivity, "CURVE", "none")  # for the time it takes
    only("regression_loss", "class_weights", "epoch_choice")
    table = FeatureCache(planted_cache()).utterances
    level = {name: float(at) for at, name in enumerate(sorted(set(table.emotion)))}
    labels = tmp_path / "own.csv"
    table[["key"]].assign(valence=table.emotion.map(level)).to_csv(labels, index=False)
    asked = {"target": "valence", "labels": labels, "head": "linear", "runs": 1}
    [found] = flip_choices(config(tmp_path, **asked, epochs=1), progress=silent)
    flipped = list(found.conclusions.choice + " " + found.conclusions.value)
    others = ["epoch_choice last", "epoch_choice loss", "split_seed 1"]
    assert flipped == [" ", "regression_loss mse", *others]
    assert found.scores.ccc.between(-1, 1).all() and found.scores.difference.notna().sum() == 3
    objectives = {
        load_record(Path(p))["objective"] for p in load_results(tmp_path / "results").path
    }
    assert objectives == {"ccc", "mse"}
    text = format_sensitivity(found)
    assert "target valence" in text and "macro" not in text.lower() and "CCC" in text
    saved = save_sensitivity(found, tmp_path / "out")
    assert saved.name == "planted-made-valence.md"
