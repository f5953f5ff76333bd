import io

import pytest
from tqdm import tqdm

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.commands import extract_command
from lsmprobe.config import ExtractGridConfig
from lsmprobe.errors import SettingsError
from lsmprobe.extraction import grid
from lsmprobe.extraction.grid import extract_all


@pytest.fixture
def corpus(tmp_path, write_wav, rng):
    """A manifest of 12 clips of noise, 0.1 s each, by 3 speakers."""

    def make(name="mine"):
        rows = ["path,emotion,speaker"]
        for n in range(12):
            write_wav(tmp_path / name / f"{n:02d}.wav", rng.normal(size=1600) * 0.1)
            rows.append(f"{n:02d}.wav,{('anger', 'fear')[n % 2]},s{n // 4}")
        path = tmp_path / name / f"{name}.csv"
        path.write_text("\n".join(rows) + "\n")
        return str(path)

    return make


def cells(tmp_path, models, datasets, **settings):
    where = {"cache_dir": tmp_path / "cache", "device": "cpu"}
    return ExtractGridConfig(models, datasets, **where, **settings)


def test_a_corpus_is_read_once_for_all_models_and_one_bar_counts_all_audio(
    tmp_path, corpus, monkeypatch
):
    read, bars = [], []
    planned = grid.planned_utterances
    monkeypatch.setattr(
        grid, "planned_utterances", lambda config: read.append(config.dataset) or planned(config)
    )

    def handed_in(iterable=None, **settings):
        bars.append(tqdm(iterable, **(settings | {"file": io.StringIO(), "disable": False})))
        return bars[-1]

    config = cells(tmp_path, ("toy", "fbank"), (corpus("a"), corpus("b")))
    summaries, failures = extract_all(config.cells, progress=handed_in)
    assert (len(read), len(bars), failures) == (2, 1, {})
    assert bars[0].n == bars[0].total == 2 * 2 * 12 * 1600
    assert [s.path.relative_to(tmp_path / "cache").as_posix() for s in summaries] == [
        "toy/a.h5",
        "fbank/a.h5",
        "toy/b.h5",
        "fbank/b.h5",
    ]
    assert all(FeatureCache(summary.path).is_finished for summary in summaries)
    again, _ = extract_all(config.cells)
    assert [summary.n_tried for summary in again] == [0] * 4


def test_what_fails_is_named_at_the_end_and_stops_nothing_else(tmp_path, corpus, capsys):
    broken = corpus("broken")
    (tmp_path / "broken" / "03.wav").write_bytes(b"no sound")
    config = cells(tmp_path, ("nosuch-model", "toy"), (broken, corpus("whole")))
    assert extract_command(config) == 1
    out, err = capsys.readouterr()
    assert "whole.h5: 12 of 12 clips" in out
    lines = [line for line in err.splitlines() if line.startswith("lsmprobe: ")]
    assert [line.split(": ")[1] for line in lines] == [
        "nosuch-model on broken",
        "toy on broken",
        "nosuch-model on whole",
    ]
    assert "03.wav" in lines[0]


def test_a_grid_that_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="--data-dir is the folder of one corpus"):
        cells(tmp_path, ("toy",), ("emodb", "emovo"), data_dir=tmp_path)
    with pytest.raises(SettingsError, match=r"a/x.csv and toy on b/x.csv|would both be stored"):
        cells(tmp_path, ("toy",), ("a/x.csv", "b/x.csv"))
    with pytest.raises(SettingsError, match="--model names nothing"):
        cells(tmp_path, (), ("emodb",))
    with pytest.raises(SettingsError, match="no name to store a cache under"):
        cells(tmp_path, ("toy",), ("folder:/",))
