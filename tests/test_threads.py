"""How torch's threads wait is said before torch is loaded, and the user has the last word."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
