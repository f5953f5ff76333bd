"""What train, validation and test share, and what else a reader of the scores should know."""

from itertools import combinations

import pandas as pd

from lsmprobe.corpora.check import Clip, listen_to_all, nearly_equal
from lsmprobe.corpora.utterances import UNKNOWN_SPEAKER, one_person_notes
from lsmprobe.errors import CorpusError, counted
from lsmprobe.splits.confounds import confounds
from lsmprobe.splits.file import Split as Split
from lsmprobe.splits.file import parts_of
from lsmprobe.splits.kinds import make_split

SHARED = ("speaker", "sentence", "sha256", "recording")


def audit_split(
    split: str,
    utterances: pd.DataFrame,
    *,
    seed: int = 0,
    damaged: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Which speakers, sentences and audio the parts of a split share; see `splits.audit`.

    Args:
        split: a kind of split or a JSON file, see `splits.make_split`.
        utterances: what `read_corpus` gave; every clip is decoded.
        seed: of the split.
        damaged: keys of clips that nobody can read, as they are published; they are not compared.

    Returns:
        As `splits.audit`; without `sentence` where no clip's is known. `recording` is the first key
        of the clips that are the same but for their gain or the silence around them.

    Raises:
        CorpusError: a clip cannot be read, so that nobody knows whether another one is the same.
    """
    asked = make_split(split, utterances, seed=seed)
    clips = listen_to_all(utterances)
    keyed = zip(utterances.key, clips, strict=True)
    faults = [clip.fault for key, clip in keyed if clip.fault and key not in damaged]
    if faults:
        raise CorpusError(
            f"{counted(len(faults), 'clip', of=len(clips))} cannot be compared, the first: "
            f"{faults[0]} Repair them, or audit a manifest without them."
        )
    heard = utterances.assign(
        sha256=[clip.audio_hash for clip in clips], recording=_recordings(utterances, clips)
    )
    return audit(asked, heard if any(heard.sentence) else heard.drop(columns="sentence"))


def _recordings(utterances: pd.DataFrame, clips: list[Clip]) -> list[str]:
    """The first key of the clips that are one recording though not equal; empty for the others."""
    first = [""] * len(clips)
    for group in nearly_equal(clips):
        for i in group:
            first[i] = utterances.key.iloc[group[0]]
    return first


def audit(split: Split, utterances: pd.DataFrame) -> pd.DataFrame:
    """What the parts of each fold share: speakers, sentences, audio.

    Args:
        split: any split of these utterances.
        utterances: the columns `speaker`, `sentence`, `sha256` and `recording` are compared where
            they are there; empty values are not known and so not compared.

    Returns:
        One row per fold, column and pair of parts: `fold`, `column`, `parts` ("train, test"),
        `shared` (how many values), `values` (which, sorted).
    """
    rows = []
    for number, fold in enumerate(split.folds):
        for column in SHARED:
            if column not in utterances:
                continue
            unknown = {"", UNKNOWN_SPEAKER} if column == "speaker" else {""}
            held = {
                part: set(utterances[column].iloc[rows].dropna()) - unknown
                for part, rows in parts_of(fold).items()
            }
            for one, other in combinations(held, 2):
                values = sorted(held[one] & held[other])
                rows.append((number, column, f"{one}, {other}", len(values), values))
    return pd.DataFrame(rows, columns=["fold", "column", "parts", "shared", "values"])


def emotion_shares(split: Split, utterances: pd.DataFrame) -> pd.DataFrame:
    """Clips of each emotion in each part: `fold`, `part`, `emotion`, `clips`, `percent` of it."""
    rows = []
    for number, fold in enumerate(split.folds):
        for part, own in parts_of(fold).items():
            emotions = utterances.emotion.iloc[own]
            counts = emotions.value_counts()
            for emotion in sorted(set(utterances.emotion)):
                n = int(counts.get(emotion, 0))
                rows.append((number, part, emotion, n, 100 * n / len(emotions)))
    return pd.DataFrame(rows, columns=["fold", "part", "emotion", "clips", "percent"])


def warnings_of(utterances: pd.DataFrame) -> list[str]:
    """Sentences about the utterances themselves: confounds, and speakers that may be one."""
    return [*one_person_notes(utterances.speaker), *map(str, confounds(utterances))]
