"""Corpora of the languages of Asia and Africa, with Russian and Turkish."""

import re
from dataclasses import replace

from lsmprobe.corpora import label_formats
from lsmprobe.corpora.label_table import LabelTable
from lsmprobe.corpora.row import Corpus, numbers, speakers


def _esd_sentence(match: re.Match[str]) -> str:
    """350 sentences of each language, the same in every emotion."""
    language = "zh" if match["speaker"] <= "0010" else "en"
    return f"{language}{(int(match['number']) - 1) % 350 + 1:03}"


_ESD_RULE = (
    r"(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/(?:(?P<split>train|evaluation|test)/)?"
    r"(?P<key>(?P<speaker>SPEAKERS)_(?P<number>\d{6})\.wav)"
)
_ESD = Corpus(
    name="esd",
    title="ESD",
    language="Mandarin and English",
    file_name=_ESD_RULE.replace("SPEAKERS", "00(?:0[1-9]|1[0-9]|20)"),
    example="0011/Angry/0011_000351.wav",
    labels={
        "Angry": "anger",
        "Happy": "happiness",
        "Neutral": "neutrality",
        "Sad": "sadness",
        "Surprise": "surprise",
    },
    n_utterances=35_000,
    n_speakers=20,
    men=frozenset(
        f"00{number}" for number in ["04", "05", "06", "08", "10", "11", "12", "13", "14", "20"]
    ),
    women=frozenset(
        f"00{number}" for number in ["01", "02", "03", "07", "09", "15", "16", "17", "18", "19"]
    ),
    sentence_of=_esd_sentence,
    split_words={"evaluation": "validation"},
    sample_rates=frozenset({16_000}),
    traps=(
        "two languages in one folder: esd-zh and esd-en are the halves",
        "the same 350 sentences in every emotion and by every speaker of a language",
        "the folder is the label; the text files beside are in five encodings and are not read",
        "its own parts (train, evaluation, test; in the older release) share all speakers",
    ),
    licence="research only; a signed licence is asked for",
    obtain="ask as github.com/HLTSingapore/Emotional-Speech-Data says",
    source="Zhou et al. 2022, doi:10.1016/j.specom.2021.11.006",
)

ROWS = (
    _ESD,
    replace(
        _ESD,
        name="esd-zh",
        language="Mandarin",
        file_name=_ESD_RULE.replace("SPEAKERS", "00(?:0[1-9]|10)"),
        example="0001/Angry/0001_000351.wav",
        n_utterances=17_500,
        n_speakers=10,
        men=speakers("0004 0005 0006 0008 0010"),
        women=speakers("0001 0002 0003 0007 0009"),
        variant_of="esd",
    ),
    replace(
        _ESD,
        name="esd-en",
        language="English",
        file_name=_ESD_RULE.replace("SPEAKERS", "00(?:1[1-9]|20)"),
        n_utterances=17_500,
        n_speakers=10,
        men=speakers("0011 0012 0013 0014 0020"),
        women=speakers("0015 0016 0017 0018 0019"),
        variant_of="esd",
    ),
    Corpus(
        name="casia",
        title="CASIA",
        language="Mandarin",
        file_name=r"(?P<speaker>liuchanhg|wangzhe|zhaoquanyin|zhaozuoxiang)/"
        r"(?P<emotion>angry|fear|happy|neutral|sad|surprise)/(?P<sentence>2\d\d)\.wav",
        example="liuchanhg/angry/201.wav",
        labels={
            "angry": "anger",
            "fear": "fear",
            "happy": "happiness",
            "neutral": "neutrality",
            "sad": "sadness",
            "surprise": "surprise",
        },
        n_utterances=1200,
        n_speakers=4,
        sample_rates=frozenset({16_000}),
        traps=(
            "label and speaker are in the folders alone; every base name is there 24 times",
            "the public part: 50 sentences, the same for all",
            "the speakers' genders (two women, two men) are only stated, so left empty",
        ),
        licence="not stated",
        obtain="copies are passed round; the institute's own is to be bought",
        source="Institute of Automation, Chinese Academy of Sciences",
    ),
    Corpus(
        name="m3ed",
        title="M3ED",
        language="Mandarin",
        file_name=r"(?P<key>[AB]_[a-z0-9]+_\d+_\d+\.wav)",
        example="modality_speech/A_bianchengnidenayitian_1_1.wav",
        labels={
            "Anger": "anger",
            "Disgust": "disgust",
            "Fear": "fear",
            "Happy": "happiness",
            "Neutral": "neutrality",
            "Sad": "sadness",
            "Surprise": "surprise",
        },
        n_utterances=24_437,
        n_speakers=0,
        labelled_by=label_formats.m3ed,
        label_files="annotation.json and splitInfo/movie_list_{train,val,test}.txt",
        needs_label_files=True,
        sample_rates=frozenset({16_000}),
        traps=(
            "parts are by series, so no speaker is in two",
            "clips of 0.01 s are empty; --skip-unreadable leaves them out",
            "626 to 635 speakers; sources disagree",
        ),
        licence="research only; the audio is of television series",
        obtain="ask as github.com/AIM3-RUC/RUCM3ED says",
        source="Zhao et al. 2022, doi:10.18653/v1/2022.acl-long.391",
    ),
    Corpus(
        name="mer2023",
        title="MER2023",
        language="Mandarin",
        file_name=r"(?:(?P<partition>train|test[1-3])/)?"
        r"(?P<key>sample(?:new)?_\d{8})\.(?:avi|mp4|wav)",
        example="train/sample_00000009.avi",
        labels={
            "angry": "anger",
            "happy": "happiness",
            "neutral": "neutrality",
            "sad": "sadness",
            "surprise": "surprise",
            "worried": "worried",
        },
        n_utterances=5030,
        n_speakers=0,
        labelled_by=LabelTable(
            files=r"(?P<table>[\w-]*label[\w-]*)\.csv", path="{name}.avi", label="discrete"
        ),
        label_files="the label tables (name, discrete)",
        needs_label_files=True,
        split_words={"test1": "test", "test2": "test", "test3": "test"},
        traps=(
            "no speaker is known, so whether the parts share voices is not known",
            "three test sets are one part, test; the column partition tells them apart",
        ),
        licence="by its form, academic",
        obtain="ask at merchallenge.cn",
        source="Lian et al. 2023, arXiv:2304.08981",
    ),
    Corpus(
        name="urdu",
        title="URDU",
        language="Urdu",
        file_name=r"(?P<speaker>S(?P<gender>[MF])\d+)_F\d+_(?P<emotion>[AHNS])\d+\.wav",
        example="Angry/SM1_F1_A051.wav",
        labels={"A": "anger", "H": "happiness", "N": "neutrality", "S": "sadness"},
        n_utterances=400,
        n_speakers=29,
        sample_rates=frozenset({44_100}),
        traps=(
            "38 speakers are stated; the names have 29, some with one emotion only, so leaving "
            "speakers out loses classes",
        ),
        links={
            "URDU-Dataset.zip": "https://github.com/siddiquelatif/URDU-Dataset/archive/HEAD.zip"
        },
        licence="research only",
        obtain="git clone github.com/siddiquelatif/URDU-Dataset",
        source="Latif et al. 2018, arXiv:1812.10411",
    ),
    Corpus(
        name="subesco",
        title="SUBESCO",
        language="Bangla",
        file_name=r"(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Z]+_S_(?P<sentence>\d{1,2})_"
        r"(?P<emotion>ANGRY|DISGUST|FEAR|HAPPY|NEUTRAL|SAD|SURPRISE)_(?P<take>\d)\]?\.wav",
        example="F_01_OISHI_S_10_ANGRY_1.wav",
        labels={
            "ANGRY": "anger",
            "DISGUST": "disgust",
            "FEAR": "fear",
            "HAPPY": "happiness",
            "NEUTRAL": "neutrality",
            "SAD": "sadness",
            "SURPRISE": "surprise",
        },
        n_utterances=7000,
        n_speakers=20,
        spelling={r"\]\.wav$": ".wav"},
        sample_rates=frozenset({44_100, 48_000}),
        traps=(
            "F_01 and M_01 are two people: the speaker is the letter with the number",
            "F_02_MONIKA_S_2_SURPRISE_3].wav has a bracket in its name",
            "two sampling rates, 44.1 kHz (4555 clips) and 48 kHz (2445)",
        ),
        zenodo="4526477",
        licence="CC BY 4.0",
        obtain="download from zenodo.org/records/4526477",
        source="Sultana et al. 2021, doi:10.1371/journal.pone.0250173",
    ),
    Corpus(
        name="baved",
        title="BAVED",
        language="Arabic",
        file_name=r"(?P<key>(?P<speaker>\d+)-(?P<gender>[mf])-(?P<age>\d+)-(?P<sentence>[0-6])-"
        r"(?P<emotion>[0-2])-(?P<record>\d+)\.wav)",
        example="0/0-m-21-0-1-105.wav",
        labels={"0": "low", "1": "normal", "2": "high"},
        n_utterances=1935,
        n_speakers=60,
        sample_rates=frozenset({16_000}),
        traps=(
            "the label is a level of emotion (low, normal, high), no emotion",
            "a folder is a word, not a label; 0/49-m-23-6-1-201.wav lies in another word's folder",
        ),
        licence="not stated",
        obtain="git clone github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset, which states no "
        "licence: ask its author before you pass it on",
        source="40uf411 2021, Basic Arabic Vocal Emotions Dataset",
    ),
    Corpus(
        name="resd",
        title="RESD",
        language="Russian",
        file_name=r"(?:(?P<split>train|test)/)?(?:[^/]+/)?"
        r"(?P<key>(?P<dialogue>\d\d)_[a-z]+_[a-z]+[ _](?P<emotion>[adefhns])_\d+\.wav)",
        example="test/01_happiness_anger/01_happiness_anger a_010.wav",
        labels={
            "a": "anger",
            "d": "disgust",
            "e": "enthusiasm",
            "f": "fear",
            "h": "happiness",
            "n": "neutrality",
            "s": "sadness",
        },
        n_utterances=1396,
        n_speakers=0,
        sample_rates=frozenset({16_000, 44_100}),
        traps=(
            "no speaker is known (about 200 are stated), and all 50 dialogues are in train and in "
            "test: the published split shares voices. The column dialogue is the safest group",
        ),
        licence="MIT",
        obtain="download from huggingface.co/datasets/Aniemore/resd_annotated",
        source="Aniemore, Russian Emotional Speech Dialogs",
    ),
    Corpus(
        name="turev-db",
        title="TurEV-DB",
        language="Turkish",
        file_name=r"(?P<speaker>1157|1234|1358|1984|6783|7895)_(?P<emotion>kz|hl|sk|mt)_"
        r"(?P<sentence>[^/]+)\.wav",
        example="Sound Source/Calm/1984_sk_eger.wav",
        labels={"kz": "anger", "hl": "sadness", "sk": "calm", "mt": "happiness"},
        n_utterances=1735,
        n_speakers=6,
        sample_rates=frozenset({44_100}),
        traps=(
            "speaker 1157 has 150 clips, 7895 has 273, the others 328 each",
            "single words; who is a woman or a man is not published",
        ),
        licence="not stated",
        obtain="download from github.com/Xeonen/TurEV-DB (address only stated)",
        source="Canpolat et al. 2020, SLTU-CCURL, aclanthology.org/2020.sltu-1.52",
    ),
    Corpus(
        name="ased",
        title="ASED",
        language="Amharic",
        file_name=r"(?P<sentence>(?P<emotion>[afhnsS])[1-5]-0[1-7])-(?P<repetition>0[12])-0[12]-"
        r"(?P<speaker>\d\d)\.wav",
        example="05Angry/a5-02-01-01-33.wav",
        labels={"a": "anger", "f": "fear", "h": "happiness", "n": "neutrality", "s": "sadness"},
        n_utterances=2474,
        n_speakers=65,
        women=numbers(*range(1, 38, 2), 43, 47, 48, 49, 58, 62),
        men=numbers(
            *range(2, 47, 2), *range(39, 42, 2), 45, *range(50, 58), 59, 60, 61, 63, 64, 65
        ),
        spelling={r"^S": "s"},
        traps=(
            "five clips give speakers 09, 15, 21, 23 and 25 the other gender; the column has the "
            "one of all their other clips",
            "each emotion has sentences of its own: the words give the emotion away",
            "one name begins with a capital, S4-04-02-01-29.wav",
        ),
        sample_rates=frozenset({16_000}),
        licence="not stated",
        obtain="git clone github.com/Ethio2021/ASED_V1",
        source="Retta et al. 2022, arXiv:2201.02710",
    ),
)
