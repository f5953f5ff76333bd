"""The README's two commands on a bare Debian with another Python: what fresh.sh does."""

import os
import subprocess
from pathlib import Path

import pytest

FRESH = Path(__file__).with_name("fresh.sh")
CANNOT = 77  # its exit status where it cannot run here


def fresh(*arguments, **environment):
    return subprocess.run(
        ["bash", FRESH, *arguments], capture_output=True, text=True, env=os.environ | environment
    )


def test_where_it_cannot_run_it_says_why_and_leaves_nothing(tmp_path):
    done = fresh(PATH="/usr/bin:/bin", TMPDIR=str(tmp_path))  # without /usr/sbin and debootstrap
    assert done.returncode == CANNOT
    assert done.stderr.startswith("fresh: cannot run here: ")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_demo_and_test_work_on_a_bare_debian_with_python_3_13():
    done = fresh("trixie")
    if done.returncode == CANNOT:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "Python 3.13" in done.stdout
