"""Stage 2 over many caches: what fails, what was stopped, and what the bar says."""

import errno
import gc
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import utterance_table, write_cache
from tqdm import tqdm

from lsmprobe import atomic
from lsmprobe.cache.labels import write_labels
from lsmprobe.cache.reader import FeatureCache
from lsmprobe.commands import probe_command
from lsmprobe.config import ProbeCommand, ProbeConfig
from lsmprobe.errors import CacheError, ResultsError, TrainingError
from lsmprobe.probing import stage
from lsmprobe.probing.task import read_task
from lsmprobe.results.records import load_head, load_record, load_results

EMOTIONS = ["anger", "fear", "joy"]


def config(tmp_path, **settings):
    quick = {"epochs": 2, "runs": 2, "device": "cpu", "hidden": 8}
    folders = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"}
    return ProbeConfig(**{**quick, **folders, **settings})


def made_cache(tmp_path, model="one", corpus="made", n_layers=3, scale=(1,), frames=4, **kwargs):
    """A cache of noise: 6 speakers x 3 emotions x 2 utterances; `scale` of each layer."""
    generator = torch.Generator().manual_seed(0)
    rows = [(f"s{s}", e) for s in range(6) for e in EMOTIONS for _ in range(2)]
    states = [torch.randn(n_layers, frames, 5, generator=generator) for _ in rows]
    states = [hidden * torch.tensor(scale).view(-1, 1, 1) for hidden in states]
    table = utterance_table(*zip(*rows, strict=True), [frames] * len(rows))
    return write_cache(tmp_path / "cache" / model / f"{corpus}.h5", table, states, **kwargs)


@pytest.fixture
def bars(monkeypatch):
    """Every progress bar that was drawn."""
    drawn = []

    class Bar(tqdm):
        monitor_interval = 0

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "disable": False, "file": io.StringIO()})
            if kwargs.get("unit") == "epoch":
                drawn.append(self)

    for function in (stage.probe, stage.probe_all, stage.plan_grid):
        shown = inspect.unwrap(function).__kwdefaults__
        monkeypatch.setitem(shown, "progress", Bar)
    return drawn


def answers(results):
    """What every run says of every utterance, by what it is."""
    records = [load_record(Path(path)) for path in results.path]
    return {
        (r["model"], r["head"], r["layer"], r["seed"]): [
            p["probabilities"] for p in r["predictions"]
        ]
        for r in records
    }


# ------------------------------------------------------------------------------- one bar, one plan


@pytest.mark.parametrize("settings", [{}, {"split": "kfold:3"}, {"head": "linear", "layer": "all"}])
def test_one_bar_is_as_long_as_the_epochs_trained(tmp_path, bars, settings):
    made_cache(tmp_path, "one")
    made_cache(tmp_path, "two")
    results, failures = stage.probe_all(config(tmp_path, **settings))
    assert not failures
    epochs = [
        len(fold["history"]) for path in results.path for fold in load_record(Path(path))["folds"]
    ]
    [bar] = bars
    assert bar.total == bar.n == sum(epochs)
    assert bar.desc == "two on made: "


def test_the_plan_holds_no_cache(tmp_path):
    for model in ("one", "two"):
        made_cache(tmp_path, model)
    cells, _ = stage.plan_grid(config(tmp_path))
    gc.collect()
    assert len(cells) == 2
    assert not [o for o in gc.get_objects() if type(o) is FeatureCache]


def test_a_note_on_a_split_is_told_once(tmp_path, caplog):
    for model in ("one", "two"):
        made_cache(tmp_path, model)
    cells, _ = stage.plan_grid(config(tmp_path))
    [note, *_] = cells[0].runs[0].split.notes
    assert caplog.text.count(note) == 1


def test_other_processes_parts_are_one_cache(tmp_path):
    path = made_cache(tmp_path)
    added = path.with_name("made.part-00-of-02.h5")
    added.write_bytes(path.read_bytes())
    assert [cell.path for cell in stage.plan_grid(config(tmp_path))[0]] == [path]


def test_what_a_baseline_learns_from_is_probed_only_where_it_is_named(tmp_path):
    made_cache(tmp_path, "one")
    made_cache(tmp_path, "fbank", n_layers=1)
    assert [cell.model for cell in stage.plan_grid(config(tmp_path))[0]] == ["one"]
    named, _ = stage.plan_grid(config(tmp_path, model=("fbank",), head="linear"))
    assert [cell.model for cell in named] == ["fbank"]


# ------------------------------------------------------------------------------- one layer


def test_one_layer_is_read_by_linear_and_non_linear_and_leaves_nothing_to_weigh(tmp_path, caplog):
    made_cache(tmp_path, "logmel", n_layers=1)
    results, failures = stage.probe_all(config(tmp_path, runs=1))
    assert not failures
    assert dict(zip(results["head"], results.layer, strict=True)) == {"linear": 0, "nonlinear": 0}
    assert "holds one layer, and --head multilayer weighs several" in caplog.text
    with pytest.raises(CacheError, match="holds one layer, and --head multilayer weighs several"):
        stage.probe(
            config(tmp_path, head="multilayer", model=("logmel",), dataset=("made",), runs=1)
        )
    with pytest.raises(CacheError, match="no finished cache that --head multilayer can read"):
        stage.probe(config(tmp_path, head="multilayer"))


# ------------------------------------------------------------------------------- what fails


def test_a_damaged_cache_is_named_and_the_others_are_probed(tmp_path, capsys):
    made_cache(tmp_path, "good")
    damaged = made_cache(tmp_path, "bad")
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    made_cache(tmp_path, "bytes").write_bytes(b"no cache")
    assert probe_command(ProbeCommand(**vars(config(tmp_path, head="linear")))) == 1
    printed = capsys.readouterr()
    assert "good" in printed.out
    lines = [line for line in printed.err.splitlines() if line.startswith("lsmprobe: ")]
    assert [line.split(":")[1] for line in lines] == [" bad on made", " bytes on made"]
    assert (
        probe_command(ProbeCommand(**vars(config(tmp_path, head="linear", model=("good",))))) == 0
    )


def test_a_head_that_breaks_down_does_not_take_the_others_with_it(tmp_path, bars, monkeypatch):
    monkeypatch.setattr(
        "lsmprobe.probing.task.verify_once", lambda *_, **__: None
    )  # would refuse the NaN
    path = made_cache(tmp_path)
    settings = {"head": "linear", "layer": "all"}
    whole = stage.probe(config(tmp_path, results_dir=tmp_path / "whole", **settings))
    bytes_of_layer_1 = [mean.tobytes() for mean in FeatureCache(path).pooled[:, 1]]
    content = path.read_bytes()
    for mean in bytes_of_layer_1:
        content = content.replace(mean, np.full(5, np.nan, np.float32).tobytes())
    path.write_bytes(content)
    results, failures = stage.probe_all(config(tmp_path, **settings))
    assert sorted(failures) == [f"one on made, linear on layer 1, seed {s}" for s in (0, 1)]
    assert all(isinstance(error, TrainingError) for error in failures.values())
    assert sorted(results.layer) == [0, 0, 2, 2]
    assert answers(results) == {key: a for key, a in answers(whole).items() if key[2] != 1}
    assert bars[1].n == 4 * 2  # what was tried together and in vain is not counted


def test_a_full_disk_costs_the_runs_that_meet_it(tmp_path, monkeypatch):
    made_cache(tmp_path, "one")
    made_cache(tmp_path, "two")
    save = stage.save_run

    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save_on_a_disk_that_is_full_for_a_while(path, record, heads):
        full = (record["model"], record["head"]) == ("one", "linear")
        with monkeypatch.context() as disk:
            if full:
                disk.setattr(atomic.os, "fsync", no_space)
            save(path, record, heads)

    monkeypatch.setattr(stage, "save_run", save_on_a_disk_that_is_full_for_a_while)
    results, failures = stage.probe_all(config(tmp_path))
    [(what, error)] = failures.items()
    assert what == "one on made, linear on layer 2, seed 0 and 1 more"
    with pytest.raises(ResultsError, match=r"No space left.*Finished runs are kept"):
        raise error
    assert len(results) == 12 - 2
    assert not [p for p in (tmp_path / "results").rglob("*") if p.name.startswith(".")]
    monkeypatch.undo()
    assert len(stage.probe(config(tmp_path))) == 12


def test_an_error_of_our_own_is_told_with_its_traceback_and_does_not_stop_the_others(
    tmp_path, monkeypatch, caplog
):
    made_cache(tmp_path, "one")
    build = stage.build_head

    def build_or_not(row, *args, **settings):
        return 1 / 0 if row.name == "linear" else build(row, *args, **settings)

    monkeypatch.setattr(stage, "build_head", build_or_not)
    results, failures = stage.probe_all(config(tmp_path, runs=1))
    assert [*failures] == ["one on made, linear on layer 2, seed 0"]
    assert "ZeroDivisionError" in caplog.text
    assert sorted(results["head"]) == ["multilayer", "nonlinear"]
    with pytest.raises(ZeroDivisionError):
        stage.probe(config(tmp_path, runs=1))


def test_a_cache_that_is_replaced_meanwhile_is_not_probed(tmp_path, monkeypatch):
    path = made_cache(tmp_path)
    plan = stage.plan_grid

    def plan_then_replace(settings, **shown):
        planned = plan(settings)
        path.unlink()
        made_cache(tmp_path, identity={"model": "another"})
        return planned

    monkeypatch.setattr(stage, "plan_grid", plan_then_replace)
    with pytest.raises(CacheError, match="was replaced in the meantime"):
        stage.probe(config(tmp_path))


def test_runs_do_not_learn_labels_that_are_changed_meanwhile(tmp_path, monkeypatch):
    """They are named by those that were there when they were planned."""
    path = made_cache(tmp_path)
    plan = stage.plan_grid

    def plan_then_relabel(settings, **shown):
        planned = plan(settings)
        table = FeatureCache(path).utterances
        write_labels(path, table.assign(speaker=table.speaker + "?"), None)
        return planned

    monkeypatch.setattr(stage, "plan_grid", plan_then_relabel)
    with pytest.raises(CacheError, match="were changed in the meantime"):
        stage.probe(config(tmp_path))


# ------------------------------------------------------------------------------- stopped anywhere


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def stop_at(monkeypatch, nth):
    """Be killed when the nth file is about to be made durable."""
    calls = iter(range(1, 10_000))

    def fsync(_):
        if next(calls) == nth:
            raise Killed

    monkeypatch.setattr(atomic.os, "fsync", fsync)


def finished(folder):
    return {p: p.read_bytes() for p in folder.glob("results/*/*/*.json")}


def test_stopped_at_any_write_the_grid_goes_on_where_it_was(tmp_path, monkeypatch, bars):
    for model in ("one", "two"):
        made_cache(tmp_path, model)
    settings = {"runs": 1, "epochs": 1, "split": "kfold:3"}
    whole = stage.probe(config(tmp_path, results_dir=tmp_path / "whole", **settings))
    kills, before = 0, {}
    while True:
        stop_at(monkeypatch, 3 + kills % 2)  # a run's two files must fit between two kills
        try:
            results = stage.probe(config(tmp_path, **settings))
            break
        except Killed:
            kills += 1
        after = finished(tmp_path)
        assert before.items() <= after.items()  # nothing lost, nothing repeated
        before = after
    assert kills > 5
    assert answers(results) == answers(whole)
    assert not [p for p in (tmp_path / "results").rglob("*") if p.name.startswith(".")]
    assert len(load_results(tmp_path / "results")) == len(whole) == 6


def test_a_fold_that_is_done_is_not_trained_again(tmp_path, monkeypatch):
    made_cache(tmp_path)
    settings = {"runs": 1, "head": "multilayer", "split": "loso"}
    whole = stage.probe(config(tmp_path, results_dir=tmp_path / "whole", **settings))
    stop_at(monkeypatch, 5)  # the split's file, then three folds, then the kill in the fourth
    with pytest.raises(Killed):
        stage.probe(config(tmp_path, **settings))
    assert len(load_results(tmp_path / "results")) == 0
    trained = []
    fit = stage.fit
    monkeypatch.setattr(stage, "fit", lambda *a, **k: trained.append(1) or fit(*a, **k))
    results = stage.probe(config(tmp_path, **settings))
    assert len(trained) == 6 - 3
    assert answers(results) == answers(whole)
    record, other = (load_record(Path(r.path[0])) for r in (results, whole))
    assert record["folds"] == other["folds"]
    heads, others = (load_head(Path(r.path[0])) for r in (results, whole))
    assert heads.keys() == others.keys()
    for name, tensor in heads.items():
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=0)


def test_a_damaged_fold_is_trained_again(tmp_path, monkeypatch, caplog):
    made_cache(tmp_path)
    settings = {"runs": 1, "head": "linear", "split": "loso"}
    stop_at(monkeypatch, 4)  # the split's file, two folds, the kill in the third
    with pytest.raises(Killed):
        stage.probe(config(tmp_path, **settings))
    first, second = sorted((tmp_path / "results").rglob(".*.safetensors"))
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:-9])
    results = stage.probe(config(tmp_path, **settings))
    assert caplog.text.count("made again") == 2
    whole = stage.probe(config(tmp_path, results_dir=tmp_path / "whole", **settings))
    assert answers(results) == answers(whole)


CODE = """
import sys
from pathlib import Path
from lsmprobe.config import ProbeConfig
from lsmprobe.probing.stage import probe_all
folder = Path(sys.argv[1])
probe_all(ProbeConfig(cache_dir=folder / "cache", results_dir=folder / "results", device="cpu",
                      epochs=20, runs=4, hidden=8, head="nonlinear"))
"""


@pytest.mark.slow
def test_a_killed_process_loses_the_running_runs_and_nothing_else(tmp_path, bars):
    for model in ("one", "two"):
        made_cache(tmp_path, model, frames=40)
    settings = {"head": "nonlinear", "epochs": 20, "runs": 4}
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while len(finished(tmp_path)) < 2:
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    before = finished(tmp_path)
    assert 2 <= len(before) < 8
    results = stage.probe(config(tmp_path, **settings))
    [bar] = bars
    assert bar.n == bar.total == (8 - len(before)) * 20
    assert before.items() <= finished(tmp_path).items()
    assert len(results) == len(load_results(tmp_path / "results")) == 8
    whole = stage.probe(config(tmp_path, results_dir=tmp_path / "whole", **settings))
    assert answers(results) == answers(whole)


# ------------------------------------------------------------------------------- trained together


def test_runs_of_many_recipes_train_from_one_read_and_as_if_alone(tmp_path, monkeypatch):
    path = made_cache(tmp_path)
    heads = ["linear", "nonlinear", "multilayer"]
    variants = [
        config(tmp_path, head=head, runs=1, **change)
        for head in heads
        for change in ({}, {"lr": 1e-3}, {"feature_norm": "zscore"}, {"class_weights": "none"})
    ]
    task = read_task(variants[0], "one", "made", path)
    jobs = [(c, run) for c in variants for run in stage.planned_runs(c, task)]
    fits, ticks = [], []
    fit = stage.fit
    monkeypatch.setattr(stage, "fit", lambda *a, **k: fits.append(len(a[0])) or fit(*a, **k))
    stage.train_together(jobs, task, on_epoch=lambda: ticks.append(1))
    assert fits == [4, 8]  # the heads that read means, then those that read frames
    assert len(ticks) == stage.n_epochs(jobs) == 2 * len(jobs)
    together = {run.path.name: load_record(run.path) for _, run in jobs}
    assert len(together) == len(jobs)
    assert not stage.todo([run for _, run in jobs])
    for variant in variants:
        alone = stage.probe(
            config(
                tmp_path,
                results_dir=tmp_path / "alone",
                **{
                    name: getattr(variant, name)
                    for name in ("head", "runs", "lr", "feature_norm", "class_weights")
                },
            )
        )
        record = load_record(Path(alone.path[0]))
        assert record["predictions"] == together[Path(alone.path[0]).name]["predictions"]


def test_new_splits_for_every_run_are_one_experiment_and_go_on_with_further_seeds(tmp_path):
    made_cache(tmp_path)
    settings = {"head": "linear", "resplit": True}
    first = stage.probe(config(tmp_path, **settings))
    further = stage.probe(config(tmp_path, seed=2, split_seed=2, **settings))
    assert set(first.experiment) == set(further.experiment)
    assert not set(first.split_hash) & set(further.split_hash)
    other = stage.probe(config(tmp_path, split_seed=7, **settings))
    assert not set(first.experiment) & set(other.experiment)


# ------------------------------------------------------------------------------- alarms


def test_a_collapsed_run_and_flat_layers_are_marked_in_the_record(tmp_path):
    made_cache(tmp_path, "flat", scale=(1, 1e-6, 1))
    path = tmp_path / "cache" / "flat" / "made.h5"
    cache = FeatureCache(path)
    rows = cache.utterances
    states = [torch.ones(3, 4, 5) + torch.randn(3, 4, 5) * 1e-4 for _ in rows.key]
    path.unlink()
    write_cache(path, utterance_table(rows.speaker, rows.emotion, rows.frames), states)
    results = stage.probe(config(tmp_path, runs=1, head="all"))
    by_head = dict(zip(results["head"], results.alarms, strict=True))
    assert set(by_head["linear"]) == {
        "one-class",
        "not-above-constant",
        "flat-over-clips",
        "flat-over-time",
    }
    assert by_head["multilayer"].count("flat-over-clips") == 2  # of layers 1 and 2
    alarms = load_record(Path(results.path[0]))["alarms"]
    assert all(alarm.keys() == {"code", "text"} for alarm in alarms)
    assert any("layer 2 hardly varies" in alarm["text"] for alarm in alarms)


def test_a_run_that_learned_something_has_no_alarm(tmp_path, planted_cache):
    planted_cache(layer=5)
    settings = {"head": "linear", "split": "kfold:5", "epochs": 12, "lr": 2e-3, "hidden": 64}
    results = stage.probe(config(tmp_path, runs=1, **settings))
    assert results.alarms.tolist() == [[]]


def test_records_of_old_have_no_alarms_and_are_not_made_again(tmp_path):
    made_cache(tmp_path)
    first = stage.probe(config(tmp_path, head="linear", runs=1))
    path = Path(first.path[0])
    record = json.loads(path.read_text())
    del record["alarms"]
    path.write_text(json.dumps(record))
    again = stage.probe(config(tmp_path, head="linear", runs=1))
    assert again.alarms.tolist() == [[]]
    assert "alarms" not in json.loads(path.read_text())
    columns = [c for c in again if c != "alarms"]
    pd.testing.assert_frame_equal(first[columns], again[columns])
    assert np.isfinite(again.macro_f1).all()
