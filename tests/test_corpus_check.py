import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from test_corpora import SHARED, paths_of, tree

from lsmprobe.corpora.check import _published, check_corpus, list_corpora
from lsmprobe.corpora.fingerprint import fingerprint, same_recordings
from lsmprobe.corpora.read import read_corpus
from lsmprobe.corpora.table import CORPORA
from lsmprobe.errors import CorpusError
from lsmprobe.report.table1 import table1
from lsmprobe.splits.audit import audit_split

NAMES = SHARED / "names"
COUNTS = Path(__file__).parent.parent / "lsmprobe" / "data" / "counts.csv"


def recorded(folder, paths, sample_rate=44_100, channels=1):
    """A clip of noise for every path, 30 ms, no two alike."""
    rng = np.random.default_rng(0)
    shape = (sample_rate * 30 // 1000, channels)
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, rng.normal(0, 0.1, shape), sample_rate, format="WAV")
    return folder


@pytest.fixture
def emovo(tmp_path):
    return recorded(tmp_path, paths_of("emovo"), 48_000)


def test_a_complete_copy(emovo):
    report = check_corpus("emovo", emovo)
    assert report.is_complete
    assert report.verdict == "complete: 588 of 588 clips, 6 speakers, as in the paper"
    assert report.lines()[-1] == report.verdict
    assert report.sample_rates == {48_000: 588} and report.channels == {1: 588}
    assert report.hours == pytest.approx(588 * 0.03 / 3600)
    assert not report.unusable and not report.odd and not report.duplicates
    assert "emotion: anger 84 of 84" in report.lines()[1]
    assert "gender: female 294 of 294, male 294 of 294" in report.lines()


def test_every_kind_of_damage_is_named(emovo):
    speaker = emovo / "EMOVO" / "f1"
    (speaker / "rab-f1-b1.wav").write_bytes(b"")
    (speaker / "rab-f1-b2.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    soundfile.write(speaker / "rab-f1-b3.wav", np.zeros(3000), 48_000)
    soundfile.write(speaker / "rab-f1-l1.wav", np.ones(100) / 2, 48_000)
    cut = (speaker / "rab-f1-l2.wav").read_bytes()
    (speaker / "rab-f1-l2.wav").write_bytes(cut[: len(cut) // 2])
    loud = np.sign(np.sin(np.arange(2000) / 50)) * 0.99999
    soundfile.write(speaker / "rab-f1-l3.wav", np.stack([loud, loud], 1), 44_100, "FLOAT")
    soundfile.write(speaker / "rab-f1-l4.wav", soundfile.read(speaker / "rab-f1-n1.wav")[0], 48_000)
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
        "incomplete: 586 of 588 clips, 6 of 6 speakers, 2 missing, 5 unusable, "
        "1 at another sampling rate"
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
        recorded(emovo, [f"EMOVO/f1/dis-f1-b{number}.WAV"], 48_000)
        (emovo / f"EMOVO/f1/gio-f1-b{number}.wav").unlink()
        (emovo / f"EMOVO/f1/dis-f1-b{number}.wav").unlink()
    report = check_corpus("emovo", emovo)
    assert report.verdict.startswith("incomplete: 487 of 588 clips, 5 of 6 speakers, 101 missing")
    assert "speaker not as published (2): f1: 95 of 98; m3: 0 of 98" in report.lines()


def test_the_audio_of_another_emotion_or_speaker_is_a_fault_of_the_copy(emovo):
    voices = emovo / "EMOVO"
    copies = {"f1/rab-f1-b1": "f1/gio-f1-b1", "m1/neu-m1-b1": "m2/neu-m2-b1"}
    for source, target in copies.items():
        shutil.copy(voices / f"{source}.wav", voices / f"{target}.wav")
    shutil.copy(voices / "m3/neu-m3-b1.wav", voices / "m3/neu-m3-b2.wav")  # one emotion, one voice
    report = check_corpus("emovo", emovo)
    assert report.verdict == (
        "incomplete: 588 of 588 clips, 6 of 6 speakers, 2 with the audio of another clip"
    )
    assert report.clashes == (
        ("gio-f1-b1.wav", "rab-f1-b1.wav"),
        ("neu-m1-b1.wav", "neu-m2-b1.wav"),
    )
    assert (
        "the same audio for two emotions or speakers (2): 'gio-f1-b1.wav' = 'rab-f1-b1.wav'; "
        "'neu-m1-b1.wav' = 'neu-m2-b1.wav'"
    ) in report.lines()
    assert "the same audio (1): 'neu-m3-b1.wav' = 'neu-m3-b2.wav'" in report.lines()


def test_the_same_audio_twice_in_one_emotion_of_one_speaker_is_only_told(emovo):
    shutil.copy(emovo / "EMOVO/m3/neu-m3-b1.wav", emovo / "EMOVO/m3/neu-m3-b2.wav")
    report = check_corpus("emovo", emovo)
    assert report.is_complete and report.duplicates and not report.clashes


def test_another_sampling_rate_is_a_fault_of_the_copy(tmp_path):
    report = check_corpus("emovo", recorded(tmp_path, paths_of("emovo"), 16_000))
    assert report.verdict == (
        "incomplete: 588 of 588 clips, 6 of 6 speakers, 588 at another sampling rate"
    )
    assert json.loads(report.to_json())["sample_rates_expected"] == [48_000]


@pytest.mark.parametrize("name", ["aesdd", "cafe", "emodb", "oreau", "shemo"])
def test_sampling_rates_are_those_of_the_real_files(name):
    lists = SHARED / "names" / f"{name}.tsv"
    if not lists.exists():
        pytest.skip("the sampling rates of clips are not there")
    real = set(pd.read_csv(lists, sep="\t").sample_rate.dropna())
    assert real <= CORPORA[name].sample_rates
    assert CORPORA[name].sample_rates <= real | {192_000}  # CaFE's list is that of 48 kHz


def test_a_name_that_breaks_lines_or_is_no_text_breaks_no_report(tmp_path):
    folder = tmp_path / os.fsdecode(b"two\nlines \xff")
    recorded(tmp_path / "plain", ["37_Ira_06.wav"]).rename(folder)
    (folder / "37_Ira_07.wav").write_bytes(b"")
    report = check_corpus("emomatch", folder)
    assert len(report.unusable) == 1
    for line in report.lines():
        assert line.isprintable() and line.encode()
    assert json.loads(report.to_json())["folder"] == str(folder)
    report.to_json().encode("ascii")


# The audit of a split


def own_corpus(folder, sentence=""):
    """Three speakers with two emotions each."""
    names = [f"{speaker}_{emotion}" for speaker in "abc" for emotion in ("joy", "rage")]
    recorded(folder, [f"{name}.wav" for name in names])
    rows = [f"{name}.wav,{name[2:]},{name[0]},{sentence}" for name in names]
    (folder / "own.csv").write_text("\n".join(["path,emotion,speaker,sentence", *rows]))
    return read_corpus(str(folder / "own.csv"))


def test_an_audit_refuses_clips_that_it_cannot_compare(tmp_path):
    utterances = own_corpus(tmp_path)
    (tmp_path / "b_joy.wav").write_bytes(b"")
    (tmp_path / "c_joy.wav").write_bytes(b"")
    with pytest.raises(
        CorpusError, match=r"2 of 6 clips cannot be .*b_joy\.wav is empty"
    ) as caught:
        audit_split("speaker", utterances)
    assert "\n" not in str(caught.value)
    damaged = frozenset({"b_joy.wav", "c_joy.wav"})  # as they are published
    assert audit_split("speaker", utterances, damaged=damaged).shared.sum() == 0


def test_an_audit_leaves_out_the_sentences_where_none_is_known(tmp_path):
    assert set(audit_split("speaker", own_corpus(tmp_path)).column) == {
        *("speaker", "sha256", "recording")
    }
    said = audit_split("speaker", own_corpus(tmp_path, "s1")).groupby("column").shared.sum()
    assert said.to_dict() == {"speaker": 0, "sentence": 3, "sha256": 0, "recording": 0}


@pytest.mark.slow
def test_clips_that_were_never_published_are_extra(tmp_path):
    paths = paths_of("eyase")
    extra = [f"EYASE/Male02/ml02_hap ({number}).wav" for number in range(21, 24)]
    report = check_corpus("eyase", recorded(tmp_path, [*paths, *extra]))
    assert report.verdict == "incomplete: 582 of 579 clips, 6 of 6 speakers, 3 extra"


@pytest.mark.slow
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


@pytest.mark.slow
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
    cells = table.groupby(["speaker", "gender", "emotion"]).size()
    assert {
        (row["speaker"], row["gender"], emotion): int(n)
        for row in rows
        for emotion, n in (cell.split("=") for cell in row["clips"].split())
    } == cells.to_dict()


def test_the_page_of_corpora_is_what_the_table_makes(monkeypatch):
    """`python docs/corpora.py` writes it again."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "docs"))
    import corpora

    assert corpora.page() == corpora.PAGE.read_text("utf-8")


@pytest.mark.slow
def test_the_published_counts_are_what_the_lists_make(monkeypatch):
    """`python docs/counts.py ../shared/names` writes them again."""
    if not (NAMES / "ravdess.tsv.gz").exists():
        pytest.skip(f"the file lists are not there: {NAMES}")
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "docs"))
    import counts

    assert counts.page(NAMES) == COUNTS.read_text("utf-8")


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_published_counts_add_up(corpus):
    published = _published(corpus, corpus.release([]))
    totals = {"oreau": 434}  # only version 2 is published clip by clip
    if len(published):
        assert published.clips.sum() == totals.get(corpus.name, corpus.n_utterances)
        assert published.speaker.nunique() == (corpus.n_speakers or 1)


def test_table_1_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSMPROBE_DATA", str(tmp_path / "corpora"))
    tree(tmp_path / "corpora" / "emovo", paths_of("emovo"))
    tree(tmp_path / "data" / "shemo", paths_of("shemo")[:500])
    (tmp_path / "data" / "cafe").mkdir()
    tree(tmp_path / "data" / "eyase", ["readme.txt"])
    tree(tmp_path / "data" / "emodb", ["a/03a01Fa.wav", "b/03a01Fa.wav"])
    table = table1().set_index("dataset")
    assert table.note["CaFE"].startswith("'data/cafe' has no clip of CaFE among 0 files")
    assert "no clip of EYASE" in table.note["EYASE"] and "is there twice" in table.note["EmoDB"]
    assert list(table.clips[["CaFE", "EYASE", "EmoDB"]]) == [0, 0, 0]
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
    assert set(list_corpora("german").name) == {"emodb", "thorsten-emotional", "pavoque"}
    assert "nemo" in set(list_corpora("CC BY-NC-SA").name)
    with pytest.raises(CorpusError, match="no corpus has 'klingon'; languages are"):
        list_corpora("klingon")


def test_what_every_copy_has_is_known_and_said(tmp_path):
    """CREMA-D's three recordings under two labels are no fault of a copy; a fourth is."""
    names = ["1006_TIE_HAP_XX", "1006_TIE_NEU_XX", "1001_IEO_ANG_HI", "1001_IEO_SAD_HI"]
    recorded(tmp_path, [f"{name}.wav" for name in names], 16_000)
    shutil.copy(tmp_path / f"{names[0]}.wav", tmp_path / f"{names[1]}.wav")
    shutil.copy(tmp_path / f"{names[2]}.wav", tmp_path / f"{names[3]}.wav")
    report = check_corpus("cremad", tmp_path)
    assert report.clashes == (("1001_IEO_ANG_HI.wav", "1001_IEO_SAD_HI.wav"),)
    assert any(line.startswith("known: three pairs of clips") for line in report.lines())


def test_speakers_that_nobody_knows_are_no_missing_speakers(tmp_path):
    recorded(tmp_path, ["Anger_F_A_abajo.wav", "Fear_C_A_abajo.wav"], 48_000)
    report = check_corpus("mesd", tmp_path)
    assert report.n_speakers_expected is None
    assert "2 of 862 clips, 1 speaker, 860 missing" in report.verdict


# ------------------------------------------------------------------ a corpus of one's own


def speech(seed, rate=16_000):
    """Noise in syllables of its own rhythm, one second, with silence around it."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.uniform(0.1, 1, 20), rate // 20)
    return np.pad(0.2 * loudness * rng.normal(size=rate).clip(-3, 3), (2_000, 1_000))


@pytest.fixture
def own(tmp_path):
    """Eight clips of four speakers, and their manifest."""
    rows = ["path,emotion,speaker"]
    for n in range(8):
        soundfile.write(tmp_path / f"{n}.wav", speech(n), 16_000)
        rows.append(f"{n}.wav,{'joy' if n % 2 else 'anger'},s{n // 2}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    return tmp_path


def test_a_corpus_of_ones_own_is_checked(own):
    report = check_corpus(str(own / "own.csv"))
    assert report.is_complete
    assert report.lines()[-1] == "8 clips, 4 speakers: all usable"
    assert json.loads(report.to_json())["n_clips_expected"] is None
    voice = speech(0)
    soundfile.write(own / "0.wav", np.stack([voice, -0.99 * voice], 1), 16_000)
    shutil.copy(own / "2.wav", own / "5.wav")
    (own / "7.wav").write_bytes(b"")
    report = check_corpus(str(own / "own.csv"))
    assert not report.is_complete
    assert "opposite phase (1): '0.wav'" in report.lines()
    assert report.clashes == (("2.wav", "5.wav"),)
    assert report.lines()[-1] == (
        "8 clips, 4 speakers: 1 unusable, 1 with the audio of another clip"
    )


def test_parts_of_a_file_count_with_their_own_length(own):
    soundfile.write(own / "long.wav", np.concatenate([speech(n) for n in range(9)]), 16_000)
    rows = [f"long.wav,joy,s{n},{n},{n + 1}" for n in range(9)]
    (own / "parts.csv").write_text("path,emotion,speaker,start,end\n" + "\n".join(rows))
    report = check_corpus(str(own / "parts.csv"))
    assert report.hours == pytest.approx(9 / 3600) and report.longest_s == 1


def test_flags_of_ones_own_corpus_are_refused_for_a_published_one(emovo):
    with pytest.raises(CorpusError, match="leave out --emotions"):
        check_corpus("emovo", emovo, emotions=("anger",))


@pytest.mark.parametrize("change", ["gain", "trimmed", "padded"])
def test_the_same_recording_in_two_parts_is_a_leak_whatever_its_gain_and_silence(own, change):
    voice = speech(0)
    changed = {"gain": 0.3 * voice, "trimmed": voice[2_000:-1_000], "padded": np.pad(voice, 9_000)}
    soundfile.write(own / "6.wav", changed[change], 16_000)
    utterances = read_corpus(str(own / "own.csv"))
    found = audit_split("loso", utterances)
    shared = found[found.shared > 0]
    assert set(shared.column) == {"recording"}
    assert shared["values"].iloc[0] == ["0.wav"]
    assert check_corpus(str(own / "own.csv")).nearly == (("0.wav", "6.wav"),)


EMODB = SHARED / "emodb" / "wav"


def waveforms_of_emodb():
    if not EMODB.is_dir():
        pytest.skip("the EmoDB audio is not beside this project")
    return [soundfile.read(path, dtype="float32")[0] for path in sorted(EMODB.glob("*.wav"))]


def test_no_two_clips_of_emodb_are_taken_for_one_recording():
    """The same ten sentences by the same ten speakers: the hardest case that is at hand."""
    assert same_recordings([fingerprint(waveform) for waveform in waveforms_of_emodb()]) == []


def test_every_clip_of_emodb_is_found_again_after_a_change_of_gain_and_silence():
    clips, rng = waveforms_of_emodb(), np.random.default_rng(0)
    copies = []
    for clip in clips:
        loud = np.flatnonzero(np.abs(clip) > 0.03 * np.abs(clip).max())
        trimmed = clip[loud[0] : loud[-1] + 1]
        louder = np.round(trimmed * 10 ** rng.uniform(-1, -0.05) * 2**15) / 2**15
        copies.append(np.pad(louder, rng.integers(0, 8_000, 2)))
    groups = same_recordings([fingerprint(clip) for clip in [*clips, *copies]])
    assert groups == [[n, n + len(clips)] for n in range(len(clips))]
