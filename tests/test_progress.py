"""Progress is handed in: whoever calls says how it is shown, and a silent call is silent."""

import ast
import io
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

import lsmprobe
from lsmprobe import progress
from lsmprobe.config import ExtractConfig, ProbeConfig
from lsmprobe.extraction.stage import extract
from lsmprobe.probing.stage import probe

PACKAGE = Path(lsmprobe.__file__).parent


@pytest.mark.parametrize("shown", [progress.silent, progress.terminal, progress.automatic])
def test_a_bar_hands_through_what_it_goes_over(shown):
    assert list(shown([3, 1, 2], unit="pair")) == [3, 1, 2]
    with shown(total=3, unit="epoch") as bar:
        bar.update(2)
        bar.set_description("two")


def test_both_stages_say_what_they_do_to_the_bar_they_are_handed(tmp_path, write_wav, rng, capsys):
    rows = ["path,emotion,speaker"]
    for n in range(12):
        write_wav(tmp_path / "clips" / f"{n:02d}.wav", rng.normal(size=1600) * 0.1)
        rows.append(f"{n:02d}.wav,{('anger', 'fear')[n % 2]},s{n // 4}")
    manifest = tmp_path / "clips" / "mine.csv"
    manifest.write_text("\n".join(rows) + "\n")
    bars = []

    def handed_in(iterable=None, **settings):
        bars.append(tqdm(iterable, **(settings | {"file": io.StringIO(), "disable": False})))
        return bars[-1]

    where = {"cache_dir": tmp_path / "cache"}
    config = ExtractConfig(model="toy", dataset=str(manifest), **where)
    extract(config, progress=handed_in)
    assert bars[-1].n == bars[-1].total == 12 * 1600
    quiet = ProbeConfig(
        head="linear", runs=2, epochs=3, split="kfold:3", results_dir=tmp_path / "r", **where
    )
    probe(quiet, progress=handed_in)
    assert bars[-1].n == bars[-1].total == 2 * 3 * 3
    probe(ProbeConfig(**(vars(quiet) | {"head": "logistic"})), progress=handed_in)
    assert (bars[-1].n, bars[-1].total, bars[-1].unit) == (3, 3, "fit")  # solved once a fold
    capsys.readouterr()
    probe(ProbeConfig(**(vars(quiet) | {"seed": 7})), progress=progress.silent)
    assert capsys.readouterr() == ("", "")


def test_automatic_is_silent_where_nobody_watches(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    list(progress.automatic([1, 2], delay=0))
    assert sys.stderr.getvalue() == ""
    monkeypatch.setattr(progress, "EVERY_S", 1e-9)  # what takes longer says how far it is
    list(progress.automatic([1, 2], unit="target"))
    assert "2/2" in sys.stderr.getvalue()


def test_no_stage_draws_a_bar_of_its_own():
    """Only progress.py knows tqdm; what redirects the log around a bar may be used."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "progress.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "tqdm":
                pytest.fail(f"{path.relative_to(PACKAGE)} imports tqdm")
