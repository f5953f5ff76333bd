"""Every notebook runs from top to bottom on small caches and on that of `make demo`.

The notebooks train as the paper does, which takes minutes: their cell with the tag `parameters` is
followed by quicker values here, and a cell with the tag `demo` is left out where it has no part.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from conftest import utterance_table, write_cache
from nbclient import NotebookClient

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.config import ExtractConfig, ProbeConfig
from lsmprobe.extraction.stage import extract
from lsmprobe.probing.stage import probe

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EMOTIONS = ["anger", "happiness", "sadness"]
QUICK = 'training = {"epochs": 2, "runs": 2}'
PARAMETERS = {  # for the small caches, and for the demo's
    "2-which-layers": (QUICK, QUICK + '; split = "kfold:3"'),
    "3-what-else": ("", 'targets = ["emotion", "speaker", "gender", "duration"]'),
    "4-models-and-languages": (
        QUICK + '; models = ("small", "small-random0"); corpus, corpora = "one", ("one", "two")',
        QUICK,
    ),
    "5-arousal-and-valence": (QUICK + "; measured = []", QUICK + '; measured = ["duration"]'),
}


@pytest.fixture(scope="module")
def small_project(tmp_path_factory):
    """Two corpora of six speakers, each by a model and by its random-weights control."""
    project = tmp_path_factory.mktemp("small")
    generator = torch.Generator().manual_seed(0)
    cues = torch.randn(3, 8, generator=generator)
    for model, random_init in (("small", None), ("small-random0", 0)):
        for n, corpus in enumerate(("one", "two")):
            rows = [(f"{corpus}-{s}", e) for s in range(6) for e in range(3) for _ in range(2)]
            states = [
                torch.randn(4, 5, 8, generator=generator) + (random_init is None) * cues[emotion]
                for _, emotion in rows
            ]
            table = utterance_table(
                [speaker for speaker, _ in rows], [EMOTIONS[e] for _, e in rows], [5] * len(rows)
            )
            write_cache(
                project / "cache" / model / f"{corpus}.h5",
                table.assign(key=corpus + table["key"]),
                states,
                identity={"model": "small", "random_init": random_init},
                first=100 * n,
            )
    probe(ProbeConfig(cache_dir=project / "cache", results_dir=project / "results", epochs=2))
    return project


@pytest.fixture(scope="module")
def demo_project(tmp_path_factory):
    """What `make demo` leaves behind, after fewer epochs and runs."""
    project = tmp_path_factory.mktemp("demo")
    folders = {"cache_dir": project / "cache"}
    extract(ExtractConfig("toy", "toy", data_dir=project / "data" / "toy", **folders))
    probe(ProbeConfig(hidden=64, results_dir=project / "results", epochs=2, runs=2, **folders))
    return project


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.fixture(scope="module")
def figures():
    """docs/figures.py, which is no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        import figures

        yield figures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_a_small_picture_that_make_figures_draws(path, figures):
    first, *_ = nbformat.read(path, as_version=4).cells
    assert first.cell_type == "markdown"
    [name] = re.findall(r"!\[[^]]+\]\(\.\./docs/figures/([\w-]+\.png)\)", first.source)
    assert name in figures.FIGURES
    assert (ROOT / "docs" / "figures" / name).stat().st_size <= figures.MOST_BYTES


@pytest.mark.slow
def test_every_figure_is_drawn_from_results_and_caches(
    figures, small_project, tmp_path, monkeypatch
):
    caches = tmp_path / "cache"
    for model, name in (("small", "whisper-tiny.en"), ("small-random0", "whisper-tiny.en-random0")):
        (caches / name).mkdir(parents=True)
        small = small_project / "cache" / model / "one.h5"
        shutil.copyfile(small, caches / name / "emodb.h5")
    recipe = ProbeConfig(
        model=("whisper-tiny.en",),
        head="linear",
        layer="all",
        split="loso",
        epochs=2,
        cache_dir=caches,
        results_dir=tmp_path / "results",
    )
    for norm in ("none", "zscore"):
        probe(replace(recipe, feature_norm=norm))
    cache = FeatureCache(caches / "whisper-tiny.en" / "emodb.h5")
    scores = cache.utterances[["key", "emotion"]].copy()
    for name in ("arousal", "valence"):  # as notebook 5 leaves them
        scores[name] = scores["emotion"].map({"anger": 5.9, "happiness": 6.5, "sadness": 2.8})
    scores.to_csv(tmp_path / "results" / "arousal-and-valence.csv", index=False)
    monkeypatch.setattr(figures, "MEASURED", ())  # there is no audio
    figures.main(tmp_path / "results", caches, tmp_path / "drawn")
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {*figures.FIGURES}


def code_cells(path, parameters, *, demo):
    """A notebook's code with other parameters, with or without the cells for the demo alone."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tags = [cell.metadata.get("tags", []) for cell in cells]
    for cell, own in zip(cells, tags, strict=True):
        cell.source += f"\n{parameters}" * ("parameters" in own)
    kept = zip(cells, tags, strict=True)
    notebook.cells = [cell for cell, own in kept if demo or "demo" not in own]
    return notebook


QUICKEST, *OTHERS = NOTEBOOKS


@pytest.mark.parametrize(
    "path",
    [QUICKEST, *[pytest.param(path, marks=pytest.mark.slow) for path in OTHERS]],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_on_small_caches(path, small_project, monkeypatch):
    """Without a kernel, so that types and axes are checked and warnings are errors."""
    monkeypatch.setenv("LSMPROBE_PROJECT", str(small_project))
    monkeypatch.setenv("LSMPROBE_CACHE", str(small_project / "cache" / "small" / "one.h5"))
    small, _ = PARAMETERS.get(path.stem, ("", ""))
    names = {}
    for cell in code_cells(path, small, demo=False).cells:
        exec(compile(cell.source, f"{path.stem}: {cell.id}", "exec"), names)
        assert bool(plt.get_fignums()) == ("lp.draw" in cell.source)
        plt.close("all")


# The kernel's own sockets and event loop warn; what the cells do is checked by what they raise.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_the_demo(path, demo_project, monkeypatch):
    monkeypatch.delenv("MPLBACKEND")  # notebooks draw into themselves
    monkeypatch.setenv("LSMPROBE_PROJECT", str(demo_project))
    _, quick = PARAMETERS.get(path.stem, ("", ""))
    notebook = code_cells(path, quick, demo=True)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute(cwd=str(demo_project))
    drawing = [cell for cell in notebook.cells if "lp.draw" in cell.source]
    for cell in drawing:
        assert any("image/png" in output.get("data", {}) for output in cell.outputs)
