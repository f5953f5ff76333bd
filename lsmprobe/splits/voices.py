"""Voices: how many test speakers training has heard, so that a score is not of new speakers."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lsmprobe.corpora.utterances import UNKNOWN_SPEAKER
from lsmprobe.errors import counted
from lsmprobe.splits.file import Split


class Voices(NamedTuple):
    """The speakers of the test utterances of all folds."""

    tested: int  # speakers that are known
    shared: int  # of these: in the training set of the same fold too
    unknown: int  # test utterances whose speaker is not known
    utterances: int  # that are tested


def voices_of(split: Split, speakers: np.ndarray) -> Voices:
    """Whom a split tests.

    Args:
        split: with one test set, see `Split.apart`.
        speakers: one per utterance; empty or `unknown` where nobody knows.
    """
    tested, shared, unknown, n_utterances = set(), set(), 0, 0
    for fold in split.folds:
        own = speakers[fold.test]
        is_known = np.isin(own, ("", UNKNOWN_SPEAKER), invert=True)
        names = set(own[is_known])
        tested |= names
        shared |= names & set(speakers[fold.train])
        unknown += int((~is_known).sum())
        n_utterances += len(own)
    return Voices(len(tested), len(shared), unknown, n_utterances)


def clips_in_train(split: Split, utterances: pd.DataFrame) -> int:
    """How many test utterances are in the training set of their fold too, byte for byte.

    Args:
        split: with one test set, see `Split.apart`.
        utterances: sha256 of each one's file, and start_s and end_s of the part that it is.
    """
    audio = utterances.groupby(["sha256", "start_s", "end_s"], dropna=False, sort=False)
    number = audio.ngroup().to_numpy()
    return sum(int(np.isin(number[f.test], number[f.train]).sum()) for f in split.folds)


def leak_notes(split: Split, speakers: np.ndarray) -> tuple[str, ...]:
    """A sentence for each test set that shares speakers with train, or may."""
    notes = []
    for own in split.apart():
        of = f"{own.test_set}: " if split.test_sets else ""
        found = voices_of(own, speakers)
        if found.shared:
            shared = counted(found.shared, "test speaker", of=found.tested) + " also in train"
            notes.append(f"{of}{shared}: the scores leak, they do not tell how new speakers fare")
        if found.unknown:
            n = counted(found.unknown, "test utterance", of=found.utterances)
            notes.append(
                f"{of}the speaker of {n} is not known, so nobody can say whether train has that "
                "voice"
            )
    return tuple(notes)
