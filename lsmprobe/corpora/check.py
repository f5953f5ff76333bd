"""The doctor of a corpus: what its clips hold, compared with what is published of it.

Every clip is decoded once; the findings end in one verdict.
"""

import hashlib
import importlib.resources
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lsmprobe.corpora.audio import AudioHeader, read_audio, read_header
from lsmprobe.corpora.fingerprint import Fingerprint, fingerprint, same_recordings
from lsmprobe.corpora.read import corpus_folder, known_corpus, read_corpus, release_in
from lsmprobe.corpora.table import AS_IN_THE_PAPER, CORPORA, EMOTIONS, Corpus, Release
from lsmprobe.corpora.utterances import names_alike
from lsmprobe.errors import AudioError, CorpusError, counted
from lsmprobe.progress import Progress, automatic

SHOWN = 5  # of a list, in the lines; the JSON has them all
ALIKE = "speakers whose names differ only in capitals, blanks or zeros before a number"


@dataclass(frozen=True)
class Count:
    """How many clips there are of one emotion, gender or speaker, and how many are published."""

    of: str  # emotion, gender, speaker, or "speaker, emotion" where these two differ
    name: str
    found: int
    expected: int | None  # None if it is not published

    @property
    def differs(self) -> bool:
        """Whether this is not as published."""
        return self.expected is not None and self.found != self.expected

    def __str__(self) -> str:
        return f"{self.found}" if self.expected is None else f"{self.found} of {self.expected}"


@dataclass(frozen=True)
class CorpusReport:
    """What a copy holds; `lines` are for people, `to_json` is for programs."""

    corpus: str
    folder: str
    release: str  # empty if there is but one
    n_clips: int
    n_clips_expected: int | None  # None of a corpus of one's own
    n_speakers: int
    n_speakers_expected: int | None  # None where it is not published
    counts: tuple[Count, ...]
    hours: float
    shortest_s: float
    longest_s: float
    sample_rates: dict[int, int]  # Hz -> clips
    sample_rates_expected: tuple[int, ...]  # Hz; empty if it is not known
    channels: dict[int, int]  # number of channels -> clips
    unusable: dict[str, str]  # key -> what is wrong: unreadable, empty, silent, too short
    damaged: tuple[str, ...]  # of the unusable, those that are so in every copy
    odd: dict[str, tuple[str, ...]]  # clipping, dead channel, ... -> keys
    duplicates: tuple[tuple[str, ...], ...]  # keys of the same audio
    clashes: tuple[tuple[str, ...], ...]  # of the duplicates, those of two emotions or speakers
    nearly: tuple[tuple[str, ...], ...]  # equal but for their gain or the silence around them
    alike: tuple[tuple[str, ...], ...]  # speakers who may be one, by their names
    paper: str  # how the corpus compares with the paper's Table 1; empty of one's own
    traps: tuple[str, ...] = ()  # what is known of the corpus that a reader would not expect

    @property
    def is_complete(self) -> bool:
        """Whether everything published is there, as it was published, and nothing else.

        Of a corpus of one's own: whether every clip is usable, and none has another's audio.
        """
        if self.n_clips_expected is None:
            return not self.unusable and not self.clashes
        return (
            self.n_clips == self.n_clips_expected
            and self.n_speakers_expected in (None, self.n_speakers)
            and not any(count.differs for count in self.counts)
            and set(self.unusable) == set(self.damaged)
            and not self.clashes
            and not self.n_resampled
        )

    @property
    def n_resampled(self) -> int:
        """Clips at a sampling rate that the corpus is not published in."""
        published = self.sample_rates_expected or self.sample_rates
        return sum(n for hz, n in self.sample_rates.items() if hz not in published)

    @property
    def verdict(self) -> str:
        """One line: complete, or what is missing, extra or wrong; and the paper."""
        if self.n_clips_expected is None:
            return self._own_verdict()
        clips = counted(self.n_clips, "clip", of=self.n_clips_expected)
        release = f" of {self.release}" if self.release else ""
        if self.is_complete:
            broken = f" ({len(self.damaged)} damaged in every copy)" if self.damaged else ""
            speakers = counted(self.n_speakers, "speaker")
            return f"complete: {clips}{release}{broken}, {speakers}, {self.paper}"
        cells = [count for count in self.counts if count.of == "speaker, emotion"]
        lacks = [self.n_clips_expected - self.n_clips] if not cells else []
        lacks += [(count.expected or 0) - count.found for count in cells]
        faults = {
            "missing": sum(lack for lack in lacks if lack > 0),
            "extra": -sum(lack for lack in lacks if lack < 0),
            "unusable": len(self.unusable) - len(self.damaged),
            "with the audio of another clip": sum(len(keys) - 1 for keys in self.clashes),
            "at another sampling rate": self.n_resampled,
        }
        said = [counted(self.n_speakers, "speaker", of=self.n_speakers_expected)]
        said += [f"{n} {fault}" for fault, n in faults.items() if n]
        said += [self.paper] if self.paper != AS_IN_THE_PAPER else []
        return f"incomplete: {clips}{release}, {', '.join(said)}"

    def _own_verdict(self) -> str:
        faults = {
            "unusable": len(self.unusable),
            "with the audio of another clip": sum(len(keys) - 1 for keys in self.clashes),
        }
        said = [f"{n} {fault}" for fault, n in faults.items() if n]
        end = ", ".join(said) or "all usable"
        return f"{counted(self.n_clips, 'clip')}, {counted(self.n_speakers, 'speaker')}: {end}"

    def lines(self) -> list[str]:
        """The report, a line each; the verdict is the last."""
        title = f"{self.corpus!r}"
        if corpus := CORPORA.get(self.corpus):
            title = f"{corpus.title} ({corpus.language}) in {self.folder!r}"
        return [
            title,
            *self._body(),
            self.verdict,
        ]

    def _body(self) -> Iterator[str]:
        for of in ("emotion", "gender"):
            counts = [count for count in self.counts if count.of == of]
            yield f"{of}: " + ", ".join(f"{count.name or 'not known'} {count}" for count in counts)
        speakers = [count for count in self.counts if count.of == "speaker"]
        each = sorted(count.found for count in speakers if count.found)
        yield f"speakers: {self.n_speakers}, with {each[0]} to {counted(each[-1], 'clip')}"
        yield f"audio: {self.hours:.2f} h, clips of {self.shortest_s:.2f} to {self.longest_s:.2f} s"
        yield "sampling rate: " + ", ".join(f"{hz} Hz {n}" for hz, n in self.sample_rates.items())
        yield "channels: " + ", ".join(
            f"{channels} in {n}" for channels, n in self.channels.items()
        )
        for of in ("speaker", "speaker, emotion"):
            differing = [count for count in self.counts if count.of == of and count.differs]
            yield from _shown(
                f"{of} not as published", [f"{count.name}: {count}" for count in differing]
            )
        yield from _shown("unusable", list(self.unusable.values()))
        for kind, keys in self.odd.items():
            yield from _shown(kind, [repr(key) for key in keys])
        others = [keys for keys in self.duplicates if keys not in self.clashes]
        for what, same in (
            ("the same audio for two emotions or speakers", self.clashes),
            ("the same audio", others),
            ("the same audio but for gain or silence", self.nearly),
            (ALIKE, self.alike),
        ):
            yield from _shown(what, [" = ".join(map(repr, keys)) for keys in same])
        for trap in self.traps:
            yield f"known: {trap}"

    def to_json(self) -> str:
        """Everything, and whether the copy is complete."""
        said = {"complete": self.is_complete, "verdict": self.verdict}
        # In ASCII, since the folder's name may hold bytes that are no text.
        return json.dumps(said | asdict(self), ensure_ascii=True, indent=1)


def _shown(what: str, each: list[str]) -> Iterator[str]:
    """The first few of a list."""
    if each:
        more = f" and {len(each) - SHOWN} more" if len(each) > SHOWN else ""
        yield f"{what} ({len(each)}): {'; '.join(each[:SHOWN])}{more}"


def check_corpus(name: str, data_dir: str | Path | None = None, **reading: Any) -> CorpusReport:
    """Read every clip of a corpus, and compare it with what is published of it.

    Args:
        name: a row of `corpora.CORPORA`; or a corpus of one's own, as `read_corpus` takes it, of
            which nothing is published.
        data_dir: where the copy lies, see `corpora.corpus_folder`.
        reading: further arguments of `read_corpus`, for a corpus of one's own.

    Raises:
        CorpusError: there is no such corpus, or none in that folder.
    """
    if name in CORPORA:
        if asked := [argument for argument, value in reading.items() if value]:
            raise CorpusError(
                f"{name!r} is checked as it is published; leave out "
                f"{', '.join('--' + argument.replace('_', '-') for argument in asked)}."
            )
        corpus, folder = known_corpus(name), corpus_folder(name, data_dir)
        utterances = read_corpus(name, folder)
        clips = listen_to_all(utterances)
        report = _report(name, folder, utterances, clips)
        return _with_published(report, corpus, release_in(corpus, folder), utterances)
    utterances = read_corpus(name, data_dir, **reading)
    return _report(name, Path(data_dir or "."), utterances, listen_to_all(utterances))


@dataclass(frozen=True)
class Clip:
    """What listening to a clip found."""

    header: AudioHeader | None = None
    odd: tuple[str, ...] = ()
    audio_hash: str = ""
    fault: str = ""
    fingerprint: Fingerprint | None = None


def listen_to_all(utterances: pd.DataFrame, progress: Progress = automatic) -> list[Clip]:
    """Decode every utterance once, in as many threads as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        heard = pool.map(_listen, utterances.path, utterances.start_s, utterances.end_s)
        return list(progress(heard, total=len(utterances), unit=" clips"))


def _listen(path: str, start_s: float, end_s: float) -> Clip:
    header = None
    try:
        header = read_header(path)
        audio = read_audio(path, start_s=start_s, end_s=end_s)
    except AudioError as error:
        return Clip(header, fault=str(error))
    # Of the waveform, not the file: a header may differ between two copies of the same audio.
    audio_hash = hashlib.sha256(audio.waveform.tobytes()).hexdigest()
    return Clip(
        header,
        tuple(finding.partition(":")[0] for finding in audio.findings),
        audio_hash,
        fingerprint=fingerprint(audio.waveform),
    )


def _report(
    name: str, folder: Path, utterances: pd.DataFrame, clips: Sequence[Clip]
) -> CorpusReport:
    """What is there, compared with nothing."""
    headers = [clip.header for clip in clips if clip.header]
    parts = zip(clips, utterances.start_s, utterances.end_s, strict=True)
    seconds = [_seconds(clip.header, start, end) for clip, start, end in parts if clip.header]
    keys = utterances.key.tolist()
    odd, same = defaultdict(list), defaultdict(list)
    for key, clip in zip(keys, clips, strict=True):
        for kind in clip.odd:
            odd[kind].append(key)
        if clip.audio_hash:
            same[clip.audio_hash].append(key)
    duplicates = [tuple(group) for group in same.values() if len(group) > 1]
    labels = utterances.set_index("key")[["speaker", "emotion"]]
    return CorpusReport(
        corpus=name,
        folder=str(folder),
        release="",
        n_clips=len(utterances),
        n_clips_expected=None,
        n_speakers=utterances.speaker.nunique(),
        n_speakers_expected=None,
        counts=tuple(_counts(utterances, pd.DataFrame())),
        hours=sum(seconds) / 3600,
        shortest_s=min(seconds, default=0.0),
        longest_s=max(seconds, default=0.0),
        sample_rates=dict(sorted(Counter(header.sample_rate for header in headers).items())),
        sample_rates_expected=(),
        channels=dict(sorted(Counter(header.channels for header in headers).items())),
        unusable={key: clip.fault for key, clip in zip(keys, clips, strict=True) if clip.fault},
        damaged=(),
        odd={kind: tuple(found) for kind, found in sorted(odd.items())},
        duplicates=tuple(duplicates),
        clashes=tuple(
            group for group in duplicates if len(labels.loc[[*group]].drop_duplicates()) > 1
        ),
        nearly=tuple(tuple(keys[i] for i in group) for group in nearly_equal(clips)),
        alike=tuple(names_alike(utterances.speaker)),
        paper="",
    )


def _with_published(
    report: CorpusReport, corpus: Corpus, release: Release, utterances: pd.DataFrame
) -> CorpusReport:
    """The report of a copy, compared with what is published."""
    return replace(
        report,
        release=release.name,
        n_clips_expected=release.n_utterances or None,
        n_speakers_expected=corpus.n_speakers or None,
        counts=tuple(_counts(utterances, _published(corpus, release))),
        sample_rates_expected=tuple(sorted(corpus.sample_rates)),
        damaged=tuple(sorted(corpus.damaged & set(report.unusable))),
        clashes=tuple(
            group for group in report.clashes if frozenset(group) not in corpus.same_audio
        ),
        paper=corpus.beside_the_paper(release),
        traps=corpus.traps,
    )


def _seconds(header: AudioHeader, start_s: float, end_s: float) -> float:
    """Of a part, or of the whole file."""
    start = 0.0 if math.isnan(start_s) else start_s
    return (header.seconds if math.isnan(end_s) else min(end_s, header.seconds)) - start


def nearly_equal(clips: Sequence[Clip]) -> list[list[int]]:
    """Groups of clips that are one recording, though not equal: gain or silence was changed."""
    groups = same_recordings([clip.fingerprint for clip in clips])
    return [group for group in groups if len({clips[i].audio_hash for i in group}) > 1]


def _published(corpus: Corpus, release: Release) -> pd.DataFrame:
    """Clips per speaker, gender and emotion; empty if they are not known."""
    with (importlib.resources.files("lsmprobe") / "data" / "counts.csv").open(
        encoding="utf-8"
    ) as file:
        counts = pd.read_csv(file, dtype={"speaker": str, "release": str}, keep_default_na=False)
    name = corpus.name
    if name not in set(counts.corpus) and _is_part_of_its_base(corpus):
        name = corpus.variant_of
    counts = counts[(counts.corpus == name) & counts.release.isin(["", release.name])]
    cells = [
        (row.speaker, row.gender, emotion, int(n))
        for row in counts.itertuples()
        for emotion, n in (cell.split("=") for cell in row.clips.split())
        if emotion in corpus.labels.values()
    ]
    return pd.DataFrame(cells, columns=["speaker", "gender", "emotion", "clips"])


def _is_part_of_its_base(corpus: Corpus) -> bool:
    """Whether a variant is its base without some labels, so that the base's counts are its own."""
    base = CORPORA.get(corpus.variant_of)
    return (
        base is not None
        and corpus.file_name == base.file_name
        and corpus.labelled_by is base.labelled_by
        and corpus.labels.items() <= base.labels.items()
    )


def _counts(utterances: pd.DataFrame, published: pd.DataFrame) -> Iterator[Count]:
    """What is there besides what is published; of speaker and emotion together, what differs."""
    for columns in (["emotion"], ["gender"], ["speaker"], ["speaker", "emotion"]):
        found = utterances.groupby(columns).size()
        expected = pd.Series(dtype=int)
        if len(published):
            expected = published.groupby(columns).clips.sum()
        for name in sorted(set(found.index) | set(expected.index)):
            known = None if published.empty else int(expected.get(name, 0))
            shown = name if isinstance(name, str) else ", ".join(name)
            count = Count(", ".join(columns), shown, int(found.get(name, 0)), known)
            if len(columns) == 1 or count.differs:
                yield count


def list_corpora(word: str = "") -> pd.DataFrame:
    """The table of corpora: what each holds, its licence, and how to get it.

    Args:
        word: only rows that have it in the name, title, language, licence or emotions.

    Raises:
        CorpusError: no row has the word.
    """
    table = pd.DataFrame(
        {
            "name": corpus.name,
            "title": corpus.title,
            "language": corpus.language,
            "clips": corpus.n_utterances,
            "speakers": corpus.n_speakers,
            "emotions": listed_emotions(corpus.labels.values()),
            "licence": corpus.licence,
            "obtain": corpus.how_to_get,
        }
        for corpus in CORPORA.values()
    )
    searched = table[["name", "title", "language", "licence", "emotions"]].agg(" ".join, axis=1)
    kept = table[[word.casefold() in text.casefold() for text in searched]]
    if kept.empty:
        languages = "; ".join(sorted(set(table.language)))
        raise CorpusError(f"no corpus has {word!r}; languages are {languages}.")
    return kept.reset_index(drop=True)


def listed_emotions(emotions: Iterable[str]) -> str:
    """The emotions that occur, in the order of `EMOTIONS`, for a line of text."""
    there = set(emotions)
    return ", ".join(emotion for emotion in EMOTIONS if emotion in there)
