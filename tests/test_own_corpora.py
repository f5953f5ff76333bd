import csv
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_corpora import TINY_WAV, refused, tree

from lsmprobe.corpora.read import read_corpus


def manifest(folder, *lines, header="path,emotion,speaker", name="mine.csv"):
    file = folder / name
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return str(file)


# A folder with a sub-folder per emotion


def test_a_folder_per_emotion(tmp_path):
    tree(tmp_path, ["joy/a b/s1_1.wav", "joy/s2_1.FLAC", "rage/s1_1.wav", "rage/notes.txt"])
    name = f"folder:{tmp_path}"
    table = read_corpus(name, speaker_pattern=r"(?P<speaker>s\d)_")
    assert list(table.key) == ["joy/a b/s1_1.wav", "joy/s2_1.FLAC", "rage/s1_1.wav"]
    assert list(table.emotion) == ["joy", "joy", "rage"]
    assert list(table.speaker) == ["s1", "s2", "s1"]
    assert set(table.gender) == {""}
    assert len(read_corpus(name, speaker_pattern=r"(?P<speaker>s\d)_", emotions=["joy"])) == 2


def test_a_folder_per_emotion_that_cannot_be_read(tmp_path):
    name, pattern = f"folder:{tmp_path}", r"(?P<speaker>s\d)_"
    assert "no audio file" in refused(name, speaker_pattern=pattern)
    assert "a group named speaker" in refused(name)
    assert "a group named speaker" in refused(name, speaker_pattern="s1")
    assert "is wrong" in refused(name, speaker_pattern="(")
    assert "No such file" in refused(f"{name}/nowhere", speaker_pattern=pattern)
    assert "--data-dir is for a corpus of the table or" in refused(
        name, tmp_path, speaker_pattern=pattern
    )
    assert "--speaker-pattern is for folder;" in refused("emodb", tmp_path, speaker_pattern=pattern)
    tree(tmp_path, ["joy/x.wav"])
    assert "finds no speaker in 'joy/x.wav'" in refused(name, speaker_pattern=pattern)
    assert "finds no speaker" in refused(name, speaker_pattern=r"(?P<speaker>s\d)?")
    tree(tmp_path, ["s1_1.wav"])
    assert "lies in no emotion's folder" in refused(name, speaker_pattern=r"(?P<speaker>\w)")


# A manifest


def test_a_manifest_in_full(tmp_path):
    tree(tmp_path, ["wav/a.wav", "wav/b.wav", "c.wav"])
    mine = manifest(
        tmp_path,
        "wav/b.wav,joy,s1,female,,,train,b1",
        "./wav/a.wav,rage,s2,,0.5,1.25,test, Für wen? ",
        "wav/a.wav,joy,s2,,2,3,,",
        f"{tmp_path}/c.wav , calm , s3 ,male,,,validation,b1".replace(".wav ", ".wav"),
        header="path,emotion,speaker,gender,start,end,split,sentence",
    )
    table = read_corpus(mine)
    assert list(table.key) == ["c.wav", "wav/a.wav#0.5-1.25", "wav/a.wav#2.0-3.0", "wav/b.wav"]
    assert list(table.emotion) == ["calm", "rage", "joy", "joy"]
    assert list(table.speaker) == ["s3", "s2", "s2", "s1"]
    assert list(table.gender) == ["male", "", "", "female"]
    assert list(table.sentence) == ["b1", "Für wen?", "", "b1"]
    assert list(table.split) == ["validation", "test", "", "train"]
    assert table.start_s.isna().tolist() == [True, False, False, True]
    assert table.end_s[1] == 1.25
    assert table.path[3] == str(tmp_path / "wav/b.wav")


def test_a_part_may_say_only_where_it_starts_or_ends(tmp_path):
    tree(tmp_path, ["a.wav", "b.wav"])
    lines = ["a.wav,joy,s1,,1.5", "a.wav,joy,s1,1.5,", "b.wav,joy,s2,0,"]
    table = read_corpus(manifest(tmp_path, *lines, header="path,emotion,speaker,start,end"))
    assert list(table.key) == ["a.wav#0.0-1.5", "a.wav#1.5-", "b.wav"]
    np.testing.assert_equal(table.start_s.to_numpy(), [0, 1.5, np.nan])
    np.testing.assert_equal(table.end_s.to_numpy(), [1.5, np.nan, np.nan])


def test_paths_are_looked_for_in_the_data_folder_then_beside_the_manifest(tmp_path):
    tree(tmp_path, ["audio/a.wav", "audio/b.wav", "lists/b.wav"])
    mine = manifest(tmp_path / "lists", "a.wav,joy,s1", "b.wav,joy,s2")
    table = read_corpus(mine, tmp_path / "audio")
    assert list(table.path) == [str(tmp_path / "audio/a.wav"), str(tmp_path / "audio/b.wav")]
    assert "line 2: there is no file 'a.wav'" in refused(mine)
    up = manifest(tmp_path / "lists", "../audio/a.wav,joy,s1", name="up.csv")
    assert list(read_corpus(up, tmp_path).key) == ["audio/a.wav"]
    assert "'../audio/a.wav' leaves the folder" in refused(up)


def test_the_columns_may_stand_in_any_order_after_a_byte_order_mark(tmp_path):
    tree(tmp_path, ["a.wav"])
    mine = tmp_path / "MINE.CSV"
    mine.write_bytes(b"\xef\xbb\xbfspeaker, note ,path,emotion\r\ns1,x,a.wav,joy\r\n\r\n")
    assert read_corpus(str(mine)).loc[0, ["key", "speaker", "emotion"]].tolist() == [
        "a.wav",
        "s1",
        "joy",
    ]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40
    ).filter(lambda name: name.strip(".") and len(name.encode()) < 200)
)
def test_any_file_name_can_stand_in_a_manifest(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    (folder / name).write_bytes(TINY_WAV)
    with (folder / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "emotion", "speaker"], [name, "joy", "s1"]])
    table = read_corpus(str(folder / "mine.csv"))
    assert list(table.key) == [unicodedata.normalize("NFC", name)]
    assert Path(table.path[0]).samefile(folder / name)


def test_a_name_may_be_composed_here_and_decomposed_there(tmp_path):
    tree(tmp_path, [unicodedata.normalize("NFD", "café.wav")])
    table = read_corpus(manifest(tmp_path, "café.wav,joy,s1"))
    assert table.key[0] == "café.wav" and Path(table.path[0]).is_file()


HEADER = "path,emotion,speaker,gender,start,end,split"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("b.wav,joy,s1,,,,", "line 2: there is no file 'b.wav'"),
        (".,joy,s1,,,,", "line 2: there is no file '.'"),
        ("../a.wav,joy,s1,,,,", "line 2: '../a.wav' leaves the folder"),
        ("/etc/hostname,joy,s1,,,,", "line 2: '/etc/hostname' leaves the folder"),
        ("sub/../../a.wav,joy,s1,,,,", "leaves the folder"),
        (f"{'x' * 300}.wav,joy,s1,,,,", "line 2: cannot read"),
        ("a.wav,,s1,,,,", "line 2: the emotion is empty"),
        ("a.wav,joy, ,,,,", "line 2: the speaker is empty"),
        (",joy,s1,,,,", "line 2: the path is empty"),
        ("a.wav,joy,s1,f,,,", "the gender is 'f'; expected female, male or nothing"),
        ("a.wav,joy,s1,,,,dev", "the split is 'dev'; expected train, validation, test or nothing"),
        ("a.wav,joy,s1,,inf,,", "start and end are 'inf' and ''; expected seconds"),
        ("a.wav,joy,s1,,-1,,", "start and end are '-1' and ''; expected seconds"),
        ("a.wav,joy,s1,,,0,", "start and end are '' and '0'; expected seconds"),
        ("a.wav,joy,s1,,,inf,", "start and end are '' and 'inf'; expected seconds"),
        ("a.wav,joy,s1,,,1,\na.wav,joy,s1,,-0,1.0,", "'a.wav#0.0-1.0' is there twice"),
        ("a.wav,joy,s1,,2,,\na.wav,joy,s1,,2.00,,", "'a.wav#2.0-' is there twice"),
        ("a.wav,joy,s1,,,,\na.wav,joy,s1,,0,,", "'a.wav' is there twice"),
        ("a.wav,joy,s1,,2,1,", "start and end are '2' and '1'; expected seconds"),
        ("a.wav,joy,s1,,1,1,", "expected seconds, start before end"),
        ("a.wav,joy,s1,,-1,1,", "expected seconds"),
        ("a.wav,joy,s1,,0,inf,", "expected seconds"),
        ("a.wav,joy,s1,,nan,1,", "expected seconds"),
        ('a.wav,joy,s1,,"0,5",1,', "expected seconds"),
        ("a.wav,joy", "line 2: expected 7 cells"),
        ("a.wav,joy,s1,,,,,x", "line 2: expected 7 cells"),
        ("a.wav,joy,s1,,,,\n./a.wav,joy,s1,,,,", "'a.wav' is there twice: line 2 and line 3"),
        ('"a.wav,joy,s1,,,,', "is no CSV"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(line, said, tmp_path):
    tree(tmp_path, ["a.wav"])
    assert said in refused(manifest(tmp_path, line, header=HEADER))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.wav,jo\0y,s1,", r"utterance 'a.wav': the emotion is 'jo\x00y'; expected text without"),
        ("a.wav,joy,s\0,", r"the speaker is 's\x00'; expected text without null characters"),
        ("a.wav,joy,s1,b\0", r"the sentence is 'b\x00'; expected text without null characters"),
        ("a\0.wav,joy,s1,", r"line 2: there is no file 'a\x00.wav'"),
    ],
)
def test_a_null_character_is_refused(line, said, tmp_path):
    tree(tmp_path, ["a.wav"])
    message = refused(manifest(tmp_path, line, header="path,emotion,speaker,sentence"))
    # Python 3.10's reader of CSV files refuses it itself.
    assert (said if sys.version_info >= (3, 11) else "is no CSV: line contains NUL") in message


def test_a_manifest_that_cannot_be_read(tmp_path):
    tree(tmp_path, ["a.wav"])
    assert "No such file" in refused(str(tmp_path / "nowhere.csv"))
    assert "lacks the column speaker" in refused(manifest(tmp_path, header="path,emotion"))
    assert "with commas between" in refused(manifest(tmp_path, header="path;emotion;speaker"))
    assert "names a column twice" in refused(manifest(tmp_path, header="path,path,emotion,speaker"))
    assert "names no utterance" in refused(manifest(tmp_path))
    (tmp_path / "mine.csv").write_text("path,emotion,speaker\na.wav,Ärger,s1", encoding="latin-1")
    assert "is not UTF-8" in refused(str(tmp_path / "mine.csv"))
    (tmp_path / "mine.csv").write_bytes(b"")
    assert "lacks the column path" in refused(str(tmp_path / "mine.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory" in refused(str(tmp_path / "folder.csv"))


# The formats of others, each with an extra


def test_an_extra_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "audformat", None)
    assert "pip install audformat" in refused(f"audformat:{tmp_path}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in refused("hf:someone/something")


@pytest.mark.filterwarnings("ignore")  # audformat's own
def test_an_audformat_database(tmp_path):
    audformat = pytest.importorskip("audformat")
    tree(tmp_path, ["wav/a.wav", "wav/b.wav", "wav/c.wav"])
    database = audformat.Database("mini")
    database.schemes["emotion"] = audformat.Scheme("str", labels=["joy", "rage"])
    people = {3: {"gender": "female"}, 8: {"gender": "other"}}
    database.schemes["speaker"] = audformat.Scheme("int", labels=people)

    def column(table, index, name, values):
        database[table] = audformat.Table(index)
        database[table][name] = audformat.Column(scheme_id=name)
        database[table][name].set(values)

    files = ["wav/a.wav", "wav/b.wav", "wav/c.wav"]
    column("files", audformat.filewise_index(files), "speaker", [3, 8, 3])
    column("whole", audformat.filewise_index(files[:2]), "emotion", ["joy", "rage"])
    thrice = audformat.segmented_index([files[2]] * 3, ["0s", "1.5s", "2s"], ["1s", "2s", None])
    column("parts", thrice, "emotion", ["rage", "joy", "joy"])
    database.save(str(tmp_path))
    table = read_corpus(f"audformat:{tmp_path}")
    parts = [f"wav/c.wav#{part}" for part in ("0.0-1.0", "1.5-2.0", "2.0-")]
    assert list(table.key) == [*files[:2], *parts]
    assert list(table.emotion) == ["joy", "rage", "rage", "joy", "joy"]
    assert list(table.speaker) == ["3", "8", "3", "3", "3"]
    assert list(table.gender) == ["female", "", "female", "female", "female"]
    assert table.start_s.isna().tolist() == [True, True, False, False, False]
    assert table.end_s[3] == 2 and np.isnan(table.end_s[4])
    assert table.path[0] == str(tmp_path / "wav/a.wav")
    (tmp_path / "wav/b.wav").unlink()
    assert "lacks the emotion, the speaker or the file of 'wav/b.wav'" in refused(
        f"audformat:{tmp_path}"
    )
    assert "is no audformat database" in refused(f"audformat:{tmp_path / 'wav'}")


@pytest.mark.filterwarnings("ignore")  # datasets' own
def test_a_hugging_face_dataset(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    features = datasets.Features(
        {
            "audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "emotion": datasets.ClassLabel(names=["joy", "rage"]),
            "speaker": datasets.Value("int64"),
        }
    )
    rows = {
        "audio": [{"bytes": TINY_WAV, "path": f"{n}.wav"} for n in range(3)],
        "emotion": [0, 1, 0],
        "speaker": [1, 1, 2],
    }
    mine = tmp_path / "mine"
    mine.mkdir()
    dataset = datasets.Dataset.from_dict(rows, features=features)
    for split in ("train", "validation", "test"):
        dataset.to_parquet(str(mine / f"{split}.parquet"))
    table = read_corpus(f"hf:{mine}", tmp_path / "audio")
    assert list(table.key[:4]) == [*(f"test/00000{n}.wav" for n in range(3)), "train/000000.wav"]
    assert list(table.emotion[:3]) == ["joy", "rage", "joy"]
    assert list(table.speaker[:3]) == ["1", "1", "2"]
    assert Counter(table.split) == {"train": 3, "validation": 3, "test": 3}
    assert all(Path(path).read_bytes() == TINY_WAV for path in table.path)
    dataset.rename_column("speaker", "who").to_parquet(str(mine / "train.parquet"))
    for split in ("validation", "test"):
        (mine / f"{split}.parquet").unlink()
    assert "expected audio, emotion (or label), speaker" in refused(
        f"hf:{mine}", tmp_path / "audio"
    )
    assert "cannot load the dataset" in refused(f"hf:{tmp_path / 'nowhere'}")


def test_a_folder_passes_over_no_audio_that_ffmpeg_decodes(tmp_path):
    for name in ("joy/s1_a.wav", "joy/s1_b.M4A", "sad/s2_a.aac", "sad/s2_b.sph", "sad/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    table = read_corpus(f"folder:{tmp_path}", speaker_pattern=r"/(?P<speaker>s\d)_")
    assert list(table.key) == ["joy/s1_a.wav", "joy/s1_b.M4A", "sad/s2_a.aac", "sad/s2_b.sph"]
