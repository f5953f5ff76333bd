"""A row of the table of corpora: what there is to say of one, and how a row reads a path."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lsmprobe.corpora.labelled import LabelReader
from lsmprobe.corpora.utterances import GENDERS, SPLIT_WORDS, UNKNOWN_SPEAKER

EMOTIONS = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "surprise",
    "sadness",
    "neutrality",
    "boredom",
    "guilt",
    *("calm", "excitement", "amusement", "enthusiasm", "contempt", "frustration", "sarcasm"),
    *("sleepiness", "worried", "anxious", "apologetic", "assertive", "concerned", "encouraging"),
    *("poker", "drunk", "whisper", "other"),
    *("low", "normal", "high"),  # BAVED's levels, which are no emotions
)
AS_IN_THE_PAPER = "as in the paper"
OWN_GROUPS = ("key", "emotion", "speaker", "gender", "sentence", "split")
"""Groups of a rule that have a meaning here; any other becomes a further column."""


@dataclass(frozen=True)
class Release:
    """One of several published forms of a corpus, known by where its files lie."""

    name: str
    path: str  # a regular expression searched in the path; empty: any
    n_utterances: int


@dataclass(frozen=True)
class Corpus:
    """A row of the table."""

    name: str
    title: str
    language: str
    file_name: str
    """What a path ends in, as a regular expression, folders included where they say something.
    Groups: emotion (a code of `labels`), speaker, and where the path says them gender, sentence
    (clips of equal codes say the same words, whoever speaks) and split. What it matches is the key
    of the utterance, or its group `key`. Other groups become further columns."""
    example: str  # of a path
    labels: Mapping[str, str]
    """The corpus's own label -> emotion; a clip of another label is left out, and counted."""
    n_utterances: int  # compared with the folder, so that half a copy is noticed; 0: not published
    n_speakers: int  # 0: not known
    licence: str
    obtain: str
    source: str
    women: frozenset[str] = frozenset()  # speakers, where the file names do not say
    men: frozenset[str] = frozenset()
    variant_of: str = ""  # the row that shares this one's files
    releases: tuple[Release, ...] = ()  # in the order of preference, see `release`
    sample_rates: frozenset[int] = frozenset()  # Hz, that it is published in; empty if not known
    spelling: Mapping[str, str] = field(default_factory=dict)
    """Regular expression -> replacement, where copies spell an utterance's name differently."""
    labelled_by: LabelReader | None = None
    """Reads what a file beside the audio says: a label table, or a format of its own."""
    label_files: str = ""  # what `labelled_by` reads, for a message
    needs_label_files: bool = False  # whether the paths alone do not say what is needed
    only_speaker: str = ""  # of a corpus with one voice
    speaker_of: Callable[[re.Match[str]], str] | None = None  # where no group can be it
    sentence_of: Callable[[re.Match[str]], str] | None = None
    words: Mapping[str, str] = field(default_factory=dict)  # code of a sentence -> its words
    further_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further columns that hold labels too (what listeners heard beside what was acted): column ->
    the corpus's own label -> emotion. A label that is not there, such as a tie, becomes empty."""
    split_words: Mapping[str, str] = field(default_factory=dict)  # the corpus's word -> ours
    second_copy: str = ""
    """A regular expression searched in the path: below it, known copies hold every file again."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Regular expression searched in the paths that are not of this corpus -> what they are."""
    traps: tuple[str, ...] = ()  # what a reader would not expect, a sentence each
    same_audio: frozenset[frozenset[str]] = frozenset()
    """Clips that are one recording under two labels, in every copy."""
    left_out: str = ""  # a list in lsmprobe/data of clips that are not of this corpus
    damaged: frozenset[str] = frozenset()  # clips that nobody can read, as they are published
    zenodo: str = ""  # the record to download, where licence and an open link allow it
    archives: str = r"\.zip$"  # a regular expression: which of the record's files
    links: Mapping[str, str] = field(default_factory=dict)
    """Archives and single files that lie elsewhere: name of one -> address."""
    paper_n: int = 0  # utterances in the paper's Table 1; 0 if the corpus is not in it
    paper_emotions: tuple[str, ...] = ()  # in Table 1, where they are not those of `labels`
    paper_note: str = ""  # why Table 1 has that number, where it is not the corpus's

    @property
    def can_be_fetched(self) -> bool:
        """Whether `lsmprobe corpora get` downloads it."""
        return bool(self.zenodo or self.links)

    @property
    def how_to_get(self) -> str:
        """The command that fetches it where there is one, and where it lies."""
        fetched = f"lsmprobe corpora get {self.name}"
        return f"{fetched}, or {self.obtain}" if self.can_be_fetched else self.obtain

    def match(self, path: str) -> re.Match[str] | None:
        """The end of a path that names a clip of this corpus, whatever its label."""
        stem, dot, suffix = path.rpartition(".")
        return _compiled(self.file_name).search(stem + dot + suffix.lower())

    def key(self, match: re.Match[str]) -> str:
        """The utterance's name, the same in every release and layout."""
        key = match["key"] if "key" in match.re.groupindex else match[0]
        for pattern, replacement in self.spelling.items():
            key = re.sub(pattern, replacement, key)
        return key

    def spelled(self, match: re.Match[str], key: str = "") -> re.Match[str]:
        """The match, of the key where this copy spells the name otherwise."""
        if not self.spelling or "key" in match.re.groupindex:
            return match
        key = key or self.key(match)
        return match if key == match[0] else self.match(key) or match

    def label(self, match: re.Match[str]) -> str:
        """The corpus's own label; empty where the path does not say it."""
        return match.groupdict("").get("emotion", "")

    def emotion_called(self, label: str) -> str:
        """The emotion of one of the corpus's own labels; empty if the row has no such label."""
        return self.labels.get(label, self.labels.get(label.lower(), ""))

    def emotion(self, match: re.Match[str]) -> str:
        """The utterance's emotion, as the path says it; empty if the clip is not of this corpus."""
        return self.emotion_called(self.label(match))

    def speaker(self, match: re.Match[str]) -> str:
        """Who speaks, as the path says it; `unknown` where nothing does."""
        if self.speaker_of:
            return self.speaker_of(match)
        return match.groupdict("").get("speaker") or self.only_speaker or UNKNOWN_SPEAKER

    def gender(self, match: re.Match[str], speaker: str = "") -> str:
        """`female`, `male`, or empty where it is not known."""
        if said := match.groupdict("").get("gender"):
            return GENDERS[said[0].lower()]
        speaker = speaker or self.speaker(match)
        return "female" if speaker in self.women else "male" if speaker in self.men else ""

    def sentence(self, match: re.Match[str]) -> str:
        """A code for the words, or the words; empty where nothing says them."""
        if self.sentence_of:
            return self.sentence_of(match)
        return match.groupdict("").get("sentence", "")

    def split(self, word: str) -> str:
        """A part of a split, by the corpus's own word for it."""
        return self.split_words.get(word, SPLIT_WORDS.get(word.casefold(), word))

    def is_used(self, word: str) -> bool:
        """Whether the row reads that part: a further test set may be a row of its own."""
        return self.split_words.get(word) != ""

    def further(self, match: re.Match[str]) -> dict[str, str]:
        """What else the path says, by the names of the groups."""
        groups = match.groupdict("")
        return {name: said for name, said in groups.items() if name not in OWN_GROUPS}

    def release(self, paths: Sequence[str]) -> Release:
        """The first release that a path of a clip names; where none does, the one of that size."""
        for release in self.releases:
            if any(re.search(release.path, path) for path in paths):
                return release
        unnamed = [replace(release, path="") for release in self.releases]
        unnamed = unnamed or [Release("", "", self.n_utterances)]
        return next((each for each in unnamed if each.n_utterances == len(paths)), unnamed[0])

    def beside_the_paper(self, release: Release) -> str:
        """How what is published of the corpus compares with the paper's Table 1."""
        if not self.paper_n:
            return "not in the paper"
        if self.paper_n == release.n_utterances and not self.paper_note:
            return AS_IN_THE_PAPER
        return f"the paper has {self.paper_n}" + (f": {self.paper_note}" if self.paper_note else "")


@functools.cache
def _compiled(file_name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^/])(?:{file_name})$")


def numbers(*each: int) -> frozenset[str]:
    """Two digits each, as file names count speakers."""
    return frozenset(f"{number:02}" for number in each)


def speakers(listed: str) -> frozenset[str]:
    """The names in a text, separated by blanks."""
    return frozenset(listed.split())
