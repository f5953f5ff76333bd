"""Corpora of English."""

from dataclasses import replace
from functools import partial

from lsmprobe.corpora import label_formats
from lsmprobe.corpora.label_table import LabelTable
from lsmprobe.corpora.row import Corpus, Release, numbers, speakers

_RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS",
    language="North American English",
    file_name=r"03-01-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<sentence>0[12])-0[12]-"
    r"(?P<speaker>0[1-9]|1\d|2[0-4])\.wav",
    example="Actor_01/03-01-05-01-01-01-01.wav",
    labels={
        "01": "neutrality",
        "02": "calm",
        "03": "happiness",
        "04": "sadness",
        "05": "anger",
        "06": "fear",
        "07": "disgust",
        "08": "surprise",
    },
    words={"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"},
    n_utterances=1440,
    n_speakers=24,
    women=numbers(*range(2, 25, 2)),
    men=numbers(*range(1, 24, 2)),
    sample_rates=frozenset({48_000, 16_000}),
    second_copy=r"(?i)audio_speech_actors_01-24/",
    beside={
        r"03-02-0[1-8](-\d\d){4}\.wav$": "songs of the same actors",
        r"/03-01-0[1-5]-0[12]-(03-\d\d-\d\d|\d\d-\d\d-(2[5-9]|3\d))\.wav$": "names that RAVDESS "
        "does not have but BanglaSER does, whose codes mean other emotions",
    },
    traps=(
        "a copy that is passed round has every file twice, in Actor_XX and in "
        "audio_speech_actors_01-24/Actor_XX; the second is skipped",
        "two sentences only, which everybody says in every emotion",
        "neutral has one intensity, so half as many clips",
    ),
    zenodo="1188976",
    archives=r"^Audio_Speech_Actors_01-24\.zip$",
    licence="CC BY-NC-SA 4.0",
    obtain="download from zenodo.org/records/1188976",
    source="Livingstone and Russo 2018, doi:10.1371/journal.pone.0196391",
)

_CREMAD_WOMEN = speakers(
    "1002 1003 1004 1006 1007 1008 1009 1010 1012 1013 1018 1020 1021 1024 1025 1028 1029 1030 "
    "1037 1043 1046 1047 1049 1052 1053 1054 1055 1056 1058 1060 1061 1063 1072 1073 1074 1075 "
    "1076 1078 1079 1082 1084 1089 1091"
)
_CREMAD_LETTERS = {
    "A": "anger",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutrality",
    "S": "sadness",
}
_CREMAD_VOTES = LabelTable(
    files=r"summaryTable\.csv",
    path="{FileName}.wav",
    further={
        "voice_vote": "VoiceVote",
        "face_vote": "FaceVote",
        "multimodal_vote": "MultiModalVote",
    },
)
_CREMAD_ACTED = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutrality",
    "SAD": "sadness",
}
_CREMAD_HEARD = dict.fromkeys(("voice_vote", "face_vote", "multimodal_vote"), _CREMAD_LETTERS)
_CREMAD = Corpus(
    name="cremad",
    title="CREMA-D",
    language="American English",
    file_name=r"(?P<speaker>10(?:[0-8]\d|9[01]))_(?P<sentence>[A-Z]{3})_"
    r"(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(?P<level>LO|MD|HI|XX)\.(?:wav|mp3|flv)",
    example="AudioWAV/1001_IEO_ANG_HI.wav",
    labels=_CREMAD_ACTED,
    further_labels=_CREMAD_HEARD,
    words={
        "DFA": "Don't forget a jacket",
        "IEO": "It's eleven o'clock",
        "IOM": "I'm on my way to the meeting",
        "ITH": "I think I have a doctor's appointment",
        "ITS": "I think I've seen this before",
        "IWL": "I would like a new alarm clock",
        "IWW": "I wonder what this is about",
        "MTI": "Maybe tomorrow it will be cold",
        "TAI": "The airplane is almost full",
        "TIE": "That is exactly what happened",
        "TSI": "The surface is slick",
        "WSI": "We'll stop in a couple of minutes",
    },
    n_utterances=7442,
    n_speakers=91,
    women=_CREMAD_WOMEN,
    men=frozenset(f"{1000 + n}" for n in range(1, 92)) - _CREMAD_WOMEN,
    spelling={r"\.(mp3|flv)$": ".wav"},
    releases=(
        Release("AudioWAV", r"\.wav$", 7442),
        Release("AudioMP3", r"\.mp3$", 7442),
        Release("VideoFlash", r"\.flv$", 7442),
    ),
    labelled_by=_CREMAD_VOTES,
    label_files="processedResults/summaryTable.csv",
    sample_rates=frozenset({16_000, 44_100}),
    damaged=frozenset({"1076_MTI_SAD_XX.wav"}),
    same_audio=frozenset(
        frozenset(f"{each}_XX.wav" for each in pair.split())
        for pair in (
            "1006_TIE_HAP 1006_TIE_NEU",
            "1013_WSI_DIS 1013_WSI_SAD",
            "1017_IWW_ANG 1017_IWW_FEA",
        )
    ),
    traps=(
        "three pairs of clips are one recording under two labels: 1006_TIE_HAP and _NEU, "
        "1013_WSI_DIS and _SAD, 1017_IWW_ANG and _FEA",
        "the label is what was acted; listeners to the voice alone chose it for 3099 of 7442 clips "
        "(cremad-voice has their label, the column voice_vote both)",
        "1076_MTI_SAD_XX has no audio",
        "a plain ZIP of the repository holds Git LFS pointers of 130 bytes, not audio",
    ),
    licence="ODbL 1.0 and DbCL 1.0",
    obtain="git clone github.com/CheyneyComputerScience/CREMA-D, with Git LFS",
    source="Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244",
)

_JL = Corpus(
    name="jlcorpus",
    title="JL-Corpus",
    language="New Zealand English",
    file_name=r"(?P<speaker>(?P<gender>female|male)[12])_(?P<emotion>angry|excited|happy|neutral|"
    r"sad|anxious|apologetic|assertive|concerned|encouraging)_(?P<sentence>\d+[ab])_[12]\.wav",
    example="JL(wav+txt)/male1_angry_10a_1.wav",
    labels={
        "angry": "anger",
        "excited": "excitement",
        "happy": "happiness",
        "neutral": "neutrality",
        "sad": "sadness",
        **{
            each: each
            for each in ("anxious", "apologetic", "assertive", "concerned", "encouraging")
        },
    },
    n_utterances=2400,
    n_speakers=4,
    sample_rates=frozenset({44_100}),
    traps=(
        "five primary and five secondary emotions, said to have different sentences (only stated): "
        "then the words tell the two groups apart; jlcorpus-5 has the primary five",
    ),
    licence="CC0 or ODC-By; sources disagree",
    obtain="download from Kaggle, tli725/jl-corpus",
    source="James et al. 2018, doi:10.21437/Interspeech.2018-1349",
)

_IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    language="American English",
    file_name=r"(?P<key>Ses0[1-5][FM]_(?:impro|script)\d\d[ab]?(?:_\d[ab]?)?_[FM]\d{3}\.wav)",
    example="Session1/sentences/wav/Ses01F_impro04/Ses01F_impro04_F000.wav",
    labels={
        "ang": "anger",
        "dis": "disgust",
        "exc": "excitement",
        "fea": "fear",
        "fru": "frustration",
        "hap": "happiness",
        "neu": "neutrality",
        "oth": "other",
        "sad": "sadness",
        "sur": "surprise",
    },
    n_utterances=7532,
    n_speakers=10,
    labelled_by=label_formats.iemocap,
    label_files="Session?/dialog/EmoEvaluation/*.txt",
    needs_label_files=True,
    sample_rates=frozenset({16_000}),
    traps=(
        "the speaker is the letter before the turn's number: Ses01F in a dialogue's name says who "
        "wore the markers, and the other one speaks in half of the turns",
        "2507 turns have no majority (xxx) and are left out",
        "scripted dialogues have the same text in every session; the column kind says which",
    ),
    licence="by its release form, no redistribution",
    obtain="ask at sail.usc.edu/iemocap, with the release form",
    source="Busso et al. 2008, doi:10.1007/s10579-008-9076-6",
)

_IMPROV_LETTERS = {"A": "anger", "H": "happiness", "N": "neutrality", "S": "sadness"}

_PODCAST = Corpus(
    name="msp-podcast",
    title="MSP-Podcast",
    language="English",
    file_name=r"(?P<key>MSP-PODCAST_(?:\d{4}|test3)_\d{4}(?:_\d{4})?\.wav)",
    example="Audios/MSP-PODCAST_0002_0033.wav",
    labels={
        "A": "anger",
        "C": "contempt",
        "D": "disgust",
        "F": "fear",
        "H": "happiness",
        "N": "neutrality",
        "S": "sadness",
        "U": "surprise",
    },
    n_utterances=0,
    n_speakers=0,
    labelled_by=label_formats.msp_podcast,
    label_files="Labels/labels_consensus.csv",
    needs_label_files=True,
    split_words={"Test3": ""},  # Test1 and Test2 are two test sets, by these names
    traps=(
        "the number of clips depends on the release: 73042 in 1.8, 151654 in 1.11, 207136 in 1.12",
        "part of the speakers of Train is not known",
        "Test1, Test2 and Test3 share speakers with each other: Test1 and Test2 are scored apart; "
        "the labels of Test3 are not published",
        "MSP-PODCAST_1023_0235.wav is said to be stereo at 44.1 kHz (only stated)",
    ),
    licence="agreement with UT Dallas",
    obtain="ask at lab-msp.com",
    source="Lotfian and Busso 2019, doi:10.1109/TAFFC.2017.2736999",
)

ROWS = (
    _RAVDESS,
    replace(
        _RAVDESS,
        name="ravdess-7",  # without calm, which few other corpora have
        labels={code: label for code, label in _RAVDESS.labels.items() if label != "calm"},
        n_utterances=1248,
        variant_of="ravdess",
    ),
    _CREMAD,
    replace(
        _CREMAD,
        name="cremad-voice",  # what most listeners to the voice heard; ties are left out
        file_name=_CREMAD.file_name.replace("<emotion>", "<acted>"),
        labels=_CREMAD_LETTERS,
        further_labels={"acted": _CREMAD_ACTED} | _CREMAD_HEARD,
        labelled_by=replace(_CREMAD_VOTES, label="VoiceVote"),
        needs_label_files=True,
        n_utterances=6798,
        releases=(),
        variant_of="cremad",
    ),
    Corpus(
        name="tess",
        title="TESS",
        language="Canadian English",
        file_name=r"(?P<speaker>OAF?|YAF)_(?P<sentence>[a-z]+)_"
        r"(?P<emotion>angry|disgust|fear|happy|neutral|ps|sad)\.wav",
        example="OAF_back_angry.wav",
        labels={
            "angry": "anger",
            "disgust": "disgust",
            "fear": "fear",
            "happy": "happiness",
            "neutral": "neutrality",
            "ps": "surprise",
            "sad": "sadness",
        },
        n_utterances=2800,
        n_speakers=2,
        women=frozenset({"OAF", "YAF"}),
        sample_rates=frozenset({24_414, 96_000}),
        spelling={r"^OA_": "OAF_"},
        second_copy=r"(?i)tess toronto[^/]*/(?:.*/)?tess toronto[^/]*/",
        traps=(
            "two speakers, women of 64 and 26: a speaker can be tested on only by training on the "
            "other one, and no third is left for validation",
            "surprise is pleasant surprise (ps)",
            "a copy that is passed round nests a second copy, which is skipped, and calls one file "
            "OA_bite_neutral; OA is OAF",
            "OAF_food_fear.wav has 96 kHz, the others 24414 Hz",
        ),
        licence="CC BY-NC-ND 4.0",
        obtain="download from tspace.library.utoronto.ca/handle/1807/24487; no open link to all of "
        "it with a checksum is known",
        source="Pichora-Fuller and Dupuis 2020, doi:10.5683/SP2/E8H2MF",
    ),
    Corpus(
        name="savee",
        title="SAVEE",
        language="British English",
        file_name=r"(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>sa|su|a|d|f|h|n)(?P<number>\d\d)\.wav",
        example="AudioData/DC/a01.wav",
        labels={
            "a": "anger",
            "d": "disgust",
            "f": "fear",
            "h": "happiness",
            "n": "neutrality",
            "sa": "sadness",
            "su": "surprise",
        },
        n_utterances=480,
        n_speakers=4,
        men=speakers("DC JE JK KL"),
        sample_rates=frozenset({44_100}),
        spelling={r"^(..)_": r"\1/"},
        traps=(
            "the speaker is a folder (DC/a01.wav) or a prefix (DC_a01.wav); without either, the "
            "files of the four overwrite each other",
            "12 of the 15 sentences of an emotion are that emotion's alone",
        ),
        licence="research only, by registration",
        obtain="ask at kahlan.eps.surrey.ac.uk/savee",
        source="Haq and Jackson 2010, Machine Audition, pp. 398-423",
    ),
    _JL,
    replace(
        _JL,
        name="jlcorpus-5",
        labels={own: _JL.labels[own] for own in ("angry", "excited", "happy", "neutral", "sad")},
        n_utterances=1200,
        variant_of="jlcorpus",
    ),
    Corpus(
        name="emovdb",
        title="EmoV-DB",
        language="English",
        # Speaker and emotion are the folder's; the words before the numbers are others.
        file_name=r"(?P<speaker>bea|jenie|josh|sam)[_/]"
        r"(?P<emotion>Amused|Angry|Disgusted|Neutral|Sleepy)/"
        r"(?i:amused|anger|disgust|neutral|sleepiness)_\d+[-_]\d+_(?P<sentence>\d{4})\.wav",
        example="bea_Amused/amused_1-15_0001.wav",
        labels={
            "Amused": "amusement",
            "Angry": "anger",
            "Disgusted": "disgust",
            "Neutral": "neutrality",
            "Sleepy": "sleepiness",
        },
        n_utterances=6893,
        n_speakers=4,
        women=frozenset({"bea", "jenie"}),
        men=frozenset({"josh", "sam"}),
        sample_rates=frozenset({44_100, 16_000}),
        spelling={r"^(\w+)/(?=\w+/)": r"\1_"},
        traps=(
            "the speaker is in the folder alone, and the base names of different speakers collide",
            "bea is recorded at 44.1 kHz, the others at 16 kHz: the rate gives the speaker away",
            "josh has no anger and no disgust",
            "6893 files are stated; the one list that is known has 6887",
        ),
        links={
            f"{name}.tar.gz": f"https://www.openslr.org/resources/115/{name}.tar.gz"
            for name in (
                *("bea_Amused", "bea_Angry", "bea_Disgusted", "bea_Neutral", "bea_Sleepy"),
                *("jenie_Amused", "jenie_Angry", "jenie_Disgusted", "jenie_Neutral"),
                *("jenie_Sleepy", "josh_Amused", "josh_Neutral", "josh_Sleepy"),
                *("sam_Amused", "sam_Angry", "sam_Disgusted", "sam_Neutral", "sam_Sleepy"),
            )
        },
        licence="non-commercial",
        obtain="download from openslr.org/115",
        source="Adigwe et al. 2018, arXiv:1806.09514",
    ),
    Corpus(
        name="mess",
        title="MESS",
        language="British English",
        file_name=r"(?P<emotion>[ACHS])(?P<speaker>(?P<gender>[FM])[1-3])"
        r"(?P<sentence>[MVT]\d\d)_SCR\.wav",
        example="AF1M01_SCR.wav",
        labels={"A": "anger", "C": "calm", "H": "happiness", "S": "sadness"},
        n_utterances=1800,
        n_speakers=6,
        traps=("S is sadness, not surprise",),
        licence="not known here; its record says it",
        obtain="download from zenodo.org/records/3813437, after reading which licence it states",
        source="Morgan 2019, doi:10.5281/zenodo.3813437",
    ),
    Corpus(
        name="emns",
        title="EMNS",
        language="British English",
        file_name=r"(?P<key>recorded_audio(?:_\w{7})?)\.(?:webm|wav|flac)",
        example="cleaned_webm/recorded_audio_02jmPGL.webm",
        labels={
            "angry": "anger",
            "disgust": "disgust",
            "excited": "excitement",
            "happy": "happiness",
            "neutral": "neutrality",
            "sad": "sadness",
            "sarcastic": "sarcasm",
            "surprised": "surprise",
            "surprise": "surprise",
        },
        n_utterances=1181,
        n_speakers=1,
        only_speaker="3",
        women=frozenset({"3"}),
        labelled_by=LabelTable(
            files=r"metadata\.csv",
            separator="|",
            path="{audio_recording}",
            label="emotion",
            sentence="utterance",
            further={"level": "level", "description": "description"},
        ),
        label_files="metadata.csv",
        needs_label_files=True,
        sample_rates=frozenset({48_000}),
        traps=(
            "one woman: no split by speaker",
            "the audio is WebM, which ffmpeg decodes",
            "the cleaned set has 1181 clips, the raw one 1205 or 1206 (only stated)",
        ),
        licence="Apache 2.0 or CC BY 4.0; sources disagree",
        links={
            name: f"https://www.openslr.org/resources/136/{name}"
            for name in ("metadata.csv", "cleaned_webm.tar.xz")
        },
        obtain="download from openslr.org/136",
        source="Noriy et al. 2023, arXiv:2305.13137",
    ),
    Corpus(
        name="enterface",
        title="eNTERFACE'05",
        language="English",
        # The folder says who speaks: the files of subject 11 are named as if of 12.
        file_name=r"subject[ _-]?(?P<speaker>\d{1,2})/[a-z]+/(?:sentence[ _-]?\d/)?"
        r"s_?\d{1,2}_(?P<emotion>an|di|fe|ha|sa|su)_(?P<number>\d)(?:avi)?\.(?:avi|mp4|wav)",
        example="subject 1/anger/sentence 1/s1_an_1.avi",
        labels={
            "an": "anger",
            "di": "disgust",
            "fe": "fear",
            "ha": "happiness",
            "sa": "sadness",
            "su": "surprise",
        },
        n_utterances=1287,
        n_speakers=43,
        sentence_of=lambda match: match["emotion"] + match["number"],
        spelling={
            r"^subject[ _-]?(?=\d)": "subject ",
            r"/sentence[ _-]?(?=\d)": "/sentence ",
            r"\.(mp4|wav)$": ".avi",
        },
        beside={r"subject[ _-]?6/[a-z]+/s6_[a-z]{2}\.avi$": "subject 6, whose sentences are uncut"},
        sample_rates=frozenset({48_000}),
        traps=(
            "the files of subject 11 carry the name of subject 12 (s12_...): the folder is right",
            "subject 6 has one film per emotion, uncut, and is left out; subject 23 has 27 clips",
            "each emotion has five sentences of its own: the words give the emotion away",
            "its paper states 42 subjects and 1166 clips; the release has 44 and 1293",
            "most speakers are not native; the gender of each is not published",
        ),
        licence="not stated; free for research",
        obtain="download from enterface.net/enterface05",
        source="Martin et al. 2006, doi:10.1109/ICDEW.2006.145",
    ),
    Corpus(
        name="meld",
        title="MELD",
        language="American English",
        file_name=r"(?:train_splits|train|dev_splits_complete|dev|output_repeated_splits_test|test)"
        r"/dia\d+_utt\d+\.(?:mp4|wav|flac)",
        example="train_splits/dia0_utt0.mp4",
        labels={
            "anger": "anger",
            "disgust": "disgust",
            "fear": "fear",
            "joy": "happiness",
            "neutral": "neutrality",
            "sadness": "sadness",
            "surprise": "surprise",
        },
        n_utterances=13_708,
        n_speakers=304,
        spelling={
            r"^train/": "train_splits/",
            r"^dev/": "dev_splits_complete/",
            r"^test/": "output_repeated_splits_test/",
            r"\.(wav|flac)$": ".mp4",
        },
        labelled_by=lambda files: [
            row
            for part, folder in (
                ("train", "train_splits"),
                ("dev", "dev_splits_complete"),
                ("test", "output_repeated_splits_test"),
            )
            for row in LabelTable(
                files=rf"{part}_sent_emo\.csv",
                path=f"{folder}/dia{{Dialogue_ID}}_utt{{Utterance_ID}}.mp4",
                label="Emotion",
                speaker="Speaker",
                sentence="Utterance",
                split=part,
                further={"sentiment": "Sentiment"},
            )(files)
        ],
        label_files="train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv",
        needs_label_files=True,
        beside={r"final_videos_test": "films of the test folder that are no utterances"},
        damaged=frozenset({"train_splits/dia125_utt3.mp4", "dev_splits_complete/dia110_utt7.mp4"}),
        traps=(
            "the same base name exists in all three parts, so the folder is in the key",
            "69 of the 100 speakers of test are in train, the six main roles among them",
            "All and minor roles such as A Waiter are no one person",
            "a laughter track, several voices in a clip, clips from 0.06 to 305 s",
        ),
        licence="GPL-3 for the labels; the audio is of a television series",
        obtain="download MELD.Raw.tar.gz, and the labels from github.com/declare-lab/MELD",
        source="Poria et al. 2019, doi:10.18653/v1/P19-1050",
    ),
    _IEMOCAP,
    replace(
        _IEMOCAP,
        name="iemocap-4",  # the four classes of most papers, excitement taken as happiness
        labels={
            "ang": "anger",
            "exc": "happiness",
            "hap": "happiness",
            "neu": "neutrality",
            "sad": "sadness",
        },
        n_utterances=5531,
        variant_of="iemocap",
    ),
    Corpus(
        name="msp-improv",
        title="MSP-IMPROV",
        language="American English",
        file_name=r"(?P<key>MSP-IMPROV-S\d\d(?P<intended>[AHSN])-"
        r"(?P<speaker>(?P<gender>[FM])0(?P<fold>[1-6]))-(?P<recording>[PRST])-\w+\.wav)",
        example="session1/S01A/S/MSP-IMPROV-S01A-F01-S-FM01.wav",
        labels=_IMPROV_LETTERS,
        further_labels={"intended": _IMPROV_LETTERS},
        n_utterances=0,
        n_speakers=12,
        labelled_by=label_formats.msp_improv,
        label_files="Evalution.txt (or Evaluation.txt)",
        needs_label_files=True,
        traps=(
            "the label is what was perceived; the column intended has what was to be said",
            "8438 turns are stated; those without agreement (X) and of other emotions (O) are left "
            "out",
        ),
        licence="agreement with UT Dallas",
        obtain="ask at lab-msp.com",
        source="Busso et al. 2017, doi:10.1109/TAFFC.2016.2515617",
    ),
    _PODCAST,
    *(
        replace(
            _PODCAST,
            name=f"msp-podcast-{release}",  # refuses the labels of another release
            labelled_by=partial(label_formats.msp_podcast, release=release),
            variant_of="msp-podcast",
        )
        for release in label_formats.PODCAST_RELEASES
    ),
)
