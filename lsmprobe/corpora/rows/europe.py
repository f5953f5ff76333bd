"""Corpora of Europe's languages other than English, as they are spoken there and in America."""

from dataclasses import replace

from lsmprobe.corpora import label_formats
from lsmprobe.corpora.row import Corpus

_EMOFILM = Corpus(
    name="emofilm",
    title="EmoFilm",
    language="Italian, Spanish and English",
    file_name=r"(?P<gender>[fm])_(?P<emotion>ans|dis|gio|rab|tri)(?P<scene>\d{3})[a-z]*?"
    r"(?P<language>it|es|en)\.wav",
    example="wav_corpus/f_ans001aen.wav",
    labels={
        "ans": "fear",
        "dis": "contempt",
        "gio": "happiness",
        "rab": "anger",
        "tri": "sadness",
    },
    n_utterances=1115,
    n_speakers=0,
    labelled_by=label_formats.emofilm,
    label_files="f_m_corpus_it_es_en_legend.xlsx",
    traps=(
        "dis is contempt (disprezzo), not disgust as in DEMoS",
        "the same scene is there in three languages: scene and emotion together say which",
        "speakers are dubbing actors, by the legend (XLSX); some are ????, some spelled two ways",
    ),
    licence="end-user licence agreement",
    obtain="ask at zenodo.org/records/7665999",
    source="Parada-Cabaleiro et al. 2018, doi:10.5281/zenodo.1326428",
)

_ITALIAN = _EMOFILM.file_name.replace("it|es|en", "it")
_SPANISH = _EMOFILM.file_name.replace("it|es|en", "es")
_ENGLISH = _EMOFILM.file_name.replace("it|es|en", "en")

_EMOZIONALMENTE = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "joy": "happiness",
    "neutrality": "neutrality",
    "sadness": "sadness",
    "surprise": "surprise",
}

ROWS = (
    Corpus(
        name="mesd",
        title="MESD",
        language="Mexican Spanish",
        file_name=r"(?P<emotion>Anger|Disgust|Fear|Happiness|Neutral|Sadness)_"
        r"(?P<voice>(?P<gender>[FM])|C)_(?P<list>[AB])_(?P<sentence>[^/]+)\.wav",
        example="Anger_F_A_abajo.wav",
        labels={
            "Anger": "anger",
            "Disgust": "disgust",
            "Fear": "fear",
            "Happiness": "happiness",
            "Neutral": "neutrality",
            "Sadness": "sadness",
        },
        n_utterances=862,
        n_speakers=0,
        sample_rates=frozenset({48_000}),
        traps=(
            "no speaker is known: 11 voices are stated, and the names tell a woman, a man and a "
            "child apart (the column voice)",
            "862 of the 864 that were planned; two files are misnamed (lento_dentro, afuera)",
            "single words",
        ),
        licence="CC BY 4.0",
        links={"MESD.zip": "https://data.mendeley.com/public-api/zip/cy34mh68j9/download/5"},
        obtain="download from data.mendeley.com/datasets/cy34mh68j9/5",
        source="Duville et al. 2021, doi:10.17632/cy34mh68j9.5",
    ),
    Corpus(
        name="polish-gut",
        title="Polish emotional speech (GUT)",
        language="Polish",
        file_name=r"(?P<speaker>m[1-5])\.(?P<emotion>[ans])_"
        r"(?P<sentence>nie|oddaj|podaj|stop|tak|trzymaj)_(?P<repetition>[1-5])\.wav",
        example="m1.a_nie_2.wav",
        labels={"a": "anger", "n": "neutrality", "s": "fear"},
        n_utterances=450,
        n_speakers=5,
        men=frozenset(f"m{number}" for number in range(1, 6)),
        sample_rates=frozenset({44_100}),
        traps=("s is fear (strach), not sadness", "five men, single words"),
        licence="open",
        obtain="download from mostwiedzy.pl",
        source="doi:10.34808/h46c-hb44",
    ),
    Corpus(
        name="nemo",
        title="nEMO",
        language="Polish",
        file_name=r"(?P<speaker>EB0|IC0|KD0|KS0|MK0|MP0|SM0|TP0|WR0)_"
        r"(?P<emotion>anger|fear|happiness|neutral|sadness|surprised)_(?P<sentence>\d{1,2})\.wav",
        example="samples/EB0_anger_1.wav",
        labels={
            "anger": "anger",
            "fear": "fear",
            "happiness": "happiness",
            "neutral": "neutrality",
            "sadness": "sadness",
            "surprised": "surprise",
        },
        n_utterances=4481,
        n_speakers=9,
        women=frozenset({"EB0", "IC0", "KD0", "MK0"}),
        men=frozenset({"KS0", "MP0", "SM0", "TP0", "WR0"}),
        traps=("90 sentences, the same for all speakers and emotions",),
        links={"nEMO.zip": "https://github.com/amu-cai/nEMO/archive/HEAD.zip"},
        licence="CC BY-NC-SA 4.0",
        obtain="git clone github.com/amu-cai/nEMO",
        source="Christop 2024, LREC-COLING, aclanthology.org/2024.lrec-main.1059",
    ),
    _EMOFILM,
    replace(
        _EMOFILM,
        name="emofilm-it",
        language="Italian",
        file_name=_ITALIAN,
        example="f_ans001ait.wav",
        n_utterances=413,
        variant_of="emofilm",
    ),
    replace(
        _EMOFILM,
        name="emofilm-es",
        language="Spanish",
        file_name=_SPANISH,
        example="f_ans001aes.wav",
        n_utterances=359,
        variant_of="emofilm",
    ),
    replace(
        _EMOFILM,
        name="emofilm-en",
        language="English",
        file_name=_ENGLISH,
        n_utterances=343,
        variant_of="emofilm",
    ),
    Corpus(
        name="emozionalmente",
        title="Emozionalmente",
        language="Italian",
        file_name=r"(?P<key>1[56]\d{11}\.wav)",
        example="audio/1613655062436.wav",
        labels=_EMOZIONALMENTE,
        further_labels={"recognised": _EMOZIONALMENTE},
        n_utterances=6902,
        n_speakers=431,
        labelled_by=label_formats.emozionalmente,
        label_files="metadata/samples.csv",
        needs_label_files=True,
        sample_rates=frozenset({16_000, 44_100}),
        traps=(
            "the label is what was acted; the column recognised has what most of five evaluators "
            "heard, where one emotion has most votes",
            "3 of its 18 sentences, which 1166 clips say, are sentences of EMOVO, word for word",
            "150 of 6902 files are at 44.1 kHz, though the record states 16 kHz",
        ),
        zenodo="12616095",
        licence="CC BY 4.0",
        obtain="download from zenodo.org/records/12616095",
        source="Catania et al. 2025, doi:10.1109/TASLPRO.2025.3540662",
    ),
    Corpus(
        name="castro-lima",
        title="Castro and Lima",
        language="European Portuguese",
        file_name=r"(?P<sentence>\d+(?P<kind>[sp]))(?P<speaker>[AB])_"
        r"(?P<emotion>angry|disgust|fear|happy|neutral|sad|surprise)\d+\.wav",
        example="62pA_fear8.wav",
        labels={
            "angry": "anger",
            "disgust": "disgust",
            "fear": "fear",
            "happy": "happiness",
            "neutral": "neutrality",
            "sad": "sadness",
            "surprise": "surprise",
        },
        n_utterances=368,
        n_speakers=2,
        traps=(
            "two speakers; half of the sentences (kind p) are pseudo-sentences without meaning",
        ),
        licence="see the journal",
        obtain="download the supplements of doi:10.3758/BRM.42.1.74",
        source="Castro and Lima 2010, doi:10.3758/BRM.42.1.74",
    ),
    Corpus(
        name="thorsten-emotional",
        title="Thorsten-Voice emotional",
        language="German",
        # The name is a sentence's, so the same in every emotion: the folder is the label.
        file_name=r"(?P<emotion>amused|angry|disgusted|drunk|neutral|sleepy|surprised|whisper)/"
        r"(?P<sentence>[0-9a-f]{32})\.wav",
        example="amused/00f0a2d86d55a19e08c1676a16307cbd.wav",
        labels={
            "amused": "amusement",
            "angry": "anger",
            "disgusted": "disgust",
            "drunk": "drunk",
            "neutral": "neutrality",
            "sleepy": "sleepiness",
            "surprised": "surprise",
            "whisper": "whisper",
        },
        n_utterances=2400,
        n_speakers=1,
        only_speaker="thorsten",
        men=frozenset({"thorsten"}),
        traps=(
            "one man: no split by speaker",
            "drunk and whisper are ways to speak, no emotions; --emotions leaves them out",
        ),
        zenodo="5525023",
        archives=r"^thorsten-emotional_v02\.tgz$",
        licence="CC0 1.0",
        obtain="download thorsten-emotional_v02.tgz from zenodo.org/records/5525023",
        source="Müller and Kreutz 2021, doi:10.5281/zenodo.5525023",
    ),
    Corpus(
        name="pavoque",
        title="PAVOQUE",
        language="German",
        file_name=r"pavoque-(?:angry|happy|neutral|poker|sad|outtakes)\.flac",
        example="pavoque-angry.flac",
        labels={
            "angry": "anger",
            "happy": "happiness",
            "neutral": "neutrality",
            "poker": "poker",
            "sad": "sadness",
        },
        n_utterances=7046,
        n_speakers=1,
        only_speaker="Stefan Roettig",
        men=frozenset({"Stefan Roettig"}),
        labelled_by=label_formats.pavoque,
        label_files="pavoque-*.yaml",
        needs_label_files=True,
        sample_rates=frozenset({44_100}),
        traps=(
            "one man: no split by speaker",
            "clips are parts of six files; the outtakes mix all styles",
            "119 parts of the outtakes are listed under several styles and left out: 7046 of the "
            "7334 rows remain",
            "a file is one style, so what is constant in a recording session gives the label away",
        ),
        links={
            f"pavoque-{style}.{kind}": f"https://github.com/marytts/pavoque-data/{place}/"
            f"pavoque-{style}.{kind}"
            for kind, place in (("yaml", "raw/HEAD"), ("flac", "releases/download/v0.2"))
            for style in ("angry", "happy", "neutral", "poker", "sad", "outtakes")
        },
        licence="CC BY-NC-SA 4.0",
        obtain="download from github.com/marytts/pavoque-data, its six YAML files and release v0.2",
        source="Steiner et al. 2013, dfki.de/web/forschung/projekte-publikationen/publikation/7175",
    ),
)
