"""The page: one file, nothing fetched, every name a text."""

import base64
import hashlib
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import utterance_table, write_cache
from simulated import EMOTIONS, simulated_record, write_grid, write_records

from lsmprobe.cache.reader import FeatureCache
from lsmprobe.cli import main
from lsmprobe.corpora.listening import as_opus
from lsmprobe.errors import ResultsError
from lsmprobe.report.page import make_page, show
from lsmprobe.results.records import load_results

HOSTILE = [
    "<script>alert(1)</script>",
    "\"' onload='alert(1)' x=\"",
    "&amp;{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u202c",
    "a\nb\tc",
    "x" * 100,
]


class Elements(html.parser.HTMLParser):
    """Every start tag with its attributes, and the text of the page but for style and script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self._inside = [], "", ""
        self.scripts = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def page_of(folder, **settings):
    return make_page(folder, folder / "report" / "report.html", **settings).read_text("utf-8")


def test_scores_and_confusions_are_those_of_the_records(tmp_path):
    write_records(tmp_path, [simulated_record("m", "c", "linear", seed, 4) for seed in (0, 1)])
    results = load_results(tmp_path)
    page = Elements(page_of(tmp_path)).text
    assert f"{results.macro_f1.mean():.1f} ± {results.macro_f1.std():.1f}" in page
    records = [json.loads(Path(path).read_text()) for path in results.path]
    predictions = [one for record in records for one in record["predictions"]]
    hits = sum(one["emotion"] == one["predicted"] == "anger" for one in predictions)
    said = sum(one["emotion"] == "anger" for one in predictions)
    confusion = page[page.index("Confusion") :]
    assert re.search(rf"F1\s*anger{hits}\d+{100 * hits / said:.1f}", confusion)
    assert "2 runs of 1 experiment" in page
    assert "lsmprobe probe --model m --dataset c --head linear --layer 4 --split speaker" in page


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(tmp_path, name):
    record = simulated_record(name, "c", "linear", 0, 4, n_test=7)
    record |= {"corpus": name, "alarms": [{"code": "one-class", "text": name}]}
    record["split"]["notes"] = [name]
    for one in record["predictions"]:
        one["speaker"] = one["key"] = name
    folder = tmp_path / "results"
    (folder / "m" / "c").mkdir(parents=True)
    record |= {"format": "lsmprobe-run", "version": 1}
    (folder / "m" / "c" / "r.json").write_text(json.dumps(record))
    plain = Elements(
        page_of(
            write_records(
                tmp_path / "plain", [simulated_record("m", "c", "linear", 0, 4, n_test=7)]
            )
        )
    )
    found = Elements(page_of(folder))
    kinds = {tag for tag, _ in plain.tags}
    assert {tag for tag, _ in found.tags} <= kinds
    allowed = {attribute for _, attrs in plain.tags for attribute in attrs}
    assert {attribute for _, attrs in found.tags for attribute in attrs} <= allowed
    assert len(found.scripts) == 1
    assert found.text.count(name) > 5
    assert not any(attribute.startswith("on") for _, attrs in found.tags for attribute in attrs)


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else(tmp_path):
    write_records(tmp_path, [simulated_record("m", "c", "linear", 0, 4)])
    text = page_of(tmp_path)
    page = Elements(text)
    [policy] = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv")]
    style = text.partition("<style>")[2].partition("</style>")[0]
    for content in (style, page.scripts[-1]):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy and "http" not in policy
    assert not [attrs for _, attrs in page.tags if "style" in attrs]
    sources = [attrs[a] for _, attrs in page.tags for a in ("src", "href") if a in attrs]
    assert not [source for source in sources if not source.startswith("#")]


def test_the_same_results_give_the_same_bytes(tmp_path):
    write_grid(tmp_path, ["a", "b"], ["c"], seeds=2, layers=(0, 1, 2, 3))
    assert page_of(tmp_path) == page_of(tmp_path)


def test_a_sweep_is_a_curve_and_other_settings_are_another_line(tmp_path):
    write_grid(tmp_path, ["a", "b"], ["c"], seeds=1, layers=(0, 1, 2, 3, 4))
    page = page_of(tmp_path)
    assert page.count('class="curve ') == 2
    assert page.count('<g class="point"') == 10
    other = [simulated_record("a", "c", "linear", 0, n) for n in range(4)]
    for record in other:
        record["settings"] = record["settings"] | {"epochs": 2}
        record["experiment"] = "f" + record["experiment"][1:]
    assert page_of(write_records(tmp_path, other)).count('class="curve ') == 3


def test_a_run_takes_little_of_the_page(tmp_path):
    write_grid(tmp_path, ["model-0"], ["corpus-0"])
    first = len(page_of(tmp_path).encode())
    write_grid(tmp_path, ["model-1"], ["corpus-0"])
    assert len(page_of(tmp_path).encode()) - first < 1_500 * 9  # runs; the paper's grid has 648


@pytest.mark.slow
def test_the_papers_grid_is_at_most_a_megabyte(tmp_path):
    write_grid(tmp_path, [f"model-{i}" for i in range(8)], [f"corpus-{i}" for i in range(9)])
    assert len(load_results(tmp_path)) == 8 * 9 * 3 * 3
    assert len(page_of(tmp_path).encode()) < 1_000_000


@pytest.fixture
def heard(tmp_path):
    """A run whose cache and clips are there: 14 clips of 0.3 s."""
    rng = np.random.default_rng(0)
    record = simulated_record("m", "c", "linear", 0, 2, n_test=14)
    said = record["predictions"]
    table = utterance_table(
        [one["speaker"] for one in said], [one["emotion"] for one in said], [15] * 14, "female"
    )
    clips = tmp_path / "a corpus"
    clips.mkdir()
    for i, key in enumerate(table.key):
        table.loc[i, "path"] = str(clips / key)
        soundfile.write(clips / key, rng.normal(0, 0.1, 4800), 16_000)
    states = [torch.randn(3, 15, 6) for _ in said]
    path = write_cache(tmp_path / "cache" / "m" / "c.h5", table, states)
    record["cache"] |= {"file": "m/c.h5", "hash": FeatureCache(path).identity_hash}
    return write_records(tmp_path / "results", [record])


def test_clips_are_linked_where_they_lie_or_put_inside(heard):
    cache_dir = heard.parent / "cache"
    page = Elements(page_of(heard, cache_dir=cache_dir))
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "audio"]
    assert sources and all(source.startswith("../../a%20corpus/") for source in sources)
    assert "female" in page.text  # a group that the record does not name
    inside = Elements(page_of(heard, cache_dir=cache_dir, embed_audio=3))
    sources = [attrs["src"] for tag, attrs in inside.tags if tag == "audio"]
    assert len({source for source in sources if source.startswith("data:audio/ogg")}) == 3
    assert "3 clips of c are inside this page (the corpus's own licence)" in inside.text
    without = Elements(page_of(heard))  # no cache, and so no place of a clip
    assert "audio" not in [tag for tag, _ in without.tags]


def test_a_cache_that_is_not_the_one_that_was_probed_is_not_shown(heard):
    [path] = heard.rglob("*.json")
    record = json.loads(path.read_text())
    record["cache"]["hash"] = "0" * 64
    path.write_text(json.dumps(record))
    page = Elements(page_of(heard, cache_dir=heard.parent / "cache"))
    assert "audio" not in [tag for tag, _ in page.tags]
    assert "projection" not in [attrs.get("class") for _, attrs in page.tags]


def test_every_layer_is_a_picture_of_at_most_500_points(heard):
    page = page_of(heard, cache_dir=heard.parent / "cache")
    data = json.loads(Elements(page).scripts[0])
    assert data["layers"] == [0, 1, 2]
    assert [len(points) for points in data["points"]] == [28] * 3
    assert min(map(min, data["points"])) >= 0 and max(map(max, data["points"])) <= 1000


def test_a_clip_survives_opus(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000) * 0.3
    soundfile.write(tmp_path / "tone.wav", tone, 16_000)
    (tmp_path / "tone.ogg").write_bytes(as_opus(tmp_path / "tone.wav", 0.25, 0.75))
    heard, rate = soundfile.read(tmp_path / "tone.ogg")
    spectrum = np.abs(np.fft.rfft(heard))
    assert len(heard) / rate == pytest.approx(0.5, abs=0.03)
    assert np.argmax(spectrum) * rate / len(heard) == pytest.approx(440, abs=5)


def test_in_a_notebook_the_page_is_shown_in_a_frame(tmp_path):
    results = load_results(write_grid(tmp_path, ["a"], ["c"], seeds=1))
    shown = show(results)._repr_html_()
    [(tag, attrs)] = Elements(shown).tags
    assert tag == "iframe"
    assert "whatever" not in attrs["srcdoc"] and attrs["srcdoc"].startswith("<!doctype html>")
    with pytest.raises(ResultsError, match="no run to show"):
        show(results.iloc[:0])


def test_the_command_writes_the_page_and_says_where(tmp_path, capsys):
    write_grid(tmp_path, ["a"], ["c"], seeds=1)
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--html", "--results-dir", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "report" / "report.html")
    assert EMOTIONS[0] in (tmp_path / "report" / "report.html").read_text()
