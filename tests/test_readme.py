"""What README and first steps say to type runs as it stands, on a small cache and a toy corpus."""

import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
import yaml
from conftest import utterance_table, write_cache

from lsmprobe import cli
from lsmprobe.config import ExtractConfig, ProbeConfig
from lsmprobe.corpora.toy import write_toy_corpus
from lsmprobe.extraction.stage import extract
from lsmprobe.probing.stage import probe

ROOT = Path(__file__).parents[1]
README, LICENSE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "LICENSE"))
FENCED = {
    page: re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
    for page in ("README.md", "docs/first-steps.md")
}
BLOCKS = [block for language, block in FENCED["README.md"] if language == "python"]
LINES = {
    page: [
        re.sub(" +#.*", "", line)
        for language, block in fenced
        if not language
        for line in block.splitlines()
    ]
    for page, fenced in FENCED.items()
}
PAGES = [path.read_text("utf-8") for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
SHELL = [
    block for page in PAGES for block in re.findall(r"^```(?:sh)?\n(.*?)^```", page, re.M | re.S)
]
COMMANDS = [line for block in SHELL for line in re.findall(r"^lsmprobe (?:.*\\\n)*.*", block, re.M)]
LAYERS, DIM = 10, 4

INSTALLS = "an install, which tests/machines/fresh.sh makes on a bare system"
NOT_RUN = {  # a line of a page -> why the test does not run it
    "git clone ADDRESS lsmprobe && cd lsmprobe": INSTALLS,
    "make demo": INSTALLS,
    "make test": INSTALLS,
    "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo": INSTALLS,
    "lsmprobe corpora get cafe": "it downloads",
    "lsmprobe corpora get emodb": "it downloads",
    "lsmprobe cache merge cache/whisper-tiny-en/emodb.h5": "it needs a cache in parts, which "
    "tests/test_cache_parts.py merges",
    "lsmprobe splits import emobox EmoBox emodb": "it needs a clone of EmoBox, which "
    "tests/test_published_splits.py makes in miniature",
}
TOYS = {  # what a line names -> what is there instead
    r"whisper-(small|tiny-en)": "toy",
    r"toy/emodb": "toy/toy",
    r"emodb/multilayer": "toy/multilayer",
    r" emodb": " toy.csv",
    r" emovo": " other.csv",
    r" --runs 3": "",
    r"^lsmprobe (probe|sensitivity|transfer|baseline) .*": r"\g<0> --runs 1",
    r"^(?!.*--head all).* --runs 1": r"\g<0> --epochs 2",  # the paper's protocol has its epochs
}
RATINGS = ("arousal", "valence", "angry", "happy", "sad")


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """In the place of Whisper small on EmoDB: noise of ten layers, six speakers, three emotions."""
    rows = [(f"s{s}", e) for s in range(6) for e in ("anger", "fear", "sadness") for _ in range(2)]
    table = utterance_table(*map(list, zip(*rows, strict=True)), [5] * len(rows))
    states = [torch.randn(LAYERS, 5, DIM) for _ in rows]
    write_cache(tmp_path / "cache" / "whisper-small" / "emodb.h5", table, states)
    monkeypatch.chdir(tmp_path)
    probe(ProbeConfig(head="multilayer", epochs=1, runs=1))
    assert BLOCKS
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), {})
    assert len(plt.get_fignums()) == block.count("lp.draw_")


def test_the_flags_of_every_command_are_read(monkeypatch, tmp_path):
    """Of every page, and read alone: the commands need corpora, models and hours."""
    (tmp_path / "one-scale").mkdir()  # the folder of labels that a page names
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_exit_with", lambda read_flags: read_flags())
    assert COMMANDS
    for command in COMMANDS:
        typed = command.replace("\\\n", " ").partition(" > ")[0]
        words = shlex.split(typed, comments=True)
        cli.main(words[1:])


def toy(line):
    """A line of a page with what is small in the place of what it names."""
    for named, instead in TOYS.items():
        line = re.sub(named, instead, line)
    record = next(Path("results").rglob("linear-*.json"), "none-yet")
    return line.replace("results/toy/toy/RUN.json", str(record))


@pytest.fixture
def folder_of_toys(tmp_path, monkeypatch, rng):
    """To work in: ~/corpora/emodb, with two small corpora, each by other speakers, and ratings."""
    folder = tmp_path / "corpora" / "emodb"
    monkeypatch.setenv("HOME", str(tmp_path))
    write_toy_corpus(folder, n_speakers=8, n_per_emotion=2)
    names = [path.name for path in sorted(folder.glob("*.wav"))]
    rows = pd.DataFrame([name.split("_")[:2] for name in names], columns=["speaker", "emotion"])
    ratings = pd.DataFrame(rng.uniform(0.1, 1, (len(names), len(RATINGS))), columns=RATINGS)
    table = pd.concat([pd.DataFrame({"path": names}), rows, ratings], axis="columns")
    some = table["speaker"] <= "s05"
    table[some].to_csv(folder / "toy.csv", index=False)
    table[~some].to_csv(folder / "other.csv", index=False)
    (folder / "one.wav").write_bytes((folder / names[0]).read_bytes())
    monkeypatch.chdir(folder)
    extract(ExtractConfig("toy", "other.csv"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", LINES)
def test_every_line_to_be_typed_runs_or_is_named_with_a_reason(page, folder_of_toys):
    """In the order of the page. A line that is new is run; where it cannot be, this fails."""
    lines = [line for line in LINES[page] if line and line not in NOT_RUN]
    assert [line for line in lines if not line.startswith("lsmprobe ")] == []
    for line in lines:
        with pytest.raises(SystemExit) as left:
            cli.main(shlex.split(toy(line))[1:])
        assert left.value.code == 0, f"{line}, here {toy(line)}: {left.value}"


def test_no_line_is_named_that_no_page_has():
    assert {line for lines in LINES.values() for line in lines}.issuperset(NOT_RUN)


def test_the_scores_of_the_readme_are_those_of_the_note_that_it_names():
    note = (ROOT / "docs" / "lab" / "2026-11-26-trials.md").read_text("utf-8")
    scores = re.findall(r"\d+\.\d ± \d\.\d \(.*?\)", README)
    assert len(scores) == 6
    assert [score for score in scores if score not in note] == []


def bibtex(kind):
    """The fields of the README's entry of a kind."""
    [entry] = re.findall(rf"^@{kind}{{.*?^}}", README, re.M | re.S)
    return dict(re.findall(r"^  (\w+) *= {(.*)},?$", entry, re.M))


def test_what_is_to_be_cited_is_what_the_citation_file_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    paper = citation["preferred-citation"]
    tool = bibtex("software")
    assert (tool["title"], tool["version"]) == (citation["title"], citation["version"])
    assert tool["author"].strip("{}") == citation["authors"][0]["name"]
    assert f"Copyright (c) {tool['year']} {tool['author'].strip('{}')}" in LICENSE
    assert (bibtex("inproceedings")["title"], bibtex("inproceedings")["year"]) == (
        paper["title"],
        str(paper["year"]),
    )
