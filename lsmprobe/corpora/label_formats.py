"""Label files that are no tables, each read into the same rows: a function per corpus.

IEMOCAP, MSP-IMPROV, MSP-Podcast, PAVOQUE, M3ED, Emozionalmente, EmoFilm. Each finds its files by
name among those of the corpus, see `LabelReader`.
"""

import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lsmprobe.corpora.label_table import read_table
from lsmprobe.corpora.labelled import Labelled
from lsmprobe.corpora.utterances import extra, reason
from lsmprobe.errors import CorpusError, counted

IEMOCAP_TURN = re.compile(
    r"^\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<turn>\S+)\t(?P<label>\w+)"
    r"\t\[(?P<valence>[\d.]+), (?P<activation>[\d.]+), (?P<dominance>[\d.]+)\]"
)
IMPROV_TURN = re.compile(
    r"^(?:UTD-IMPROV|MSP-IMPROV)-(?P<turn>[A-Z0-9-]+)\.avi;\s*(?P<label>[A-Z]);"
    r"\s*A:(?P<activation>[\d.]+|NaN);\s*V:(?P<valence>[\d.]+|NaN);"
    r"\s*D:(?P<dominance>[\d.]+|NaN)\s*;\s*N:(?P<naturalness>[\d.]+|NaN);"
)
PODCAST_RELEASES = {"1.8": 73_042, "1.11": 151_654, "1.12": 207_136}  # release -> rows of labels
log = logging.getLogger(__name__)


def _named(files: Mapping[str, str], pattern: str) -> Iterator[tuple[str, Path]]:
    """The files whose path ends in the pattern, a doubled one once."""
    rule, seen = re.compile(rf"(?<![^/])(?:{pattern})$"), set()
    for inside, place in files.items():
        match = rule.search(inside)
        if match and match[0] not in seen:
            seen.add(match[0])
            yield match[0], Path(place)


def _text(place: Path) -> str:
    try:
        return place.read_text("utf-8", errors="replace")
    except OSError as error:
        raise CorpusError(f"cannot read {str(place)!r}: {error.strerror}.") from error


def iemocap(files: Mapping[str, str]) -> list[Labelled]:
    """`Session?/dialog/EmoEvaluation/<dialog>.txt`; the files in its sub-folders are raters'.

    The speaker is the letter before the turn's number: `Ses01F` in the name of a dialogue says who
    wore the markers.
    """
    rows = []
    for _, place in _named(files, r"EmoEvaluation/Ses\w+\.txt"):
        for line in _text(place).splitlines():
            if turn := IEMOCAP_TURN.match(line):
                name = turn["turn"]
                session, letter = name[3:5], name.rpartition("_")[2][0]
                ratings = {each: turn[each] for each in ("valence", "activation", "dominance")}
                kind = "improvised" if "_impro" in name else "scripted"
                rows.append(
                    Labelled(
                        path=f"{name}.wav",
                        label=turn["label"],
                        speaker=f"Ses{session}{letter}",
                        gender=letter,
                        further={"fold": session.lstrip("0"), "kind": kind} | ratings,
                    )
                )
    return rows


def msp_improv(files: Mapping[str, str]) -> list[Labelled]:
    """`Evalution.txt`, as the release spells it, or `Evaluation.txt`: a line per turn, then raters.

    The label is what raters perceived; the letter in the name, what was intended, is a column.
    """
    rows = []
    for _, place in _named(files, r"Evalua?tion\.txt"):
        for line in _text(place).splitlines():
            if turn := IMPROV_TURN.match(line.strip()):
                ratings = {
                    each: "" if turn[each] == "NaN" else turn[each]
                    for each in ("activation", "valence", "dominance", "naturalness")
                }
                rows.append(
                    Labelled(f"MSP-IMPROV-{turn['turn']}.wav", turn["label"], further=ratings)
                )
    return rows


def msp_podcast(files: Mapping[str, str], *, release: str = "") -> list[Labelled]:
    """`Labels/labels_consensus.csv`; up to release 1.8 it is spelled `labels_concensus.csv`.

    Which release it is, its number of rows says; `release` accepts no other.
    """
    for _, place in _named(files, r"labels_con[cs]ensus\.csv"):
        table = read_table(place)
        n = counted(len(table), "row")
        found = next((name for name, rows in PODCAST_RELEASES.items() if rows == len(table)), "")
        if release and found != release:
            raise CorpusError(
                f"{str(place)!r} has {n}, which is "
                f"{f'release {found}' if found else 'no release known here'}; expected release "
                f"{release} with {PODCAST_RELEASES[release]}. --dataset msp-podcast reads any."
            )
        if found:
            log.info("MSP-Podcast: release %s, by its %s of labels", found, n)
        else:
            said = "MSP-Podcast: %s of labels, as no release known here; write down which it is"
            log.warning(said, n)
        try:
            return [
                Labelled(
                    path=row["FileName"],
                    label=row["EmoClass"],
                    speaker="" if row["SpkrID"] in ("Unknown", "") else row["SpkrID"],
                    gender={"Male": "male", "Female": "female"}.get(row["Gender"], ""),
                    split=row["Split_Set"],
                    further={
                        "partition": row["Split_Set"],
                        "release": found,
                        "activation": row["EmoAct"],
                        "valence": row["EmoVal"],
                        "dominance": row["EmoDom"],
                    },
                )
                for row in table
            ]
        except KeyError as missing:
            raise CorpusError(
                f"{str(place)!r} has no column {missing}; found {', '.join(table[0])}."
            ) from missing
    return []


def pavoque(files: Mapping[str, str]) -> list[Labelled]:
    """`pavoque-<style>.yaml`: a list of prompt, text, style, start and end (s) within the FLAC.

    A span that is listed under several styles has no one label: it gets them all, `angry|happy`.
    """
    spans: dict[tuple[str, float, float], list[dict[str, Any]]] = defaultdict(list)
    for name, place in _named(files, r"pavoque-\w+\.ya?ml"):
        yaml = extra("yaml")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is
        try:
            for said in yaml.load(_text(place), loader):
                start, end = float(said["start"]), float(said["end"])
                spans[f"{name.rpartition('.')[0]}.flac", start, end].append(
                    {each: str(said[each]) for each in ("prompt", "style")}
                    | {"text": str(said.get("text", ""))}
                )
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise CorpusError(
                f"{str(place)!r} is not a list of prompt, style, start and end: {reason(error)}."
            ) from error
    return [
        Labelled(
            path=path,
            label="|".join(sorted({each["style"] for each in said})),
            sentence=said[0]["text"],
            start_s=start,
            end_s=end,
            further={"prompt": said[0]["prompt"]},
        )
        for (path, start, end), said in spans.items()
    ]


def m3ed(files: Mapping[str, str]) -> list[Labelled]:
    """`annotation.json`, and the lists of series in `splitInfo/movie_list_<part>.txt`."""
    part_of = {
        series.strip(): name.rpartition("_")[2].removesuffix(".txt")
        for name, place in _named(files, r"movie_list_(?:train|val|test)\.txt")
        for series in _text(place).split()
    }
    rows = []
    for _, place in _named(files, r"annotation\.json"):
        try:
            for series, clips in json.loads(_text(place)).items():
                for clip in clips.values():
                    for utterance, said in clip["Dialog"].items():
                        letter = said["Speaker"]
                        name = clip["SpeakerInfo"][letter]["Name"]
                        rows.append(
                            Labelled(
                                path=f"{letter}_{utterance}.wav",
                                label=said["EmoAnnotation"]["final_main_emo"],
                                speaker=f"{series}_{name}",
                                sentence=str(said.get("Text", "")),
                                split=part_of.get(series, ""),
                            )
                        )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(
                f"{str(place)!r} is not M3ED's annotation: {reason(error)}."
            ) from error
    return rows


def emozionalmente(files: Mapping[str, str]) -> list[Labelled]:
    """`metadata/samples.csv`, `users.csv`, votes of `evaluations.csv`, lists in `split/`."""
    tables = {
        name.rpartition("/")[2]: read_table(place)
        for name, place in _named(files, r"metadata/(?:samples|users|evaluations)\.csv")
    }
    parts: dict[str, str] = {}
    for name, place in _named(files, r"split/(?:train|dev|test|validation)\w*\.csv"):
        for row in read_table(place):
            parts |= dict.fromkeys(row.values(), re.split(r"[/.]", name)[1])
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for row in tables.get("evaluations.csv", []):
        votes[row["file_name"]][row["emotion_recognized"]] += 1
    users = {row["username"]: row for row in tables.get("users.csv", [])}
    try:
        return [
            Labelled(
                path=row["file_name"],
                label=row["emotion_expressed"],
                speaker=row["actor"],
                gender=users.get(row["actor"], {}).get("gender", ""),
                sentence=row["sentence"],
                split=parts.get(row["file_name"], ""),
                further={"recognised": _most(votes[row["file_name"]])},
            )
            for row in tables.get("samples.csv", [])
        ]
    except KeyError as missing:
        raise CorpusError(f"samples.csv of Emozionalmente has no column {missing}.") from missing


def _most(votes: Counter[str]) -> str:
    """What most evaluators heard; empty if two emotions have as many."""
    most = votes.most_common(2)
    return "" if not most or (len(most) == 2 and most[0][1] == most[1][1]) else most[0][0]


def emofilm(files: Mapping[str, str]) -> list[Labelled]:
    """`f_m_corpus_it_es_en_legend.xlsx`: file, speaker and film, in a sheet for each gender."""
    rows = []
    for _, place in _named(files, r"f_m_corpus\w*legend\.xlsx"):
        book: Any = extra("openpyxl").load_workbook(place, read_only=True, data_only=True)
        for sheet in book.worksheets:
            lines = sheet.iter_rows(values_only=True)
            header = [str(cell or "").strip().casefold() for cell in next(lines, ())]
            for cells in lines:
                said = {
                    name: " ".join(str(cell or "").replace("\xa0", " ").split())
                    for name, cell in zip(header, cells, strict=False)
                }
                if said.get("file"):
                    speaker = said.get("speaker", "")
                    rows.append(
                        Labelled(
                            path=f"{said['file'].removesuffix('.wav')}.wav",
                            speaker="" if "?" in speaker else speaker,
                            further={"film": said.get("film", "")},
                        )
                    )
    return rows
