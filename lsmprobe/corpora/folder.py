"""A folder with one subfolder per emotion -> its table of utterances."""

import re
from pathlib import Path

import pandas as pd

from lsmprobe.corpora.audio import AUDIO_SUFFIXES
from lsmprobe.corpora.utterances import files_below, utterance_table
from lsmprobe.errors import CorpusError


def read_sorted_folder(folder: Path, speaker_pattern: str) -> pd.DataFrame:
    """A folder with a sub-folder per emotion.

    Args:
        folder: what its sub-folders are called is their clips' emotion.
        speaker_pattern: a regular expression searched in the path inside the folder, with a group
            named speaker.

    Raises:
        CorpusError: the pattern is none, or a clip has no emotion or no speaker.
    """
    try:
        speaker = re.compile(speaker_pattern)
    except re.error as error:
        raise CorpusError(f"the speaker pattern {speaker_pattern!r} is wrong: {error}.") from error
    if "speaker" not in speaker.groupindex:
        raise CorpusError(
            f"the speaker pattern of folder:DIR is {speaker_pattern!r}; expected a regular "
            r"expression with a group named speaker, such as '/(?P<speaker>s\d+)_'."
        )
    rows = []
    for key, path in files_below(folder):
        if Path(key).suffix.lower() not in AUDIO_SUFFIXES:
            continue
        emotion, _, rest = key.partition("/")
        match = speaker.search(key)
        if not rest:
            raise CorpusError(f"{path!r} lies in no emotion's folder; expected DIR/EMOTION/FILE.")
        if not (match and match["speaker"]):
            raise CorpusError(
                f"the speaker pattern {speaker_pattern!r} finds no speaker in {key!r}."
            )
        rows.append({"key": key, "path": path, "emotion": emotion, "speaker": match["speaker"]})
    if not rows:
        raise CorpusError(f"{str(folder)!r} has no audio file; expected DIR/EMOTION/FILE.wav.")
    return utterance_table(rows)
