import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from test_corpora import SHARED, paths_of, tree

from lsmprobe.corpora import CORPORA, read_corpus
from lsmprobe.corpus_check import check_corpus, list_corpora, table1
from lsmprobe.errors import CorpusError

COUNTS = Path(__file__).parent.parent / "lsmprobe" / "data" / "counts.csv"


def recorded(folder, paths, sample_rate=16_000, channels=1):
    """A clip of noise for every path, 30 ms, no two alike."""
    rng = np.random.default_rng(0)
    shape = (sample_rate * 30 // 1000, channels)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, rng.normal(0, 0.1, shape), sample_rate, format="WAV")
    return folder


@pytest.fixture
def emovo(tmp_path):
    return recorded(tmp_path, paths_of("emovo"))


def test_a_complete_copy(emovo):
    report = check_corpus("emovo", emovo)
    assert report.is_complete
    assert report.verdict == "complete: 588 of 588 clips, 6 speakers, as in the paper"
    assert report.lines()[-1] == report.verdict
    assert report.sample_rates == {16_000: 588} and report.channels == {1: 588}
    assert report.hours == pytest.approx(588 * 0.03 / 3600)
    assert not report.unusable and not report.odd and not report.duplicates
    assert "emotion: anger 84 of 84" in report.lines()[1]
    assert "gender: female 294 of 294, male 294 of 294" in report.lines()


def test_every_kind_of_damage_is_named(emovo):
    speaker = emovo / "EMOVO" / "f1"
    (speaker / "rab-f1-b1.wav").write_bytes(b"")
    (speaker / "rab-f1-b2.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    soundfile.write(speaker / "rab-f1-b3.wav", np.zeros(1000), 16_000)
    soundfile.write(speaker / "rab-f1-l1.wav", np.ones(100) / 2, 16_000)
    cut = (speaker / "rab-f1-l2.wav").read_bytes()
    (speaker / "rab-f1-l2.wav").write_bytes(cut[: len(cut) // 2])
    loud = np.sign(np.sin(np.arange(2000) / 50)) * 0.99999
    soundfile.write(speaker / "rab-f1-l3.wav", np.stack([loud, loud], 1), 44_100, "FLOAT")
    soundfile.write(speaker / "rab-f1-l4.wav", soundfile.read(speaker / "rab-f1-n1.wav")[0], 16_000)
    (speaker / "rab-f1-n2.wav").unlink()
    (speaker / "rab-f1-b1.wav").rename(speaker / "tri-f1-n5.wav")
    report = check_corpus("emovo", emovo)
    assert not report.is_complete
    reasons = {
        "tri-f1-n5.wav": "is empty",
        "rab-f1-b2.wav": "Git LFS",
        "rab-f1-b3.wav": "silent",
        "rab-f1-l1.wav": "one frame",
        "rab-f1-l2.wav": "cut off",
    }
    assert set(report.unusable) == set(reasons)
    for key, reason in reasons.items():
        assert reason in report.unusable[key]
    assert report.odd["clipping"] == ("rab-f1-l3.wav",)
    assert report.duplicates == (("rab-f1-l4.wav", "rab-f1-n1.wav"),)
    assert report.sample_rates[44_100] == 1 and report.channels[2] == 1
    assert report.verdict == (
        "incomplete: 586 of 588 clips, 6 of 6 speakers, 2 missing, 5 unusable"
    )
    assert "speaker, emotion not as published (1): f1, anger: 12 of 14" in report.lines()
    found = json.loads(report.to_json())
    assert found["complete"] is False and found["verdict"] == report.verdict
    assert set(found["unusable"]) == set(reasons)
    assert {"of": "speaker", "name": "m1", "found": 98, "expected": 98} in found["counts"]


def test_missing_and_extra_clips_do_not_make_up_for_each_other(emovo):
    for path in (emovo / "EMOVO" / "m3").glob("*.wav"):
        path.unlink()
    for number in range(1, 4):
        recorded(emovo, [f"EMOVO/f1/dis-f1-b{number}.WAV"])
        (emovo / f"EMOVO/f1/gio-f1-b{number}.wav").unlink()
        (emovo / f"EMOVO/f1/dis-f1-b{number}.wav").unlink()
    report = check_corpus("emovo", emovo)
    assert report.verdict.startswith("incomplete: 487 of 588 clips, 5 of 6 speakers, 101 missing")
    assert "speaker not as published (2): f1: 95 of 98; m3: 0 of 98" in report.lines()


def test_clips_that_were_never_published_are_extra(tmp_path):
    paths = paths_of("eyase")
    extra = [f"EYASE/Male02/ml02_hap ({number}).wav" for number in range(21, 24)]
    report = check_corpus("eyase", recorded(tmp_path, [*paths, *extra]))
    assert report.verdict == "incomplete: 582 of 579 clips, 6 of 6 speakers, 3 extra"


def test_a_clip_that_is_damaged_in_every_copy_does_not_make_one_incomplete(tmp_path):
    recorded(tmp_path, paths_of("aesdd"))
    assert check_corpus("aesdd", tmp_path).is_complete, "should anyone have a better copy"
    (tmp_path / "sadness" / "s05 (3).wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    report = check_corpus("aesdd", tmp_path)
    assert report.is_complete
    assert report.verdict == (
        "complete: 605 of 605 clips (1 damaged in every copy), 6 speakers, the paper has 500: "
        "5 actors x 5 emotions x 20 sentences of version 1.0, without second takes and the sixth "
        "actor"
    )


def test_each_version_of_oreau_is_complete_by_itself(tmp_path):
    second = paths_of("oreau")
    report = check_corpus("oreau", recorded(tmp_path / "two", second))
    assert report.verdict == (
        "complete: 434 of 434 clips of version 2, 32 speakers, the paper has 502"
    )
    first = [path.replace("_02/", "_01/") for path in second]
    first += [f"OréauFR_01/m/sessc/07a{number:02}Cb.wav" for number in range(68)]
    report = check_corpus("oreau", recorded(tmp_path / "one", first))
    assert report.verdict == (
        "complete: 502 of 502 clips of version 1, 32 speakers, as in the paper"
    )


@pytest.mark.skipif(not (SHARED / "emodb").exists(), reason="the audio of EmoDB is not there")
def test_the_real_emodb_is_complete():
    report = check_corpus("emodb", SHARED / "emodb")
    assert report.verdict == "complete: 535 of 535 clips, 10 speakers, as in the paper"
    assert report.hours == pytest.approx(0.4131, abs=5e-5)
    assert (round(report.shortest_s, 3), round(report.longest_s, 3)) == (1.226, 8.978)
    assert report.sample_rates == {16_000: 535} and not report.duplicates


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(CorpusError, match="did you mean emovo"):
        check_corpus("emov", tmp_path)
    with pytest.raises(CorpusError, match="no clip of EMOVO"):
        check_corpus("emovo", tmp_path)


@pytest.mark.parametrize("name", ["aesdd", "aesdd-v1", "cafe", "emodb", "emovo", "eyase", "shemo"])
def test_published_counts_are_those_of_the_file_lists(name, tmp_path):
    base = CORPORA[name].variant_of or name
    table = read_corpus(name, tree(tmp_path, paths_of(base)))
    with COUNTS.open() as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"] == name]
    assert {(row["speaker"], row["gender"]) for row in rows} == set(
        zip(table.speaker, table.gender, strict=True)
    )
    cells = table.groupby(["speaker", "emotion"]).size()
    for row in rows:
        for emotion in list(row)[4:]:
            assert int(row[emotion]) == cells.get((row["speaker"], emotion), 0)


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_published_counts_add_up(corpus):
    counts = pd.read_csv(COUNTS, keep_default_na=False)
    there = set(counts.corpus)
    counts = counts[counts.corpus == (corpus.name if corpus.name in there else corpus.variant_of)]
    totals = {502: 434}  # of Oréau, only version 2 is published clip by clip
    if len(counts):
        total = int(counts[list(set(corpus.labels.values()))].to_numpy().sum())
        assert total == totals.get(corpus.n_utterances, corpus.n_utterances)
        assert len(counts) == corpus.n_speakers
    else:
        assert corpus.name == "emomatch"


def test_table_1_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSMPROBE_DATA", str(tmp_path / "corpora"))
    tree(tmp_path / "corpora" / "emovo", paths_of("emovo"))
    tree(tmp_path / "data" / "shemo", paths_of("shemo")[:500])
    table = table1().set_index("dataset")
    assert list(table.paper_clips) == [500, 936, 9697, 535, 2005, 588, 579, 502, 400]
    assert table.clips["EMOVO"] == 588 and table.note["EMOVO"] == "as in the paper"
    assert table.emotions["EMOVO"] == table.paper_emotions["EMOVO"]
    assert table.clips["ShEMO"] == 500
    assert table.note["ShEMO"].startswith("this copy has 500 of 3000 clips; the paper has 400: ")
    assert table.clips["DEMoS"] == 0 and table.note["DEMoS"].startswith("no copy in ")
    assert "1129 clips of guilt" in table.note["DEMoS"]


def test_the_list_of_corpora():
    table = list_corpora().set_index("name")
    assert set(table.index) == set(CORPORA)
    assert table.clips["emodb"] == 535 and table.language["eyase"] == "Egyptian Arabic"
    assert "zenodo.org/records/2544829" in table.obtain["demos"]
