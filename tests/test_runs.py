import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lsmprobe.config import ProbeConfig
from lsmprobe.probing.record import run_record
from lsmprobe.probing.run import make_task_split, name_runs
from lsmprobe.probing.task import read_task
from lsmprobe.results.alarms import audio_alarms
from lsmprobe.splits.file import load_split
from lsmprobe.splits.voices import clips_in_train


@pytest.fixture
def task(tmp_path, planted_cache):
    path = planted_cache()
    return read_task(ProbeConfig(), "planted", "made", path)


def named(task, tmp_path, *, seed=0, split_seed=0, spec="kfold:3", head="ast", layer=None, **given):
    split = make_task_split(spec, task, seed=split_seed, results_dir=tmp_path)
    settings = {"feature_norm": "none", **given}
    [run] = name_runs(task, [(head, layer, settings)], {seed: split}, tmp_path)
    return run


def test_a_run_is_named_by_all_that_decides_its_numbers(task, tmp_path):
    base = named(task, tmp_path)
    assert named(task, tmp_path).path == base.path
    other_labels = replace(
        task, utterances=task.utterances.assign(emotion=np.roll(task.utterances.emotion, 4))
    )
    others = [
        named(task, tmp_path, head="linear", layer=3),
        named(task, tmp_path, head="linear", layer=2),
        named(task, tmp_path, split_seed=3),
        named(task, tmp_path, spec="speaker"),
        named(task, tmp_path, lr=0.1),
        named(other_labels, tmp_path),
    ]
    assert len({base.path.stem[-12:], *(run.path.stem[-12:] for run in others)}) == 7
    assert len({base.experiment, *(run.experiment for run in others)}) == 7
    further = named(task, tmp_path, seed=1)
    assert further.experiment == base.experiment
    assert further.path != base.path


def test_a_split_that_was_made_can_be_given_back(task, tmp_path):
    split = make_task_split("speaker", task, seed=0, results_dir=tmp_path)
    [path] = (tmp_path / "splits").iterdir()
    again = load_split(path, task.keys)
    assert again.folds[0].test.tolist() == split.folds[0].test.tolist()
    assert (
        named(task, tmp_path, spec=str(path)).split_hash
        == named(task, tmp_path, spec="speaker").split_hash
    )


def test_test_files_that_train_has_too_are_an_alarm(task, tmp_path):
    run = named(task, tmp_path)
    [train, test] = (getattr(run.split.folds[0], part)[0] for part in ("train", "test"))

    def shared(**columns):
        table = task.utterances.copy()
        table.loc[test, "sha256"] = table.sha256[train]
        for name, value in columns.items():
            table.loc[test, name] = value
        return clips_in_train(run.split, table)

    assert clips_in_train(run.split, task.utterances) == 0
    assert shared() == 1  # of the fold; the one in train is tested where this one validates
    assert shared(start_s=0.5, end_s=0.6) == 0  # another part of the file
    [alarm] = audio_alarms(2, 160)
    assert alarm.text.startswith("2 of 160 test utterances are in train too, byte for byte")


def test_a_head_without_layers_has_a_record_too(task, tmp_path):
    run = named(task, tmp_path)
    rights = np.eye(4)[task.labels]  # every answer is right
    record = run_record(
        task,
        run,
        layers=[],
        layer_weights=[],
        best_epochs=[1, 2, 3],
        histories=[[{"train_loss": 1.0}]] * 3,
        probabilities=[rights[fold.test] for fold in run.split.folds],
        seconds=1.0,
        device="cpu",
    )
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["scores"]["macro_f1"] == 100
    assert (record["head"], record["layer"], record["layers"]) == ("ast", None, [])
    assert record["layer_weights"] is None
    assert record["alarms"] == []
    assert record["cache"]["file"] == "planted/made.h5"
    tested = np.concatenate([fold.test for fold in run.split.folds])
    assert [p["key"] for p in record["predictions"]] == [task.keys[i] for i in tested]
    assert Path(run.path).name.startswith("ast-seed0-")
