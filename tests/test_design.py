"""The imports are the drawing of docs/design.md, and nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lsmprobe"

KNOWN_TO_ALL = {"errors", "files", "config", "device"}
STAGES = {
    "cache_tools",
    "cache_export",
    "verification",
    "extraction",
    "probing",
    "baselines",
    "runs",
    "sensitivity",
    "analysis",
    "weights",
    "layer_probes",
    "transferring",
    "prediction",
    "learning_curves",
    "report",
    "demo",
    "cli",
    "commands",
    "corpus_check",
    "__init__",
}
MAY_KNOW = {
    "linear_stack": {"heads"},
    "features": {"memory"},
    "training": {"heads", "linear_stack", "features", "memory"},
    "comparison": {"evaluation", "results"},
    "cache": {"cache_format", "cache_parts"},
    "cache_parts": {"cache_format"},
    "continuation": {"audio", "cache", "cache_format", "cache_parts"},
    "regression": {"heads"},
    "targets": {"audio"},
    "tasks": {"cache", "verification"},
    "encoders": {"descriptors", "models"},
    "corpora": {"own_corpora"},
    "splits": {"split_search", "split_files"},
}  # every other module knows none
HOMES = {
    "h5py": {"cache_format"},
    "transformers": {"models", "encoders", "descriptors", "spectrogram_transformer"},
    "librosa": {"audio", "descriptors", "targets"},
    "opensmile": {"descriptors"},
    "soundfile": {"audio", "toy"},
    "sklearn": {"analysis", "regression"},
    "matplotlib": {"figures", "layer_figures"},
    "statsmodels": {"comparison"},
    "tyro": {"cli", "config"},
    "pooch": {"download"},
    "psutil": {"memory"},
    "safetensors": {"results"},
    "xxhash": {"cache_format"},
}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imported(module):
    """(names of lsmprobe modules, top names of libraries) that a module imports anywhere."""
    own, libraries = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "lsmprobe":
                names = [f"lsmprobe.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            (own if top == "lsmprobe" else libraries).add(rest if top == "lsmprobe" else top)
    return own, libraries


@pytest.mark.parametrize("module", [m for m in MODULES if m not in STAGES])
def test_only_the_stages_know_more_than_the_drawing_allows(module):
    own, _ = imported(module)
    assert own - KNOWN_TO_ALL - {"__version__"} <= MAY_KNOW.get(module, set())


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_used_only_where_it_is_at_home(module):
    _, libraries = imported(module)
    strays = {name for name in libraries if name in HOMES and module not in HOMES[name]}
    assert not strays


def test_every_module_stands_in_the_drawing_and_every_drawn_one_exists():
    lines = (ROOT / "docs" / "design.md").read_text().splitlines()
    drawn = {line.split("`")[1] for line in lines if line.startswith("| `") and ".py`" in line}
    assert drawn == {f"{module}.py" for module in MODULES if module != "__init__"}


@pytest.mark.parametrize("name", ["lsmprobe", "lsmprobe.cli", "lsmprobe.config"])
def test_start_up_does_not_wait_for_heavy_libraries(name):
    heavy = {"torch", "transformers", "pandas"}
    code = f"import sys, {name}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_public_names_are_there():
    import lsmprobe

    for name in lsmprobe.__all__:
        assert getattr(lsmprobe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lsmprobe.nothing  # noqa: B018
