"""The recipes of docs/cluster.md that need no batch system; test_slurm.py runs the others."""

import os
import sys
from pathlib import Path

import pytest
from recipes import recipe, typed, write_corpora

from lsmprobe.cache.reader import FeatureCache

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_two_processes_of_one_machine(tmp_path):
    write_corpora(tmp_path, "emodb.csv", "emovo.csv")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    typed(recipe("A machine with two GPUs"), tmp_path, {**os.environ, **own})
    caches = {f"{m}/{c}" for m in ("toy", "logmel") for c in ("emodb", "emovo")}
    assert all(FeatureCache(tmp_path / "cache" / f"{cell}.h5").is_finished for cell in caches)
    records = (tmp_path / "results").glob("*/*/linear-*.json")
    assert {path.parent.relative_to(tmp_path / "results").as_posix() for path in records} == caches


def test_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSMPROBE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = {}
    exec(compile(recipe("In Python", "python"), "docs/cluster.md", "exec"), said)
    assert said["failures"] == {}
    [summary] = said["summaries"]
    assert FeatureCache(summary.path).is_finished
    assert len(said["results"]) == 1
