import csv
import hashlib
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


def test_speakers_who_may_be_one_person_are_named_when_a_corpus_is_read(tmp_path, caplog):
    tree(tmp_path, ["a.wav", "b.wav", "c.wav"])
    read_corpus(manifest(tmp_path, "a.wav,joy,1", "b.wav,rage,01", "c.wav,joy,10"))
    assert "the speakers '01', '1' differ only in capitals, blanks or zeros" in caplog.text


def test_a_manifest_may_say_that_nobody_knows_the_speakers(tmp_path):
    tree(tmp_path, ["a.wav", "b.wav"])
    without = manifest(tmp_path, "a.wav,joy", "b.wav,rage", header="path,emotion")
    assert list(read_corpus(without, columns={"speaker": "unknown"}).speaker) == ["unknown"] * 2
    empty = manifest(tmp_path, "a.wav,joy,", "b.wav,rage,")
    table = read_corpus(empty, columns={"speaker": "unknown"})
    assert list(table.speaker) == ["unknown"] * 2
    named = manifest(tmp_path, "a.wav,joy,s1", header="path,emotion,unknown")
    assert list(read_corpus(named, columns={"speaker": "unknown"}).speaker) == ["s1"]


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
    assert "'joy/x.wav' (no speaker)" in refused(name, speaker_pattern=pattern)
    assert "(no speaker)" in refused(name, speaker_pattern=r"(?P<speaker>s\d)?")
    tree(tmp_path, ["s1_1.wav"])
    assert "'s1_1.wav' (no emotion)" in refused(name, speaker_pattern=r"(?P<speaker>\w)")


def test_audio_of_every_suffix_is_taken_and_other_files_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    tree(
        tmp_path, ["joy/s1_1.wav", "joy/s1_2.m4a", "rage/s1_1.AAC", "rage/s1.sph", "rage/notes.txt"]
    )
    table = read_corpus(f"folder:{tmp_path}", speaker_pattern=r"(?P<speaker>s\d)")
    assert list(table.key) == ["joy/s1_1.wav", "joy/s1_2.m4a", "rage/s1.sph", "rage/s1_1.AAC"]
    assert "1 file is not audio (.txt 1)" in caplog.text


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
        ("/nowhere/a.wav,joy,s1,,,,", "line 2: there is no file '/nowhere/a.wav'"),
        ("sub/../../a.wav,joy,s1,,,,", "leaves the folder"),
        (f"{'x' * 300}.wav,joy,s1,,,,", "line 2: cannot read"),
        ("a.wav,,s1,,,,", "1 of 1 utterance has no emotion or no speaker: line 2 (no emotion)"),
        ("a.wav,joy, ,,,,", "line 2 (no speaker). Every utterance needs both; --skip-unlabelled"),
        (",joy,s1,,,,", "line 2: the path is empty"),
        ("a.wav,joy,s1,,,,eval", "line 2: the split is 'eval', and so in 1 row; expected train"),
        ("a.wav,2.5,s1,,,,", "the emotions are numbers (2.5); expected names of classes"),
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
        ('"a.wav,joy,s1,,,,', "is not a valid CSV file"),
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
    assert (
        said if sys.version_info >= (3, 11) else "is not a valid CSV file: line contains NUL"
    ) in message


def test_a_manifest_that_cannot_be_read(tmp_path):
    tree(tmp_path, ["a.wav"])
    assert "No such file" in refused(str(tmp_path / "nowhere.csv"))
    assert "lacks the column speaker" in refused(manifest(tmp_path, header="path,emotion"))
    assert "names no utterance" in refused(manifest(tmp_path, header="path;emotion;speaker"))
    assert "names a column twice" in refused(manifest(tmp_path, header="path,path,emotion,speaker"))
    assert "names no utterance" in refused(manifest(tmp_path))
    (tmp_path / "mine.csv").write_text("path,emotion,speaker\na.wav,Ärger,s1", encoding="latin-1")
    assert "is not UTF-8" in refused(str(tmp_path / "mine.csv"))
    (tmp_path / "mine.csv").write_bytes(b"")
    assert "lacks the column path" in refused(str(tmp_path / "mine.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory" in refused(str(tmp_path / "folder.csv"))


# Manifests as people have them


FOUR = ["wav/a.wav", "wav/b.wav", "wav/c.wav", "wav/d.wav"]
FOUR_LINES = "wav/a.wav,joy,03\nwav/b.wav,anger,03\nwav/c.wav,joy,08\nwav/d.wav,anger,08"


def read_lines(folder, text, *, encoding="utf-8", **options):
    tree(folder, FOUR)
    (folder / "mine.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    return read_corpus(str(folder / "mine.csv"), **options)


@pytest.mark.parametrize(
    "text",
    [
        f"path,emotion,speaker\n{FOUR_LINES}",
        f"Path, Emotion ,SPEAKER\n{FOUR_LINES}",
        f"file,label,speaker_id\n{FOUR_LINES}",
        f"path,emotion,speaker\n{FOUR_LINES}".replace(",", ";"),
        f"path,emotion,speaker\n{FOUR_LINES}".replace(",", "\t"),
        f"path,emotion,speaker\n{FOUR_LINES}".replace("wav/", "wav\\"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_means_the_same_however_it_is_saved(text, encoding, tmp_path):
    table = read_lines(tmp_path, text, encoding=encoding)
    assert list(table.key) == FOUR
    assert list(table.emotion) == ["joy", "anger", "joy", "anger"]
    assert list(table.speaker) == ["03", "03", "08", "08"]


def test_decimal_commas_where_cells_end_in_semicolons(tmp_path):
    text = "path;emotion;speaker;start;end\nwav/a.wav;joy;03;0,5;1,25"
    assert list(read_lines(tmp_path, text).key) == ["wav/a.wav#0.5-1.25"]


def test_absolute_paths_have_keys_from_their_common_folder(tmp_path, caplog):
    caplog.set_level("INFO")
    audio = tree(tmp_path / "audio", FOUR)
    lines = "\n".join(f"{audio}/{line}" for line in FOUR_LINES.split("\n"))
    mine = manifest(tree(tmp_path / "lists", ["note.txt"]), *lines.split("\n"))
    table = read_corpus(mine)
    assert list(table.key) == ["a.wav", "b.wav", "c.wav", "d.wav"]
    assert list(table.path) == [str(audio / each) for each in FOUR]
    assert f"keys are relative to their common folder, {audio}/wav" in caplog.text
    assert list(read_corpus(mine, audio).key) == FOUR


def test_genders_and_parts_of_a_split_as_people_write_them(tmp_path, caplog):
    text = (
        "path,emotion,speaker,gender,split\nwav/a.wav,joy,1,F,train\nwav/b.wav,joy,2,Male,dev\n"
        "wav/c.wav,joy,3,woman,VAL\nwav/d.wav,joy,4,other,test"
    )
    table = read_lines(tmp_path, text)
    assert list(table.gender) == ["female", "male", "female", ""]
    assert list(table.split) == ["train", "validation", "validation", "test"]
    assert "1 utterance has a gender other than female or male ('other')" in caplog.text


def test_what_is_read_as_it_stands_but_rarely_meant_so_is_said(tmp_path, caplog):
    text = (
        "path,emotion,speaker\nwav/a.wav,Anger,1\nwav/b.wav,anger,2\n"
        "wav/c.wav,joy;sadness,NA\nwav/d.wav,xxx,?"
    )
    assert list(read_lines(tmp_path, text).emotion) == ["Anger", "anger", "joy;sadness", "xxx"]
    assert "'Anger' (1), 'anger' (1); --map Anger=anger makes them one" in caplog.text
    assert "1 utterance has several emotions in one cell ('joy;sadness')" in caplog.text
    assert "1 utterance has the emotion 'xxx'" in caplog.text
    assert "1 utterance has the speaker 'NA'" in caplog.text
    assert "1 utterance has the speaker '?'" in caplog.text
    text = "path,emotion,speaker\nwav/a.wav,joy,1\nwav/b.wav,fear,Unknown"
    assert list(read_lines(tmp_path, text).speaker) == ["1", "unknown"]


def test_what_programs_write_for_nothing_is_nothing(tmp_path, caplog):
    text = (
        "path,emotion,speaker\nwav/a.wav,None,1\nwav/b.wav,nan,2\nwav/c.wav,joy,null\n"
        "wav/d.wav,\u9ad8\u5174,007"
    )
    tree(tmp_path, FOUR)
    mine = manifest(tmp_path, *text.split("\n")[1:])
    message = refused(mine)
    assert "3 of 4 utterances have no emotion or no speaker: line 2 (no emotion), line 3" in message
    assert "--skip-unlabelled leaves them out" in message
    table = read_corpus(mine, skip_unlabelled=True)
    assert table[["key", "emotion", "speaker"]].values.tolist() == [
        ["wav/d.wav", "\u9ad8\u5174", "007"]
    ]
    assert "skipping: 3 of 4 utterances" in caplog.text


def test_ratings_are_no_emotions_and_are_kept_as_a_further_column(tmp_path):
    tree(tmp_path, FOUR)
    rated = manifest(tmp_path, "wav/a.wav,2.125,03", "wav/b.wav,2,03")
    assert "the emotions are numbers (2, 2.125)" in refused(rated)
    alone = manifest(tmp_path, "wav/a.wav,3.5,03", header="path,arousal,speaker")
    assert "lacks the column emotion; found ['path', 'arousal', 'speaker']" in refused(alone)
    assert "there is no file" not in refused(alone)


def test_further_columns_are_kept_and_named(tmp_path, caplog):
    caplog.set_level("INFO")
    text = (
        "path,emotion,speaker,arousal,code,fold,seconds\nwav/a.wav,joy,1,3.5,007,1,2\n"
        "wav/b.wav,joy,2,,008,2,2"
    )
    table = read_lines(tmp_path, text)
    assert list(table.arousal) == ["3.5", ""]
    assert list(table.code) == ["007", "008"]
    assert list(table.fold) == ["1", "2"]
    assert list(table.own_seconds) == ["2", "2"]
    assert "further columns of the corpus: arousal, code, own_seconds, fold" in caplog.text


def test_several_annotators_of_a_clip_are_named(tmp_path):
    tree(tmp_path, FOUR)
    lines = ["wav/a.wav,joy,03,a1", "wav/a.wav,joy,03,a2"]
    message = refused(manifest(tmp_path, *lines, header="path,emotion,speaker,annotator"))
    assert "line 2 and line 3; expected it once, with one label (of several annotators" in message


def test_columns_and_rows_can_be_chosen(tmp_path):
    tree(tmp_path, FOUR)
    lines = ["wav/a.wav,joy,1,x,emodb", "wav/b.wav,rage,2,y,emodb", "wav/c.wav,joy,3,z,other"]
    mine = manifest(tmp_path, *lines, header="path,felt,who,emotion,dataset")
    table = read_corpus(
        mine, columns={"emotion": "felt", "speaker": "who"}, where={"dataset": ["emodb"]}
    )
    assert list(table.emotion) == ["joy", "rage"] and list(table.speaker) == ["1", "2"]
    named = {"emotion": "felt", "speaker": "who"}
    assert "there dataset is 'emodb', 'other'" in refused(
        mine, columns=named, where={"dataset": ["emodbb"]}
    )
    assert "no column 'corpus', which --where names" in refused(
        mine, columns=named, where={"corpus": ["x"]}
    )
    assert "no column 'felt ', which --columns" in refused(mine, columns={"emotion": "felt "})
    assert "--columns has no column 'emotoin'" in refused(mine, columns={"emotoin": "felt"})
    assert "--where is for FILE.csv or hf; 'emodb'" in refused("emodb", where={"a": ["b"]})


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
    assert "lacks the file 'wav/b.wav'" in refused(f"audformat:{tmp_path}")
    assert "is not an audformat database" in refused(f"audformat:{tmp_path / 'wav'}")


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
    same = hashlib.sha256(TINY_WAV).hexdigest()[:12]
    assert list(table.key[:3]) == [f"test/00000{n}-{same}.wav" for n in range(3)]
    assert list(table.emotion[:3]) == ["joy", "rage", "joy"]
    assert list(table.speaker[:3]) == ["1", "1", "2"]
    assert Counter(table.split) == {"train": 3, "validation": 3, "test": 3}
    assert all(Path(path).read_bytes() == TINY_WAV for path in table.path)
    dataset.rename_column("speaker", "who").to_parquet(str(mine / "train.parquet"))
    for split in ("validation", "test"):
        (mine / f"{split}.parquet").unlink()
    assert "lacks the column speaker" in refused(f"hf:{mine}", tmp_path / "audio")
    assert "cannot load the dataset" in refused(f"hf:{tmp_path / 'nowhere'}")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Writes a data set folder with clips of their own; its splits, each with columns."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    binary = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}

    def write(name, kinds, **splits):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            columns = dict(zip(kinds, map(list, zip(*rows, strict=True)), strict=True))
            columns["audio"] = [{"bytes": each, "path": None} for each in columns["audio"]]
            made = {each: kind or datasets.Value("string") for each, kind in kinds.items()}
            features = datasets.Features(made | {"audio": binary})
            datasets.Dataset.from_dict(columns, features=features).to_parquet(
                str(folder / "data" / f"{split}-00000-of-00001.parquet")
            )
        return f"hf:{folder}"

    return write


def clip(n):
    """A clip that no other number has; nothing here decodes it."""
    return TINY_WAV + bytes([n])


PLAIN = {"audio": None, "emotion": None, "speaker": None}


@pytest.mark.filterwarnings("ignore")  # datasets' own
def test_written_audio_is_that_of_its_row_whatever_lay_there(dataset, tmp_path):
    shared = tmp_path / "audio"

    def read(name, numbers):
        rows = [(clip(n), "high" if n > 2 else "low", f"s{n}") for n in numbers]
        return read_corpus(dataset(name, PLAIN, train=rows), shared)

    def is_right(table):
        return all(
            Path(path).read_bytes() == clip(int(speaker[1:]))
            for path, speaker in zip(table.path, table.speaker, strict=True)
        )

    one, other = read("one", range(5)), read("other", range(10, 15))
    assert is_right(one) and is_right(other)
    turned = read("one", reversed(range(5)))
    assert is_right(turned) and is_right(one)
    assert not set(turned.key[turned.speaker != "s2"]) & set(one.key)  # no key has other audio
    Path(one.path[0]).write_bytes(b"damaged")
    assert is_right(read("one", range(5)))


@pytest.mark.filterwarnings("ignore")  # datasets' own
def test_labels_of_a_dataset_that_are_none(dataset, tmp_path, caplog):
    from datasets import ClassLabel, Sequence, Value

    kinds = PLAIN | {
        "emotion": ClassLabel(names=["joy", "rage"]),
        "gender": ClassLabel(names=["female", "male"]),
    }
    rows = [(clip(0), 0, "s0", 0), (clip(1), -1, "s1", 1), (clip(2), None, "s2", None)]
    rows += [(clip(3), 1, None, 1)]
    name = dataset("mine", kinds, train=rows)
    found = "3 of 4 utterances have no emotion or no speaker: row 1 of 'train' (no emotion), row 2"
    assert found in refused(name, tmp_path / "audio")
    table = read_corpus(name, tmp_path / "audio", skip_unlabelled=True)
    assert table[["emotion", "speaker", "gender"]].values.tolist() == [["joy", "s0", "female"]]
    assert found in caplog.text
    for kind, value in ((Value("string"), ["joy", "rage"]), (Value("float32"), [0.5, 0.5])):
        several = dataset(
            f"several{kind.dtype}",
            PLAIN | {"emotion": Sequence(kind)},
            train=[(clip(0), value, "s")],
        )
        message = refused(several, tmp_path / "audio", skip_unlabelled=True)
        assert (
            f"1 utterance has several values as emotion; the first, row 0 of 'train': {value!r}"
            in message
        )


@pytest.mark.filterwarnings("ignore")  # datasets' own
def test_one_corpus_of_a_data_set_that_holds_many(dataset, tmp_path, caplog):
    """A miniature of CAMEO's schema: splits named after corpora, and a column that names them."""
    caplog.set_level("INFO")
    kinds = {
        **{"audio": None, "emotion": None, "transcription": None, "speaker_id": None},
        **{"gender": None, "age": None, "dataset": None, "language": None, "license": None},
    }

    def row(n, corpus):
        about = ("F", "31", corpus, "English", "CC-BY")
        return clip(n), ("joy", "anger")[n % 2], f"words {n}", f"{corpus}_{n}", *about

    splits = {name: [row(n, name) for n in range(4)] for name in ("crema_d", "emozionalmente")}
    name = dataset("cameo", kinds, **splits)
    by_split = read_corpus(name, tmp_path / "a", hf_split="crema_d")
    by_column = read_corpus(name, tmp_path / "b", where={"dataset": ["crema_d"]})
    ours = ["key", "emotion", "speaker", "gender", "sentence", "split", "age", "language"]
    assert by_split[ours].equals(by_column[ours])
    assert len(by_split) == 4 and set(by_split.dataset) == {"crema_d"}
    assert list(by_split.speaker) == [f"crema_d_{n}" for n in range(4)]
    assert list(by_split.sentence) == [f"words {n}" for n in range(4)]
    assert set(by_split.gender) == {"female"} and set(by_split.split) == {""}
    assert list(by_split.age) == ["31"] * 4
    assert "the column speaker_id is read as speaker" in caplog.text
    assert len(read_corpus(name, tmp_path / "c")) == 8
    nobody = read_corpus(name, tmp_path / "c", hf_split="crema_d", columns={"speaker": "unknown"})
    assert set(nobody.speaker) == {"unknown"} and set(nobody.speaker_id) == set(by_split.speaker)
    named = read_corpus(name, tmp_path / "d", hf_split="crema_d", columns={"emotion": "language"})
    assert set(named.emotion) == {"English"}
    assert "there dataset is 'crema_d', 'emozionalmente'" in refused(
        name, tmp_path / "e", where={"dataset": ["cremad"]}
    )
    assert "cannot load the dataset" in refused(name, tmp_path / "f", hf_split="cremad")


@pytest.mark.filterwarnings("ignore")  # datasets' own
def test_a_split_of_train_and_test_is_kept(dataset, tmp_path):
    rows = [(clip(0), "joy", "s0")]
    table = read_corpus(dataset("two", PLAIN, train=rows, test=rows), tmp_path / "audio")
    assert list(table.split) == ["test", "train"]


@pytest.fixture
def published(tmp_path):
    """EmoDB's tables in miniature: emotion for all, and its rows again with a split."""
    audformat = pytest.importorskip("audformat")
    import pandas as pd

    files = tree(tmp_path, FOUR) and FOUR
    database = audformat.Database("mini")
    database.schemes["emotion"] = audformat.Scheme("str", labels=["joy", "rage"])
    database.schemes["gender"] = audformat.Scheme("str", labels=["female", "male"])
    people = audformat.MiscTable(pd.Index([3, 8], dtype="Int64", name="speaker"))
    database["people"] = people
    people["gender"] = audformat.Column(scheme_id="gender")
    people["gender"].set(["male", "female"])
    people["age"] = audformat.Column()
    people["age"].set([31, None])
    database.schemes["speaker"] = audformat.Scheme("int", labels="people")
    database.raters["second"] = audformat.Rater()
    for split in ("train", "test"):
        database.splits[split] = audformat.Split(split)

    def column(table, name, values, scheme="emotion", index=None, split=None):
        if table not in database.tables:
            index = audformat.filewise_index(files if index is None else index)
            database[table] = audformat.Table(index, split_id=split)
        database[table][name] = audformat.Column(scheme_id=scheme)
        database[table][name].set(values)
        database.save(str(tmp_path))
        return f"audformat:{tmp_path}"

    column("files", "speaker", [3, 3, 8, 8], "speaker")
    return column


@pytest.mark.filterwarnings("ignore")  # audformat's own
def test_an_audformat_database_as_it_is_published(published):
    labels = ["joy", "rage", "joy", "rage"]
    name = published("emotion", "emotion", labels)
    published("emotion", "emotion.second", labels)
    assert list(read_corpus(name).split) == [""] * 4
    published("gold.train", "emotion", labels[:2], index=FOUR[:2], split="train")
    published("gold.test", "emotion", labels[2:], index=FOUR[2:], split="test")
    table = read_corpus(name)
    assert list(table.emotion) == labels and list(table.key) == FOUR
    assert list(table.split) == ["train", "train", "test", "test"]
    assert list(table.gender) == ["male", "male", "female", "female"]
    assert list(read_corpus(name, tables=["gold.test"]).key) == FOUR[2:]
    assert "has no table 'gold', which --table names" in refused(name, tables=["gold"])


@pytest.mark.filterwarnings("ignore")  # audformat's own
def test_tables_that_contradict_each_other_are_named(published):
    name = published("emotion", "emotion", ["joy", "rage", "joy", "rage"])
    published("other", "emotion.second", ["joy", "joy", "joy", "rage"])
    message = refused(name)
    assert "1 utterance more than one emotion; the first, 'wav/b.wav'" in message
    assert "'rage' in 'emotion.emotion', 'joy' in 'other.emotion.second'" in message
    assert list(read_corpus(name, tables=["other"]).emotion)[:2] == ["joy", "joy"]
    chosen = read_corpus(name, columns={"emotion": "emotion.second"})
    assert list(chosen.emotion)[:2] == ["joy", "joy"]


@pytest.mark.filterwarnings("ignore")  # audformat's own
def test_a_clip_of_a_database_without_a_label(published, caplog):
    name = published("emotion", "emotion", [None, "rage", "joy", "rage"])
    found = "1 of 4 utterances has no emotion or no speaker: 'wav/a.wav' (no emotion)"
    assert found in refused(name)
    assert list(read_corpus(name, skip_unlabelled=True).key) == FOUR[1:]
    assert found in caplog.text
    published("again", "emotion", ["joy", "rage", "joy", "rage"])
    assert list(read_corpus(name).key) == FOUR  # another table knows it


@pytest.mark.filterwarnings("ignore")  # audformat's own
def test_what_else_a_database_says_is_kept(published, caplog):
    """Columns of tables and what the labels' own tables say: of the part, else of its file."""
    caplog.set_level("INFO")
    name = published("emotion", "emotion", ["joy", "rage", "joy", "rage"])
    published("emotion", "confidence", [1, 0.5, 1, None], scheme=None)
    published("files", "transcript", ["ja", "ja", "nein", "ja"], scheme=None)
    published("second", "emotion.second", ["rage"] * 2, index=FOUR[:2])
    published("other", "confidence", [0.25], scheme=None, index=FOUR[:1])
    table = read_corpus(name, tables=["emotion"])
    assert list(table.sentence) == ["ja", "ja", "nein", "ja"]
    assert "the column transcript is read as sentence" in caplog.text
    assert list(table["emotion.second"]) == ["rage", "rage", "", ""]
    assert list(table["emotion.confidence"]) == ["1", "0.5", "1", ""]
    assert list(table["other.confidence"]) == ["0.25", "", "", ""]
    assert list(table.age) == ["31", "31", "", ""]
    assert list(table.gender) == ["male", "male", "female", "female"]
    assert not {"transcript", "own_gender", "own_speaker"} & {*table.columns}
    spoken = read_corpus(name, tables=["emotion"], columns={"sentence": "age"})
    assert list(spoken.sentence) == ["31", "31", "", ""] and "transcript" in spoken
    assert "no column 'words'" in refused(name, tables=["emotion"], columns={"sentence": "words"})
