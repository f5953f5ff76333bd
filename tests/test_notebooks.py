"""Every notebook runs from top to bottom on a small cache, and is committed without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lsmprobe.config import ProbeConfig
from lsmprobe.probing import probe

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


# The kernel's own sockets and event loop warn; what the cells do is checked by what they raise.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, planted_cache, monkeypatch):
    planted_cache(layer=2)
    probe(
        ProbeConfig(
            cache_dir=tmp_path / "cache", results_dir=tmp_path / "results", epochs=2, runs=2
        )
    )
    monkeypatch.delenv("MPLBACKEND")  # notebooks draw into themselves
    monkeypatch.setenv("LSMPROBE_PROJECT", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute(cwd=str(tmp_path))
    last = notebook.cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in last)
