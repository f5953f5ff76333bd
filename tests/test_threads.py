"""How torch's threads wait is said before torch is loaded, and the user has the last word."""

import ast
import itertools
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lsmprobe import machine
from lsmprobe.machine import CoreTime, say_where_cores_are_taken
from lsmprobe.threads import WAITING, wait_briefly

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", WAITING)
def test_a_setting_of_the_users_wins_and_the_others_are_made(name):
    environment = {name: "7"}
    wait_briefly(environment)
    assert environment == WAITING | {name: "7"}
    policy = {"OMP_WAIT_POLICY": "passive"}
    wait_briefly(policy)
    assert policy == {"OMP_WAIT_POLICY": "passive"}


def first_imports(path):
    """What a file imports, in order."""
    nodes = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import)]
    return [alias.name for node in nodes for alias in node.names]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_measures_with_the_threads_of_the_commands(path):
    assert first_imports(path)[0] == "lsmprobe"


@pytest.mark.slow
def test_torch_finds_the_setting_when_it_is_loaded():
    code = (
        "import os, sys, lsmprobe; from lsmprobe.cli import main;"
        "assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    )
    without = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", code], env=without, capture_output=True, text=True)
    assert done.stdout.strip() == WAITING["GOMP_SPINCOUNT"], done.stderr


@pytest.mark.parametrize(
    ("cores", "threads", "busy", "own", "fewer"),
    [
        (2, 2, 20.0, 10.0, 1),  # two other processes that never rest
        (2, 2, 20.0, 13.3, 1),  # one
        (8, 8, 80.0, 50.0, 5),
        (2, 2, 20.0, 19.9, None),  # none
        (8, 4, 80.0, 40.0, None),  # others use cores that these threads do not need
    ],
)
def test_training_says_once_where_others_take_the_cores_of_its_threads(
    monkeypatch, caplog, cores, threads, busy, own, fewer
):
    clock = itertools.count(0.0, 10.0)
    looks = [CoreTime(10.0 * n, cores, 5 + n * busy, 1 + n * own) for n in range(4)]
    moments = iter(looks)
    monkeypatch.setattr(CoreTime, "now", lambda: next(moments))
    monkeypatch.setattr(machine.time, "monotonic", lambda: 10.0 + next(clock))
    machine._say_cores_are_taken.cache_clear()
    monkeypatch.setattr(machine, "_looked", [])
    monkeypatch.setattr(machine, "choose_device", lambda asked: "cpu")
    with caplog.at_level(logging.INFO, "lsmprobe"):
        for _ in looks:
            say_where_cores_are_taken(threads)
    assert next(moments, None) is None  # it looked every time
    said = [f"OMP_NUM_THREADS={fewer} " in line for line in caplog.messages]
    assert said == ([True] if fewer else [])


def test_what_others_used_between_two_trainings_is_not_said(monkeypatch, caplog):
    looks = iter([CoreTime(0.0, 2, 5.0, 1.0), CoreTime(3600.0, 2, 7000.0, 2.0)])
    monkeypatch.setattr(CoreTime, "now", lambda: next(looks))
    monkeypatch.setattr(machine.time, "monotonic", lambda: 3600.0)
    monkeypatch.setattr(machine, "_looked", [])
    monkeypatch.setattr(machine, "choose_device", lambda asked: "cpu")
    machine._say_cores_are_taken.cache_clear()
    with caplog.at_level(logging.INFO, "lsmprobe"):
        say_where_cores_are_taken(2)
        say_where_cores_are_taken(2)
    assert caplog.messages == []


def test_cores_that_another_process_uses_are_not_free():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        begun = psutil.Process(other.pid).cpu_times().user
        before = CoreTime.now()
        while time.process_time() < before.own + 0.5:
            pass
        used = psutil.Process(other.pid).cpu_times().user - begun
        now = CoreTime.now()
        other.kill()
    assert now.own - before.own >= 0.5
    assert now.busy - before.busy >= 0.5 + used - 0.1
    assert now.cores - now.free_since(before) >= (used - 0.1) / (now.clock - before.clock)
