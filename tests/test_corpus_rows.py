"""Every row of the table against names of its real list, in every layout; names alone.

The quick tests read the handful of names in tests/names; the slow ones every name of the lists,
which lie in shared/names beside the project.
"""

import csv
import functools
import gzip
import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from test_corpora import HERE, SHARED

from lsmprobe.corpora import read
from lsmprobe.corpora.label_formats import PODCAST_RELEASES
from lsmprobe.corpora.labelled import Labelled, join
from lsmprobe.corpora.read import read_corpus
from lsmprobe.corpora.row import OWN_GROUPS
from lsmprobe.corpora.table import CORPORA
from lsmprobe.errors import CorpusError
from lsmprobe.splits.kinds import make_split

LISTS = {  # row -> its list
    "baved": "baved",
    "casia": "casia",
    "castro-lima": "castro_lima_pt",
    "cremad": "cremad",
    "emns": "emns",
    "emofilm": "emofilm",
    "emovdb": "emovdb",
    "jlcorpus": "jlcorpus",
    "m3ed": "m3ed_valid_test",
    "meld": "meld",
    "mer2023": "mer2023",
    "mesd": "mesd",
    "mess": "mess",
    "pavoque": "pavoque",
    "polish-gut": "polish_gut",
    "ravdess": "ravdess",
    "resd": "resd",
    "savee": "savee",
    "subesco": "subesco",
    "tess": "tess",
    "thorsten-emotional": "thorsten_emotional",
    "urdu": "urdu",
}
SHORT = {"emovdb": 6887, "thorsten-emotional": 2399, "m3ed": 7017}  # lists that are not whole


@functools.cache
def listed(name, size="few"):
    """What the real list says, clip by clip; read once, so nobody changes it."""
    if size == "few":
        place, opened = HERE / "names" / "handful.tsv", open
    else:
        place, opened = SHARED / "names" / f"{LISTS[name]}.tsv.gz", gzip.open
    if not place.exists():
        pytest.skip(f"the file list of {name} is not there: {place}")
    with opened(place, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if row.get("row", name) == name]


def by_grammar(name):
    """Paths of the corpora whose lists are not here, as their documentation counts them."""
    if name == "esd":
        folders = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
        return [
            f"{speaker:04}/{folders[(n - 1) // 350]}/{speaker:04}_{n:06}.wav"
            for speaker in range(1, 21)
            for n in range(1, 1751)
        ]
    if name == "nemo":
        words = ("anger", "fear", "happiness", "neutral", "sadness", "surprised")
        speakers = ("EB0", "IC0", "KD0", "KS0", "MK0", "MP0", "SM0", "TP0", "WR0")
        return [f"samples/{s}_{e}_{n}.wav" for s in speakers for e in words for n in range(1, 91)]
    if name == "ased":
        folders = ("01Neutral", "02Fearful", "03Happy", "04Sad", "05Angry")
        return [
            f"{folder}/{folder[2].lower()}{folder[1]}-0{s}-0{r}-0{2 - speaker % 2}-{speaker:02}.wav"
            for folder in folders
            for s in range(1, 8)
            for r in (1, 2)
            for speaker in range(1, 37)
        ]
    if name == "turev-db":
        return [
            f"Sound Source/{folder}/{speaker}_{code}_{word}.wav"
            for folder, code in (("Angry", "kz"), ("Sad", "hl"), ("Calm", "sk"), ("Happy", "mt"))
            for speaker in (1157, 1234, 1358, 1984, 6783, 7895)
            for word in ("eger", "dil")
        ]
    if name == "enterface":
        emotions = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
        return [
            f"subject {s}/{e}/sentence {n}/s{12 if s == 11 else s}_{e[:2]}_{n}.avi"
            for s in range(1, 45)
            for e in emotions
            for n in range(1, 6)
            if s != 6 and not (s == 23 and e == "happiness" and n > 2)
        ]
    return []


IEMOCAP_TURNS = {  # made up, in the documented format
    "Ses01F_impro01": ["F000\tneu", "M000\txxx", "M001\texc"],
    "Ses03M_impro05a": ["F000\thap", "M000\tfru"],
    "Ses05F_script01_1b": ["M014\tsad", "FXX0\tang"],
}


def iemocap(folder):
    paths = []
    for dialogue, turns in IEMOCAP_TURNS.items():
        session = f"Session{dialogue[4]}"
        place = folder / session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
        (place.parent / "Categorical").mkdir(parents=True, exist_ok=True)
        (place.parent / "Categorical" / f"{dialogue}_e1_cat.txt").write_text("x :Anger; ()\n")
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for turn in turns:
            lines += [f"[6.2901 - 8.2357]\t{dialogue}_{turn}\t[2.5000, 2.0000, 3.5000]"]
            lines += ["C-E1:\tNeutral;\t()", "A-E1:\tval 3; act 2; dom  2;\t()"]
            if "XX" not in turn:
                name = f"{dialogue}_{turn.partition(chr(9))[0]}.wav"
                paths.append(f"{session}/sentences/wav/{dialogue}/{name}")
        place.write_text("\n".join(lines))
    return paths


def msp_improv(folder):
    turns = {"S01A-F01-S-FM01": "N", "S01A-M01-R-MF01": "A", "S14H-F06-P-FM02": "X"}
    lines = ["header"]
    for turn, label in turns.items():
        end = "A:3.000000; V:3.500000; D:NaN ; N:4.2;"
        lines += [f"UTD-IMPROV-{turn}.avi; {label}; {end}", "WORKER1; Neutral; A:3; V:3; D:3; N:4;"]
    (folder / "Evalution.txt").write_text("\n".join(lines))
    return [f"session{t[6]}/{t[:4]}/{t[8]}/MSP-IMPROV-{t}.wav" for t in turns]


PODCAST = [  # file, class, speaker, gender, part: made up
    ("MSP-PODCAST_0001_0008.wav", "N", "127", "Male", "Test1"),
    ("MSP-PODCAST_0001_0019.wav", "A", "128", "Female", "Test2"),
    ("MSP-PODCAST_0002_0033.wav", "H", "Unknown", "Female", "Train"),
    ("MSP-PODCAST_0002_0039.wav", "X", "", "Female", "Train"),
    ("MSP-PODCAST_0003_0001.wav", "U", "9", "Male", "Development"),
]


def msp_podcast(folder, spelling="consensus"):
    (folder / "Labels").mkdir(parents=True, exist_ok=True)
    rows = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    rows += [f"{f},{e},4.2,3.8,4.0,{s},{g},{p}" for f, e, s, g, p in PODCAST]
    (folder / "Labels" / f"labels_{spelling}.csv").write_text("\n".join(rows))
    return [f"Audios/{row[0]}" for row in PODCAST]


def emozionalmente(folder):
    meta = folder / "metadata"
    (meta / "split").mkdir(parents=True, exist_ok=True)
    names = [f"161365506243{n}.wav" for n in range(4)]
    (meta / "samples.csv").write_text(
        "file_name,emotion_expressed,actor,sentence\n"
        + "\n".join(
            f"{name},{'joy' if n % 2 else 'fear'},a{n // 2},La casa {n}"
            for n, name in enumerate(names)
        )
    )
    (meta / "users.csv").write_text("username,gender,age\na0,female,30\na1,male,40\n")
    votes = [f"{names[0]},{each}" for each in ("fear", "fear", "anger")]
    votes += [f"{names[1]},{each}" for each in ("joy", "anger")]
    (meta / "evaluations.csv").write_text("file_name,emotion_recognized\n" + "\n".join(votes))
    for n, part in enumerate(("train", "train", "dev", "test")):
        with (meta / "split" / f"{part}.csv").open("a") as file:
            file.write(f"file_name\n{names[n]}\n")
    return [f"audio/{name}" for name in names]


MADE = {
    "iemocap": iemocap,
    "msp-improv": msp_improv,
    "msp-podcast": msp_podcast,
    "emozionalmente": emozionalmente,
}
DRAWN = ("esd", "nemo", "ased", "turev-db", "enterface")
BASES = [*LISTS, *DRAWN, *MADE]


def label_files(name, rows, folder):
    """The corpus's own label files, from what its list says."""
    if name == "meld":
        for part in ("train", "dev", "test"):
            with (folder / f"{part}_sent_emo.csv").open("w", newline="") as file:
                out = csv.writer(file)
                out.writerow(
                    ["Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"]
                )
                for row in rows:
                    if row["split"] == part:
                        ids = row["path"].rpartition("/dia")[2].removesuffix(".mp4").split("_utt")
                        out.writerow(["Oh, my.", row["speaker"], row["own_label"], "x", *ids])
    if name == "emns":
        lines = ["id|utterance|description|emotion|level|audio_recording|user_id"]
        lines += [
            f"1|Text.|-|{row['own_label']}|5|wavs/{row['path'].rpartition('/')[2]}|3"
            for row in rows
        ]
        (folder / "metadata.csv").write_text("\n".join(lines))
    if name == "mer2023":
        own = {"anger": "angry", "happiness": "happy", "neutrality": "neutral", "sadness": "sad"}
        lines = ["name,discrete"]
        for row in rows:
            stem = row["path"].rpartition("/")[2].rpartition(".")[0]
            lines.append(f"{stem},{own.get(row['emotion'], row['emotion'])}")
        (folder / "train-label.csv").write_text("\n".join(lines))
    if name == "m3ed":
        series = {}
        for row in rows:
            letter, _, utterance = Path(row["path"]).stem.partition("_")
            top, _, person = row["speaker"].partition("_")
            clip = series.setdefault(top, {}).setdefault(
                f"{top}_{utterance.split('_')[1]}", {"SpeakerInfo": {}, "Dialog": {}}
            )
            clip["SpeakerInfo"].setdefault(letter, {"Name": person})
            said = {"Speaker": letter, "EmoAnnotation": {"final_main_emo": row["own_label"]}}
            clip["Dialog"][utterance] = said
        (folder / "annotation.json").write_text(json.dumps(series), "utf-8")
        for part, word in (("val", "valid"), ("test", "test")):
            tops = {row["speaker"].partition("_")[0] for row in rows if row["split"] == word}
            (folder / f"movie_list_{part}.txt").write_text("\n".join(sorted(tops)))
    if name == "pavoque":
        for audio in {row["path"] for row in rows}:
            cuts = [
                f"- {{prompt: {row['prompt']}, text: Ja, style: {row['own_label']}, "
                f"start: {row['start']}, end: {row['end']}}}"
                for row in rows
                if row["path"] == audio
            ]
            (folder / audio.replace(".flac", ".yaml")).write_text("\n".join(cuts))


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.slow)])
def size(request):
    """How many names of a list are read."""
    return request.param


@pytest.fixture
def walk(tmp_path, monkeypatch):
    """A corpus without files: paths, beside the label files that are in tmp_path."""

    def reading(name, paths, **options):
        there = [
            (str(path.relative_to(tmp_path)), str(path))
            for path in sorted(tmp_path.rglob("*"))
            if path.is_file()
        ]
        audio = [(path, f"/corpus/{path}") for path in paths]
        monkeypatch.setattr(read, "files_below", lambda folder: [*audio, *there])
        return read_corpus(name, tmp_path, **options)

    return reading


def whole(name, folder, size="few"):
    """Paths of a corpus, with its label files in the folder; and what its list says."""
    if name in MADE:
        return MADE[name](folder), []
    if name in DRAWN:
        paths = by_grammar(name)
        return paths if size == "all" else paths[:: -(-len(paths) // 50)], []
    rows = listed(name, size)
    label_files(name, rows, folder)
    return list(dict.fromkeys(row["path"] for row in rows)), rows


# ------------------------------------------------------------------ every name of every list


@pytest.mark.parametrize("name", LISTS)
def test_every_name_says_what_the_list_says(name, size, walk, tmp_path):
    paths, rows = whole(name, tmp_path, size)
    table = walk(name, paths)
    if name == "pavoque":  # parts under several styles are left out
        times = Counter((row["path"], row["start"]) for row in rows)
        rows = [row for row in rows if times[row["path"], row["start"]] == 1]
    assert len(table) == len(rows)
    if size == "all":
        assert len(table) == SHORT.get(name, CORPORA[name].n_utterances)
    own = {"subesco": lambda who: who.replace("Female-", "F_").replace("Male-", "M_")}
    speaker = own.get(name, lambda who: who)
    unknown = name in ("mesd", "resd", "mer2023", "emofilm")  # the last: its legend is not here
    expected = Counter(
        (
            row["path"],
            row["emotion"],
            "unknown" if unknown else speaker(row["speaker"]),
            # Who is a woman is not in the tables of MELD and CASIA; a child has no gender here.
            "" if name in ("meld", "casia") or row["gender"] == "child" else row["gender"],
        )
        for row in rows
    )
    said = zip(table.path, table.emotion, table.speaker, table.gender, strict=True)
    assert Counter((path.removeprefix("/corpus/"), *rest) for path, *rest in said) == expected
    assert table.key.is_unique and (table.own_label != "").all()


@pytest.mark.parametrize("name", [name for name in CORPORA if name != "toy"])
def test_a_row_says_what_it_must(name):
    row = CORPORA[name]
    rule = row.match(row.example)
    assert rule and set(rule.re.groupindex) >= ({"emotion"} if not row.needs_label_files else set())
    assert row.needs_label_files <= bool(row.labelled_by) <= bool(row.label_files)
    assert len(set(rule.re.groupindex) - set(OWN_GROUPS)) <= 4
    assert all(trap[-1] != "." for trap in row.traps)
    assert row.spelled(rule)["speaker"] if "speaker" in rule.re.groupindex else True


@pytest.mark.parametrize("name", DRAWN)
def test_what_the_documentation_counts(name, size, walk, tmp_path):
    row = CORPORA[name]
    table = walk(name, whole(name, tmp_path, size)[0])
    assert set(table.emotion) == set(row.labels.values())
    assert table.groupby("speaker").gender.nunique().max() == 1
    if size == "few":
        return
    if name in ("esd", "enterface"):
        assert (len(table), table.speaker.nunique()) == (row.n_utterances, row.n_speakers)
    if name == "esd":
        assert table.sentence.nunique() == 700
        assert set(table.groupby("sentence").emotion.nunique()) == {5}
        assert table[table.gender == "female"].speaker.nunique() == 10
    if name == "enterface":
        assert set(table[table.key.str.contains("/s12_")].speaker) == {"11", "12"}


# ------------------------------------------------------------------ layouts


def nested(paths):
    return [f"archive/archive/{path}" for path in paths]


def renamed_top(paths):
    return [f"My Corpus (1)/{path}" for path in paths]


def other_suffix(paths):
    return [path.replace(".wav", ".WAV") for path in paths]


@pytest.mark.parametrize("layout", [nested, renamed_top, other_suffix])
@pytest.mark.parametrize("name", BASES)
def test_keys_are_the_same_in_every_layout(name, layout, walk, tmp_path):
    paths = whole(name, tmp_path)[0]
    plain, other = walk(name, paths), walk(name, layout(paths))
    assert plain.drop(columns="path").equals(other.drop(columns="path"))


LAYOUTS = {  # as copies have them, which give the same keys
    "casia": lambda path: f"CASIA database/CASIA database/{path}",
    "cremad": lambda path: path.replace("AudioWAV", "AudioMP3").replace(".wav", ".mp3"),
    "emovdb": lambda path: path.replace("_", "/", 1),
    "enterface": lambda path: path.replace("subject ", "subject-").replace(".avi", ".wav"),
    "esd": lambda path: path.replace("/00", "/train/00", 1),
    "meld": lambda path: path.replace("train_splits", "train/train_splits").replace("mp4", "wav"),
    "mer2023": lambda path: path.replace(".avi", ".wav").replace(".mp4", ".wav"),
    "msp-podcast": lambda path: f"Audios/{path}",
    "ravdess": lambda path: f"audio_speech_actors_01-24/{path}",
    "savee": lambda path: f"ALL/{path.replace('/', '_')}",
    "tess": lambda path: f"TESS Toronto emotional speech set data/{path[:3]}_x/{path}",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_keys_are_the_same_in_the_copies_that_are_passed_round(name, walk, tmp_path):
    paths = whole(name, tmp_path)[0]
    plain = walk(name, paths).drop(columns=["path", "split"])
    other = walk(name, [LAYOUTS[name](path) for path in paths])
    assert plain.equals(other.drop(columns=["path", "split"]))


@pytest.mark.parametrize("there", BASES)
def test_no_row_accepts_the_folder_of_another_corpus(there, size, walk, tmp_path):
    paths = whole(there, tmp_path, size)[0]
    paths = paths[:: -(-len(paths) // (200 if size == "all" else 8))]
    for name, row in CORPORA.items():
        if row.title != CORPORA[there].title:
            with pytest.raises(CorpusError, match=r"this looks like|has no clip of"):
                walk(name, paths)


# ------------------------------------------------------------------ traps, one by one


def test_a_second_copy_is_skipped_and_said(walk, caplog):
    paths = [row["path"] for row in listed("ravdess")]
    table = walk("ravdess", [*paths, *(f"audio_speech_actors_01-24/{path}" for path in paths)])
    assert len(table) == len(paths) and not table.path.str.contains("audio_speech").any()
    assert f"holds files twice; the second {len(paths)} are skipped" in caplog.text
    with pytest.raises(CorpusError, match="is there twice"):
        walk("ravdess", [*paths, *(f"my own copy/{path}" for path in paths)])
    top = "TESS Toronto emotional speech set data"
    names = [row["path"] for row in listed("tess")]
    tess = [f"{top}/x/{path}" for path in names] + [f"{top.lower()}/{top}/x/{p}" for p in names]
    assert len(walk("tess", tess)) == len(names)


def test_what_lies_beside_is_counted(walk, caplog):
    paths = [row["path"] for row in listed("ravdess")]
    songs = ["Actor_01/03-02-05-01-01-01-01.wav", "Actor_02/03-02-05-01-01-01-02.wav"]
    assert len(walk("ravdess", [*paths, *songs])) == len(paths)
    assert "2 files are not read" in caplog.text and "songs of the same actors" in caplog.text
    caplog.clear()
    bangla = ["BanglaSER/03-01-01-01-03-01-34.wav"]
    walk("ravdess", [*paths, *bangla])
    assert "BanglaSER does, whose codes mean other emotions" in caplog.text


def test_irregular_names(walk):
    assert list(walk("tess", ["OAF_neutral/OA_bite_neutral.wav"]).speaker) == ["OAF"]
    assert list(walk("subesco", ["F_02_MONIKA_S_2_SURPRISE_3].wav"]).key) == [
        "F_02_MONIKA_S_2_SURPRISE_3.wav"
    ]
    assert list(walk("ased", ["04Sad/S4-04-02-01-29.wav"]).emotion) == ["sadness"]
    odd = ["subject 3/fear/sentence 4/s_3_fe_4.avi", "subject 16/fear/sentence 3/s16_fe_3avi.avi"]
    assert set(walk("enterface", odd).speaker) == {"3", "16"}
    assert set(walk("subesco", ["F_01_A_S_1_SAD_1.wav", "M_01_B_S_1_SAD_1.wav"]).speaker) == {
        "F_01",
        "M_01",
    }


def test_variants_by_name(walk, caplog):
    caplog.set_level(logging.INFO)
    rows = listed("ravdess")
    calm = sum(row["emotion"] == "calm" for row in rows)
    assert len(walk("ravdess-7", [row["path"] for row in rows])) == len(rows) - calm
    said = f"{calm} of {len(rows)} clips is not of 'ravdess-7' and left out, by the corpus's own"
    assert f"{said} label: 02 {calm}" in caplog.text
    emotions = set(walk("jlcorpus-5", [row["path"] for row in listed("jlcorpus")]).emotion)
    assert emotions == {"anger", "excitement", "happiness", "neutrality", "sadness"}
    esd = by_grammar("esd")[::500]
    assert set(walk("esd-zh", esd).speaker) == {f"{n:04}" for n in range(1, 11)}
    assert set(walk("esd-en", esd).speaker) == {f"{n:04}" for n in range(11, 21)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [name for name, row in CORPORA.items() if row.variant_of in (*LISTS, *DRAWN)]
)
def test_a_variant_has_as_many_clips_as_its_row_says(variant, walk, tmp_path):
    if CORPORA[variant].needs_label_files:
        pytest.skip("its labels are not in the list")
    paths = whole(CORPORA[variant].variant_of, tmp_path, "all")[0]
    assert len(walk(variant, paths)) == CORPORA[variant].n_utterances


def test_cremad_by_what_was_acted_and_by_what_was_heard(walk, tmp_path):
    paths = ["AudioWAV/1001_IEO_ANG_HI.wav", "AudioWAV/1002_IEO_SAD_HI.wav"]
    with pytest.raises(CorpusError, match=r"not its labels; expected processedResults"):
        walk("cremad-voice", paths)
    (tmp_path / "summaryTable.csv").write_text(
        '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel","MultiModalVote","M"\n'
        '"1","1001_IEO_ANG_HI","N","50","A","60","A","70"\n'
        '"2","1002_IEO_SAD_HI","A:N","50","S","60","S","70"\n'
    )
    acted = walk("cremad", paths)
    assert list(acted.emotion) == ["anger", "sadness"]
    assert list(acted.voice_vote) == ["neutrality", ""] and list(acted.own_label) == ["ANG", "SAD"]
    heard = walk("cremad-voice", paths)
    assert list(heard.emotion) == ["neutrality"]  # the tie is left out
    assert list(heard.acted) == ["anger"] and list(heard.own_label) == ["N"]


def test_iemocap(walk, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    table = walk("iemocap", iemocap(tmp_path)).set_index("key")
    assert len(table) == 5 and "xxx 1" in caplog.text
    assert table.speaker.to_dict() == {
        "Ses01F_impro01_F000.wav": "Ses01F",
        "Ses01F_impro01_M001.wav": "Ses01M",  # not Ses01F, who wore the markers
        "Ses03M_impro05a_F000.wav": "Ses03F",
        "Ses03M_impro05a_M000.wav": "Ses03M",
        "Ses05F_script01_1b_M014.wav": "Ses05M",
    }
    assert list(table.gender) == ["female", "male", "female", "male", "male"]
    assert list(table.fold) == ["1", "1", "3", "3", "5"] and set(table.valence) == {"2.5000"}
    assert "1 of 7 rows of the labels has no audio" in caplog.text
    four = walk("iemocap-4", iemocap(tmp_path))
    assert Counter(four.emotion) == {"happiness": 2, "neutrality": 1, "sadness": 1}
    assert set(four.own_label) == {"exc", "hap", "neu", "sad"}


def test_msp_improv(walk, tmp_path):
    table = walk("msp-improv", msp_improv(tmp_path))
    assert list(table.emotion) == ["neutrality", "anger"]  # X is no agreement
    assert list(table.speaker) == ["F01", "M01"] and list(table.intended) == ["anger", "anger"]
    assert list(table.activation) == ["3.000000"] * 2 and list(table.dominance) == ["", ""]
    assert list(table.fold) == ["1", "1"]


def test_msp_podcast(walk, tmp_path, caplog):
    table = walk("msp-podcast", msp_podcast(tmp_path))
    assert list(table.split) == ["Test1", "Test2", "train", "validation"]
    assert list(table.speaker) == ["127", "128", "unknown", "9"]
    assert list(table.partition) == ["Test1", "Test2", "Train", "Development"]
    assert make_split("auto", table).test_sets == ("Test1", "Test2")
    assert "5 rows of labels, as no release known here" in caplog.text
    (tmp_path / "Labels" / "labels_consensus.csv").unlink()
    msp_podcast(tmp_path, "concensus")  # as it was spelled up to release 1.8
    assert len(walk("msp-podcast", [f"Audios/{row[0]}" for row in PODCAST])) == 4


def test_a_release_of_msp_podcast_refuses_the_labels_of_another(walk, tmp_path, monkeypatch):
    monkeypatch.setitem(PODCAST_RELEASES, "1.11", len(PODCAST))
    names = msp_podcast(tmp_path)
    assert set(walk("msp-podcast-1.11", names).release) == {"1.11"}
    with pytest.raises(CorpusError, match=r"5 rows, which is release 1.11; expected release 1.12"):
        walk("msp-podcast-1.12", names)


def test_emozionalmente(walk, tmp_path):
    table = walk("emozionalmente", emozionalmente(tmp_path))
    assert list(table.emotion) == ["fear", "happiness"] * 2
    assert list(table.gender) == ["female", "female", "male", "male"]
    assert list(table.recognised) == ["fear", "", "", ""]  # one of two votes each is no majority
    assert list(table.split) == ["train", "train", "validation", "test"]
    assert table.sentence[0] == "La casa 0"


def test_labels_are_missed(walk):
    with pytest.raises(CorpusError, match=r"not its labels; expected train_sent_emo"):
        walk("meld", ["train_splits/dia0_utt0.mp4"])


def test_orphans_are_named_both_ways(walk, tmp_path, caplog):
    paths, _ = whole("meld", tmp_path)
    walk("meld", [*paths[:-1], "train_splits/dia9999_utt0.mp4"])
    n = len(paths)
    assert f"1 of {n} rows of the labels has no audio, such as {paths[-1]!r}" in caplog.text
    assert f"1 of {n} audio files has no label" in caplog.text


# ------------------------------------------------------------------ joining


def rows(*paths):
    return [Labelled(path) for path in paths]


def test_a_base_name_is_enough_where_it_is_there_once():
    joined = join(rows("wavs/a.wav", "b"), ["x/y/a.webm", "b.wav"])
    assert {key: said[0].path for key, said in joined.rows_of.items()} == {
        "x/y/a.webm": "wavs/a.wav",
        "b.wav": "b",
    }


def test_folders_are_compared_where_base_names_repeat():
    """And what lies in another part is not taken for it, though no other file has the name."""
    joined = join(rows("train/a.mp4", "dev/a.mp4"), ["top/dev/a.mp4"])
    assert [said[0].path for said in joined.rows_of.values()] == ["dev/a.mp4"]
    assert [row.path for row in joined.without_audio] == ["train/a.mp4"]


def test_a_name_that_several_files_have_is_joined_with_none():
    joined = join(rows("a.wav"), ["x/a.wav", "y/a.wav"])
    assert not joined.rows_of and joined.without_labels == ["x/a.wav", "y/a.wav"]
