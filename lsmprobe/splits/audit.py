"""What train, validation and test share: speakers, sentences, identical audio."""

from itertools import combinations

import pandas as pd

from lsmprobe.corpora.check import listen_to_all
from lsmprobe.errors import CorpusError
from lsmprobe.splits.file import PARTS
from lsmprobe.splits.file import Split as Split
from lsmprobe.splits.kinds import make_split


def audit_split(
    split: str,
    utterances: pd.DataFrame,
    *,
    seed: int = 0,
    damaged: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Which speakers, sentences and identical audio the parts of a split share; see `splits.audit`.

    Args:
        split: a kind of split or a JSON file, see `splits.make_split`.
        utterances: what `read_corpus` gave; every clip is decoded.
        seed: of the split.
        damaged: keys of clips that nobody can read, as they are published; they are not compared.

    Returns:
        As `splits.audit`; without `sentence` where no clip's is known.

    Raises:
        CorpusError: a clip cannot be read, so that nobody knows whether another one is the same.
    """
    asked = make_split(split, utterances, seed=seed)
    clips = listen_to_all(utterances)
    keyed = zip(utterances.key, clips, strict=True)
    faults = [clip.fault for key, clip in keyed if clip.fault and key not in damaged]
    if faults:
        raise CorpusError(
            f"{len(faults)} of {len(clips)} clips cannot be compared, the first: "
            f"{faults[0]} Mend them, or audit a manifest without them."
        )
    heard = utterances.assign(sha256=[clip.audio_hash for clip in clips])
    return audit(asked, heard if any(heard.sentence) else heard.drop(columns="sentence"))


def audit(split: Split, utterances: pd.DataFrame) -> pd.DataFrame:
    """What the parts of each fold share: speakers, sentences, identical audio.

    Args:
        split: any split of these utterances.
        utterances: the columns `speaker`, `sentence` and `sha256` are compared where they are
            there; empty values are not known and so not compared.

    Returns:
        One row per fold, column and pair of parts: `fold`, `column`, `parts` ("train, test"),
        `shared` (how many values), `values` (which, sorted).
    """
    rows = []
    for number, fold in enumerate(split.folds):
        for column in ("speaker", "sentence", "sha256"):
            if column not in utterances:
                continue
            held = {
                part: set(utterances[column].iloc[getattr(fold, part)].dropna()) for part in PARTS
            }
            for one, other in combinations(PARTS, 2):
                values = sorted((held[one] & held[other]) - {""})
                rows.append((number, column, f"{one}, {other}", len(values), values))
    return pd.DataFrame(rows, columns=["fold", "column", "parts", "shared", "values"])
