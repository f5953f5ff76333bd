"""A folder with one subfolder per emotion -> its table of utterances."""

import logging
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from lsmprobe.corpora.audio import AUDIO_SUFFIXES
from lsmprobe.corpora.utterances import (
    files_below,
    utterance_table,
)
from lsmprobe.errors import CorpusError, counted

log = logging.getLogger(__name__)


def read_sorted_folder(
    folder: Path, speaker_pattern: str, *, skip_unlabelled: bool = False
) -> pd.DataFrame:
    """A folder with a sub-folder per emotion.

    Args:
        folder: what its sub-folders are called is their clips' emotion. Audio of every format is
            taken, so that what cannot be decoded is counted and named; other files are counted.
        speaker_pattern: a regular expression searched in the path inside the folder, with a group
            named speaker.
        skip_unlabelled: leave out clips without emotion or speaker, count and name them.

    Raises:
        CorpusError: the pattern is none, or a clip has no emotion or no speaker.
    """
    try:
        speaker = re.compile(speaker_pattern)
    except re.error as error:
        raise CorpusError(f"--speaker-pattern {speaker_pattern!r} is wrong: {error}.") from error
    if "speaker" not in speaker.groupindex:
        raise CorpusError(
            f"--speaker-pattern of folder:DIR is {speaker_pattern!r}; expected a regular "
            r"expression with a group named speaker, such as '/(?P<speaker>s\d+)_'."
        )
    rows = []
    others: Counter[str] = Counter()
    for key, path in files_below(folder):
        suffix = Path(key).suffix.lower()
        if suffix not in AUDIO_SUFFIXES:
            others[suffix or "no suffix"] += 1
            continue
        emotion, _, rest = key.partition("/")
        match = speaker.search(key)
        rows.append(
            {
                "key": key,
                "path": path,
                "emotion": emotion if rest else "",
                "speaker": match and match["speaker"],
                "where": repr(key),
            }
        )
    if others:
        found = ", ".join(f"{suffix} {n}" for suffix, n in sorted(others.items()))
        n_others = counted(others.total(), "file", "is")
        log.info("%s: %s not audio (%s)", folder, n_others, found)
    if not rows:
        raise CorpusError(f"{str(folder)!r} has no audio file; expected DIR/EMOTION/FILE.wav.")
    try:
        return utterance_table(rows, skip_unlabelled=skip_unlabelled)
    except CorpusError as error:
        raise CorpusError(
            f"{str(folder)!r}: {error} Expected DIR/EMOTION/FILE, and a speaker that "
            f"--speaker-pattern {speaker_pattern!r} finds."
        ) from error
