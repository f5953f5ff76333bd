"""What is published agrees with itself, and the wheel works outside the repository."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from lsmprobe.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_citation_names_this_version():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_what_the_contributors_page_names_is_there():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`((?:lsmprobe|tests|docs)/[\w/.]+)`", page))
    assert len(paths) >= 8
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_the_workflow_runs_what_the_gate_runs_on_the_oldest_and_the_newest_python():
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    assert "make test\n" in workflow and ".ci/run" in workflow
    assert '["3.10", "3.13"]' in workflow


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_stages_run_from_the_wheel_alone(tmp_path):
    """Its dependencies are those of this environment; lsmprobe itself is the wheel's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    alone = {"check": True, "cwd": tmp_path, "capture_output": True, "env": environment}
    wheels = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(wheels, **alone)
    [wheel] = tmp_path.glob("lsmprobe-*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel]
    subprocess.run(install, **alone)
    [packages] = home.glob("lib/python*/site-packages")
    # A plain path: what is installed there is found, but no link to this repository is followed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = [python, "-c", "import lsmprobe; print(lsmprobe.__file__)"]
    found = subprocess.run(where, text=True, **alone).stdout
    assert Path(found.strip()).is_relative_to(home)
    assert (packages / "lsmprobe" / "py.typed").exists()
    demo = [home / "bin" / "lsmprobe", "demo", "--folder", tmp_path / "demo"]
    subprocess.run(demo, **alone)
    page = [home / "bin" / "lsmprobe", "report", "--html", "--results-dir"]
    results = next((tmp_path / "demo").rglob("results"))
    subprocess.run([*page, results], **alone)
    assert list(results.rglob("*.html"))
