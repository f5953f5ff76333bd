"""The imports are the drawing of docs/design.md, and nothing else."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import utterance_table, write_cache

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lsmprobe"

FRAME_BELOW = "errors atomic blocks impostors threads machine version config progress arguments"
PACKAGES = (  # each may import the frame, itself, and what its row names
    ("corpora", ""),
    ("cache", ""),
    ("results", ""),
    ("splits", "corpora"),
    ("extraction", "corpora cache"),
    ("probing", "cache splits results"),
    ("experiments", "corpora cache results splits extraction probing"),
    ("cluster", "corpora cache results splits extraction probing experiments"),
    ("layers", "corpora.audio cache splits results probing"),
    ("report", "corpora cache results splits probing experiments layers"),
)
FRAME_ABOVE = "commands cli demo __main__"
HOMES = {  # a library -> the packages or modules where it is at home
    "h5py": {"cache"},
    "xxhash": {"cache"},
    "transformers": {"extraction", "experiments.spectrogram_transformer"},
    "librosa": {"corpora.audio", "extraction.descriptors", "layers.targets"},
    "opensmile": {"extraction.descriptors"},
    "soundfile": {"corpora"},
    "sklearn": {"results", "layers", "probing.solvers"},
    "matplotlib": {"report"},
    "statsmodels": {"results"},
    "tyro": {"cli", "config"},
    "pooch": {"corpora.download"},
    "psutil": {"machine"},
    "safetensors": {"results", "extraction.network"},
    "distributed": {"cluster"},
    "dask_jobqueue": {"cluster"},
}


def module_of(path):
    """`cache.reader` for lsmprobe/cache/reader.py, `cache` for its __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = sorted(module for module in SOURCES if module)  # all but lsmprobe/__init__.py itself


def imported(module):
    """(modules of lsmprobe, top names of libraries) that a module imports anywhere."""
    own, libraries = set(), set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by a relative path"
            names = [node.module or ""]
            within = (node.module or "").removeprefix("lsmprobe").lstrip(".")
            if node.module == "lsmprobe" or within in dict(PACKAGES):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            (own if top == "lsmprobe" else libraries).add(rest if top == "lsmprobe" else top)
    return own, libraries


def within(module, place):
    return module == place or module.startswith(f"{place}.")


def test_the_packages_are_those_of_the_drawing():
    there = {module.partition(".")[0] for module in MODULES}
    drawn = {name for name, _ in PACKAGES} | set(f"{FRAME_BELOW} {FRAME_ABOVE}".split())
    assert there == drawn


def test_the_order_of_packages_runs_one_way():
    """Whatever a row names stands in a row above it."""
    above = []
    for name, doors in PACKAGES:
        assert {door.partition(".")[0] for door in doors.split()} <= set(above), name
        above.append(name)


@pytest.mark.parametrize("module", MODULES)
def test_no_import_runs_back_up(module):
    package = module.partition(".")[0]
    doors = dict(PACKAGES)
    if package in doors:
        allowed = {package, *FRAME_BELOW.split(), *doors[package].split()}
    elif package in FRAME_BELOW.split():
        allowed = set(FRAME_BELOW.split())
    else:
        allowed = {*FRAME_BELOW.split(), *FRAME_ABOVE.split(), *doors}
    own, _ = imported(module)
    assert {name for name in own if not any(within(name, door) for door in allowed)} == set()


def test_no_circle_of_modules():
    """Within a package too, a module is read after those it imports."""
    waiting = {module: {n for n in imported(module)[0] if n in SOURCES} for module in MODULES}
    while waiting:
        free = {
            module for module, needs in waiting.items() if not needs & (set(waiting) - {module})
        }
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {module: needs for module, needs in waiting.items() if module not in free}


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_used_only_where_it_is_at_home(module):
    _, libraries = imported(module)
    strays = {
        name
        for name in libraries & set(HOMES)
        if not any(within(module, home) for home in HOMES[name])
    }
    assert not strays


def test_every_package_says_what_is_in_it_and_who_may_import_it():
    for name, _ in PACKAGES:
        said = ast.get_docstring(ast.parse(SOURCES[name].read_text()))
        assert 5 <= len(said.splitlines()) <= 9, name
        assert "import" in said, name


@pytest.mark.parametrize("name", ["lsmprobe", "lsmprobe.cli", "lsmprobe.config"])
def test_start_up_does_not_wait_for_heavy_libraries(name):
    heavy = {"torch", "transformers", "pandas"}
    code = f"import sys, {name}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


LOADED_AT_THE_END = """
import os, sys
heavy = {"matplotlib", "numba", "scipy", "sklearn", "transformers"}
leave = os._exit
def told(status):
    print(sorted(heavy & set(sys.modules)), flush=True)
    leave(status)
os._exit = told
"""


@pytest.mark.slow
def test_the_first_epoch_does_not_wait_for_what_scores_and_figures_need(tmp_path, monkeypatch):
    table = utterance_table(["a", "b", "c"] * 4, ["anger", "fear"] * 6, [5] * 12)
    write_cache(tmp_path / "noise" / "made.h5", table, [torch.randn(2, 5, 3)] * 12)
    flags = ["--cache-dir", tmp_path, "--results-dir", tmp_path / "r", "--layer", "all"]
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    until_training = runpy.run_path(str(ROOT / "benchmarks" / "start_up.py"))["UNTIL_TRAINING"]
    code = LOADED_AT_THE_END + until_training
    command = [sys.executable, "-c", code, *flags, "--head", "linear"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_public_names_are_there():
    import lsmprobe

    for name in lsmprobe.__all__:
        assert getattr(lsmprobe, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        lsmprobe.nothing  # noqa: B018


def test_the_lazy_table_and_the_typing_block_name_the_same():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {(n.module.removeprefix("lsmprobe."), a.name) for n in block.body for a in n.names}
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "submod_attrs")
    lazy = {(home, name) for home, names in ast.literal_eval(call.value).items() for name in names}
    assert lazy == typed
