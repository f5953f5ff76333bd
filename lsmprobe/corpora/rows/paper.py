"""The nine corpora of the paper, and the toy."""

from dataclasses import replace

from lsmprobe.corpora.row import EMOTIONS, Corpus, Release, numbers

_SEVEN = EMOTIONS[:7]  # the "big six" and neutrality
_FRENCH = dict(zip("CDPJSTN", _SEVEN, strict=True))
_ITALIAN = dict(zip(("rab", "dis", "pau", "gio", "sor", "tri", "neu"), _SEVEN, strict=True))
_SPANISH = ("ira", "asco", "miedo", "alegria", "sorpresa", "tristeza", "neutro")
_PERSIAN = {
    "A": "anger",
    "F": "fear",
    "H": "happiness",
    "W": "surprise",
    "S": "sadness",
    "N": "neutrality",
}


_AESDD = Corpus(
    name="aesdd",
    title="AESDD",
    language="Greek",
    # 19 sentences are the same for every actor and emotion; the 20th utterance is improvised.
    file_name=r"(?P<emotion>[adfhs])(?:20|(?P<sentence>\d\d)) \(0?(?P<speaker>[1-9])\)[a-z]?\.wav",
    example="a01 (1).wav",
    labels={"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"},
    n_utterances=605,
    n_speakers=6,
    sample_rates=frozenset({44_100}),
    damaged=frozenset({"s05 (3).wav"}),
    paper_n=500,
    paper_note="5 actors x 5 emotions x 20 sentences of version 1.0, without second takes and the "
    "sixth actor",
    licence="not stated",
    obtain="download from m3c.web.auth.gr/research/aesdd-speech-emotion-recognition",
    source="Vryzas et al. 2018, doi:10.17743/jaes.2018.0036",
)


_DEMOS = Corpus(
    name="demos",
    title="DEMoS",
    language="Italian",
    file_name=r"(?:(?:NP|PR)_)?(?P<gender>[fm])_(?P<speaker>\d\d)"
    r"_(?P<emotion>col|dis|gio|neu|pau|rab|sor|tri)\d\d[a-z]\.wav",
    example="NP_f_01_rab07b.wav",
    labels=_ITALIAN,  # without the corpus's eighth, col: guilt
    n_utterances=8568,
    n_speakers=68,
    paper_n=9697,
    paper_note="that takes the 1129 clips of guilt, which is none of its seven emotions",
    licence="end-user licence agreement, academic",
    obtain="ask at zenodo.org/records/2544829, from an institutional address, with the "
    "agreement signed by a permanent member of a university",
    source="Parada-Cabaleiro et al. 2020, doi:10.1007/s10579-019-09450-y",
)


_SHEMO = Corpus(
    name="shemo",
    title="ShEMO",
    language="Persian",
    file_name=r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<emotion>[AFHNSW])\d\d\.wav",
    example="F01A01.wav",
    labels=_PERSIAN,
    n_utterances=3000,
    n_speakers=87,
    sample_rates=frozenset({44_100, 22_050}),
    paper_n=400,
    paper_emotions=("anger", "happiness", "sadness", "neutrality"),
    paper_note="four emotions and 400 clips match nothing in this corpus, but the URDU dataset; "
    "the paper's text has 3000",
    licence="free for academic use",
    obtain="download from github.com/pariajm/sharif-emotional-speech-dataset",
    source="Mohamad Nezami et al. 2019, doi:10.1007/s10579-018-9427-x",
)


ROWS = (
    _AESDD,
    replace(
        _AESDD,
        name="aesdd-v1",  # the five actors of version 1.0
        file_name=_AESDD.file_name.replace("[1-9]", "[1-5]"),
        n_utterances=505,
        n_speakers=5,
        paper_note="5 actors x 5 emotions x 20 sentences, without second takes",
        variant_of="aesdd",
    ),
    Corpus(
        name="cafe",
        title="CaFE",
        language="Canadian French",
        file_name=r"(?P<speaker>0[1-9]|1[0-2])-(?P<emotion>[CDJNPST])-(?:[12]-)?"
        r"(?P<sentence>[1-6])\.(?:wav|aiff)",
        example="01-C-1-1.wav",
        labels=_FRENCH,
        n_utterances=936,
        n_speakers=12,
        women=numbers(*range(2, 13, 2)),
        men=numbers(*range(1, 12, 2)),
        spelling={r"-N-(?=[1-6]\.)": "-N-1-", r"\.aiff$": ".wav"},
        releases=(Release("CaFE_48k", r"\.wav$", 936), Release("CaFE_192k", r"\.aiff$", 936)),
        sample_rates=frozenset({48_000, 192_000}),
        paper_n=936,
        zenodo="1478765",
        archives=r"^CaFE_48k\.zip$",
        licence="CC BY-NC-SA 4.0",
        obtain="download from zenodo.org/records/1478765",
        source="Gournay et al. 2018, doi:10.1145/3204949.3208121",
    ),
    _DEMOS,
    replace(
        _DEMOS,
        name="demos-8",  # the number of clips in the paper needs the eighth label
        labels=_ITALIAN | {"col": "guilt"},
        n_utterances=9697,
        variant_of="demos",
    ),
    Corpus(
        name="emodb",
        title="EmoDB",
        language="German",
        # Version 2 has laryngograms of the same names beside the speech.
        file_name=r"(?<!laryngo/)(?<!wav_laryng/)"
        r"(?P<speaker>03|08|09|1[0-6])(?P<sentence>[ab]\d\d)(?P<emotion>[AEFLNTW])[a-z]\.wav",
        example="03a01Fa.wav",
        labels={  # initials of the German words
            "W": "anger",
            "E": "disgust",
            "A": "fear",
            "F": "happiness",
            "T": "sadness",
            "N": "neutrality",
            "L": "boredom",
        },
        words={
            "a01": "Der Lappen liegt auf dem Eisschrank",
            "a02": "Das will sie am Mittwoch abgeben",
            "a04": "Heute Abend könnte ich es ihm sagen",
            "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück",
            "a07": "In sieben Stunden wird es soweit sein",
            "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen",
            "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter",
            "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes "
            "besucht",
            "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen",
            "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen",
        },
        n_utterances=535,
        n_speakers=10,
        women=numbers(8, 9, 13, 14, 16),
        men=numbers(3, 10, 11, 12, 15),
        sample_rates=frozenset({16_000}),
        left_out="emodb-2-extra.txt",  # version 2 adds what fewer than 80% of listeners recognised
        paper_n=535,
        zenodo="17651657",
        licence="CC0 1.0 (classic), CC BY 4.0 (version 2)",
        obtain="download from emodb.bilderbar.info, or version 2 at zenodo.org/records/17651657",
        source="Burkhardt et al. 2005, doi:10.21437/Interspeech.2005-446",
    ),
    Corpus(
        name="emomatch",
        title="EmoMatchSpanishDB",
        language="Spanish",
        file_name=r"(?P<speaker>\d\d)_+"
        r"(?P<emotion>(?i:alegria|asco|ira|miedo|neutro|sorpresa|tristeza))"
        r"(?:_+0?(?P<sentence>\d{1,2}))?_*\.wav",
        example="37_Ira_06.WAV",
        labels=dict(zip(_SPANISH, _SEVEN, strict=True)),
        n_utterances=2005,
        n_speakers=50,
        women=numbers(3, 4, 6, 7, 8, 10, 11, 20, 25, 29, 33, 40, 41, 45, 46, 49),
        men=numbers(1, 2, 5, 9, 12, 13, 22, 23, 31, 35, 36, 37, 43),  # of the others, not known
        paper_n=2005,
        licence="academic; ask",
        obtain="ask the authors, oa.upm.es/80921",
        source="García-Cuesta et al. 2024, doi:10.1007/s11042-023-15959-w",
    ),
    Corpus(
        name="emovo",
        title="EMOVO",
        language="Italian",
        file_name=r"(?P<emotion>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>(?P<gender>[fm])[1-3])"
        r"-(?P<sentence>b[1-3]|l[1-4]|n[1-5]|d[12])\.wav",
        example="rab-f1-b1.wav",
        labels=_ITALIAN,
        words={
            "b1": "Gli operai si alzano presto",
            "b2": "I vigili sono muniti di pistola",
            "b3": "La cascata fa molto rumore",
            "l1": "L'autunno prossimo Tony partirà per la Spagna: nella prima metà di ottobre",
            "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata",
            "l3": "Un attimo dopo s'è incamminato ... ed è inciampato",
            "l4": "Vorrei il numero telefonico del Signor Piatti",
            "n1": "La casa forte vuole col pane",
            "n2": "La forza trova il passo e l'aglio rosso",
            "n3": "Il gatto sta scorrendo nella pera",
            "n4": "Insalata pastasciutta coscia d'agnello limoncello",
            "n5": "Uno quarantatré dieci mille cinquantasette venti",
            "d1": "Sabato sera cosa farà?",
            "d2": "Porti con te quella cosa?",
        },
        n_utterances=588,
        n_speakers=6,
        sample_rates=frozenset({48_000}),
        paper_n=588,
        licence="not stated; said to be CC BY-NC-SA 4.0, restricted",
        obtain="ask at voice.fub.it/EMOVO",
        source="Costantini et al. 2014, LREC, pp. 3501-3504",
    ),
    Corpus(
        name="eyase",
        title="EYASE",
        language="Egyptian Arabic",
        # The folder is part of the name: every file of Female02 is named like one of Female01.
        file_name=r"(?P<speaker>(?P<gender>Female|Male)0[1-3])"
        r"/(?:fm|ml)\d\d_(?P<emotion>ang|hap|neu|sad) \(\d{1,2}\)\.wav",
        example="Female01/fm01_ang (1).wav",
        labels={"ang": "anger", "hap": "happiness", "neu": "neutrality", "sad": "sadness"},
        n_utterances=579,
        n_speakers=6,
        sample_rates=frozenset({44_100}),
        paper_n=579,
        licence="end-user licence agreement, no redistribution",
        obtain="ask at researchgate.net/publication/341001383_EYASE_Database",
        source="Abdel-Hamid 2020, doi:10.1016/j.specom.2020.04.005",
    ),
    Corpus(
        name="oreau",
        title="Oréau",
        language="French",
        # Each emotion has its own sentences, from a01 on; nobody says what a20, z03 and z04 are.
        file_name=r"(?P<speaker>\d\d)(?=(?P<sentence>a[01]\d[CDJNPST])|)"
        r"[a-z]\d\d(?P<emotion>[CDJNPST])[a-z]\.wav",
        example="10a01Ca.wav",
        labels=_FRENCH,
        n_utterances=502,
        n_speakers=32,
        women=numbers(10, 11, 13, 21, 24, 37, 42),
        men=numbers(7, 8, 9, 12, 14, 16, 18, 19, 20, 22, 23, *range(25, 34), 36, *range(38, 42)),
        releases=(
            Release("version 1", r"(?i:or[^/]*fr_?01)/", 502),
            Release("version 2", r"(?i:or[^/]*fr_?02)/", 434),
        ),
        sample_rates=frozenset({44_100}),
        paper_n=502,
        zenodo="4405783",
        licence="CC BY 4.0, according to its record",
        obtain="download from zenodo.org/records/4405783",
        source="Oréau 2021, doi:10.5281/zenodo.4405783",
    ),
    _SHEMO,
    replace(
        _SHEMO,
        name="shemo-4",  # the four emotions of the paper's Table 1
        labels={code: _PERSIAN[code] for code in "AHNS"},
        n_utterances=2737,
        variant_of="shemo",
    ),
    Corpus(
        name="toy",
        title="the embedded toy corpus",
        language="none",
        file_name=r"(?P<speaker>s\d\d)_(?P<emotion>anger|happiness|neutrality|sadness)_\d\d\.wav",
        example="s01_anger_01.wav",
        labels={name: name for name in ("anger", "happiness", "neutrality", "sadness")},
        n_utterances=300,
        n_speakers=15,
        women=frozenset(f"s{number:02}" for number in range(1, 16, 2)),
        men=frozenset(f"s{number:02}" for number in range(2, 16, 2)),
        licence="MIT",
        obtain="made from a seed by lsmprobe",
        source="lsmprobe",
    ),
)
