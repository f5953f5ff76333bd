import csv
import logging
import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lsmprobe.corpora.read import corpus_folder, read_corpus
from lsmprobe.corpora.table import CORPORA, EMOTIONS
from lsmprobe.corpora.utterances import COLUMNS
from lsmprobe.errors import CorpusError

HERE = Path(__file__).parent
SHARED = next(  # beside the project
    (up / "shared" for up in HERE.parents if (up / "shared" / "names").is_dir()),
    HERE / "not-there",
)
THE_NINE = ["aesdd", "cafe", "demos", "emodb", "emomatch", "emovo", "eyase", "oreau", "shemo"]
SENTENCES = {  # as the corpora's own descriptions count them; EmoMatchSpanishDB's are not published
    "aesdd": 19,
    "cafe": 6,
    "emodb": 10,
    "emomatch": None,
    "emovo": 14,
    "oreau": 79,
}
TINY_WAV = (
    b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\4\0\0\0\1\0\2\0"
)


def listed(name):
    """Path, emotion, speaker and gender of every clip, from a corpus's real file list."""
    places = [HERE / "names" / f"{name}.tsv", SHARED / "names" / f"{name}.tsv"]
    place = next((place for place in places if place.exists()), None)
    if place is None:
        pytest.skip(f"the file list of {name} is not there")
    with place.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def paths_of(name):
    """Paths as they lie in the corpus's archive; where no file list is known, from its grammar."""
    if name == "emovo":
        return [
            f"EMOVO/{speaker}/{emotion}-{speaker}-{kind}{sentence}.wav"
            for speaker in ("f1", "f2", "f3", "m1", "m2", "m3")
            for emotion in ("dis", "gio", "neu", "pau", "rab", "sor", "tri")
            for kind, count in {"b": 3, "l": 4, "n": 5, "d": 2}.items()
            for sentence in range(1, count + 1)
        ]
    if name == "eyase":
        prefixes = {"Female01": "fm01", "Female02": "fm01", "Female03": "fm03"} | {
            f"Male0{number}": f"ml0{number}" for number in (1, 2, 3)
        }
        fewer = {"Male01": {"sad": 27}, "Male02": {"hap": 20}, "Male03": {"hap": 22}}
        return [
            f"EYASE/{speaker}/{prefix}_{emotion} ({number}).wav"
            for speaker, prefix in prefixes.items()
            for emotion in ("ang", "hap", "neu", "sad")
            for number in range(1, (20 if "F" in speaker else fewer[speaker].get(emotion, 30)) + 1)
        ]
    if name == "emomatch":
        return [
            f"{speaker:02}_{emotion}_{number:02}.WAV"
            for speaker in range(1, 51)
            for emotion in ("Alegria", "Asco", "Ira", "Miedo", "Neutro", "Sorpresa", "Tristeza")
            for number in range(1, 5)
        ]
    if name == "toy":
        return [
            f"s{speaker:02}_{emotion}_{number:02}.wav"
            for speaker in range(1, 16)
            for emotion in ("anger", "happiness", "neutrality", "sadness")
            for number in range(1, 6)
        ]
    return [row["path"] for row in listed(name)]


def tree(folder, paths):
    """The files, tiny and all alike; a path may be bytes."""
    for path in paths:
        file = folder / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(TINY_WAV)
    return folder


def refused(name, *args, **kwargs):
    """The message of the refusal, which is one line."""
    with pytest.raises(CorpusError) as caught:
        read_corpus(name, *args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # and it can be printed
    return message


# The table of corpora


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_a_row_is_whole_and_keeps_to_the_known_emotions(corpus):
    assert set(corpus.labels.values()) <= set(EMOTIONS)
    assert corpus.match(corpus.example), "its own example"
    assert not corpus.women & corpus.men
    assert len(corpus.women | corpus.men) <= (corpus.n_speakers or 1_000)
    for labels in corpus.further_labels.values():
        assert set(labels.values()) <= set(EMOTIONS)
    sentence = corpus.sentence(corpus.match(corpus.example))
    assert not corpus.words or sentence in corpus.words
    assert corpus.language and corpus.licence and corpus.obtain and corpus.source
    assert not corpus.releases or corpus.releases[0].n_utterances == corpus.n_utterances
    if corpus.variant_of:
        assert corpus.title == CORPORA[corpus.variant_of].title


def test_the_nine_and_their_variants_are_there():
    assert set(CORPORA) >= {*THE_NINE, "demos-8", "shemo-4", "aesdd-v1", "toy"}


@pytest.mark.parametrize("name", [*THE_NINE, "toy"])
def test_one_function_reads_every_row(name, tmp_path):
    table = read_corpus(name, tree(tmp_path, paths_of(name)))
    assert tuple(table.columns) == (*COLUMNS, "own_label")
    assert table.key.is_unique
    assert list(table.key) == sorted(table.key)
    assert list(table.index) == list(range(len(table)))
    assert set(table.emotion) == set(CORPORA[name].labels.values())
    assert set(table.gender) <= {"female", "male", ""}
    assert table.groupby("speaker").gender.nunique().max() == 1
    assert bool(table.sentence.any()) == (name in SENTENCES)
    assert table.start_s.isna().all() and table.end_s.isna().all() and not table.split.any()
    assert all(Path(path).is_file() for path in table.path)
    if name not in ("emomatch", "oreau"):  # whose lists are not known, or of version 2
        assert len(table) == CORPORA[name].n_utterances
        assert table.speaker.nunique() == CORPORA[name].n_speakers


@pytest.mark.parametrize("name", ["aesdd", "cafe", "demos-8", "emodb", "oreau", "shemo"])
def test_every_real_file_name_says_what_the_file_list_says(name, tmp_path):
    rows = listed(CORPORA[name].variant_of or name)
    table = read_corpus(name, tree(tmp_path, [row["path"] for row in rows]))
    said = zip(table.path, table.emotion, table.speaker, table.gender, strict=True)
    assert {(str(Path(path).relative_to(tmp_path)), *rest) for path, *rest in said} == {
        (row["path"], row["emotion"], row["speaker"], row["gender"]) for row in rows
    }


def test_counts_are_those_that_the_corpora_publish(tmp_path):
    aesdd = read_corpus("aesdd", tree(tmp_path / "a", paths_of("aesdd")))
    assert dict(Counter(aesdd.speaker)) == dict(
        zip("123456", (100, 100, 99, 99, 107, 100), strict=True)
    )
    cafe = read_corpus("cafe", tree(tmp_path / "c", paths_of("cafe")))
    assert set(Counter(cafe.emotion).values()) == {144, 72}
    eyase = read_corpus("eyase", tree(tmp_path / "e", paths_of("eyase")))
    assert Counter(eyase.emotion) == {"anger": 150, "happiness": 132, "neutrality": 150} | {
        "sadness": 147
    }
    assert Counter(eyase.speaker)["Female02"] == 80
    shemo = read_corpus("shemo", tree(tmp_path / "s", paths_of("shemo")))
    assert shemo.groupby("gender").speaker.nunique().to_dict() == {"female": 31, "male": 56}


@pytest.mark.parametrize("name", ["aesdd", "cafe", "emodb", "emovo", "oreau"])
def test_a_sentence_is_said_by_several_speakers_and_in_every_emotion_it_is_for(name, tmp_path):
    table = read_corpus(name, tree(tmp_path, paths_of(name)))
    said = table[table.sentence != ""].groupby("sentence")
    assert len(said) == SENTENCES[name]
    emotions = 1 if name == "oreau" else len(CORPORA[name].labels)
    assert set(said.emotion.nunique()) == {emotions}
    assert said.speaker.nunique().max() > len(set(table.speaker)) / 4


def test_sentences_are_what_the_corpora_say(tmp_path):
    aesdd = read_corpus("aesdd", tree(tmp_path / "a", paths_of("aesdd"))).set_index("key")
    assert set(aesdd.sentence) == {*(f"{number:02}" for number in range(1, 20)), ""}
    improvised = aesdd[aesdd.sentence == ""]
    assert len(improvised) == 6 * 5 and all(key[1:3] == "20" for key in improvised.index)
    assert aesdd.sentence["a01 (1).wav"] == aesdd.sentence["s01 (5)b.wav"] == "01"
    oreau = read_corpus("oreau", tree(tmp_path / "o", paths_of("oreau"))).set_index("key")
    written = oreau[oreau.sentence != ""].groupby("emotion").sentence.nunique()
    assert (written.min(), written.max()) == (10, 13)
    assert oreau.sentence["10a01Ca.wav"] == "a01C"
    unexplained = {key[2:5] for key in oreau.index[oreau.sentence == ""]}
    assert unexplained == {"a20", "z03", "z04"}
    names = ["37_Ira_06.WAV", "37_Tristeza__6.WAV", "36_Ira_12_.WAV", "50_Neutro.wav"]
    emomatch = read_corpus("emomatch", tree(tmp_path / "e", names)).set_index("key")
    assert [emomatch.sentence[Path(name).stem + ".wav"] for name in names] == ["6", "6", "12", ""]


@pytest.mark.skipif(not (SHARED / "names").exists(), reason="the lengths of clips are not there")
@pytest.mark.parametrize("name", ["aesdd", "cafe", "emodb", "oreau"])
def test_equal_codes_take_equally_long_to_say(name, rng):
    """Speaker and emotion set apart, a clip is as long as its sentence, and as no other one."""
    clips = pd.read_csv(SHARED / "names" / f"{name}.tsv", sep="\t").dropna(subset="samples")
    codes = np.array([CORPORA[name].match(path).groupdict("")["sentence"] for path in clips.path])
    length = np.log(clips.samples / clips.sample_rate)
    for known in [clips.speaker, clips.emotion] * 10:
        length -= length.groupby(known).transform("mean")
    length, codes = length[codes != ""], codes[codes != ""]
    explained = length.groupby(codes).transform("mean").var()
    shuffled = [length.groupby(rng.permutation(codes)).transform("mean").var() for _ in range(99)]
    assert explained > 2 * max(shuffled)


@pytest.mark.slow
def test_demos_has_seven_emotions_and_an_eighth(tmp_path):
    tree(tmp_path, paths_of("demos"))
    assert len(read_corpus("demos", tmp_path)) == 8568
    eight = read_corpus("demos-8", tmp_path)
    assert len(eight) == 9697 and Counter(eight.emotion)["guilt"] == 1129


def test_shemo_4_has_the_four_emotions_of_the_paper(tmp_path):
    four = read_corpus("shemo-4", tree(tmp_path, paths_of("shemo")))
    assert Counter(four.emotion) == {"anger": 1059, "happiness": 201} | {
        "sadness": 449,
        "neutrality": 1028,
    }


def test_aesdd_v1_has_the_first_five_actors(tmp_path):
    five = read_corpus("aesdd-v1", tree(tmp_path, paths_of("aesdd")))
    assert len(five) == 505 and set(five.speaker) == set("12345")


# Layouts: the keys are the same in all of them


def nested(paths):
    return [f"archive/archive/{path}" for path in paths]


def flat(paths):
    return [path.rpartition("/")[2] for path in paths]


def without_the_top_folder(paths):
    return [path.partition("/")[2] for path in paths]


def shouted(paths):
    return [path.replace(".wav", ".WAV") for path in paths]


def zipped_on_a_mac(paths):
    return [*paths, *(f"__MACOSX/{path}" for path in paths), *(f"a/._{p}" for p in flat(paths))]


def with_other_things(paths):
    return [*paths, "readme.txt", "transcript/final text/F01A01.ort", "notes.wav", "more.zip"]


LAYOUTS = [nested, flat, without_the_top_folder, shouted, zipped_on_a_mac, with_other_things]
IMPOSSIBLE = {
    ("eyase", flat),  # the folders are the speakers
    ("emomatch", without_the_top_folder),
    ("toy", without_the_top_folder),
}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        (name, layout)
        for name in [*THE_NINE, "toy"]
        for layout in LAYOUTS
        if (name, layout) not in IMPOSSIBLE
    ],
)
def test_every_layout_gives_the_same_utterances(name, layout, tmp_path):
    paths = paths_of(name)[::11]
    plain = read_corpus(name, tree(tmp_path / "plain", paths)).drop(columns="path")
    other = read_corpus(name, tree(tmp_path / "other", layout(paths))).drop(columns="path")
    assert plain.equals(other)


@pytest.mark.parametrize(
    "mangle",
    [
        lambda path: unicodedata.normalize("NFD", path),
        lambda path: path.encode("cp850").decode("cp1252"),
        lambda path: path.encode("cp850"),
    ],
    ids=["decomposed", "mis-decoded", "undecodable bytes"],
)
@pytest.mark.parametrize("name", ["cafe", "oreau"])
def test_accents_in_folder_names_do_not_matter(name, mangle, tmp_path):
    paths = paths_of(name)
    plain = read_corpus(name, tree(tmp_path / "plain", paths)).drop(columns="path")
    other = read_corpus(name, tree(tmp_path / "other", map(mangle, paths)))
    assert plain.equals(other.drop(columns="path"))
    assert all(Path(path).is_file() for path in other.path)


def test_emodb_2_gives_the_classic_535(tmp_path, caplog):
    classic = paths_of("emodb")
    extra = [row["path"] for row in listed("emodb-2-extra")]
    assert len(set(classic + extra)) == 816
    laryngograms = [path.replace("wav/", "laryngo/", 1) for path in classic + extra]
    old_laryngograms = [f"wav_laryng/{path[4:-4]}xx.wav" for path in classic]
    new = tree(tmp_path / "new", [*classic, *extra, *laryngograms, *old_laryngograms])
    old = tree(tmp_path / "old", classic)
    assert read_corpus("emodb", new).key.equals(read_corpus("emodb", old).key)
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_cafe_is_the_same_at_48_and_at_192_khz(tmp_path):
    paths = paths_of("cafe")
    low = tree(tmp_path / "CaFE_48k", paths)
    slow = [path.replace("-N-1-", "-N-").replace(".wav", ".aiff") for path in paths]
    parts = [f"CaFE_192k_{1 if path.rpartition('/')[2] < '07' else 2}/{path}" for path in slow]
    high = tree(tmp_path / "high", parts)
    columns = ["key", "emotion", "speaker", "gender"]
    assert read_corpus("cafe", low)[columns].equals(read_corpus("cafe", high)[columns])
    both = read_corpus("cafe", tmp_path)
    assert len(both) == 936 and all(path.endswith(".wav") for path in both.path)


@pytest.mark.parametrize("name", ["OréauFR_0", "OreauFR_0", "OrÃ©auFR_0", "ORÉAUFR_0"])
def test_oreau_is_version_1_where_it_is_and_says_which(name, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    second = [path.replace("OréauFR_0", name) for path in paths_of("oreau")]
    first = [path.replace("_02/", "_01/") for path in second]
    first += [f"{name}1/m/sessc/07a{number:02}Cb.wav" for number in range(68)]
    assert len(read_corpus("oreau", tree(tmp_path / "one", second))) == 434
    assert "reading version 2, 434 of 434 clips" in caplog.text
    caplog.clear()
    assert len(read_corpus("oreau", tree(tmp_path / "one", first))) == 502
    assert "reading version 1, 502 of 502 clips" in caplog.text
    assert len(read_corpus("oreau", tmp_path / "one" / f"{name}2")) == 434


def test_oreau_is_told_by_its_size_where_no_folder_names_the_version(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    second = without_the_top_folder(paths_of("oreau"))
    assert len(read_corpus("oreau", tree(tmp_path / "oreau", second))) == 434
    assert "reading version 2, 434 of 434 clips" in caplog.text
    assert "found" not in caplog.text
    caplog.clear()
    first = [f"m/sessc/07a{number:02}Cb.wav" for number in range(68)]
    assert len(read_corpus("oreau", tree(tmp_path / "oreau", first))) == 502
    assert "reading version 1, 502 of 502 clips" in caplog.text
    read_corpus("oreau", tree(tmp_path / "half", second[:100]))
    assert "reading version 1, 100 of 502 clips" in caplog.text


def test_a_stray_clip_beside_a_named_version_of_oreau_is_not_a_version(tmp_path):
    tree(tmp_path, [*paths_of("oreau"), "m/sessc/07a01Cb.wav", "10a01Ca.wav"])
    table = read_corpus("oreau", tmp_path)
    assert len(table) == 434 and all("FR_02/" in path for path in table.path)


def test_irregular_names_of_aesdd(tmp_path):
    names = ["d03 (01).wav", "s01 (5)a.wav", "s01 (5)b.wav", "a06 (5)b.wav"]
    table = read_corpus("aesdd", tree(tmp_path, names)).set_index("key")
    assert table.speaker.to_dict() == dict(zip(names, "1555", strict=True))
    assert table.emotion["d03 (01).wav"] == "disgust"


def test_irregular_names_of_emomatch(tmp_path):
    names = [
        "37_Ira_06.WAV",
        "37_Tristeza__3.WAV",
        "36_Ira_5_.WAV",
        "50_Neutro.wav",
        "03_MIEDO_1.wav",
    ]
    table = read_corpus("emomatch", tree(tmp_path, [*names, "37_Ira_06.WAV_segment_0.wav"]))
    assert list(table.emotion) == ["fear", "anger", "anger", "sadness", "neutrality"]
    assert list(table.gender) == ["female", "male", "male", "male", ""]


def test_eyase_takes_the_speaker_from_the_folder(tmp_path):
    same = ["Female01/fm01_ang (1).wav", "Female02/fm01_ang (1).wav"]
    table = read_corpus("eyase", tree(tmp_path / "both", same))
    assert list(table.key) == same
    assert list(table.speaker) == ["Female01", "Female02"]
    tree(tmp_path / "flat", ["fm01_ang (1).wav"])
    assert "expected names like 'Female01/fm01_ang (1).wav'" in refused("eyase", tmp_path / "flat")
    alone = read_corpus("eyase", tmp_path / "both" / "Female02")
    assert list(alone.key) == same[1:]


@pytest.mark.skipif(not (SHARED / "emodb").exists(), reason="the audio of EmoDB is not there")
def test_the_real_emodb(caplog):
    table = read_corpus("emodb", SHARED / "emodb")
    assert len(table) == 535 and not caplog.records
    assert Counter(table.emotion) == Counter(
        anger=127, boredom=81, neutrality=79, happiness=71, fear=69, sadness=62, disgust=46
    )
    assert set(table[table.gender == "female"].speaker) == {"08", "09", "13", "14", "16"}


# A folder that is not what it should be


def test_an_unknown_corpus_names_its_neighbours():
    assert "did you mean emodb" in refused("emodbb")
    assert "did you mean emodb" in refused("EmoDB")
    assert "known are" in refused("x" * 200)
    refused("name with\nnewline and 'quotes'")
    refused("")


def test_a_missing_folder_names_every_place(tmp_path):
    message = refused("cafe", tmp_path / "nowhere")
    for place in (
        "nowhere",
        "--data-dir",
        "$LSMPROBE_DATA/cafe",
        "data/cafe",
        "zenodo.org/records/1478765",
    ):
        assert place in message


def test_where_a_corpus_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSMPROBE_DATA", raising=False)
    assert corpus_folder("demos") == Path("data/demos")
    Path("data/demos").mkdir(parents=True)
    assert corpus_folder("demos-8") == Path("data/demos")
    monkeypatch.setenv("LSMPROBE_DATA", str(tmp_path / "all"))
    assert corpus_folder("demos") == Path("data/demos")
    (tmp_path / "all" / "demos").mkdir(parents=True)
    assert corpus_folder("demos") == tmp_path / "all" / "demos"
    assert corpus_folder("demos", "elsewhere") == Path("elsewhere")


def test_an_empty_folder_or_a_file_is_refused(tmp_path):
    assert "no clip of EmoDB among 0 files" in refused("emodb", tmp_path)
    (tmp_path / "emodb.zip").touch()
    assert "Unpack the archive" in refused("emodb", tmp_path)
    assert "Not a directory" in refused("emodb", tmp_path / "emodb.zip")


@pytest.mark.parametrize("there", THE_NINE)
def test_another_corpus_is_recognised(there, tmp_path):
    tree(tmp_path, paths_of(there)[:300])
    for wanted in THE_NINE:
        if wanted != there:
            assert f"this looks like {CORPORA[there].title}" in refused(wanted, tmp_path)


def test_half_a_copy_is_read_and_logged(tmp_path, caplog):
    table = read_corpus("emodb", tree(tmp_path, paths_of("emodb")[:300]))
    assert len(table) == 300
    assert "found 300 of 535 clips; `lsmprobe corpora check emodb` says" in caplog.text


def test_clips_that_the_row_leaves_out_and_no_other_name_the_row_that_has_them(tmp_path):
    guilt = tree(tmp_path / "guilt", ["NP_f_01_col01a.wav", "PR_m_02_col02a.wav"])
    message = refused("demos", guilt)
    assert "2 clips of DEMoS, and 'demos' leaves all of them out" in message
    assert "Ask for demos-8, which has them." in message
    assert len(read_corpus("demos-8", guilt)) == 2
    assert "Ask for shemo, which" in refused("shemo-4", tree(tmp_path / "fear", ["F01F01.wav"]))
    extra = listed("emodb-2-extra")[0]["path"]
    assert "Copy the whole corpus." in refused("emodb", tree(tmp_path / "extra", [extra]))


def test_the_same_utterance_twice_is_refused(tmp_path):
    tree(tmp_path, ["wav/03a01Fa.wav", "wav/03a01Nc.wav", "copy/03a01Fa.wav"])
    message = refused("emodb", tmp_path)
    assert "'03a01Fa.wav' is there twice" in message
    assert "wav/03a01Fa.wav" in message and "copy/03a01Fa.wav" in message


def test_a_folder_without_permission(tmp_path, monkeypatch):
    tree(tmp_path, ["wav/03a01Fa.wav"])

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Permission denied" in refused("emodb", tmp_path)


def test_links_are_followed_once_and_circles_end(tmp_path):
    tree(tmp_path / "disk", ["wav/03a01Fa.wav"])
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "audio").symlink_to(tmp_path / "disk", target_is_directory=True)
    (corpus / "again").symlink_to(tmp_path / "disk" / "wav", target_is_directory=True)
    (tmp_path / "disk" / "round").symlink_to(corpus, target_is_directory=True)
    (corpus / "self").symlink_to(corpus / "self")
    (corpus / "dead").symlink_to(corpus / "nothing")
    assert list(read_corpus("emodb", corpus).key) == ["03a01Fa.wav"]


# Emotions and merging


def test_emotions_keep_a_subset_and_merge_joins_labels(tmp_path):
    folder = tree(tmp_path, paths_of("emodb"))
    kept = read_corpus("emodb", folder, emotions=("anger", "sadness"))
    assert Counter(kept.emotion) == {"anger": 127, "sadness": 62}
    assert list(kept.index) == list(range(189))
    merged = read_corpus("emodb", folder, merge={"boredom": "neutrality"})
    assert Counter(merged.emotion)["neutrality"] == 160 and len(merged) == 535
    both = read_corpus("emodb", folder, emotions=["calm"], merge={"boredom": "calm"})
    assert Counter(both.emotion) == {"calm": 81}
    swapped = read_corpus("emodb", folder, merge={"fear": "anger", "anger": "fear"})
    assert Counter(swapped.emotion)["fear"] == 127


def test_an_emotion_that_the_corpus_lacks_is_refused(tmp_path):
    folder = tree(tmp_path, ["03a01Fa.wav"])
    assert "no emotion 'angr'; did you mean anger" in refused("emodb", folder, emotions=["angr"])
    assert "no emotion 'guilt'" in refused("emodb", folder, merge={"guilt": "sadness"})
    assert "no emotion 'fear'" in refused(
        "emodb", folder, emotions=["fear"], merge={"fear": "anger"}
    )
    assert "no clip of anger" in refused("emodb", folder, emotions=["anger"])
