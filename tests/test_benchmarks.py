"""Every benchmark runs, in seconds, and writes its figures; what they are is not tested."""

import json
import logging
import math
import runpy
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

import jaxtyping
import pytest

ROOT = Path(__file__).parents[1]
SHARED = {"machine", "synthetic"}  # what the benchmarks import
BENCHMARKS = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - SHARED)


def numbers(figures):
    if isinstance(figures, dict):
        figures = list(figures.values())
    if isinstance(figures, list):
        return [number for each in figures for number in numbers(each)]
    return [figures] if isinstance(figures, (int, float)) else []


def top_levels():
    """The modules of everything that is installed."""
    return set(metadata.packages_distributions())


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_and_writes_its_figures(name, tmp_path, monkeypatch, request):
    log = logging.getLogger("lsmprobe")
    request.addfinalizer(partial(log.setLevel, log.level))  # which a benchmark may turn down
    # As it is timed: some baselines hand our heads padded batches, which the types forbid.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    out, script = tmp_path / "figures.json", ROOT / "benchmarks" / f"{name}.py"
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setattr(sys, "argv", [str(script), "--quick", "--json", str(out)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    figures = json.loads(out.read_text())
    assert "cores" in figures.pop("machine")
    assert numbers(figures)
    assert all(map(math.isfinite, numbers(figures)))


def test_no_benchmark_has_the_name_of_a_module_that_others_import():
    """Its folder comes first on the path: numba would take a coverage.py there for its own."""
    taken = sys.stdlib_module_names | {"coverage", *top_levels()}
    assert not taken & {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


def test_make_bench_runs_every_benchmark():
    makefile = (ROOT / "Makefile").read_text()
    _, _, rest = makefile.partition("\nbench:")
    recipe, _, _ = rest.partition("\n\n")
    assert all(f"benchmarks/{name}.py" in recipe for name in BENCHMARKS)
