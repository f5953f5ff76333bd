"""An objective is a row: another loss, other outputs, answers and scores train as classes do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lsmprobe.config import ProbeConfig
from lsmprobe.errors import ResultsError
from lsmprobe.probing import objectives
from lsmprobe.probing.batches import PooledFeatures
from lsmprobe.probing.heads import LinearHead, Probe
from lsmprobe.probing.objectives import CLASSIFICATION, REGRESSION
from lsmprobe.probing.record import saved_probe
from lsmprobe.probing.stage import planned_runs, train_together
from lsmprobe.probing.task import read_task
from lsmprobe.probing.trainer import Member, Recipe
from lsmprobe.probing.training import fit
from lsmprobe.results.records import load_head, load_record, load_results

# Numbers learned by another loss than those of the table.
NUMBERS = replace(REGRESSION, name="plain", loss=lambda targets, n_outputs, balanced: nn.MSELoss())
# The same classes and scores by another loss, so that its runs can be told from the usual ones.
SMOOTHED = replace(
    CLASSIFICATION,
    name="smoothed",
    loss=lambda targets, n_outputs, balanced: nn.CrossEntropyLoss(label_smoothing=0.1),
    stacks=False,
)


@pytest.fixture
def rows(monkeypatch):
    known = objectives.OBJECTIVES | {row.name: row for row in (NUMBERS, SMOOTHED)}
    monkeypatch.setattr(objectives, "OBJECTIVES", known)


@pytest.fixture
def usual(tmp_path, planted_cache):
    """Settings and a task of classes."""
    path = planted_cache(layer=3)
    folders = {"cache_dir": tmp_path / "cache", "results_dir": tmp_path / "results"}
    config = ProbeConfig(
        **folders, head="linear", layer=3, runs=1, epochs=8, lr=5e-3, split="kfold:5"
    )
    return config, read_task(config, "planted", "made", path)


def trained(config, task):
    [run] = planned_runs(config, task)
    train_together([(config, run)], task, on_epoch=lambda: None)
    return run.path


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_head_learns_numbers_that_the_features_hold_linearly(n_outputs):
    torch.manual_seed(0)
    means = torch.randn(240, 1, 6)
    truth = (means[:, 0] @ torch.randn(6, n_outputs)).numpy()
    fold = np.split(np.arange(240), [160, 200])
    member = Member("m", Probe(nn.Identity(), LinearHead(6, n_outputs)), (0,), 0, Recipe(lr=5e-3))
    [found] = fit([member], PooledFeatures(means), truth, tuple(fold), n_outputs, objective=NUMBERS)
    assert found.probabilities.shape == (40, n_outputs)
    error = np.square(found.probabilities - truth[200:]).mean(0)
    assert (error < 0.05 * truth.var(0)).all()
    scores = [epoch["validation_score"] for epoch in found.history]
    assert found.best_epoch == 1 + int(np.argmax(scores)) and max(scores) > 0.9


def test_numbers_are_recorded_under_their_names_and_the_head_is_read_back(usual, rows):
    config, task = usual
    table = task.utterances.assign(
        first=np.arange(len(task.keys)) / 50, second=np.arange(len(task.keys)) % 3
    )
    target = ("first", "second")
    numbers = replace(task, utterances=table, classes=target, target=target, objective=NUMBERS)
    path = trained(config, numbers)
    record = json.loads(path.read_text())
    assert record["objective"] == "plain" and record["target"] == ["first", "second"]
    said = record["predictions"][0]
    tested = task.keys.index(said["key"])
    assert said["truth"] == {name: pytest.approx(table[name][tested]) for name in target}
    probe = saved_probe(record, load_head(path), fold=0)
    answer = probe(task.pooled[tested, 3][None], torch.tensor([1]))[0]
    assert answer.tolist() == pytest.approx([said["predicted"][n] for n in target], abs=1e-4)
    [row] = load_results(config.results_dir).itertuples()
    assert (row.target, row.measure) == ("first,second", "numbers")
    assert row.ccc == pytest.approx(
        np.mean([v["ccc"] for v in record["scores"]["by_target"].values()])
    )


def test_an_objective_is_part_of_what_a_run_is_called_and_classes_keep_their_names(usual, rows):
    config, task = usual
    of_classes = trained(config, task)
    smoothed = trained(config, replace(task, objective=SMOOTHED))
    assert of_classes != smoothed
    assert [*task.learned] == ["labels"]  # so that old runs are found again
    assert len(load_results(config.results_dir)) == 2
    one, other = (load_record(path) for path in (of_classes, smoothed))
    assert one["objective"] == "classification" and other["objective"] == "smoothed"
    assert one["folds"][0]["history"] != other["folds"][0]["history"]  # its own loss was used
    del one["objective"]  # as in records from before
    saved_probe(one, load_head(of_classes))


def test_a_record_of_an_objective_that_is_not_known_is_refused(usual, rows, monkeypatch):
    config, task = usual
    path = trained(config, replace(task, objective=SMOOTHED))
    monkeypatch.setattr(objectives, "OBJECTIVES", {"classification": CLASSIFICATION})
    with pytest.raises(ResultsError, match="'smoothed', which is not known"):
        saved_probe(load_record(path), load_head(path))
