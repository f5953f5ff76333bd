"""The errors a user can act on; the scripts print them as one line.

A message says what was found, what was expected and what to do.
"""

import difflib
from collections.abc import Iterable


class LsmprobeError(Exception):
    """Anything that the user can put right."""


class SettingsError(LsmprobeError):
    """A flag, or a combination of flags, that makes no sense."""


class CorpusError(LsmprobeError):
    """A corpus folder or a manifest that cannot be read as one."""


class AudioError(LsmprobeError):
    """An audio file that does not hold a usable waveform."""


class ModelError(LsmprobeError):
    """A speech model that cannot be loaded or run."""


class CacheError(LsmprobeError):
    """A cache file that is missing, unfinished, foreign or damaged."""


class SplitError(LsmprobeError):
    """A corpus that cannot be split as asked, or a split file that does not fit it."""


class TrainingError(LsmprobeError):
    """A head whose training broke down."""


class ResultsError(LsmprobeError):
    """A record of a run that cannot be read or written."""


def one_line(said: str) -> str:
    r"""With escapes for what a name may hold: line breaks, control codes, bytes that are no text.

    >>> one_line("a\nb")
    'a\\nb'
    """
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in said)


def nearest(name: str, names: Iterable[str]) -> str:
    """The known names for a message, those most like `name` first.

    >>> nearest("emodv", ["emodb", "emovo", "shemo"])
    'did you mean emovo or emodb or shemo?'
    >>> nearest("urdu", ["URDU", "emovo"])
    'did you mean URDU?'
    >>> nearest("x", ["emodb", "emovo"])
    'known are: emodb, emovo.'
    """
    known = sorted(names)
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    close = [folded[each] for each in close]
    return f"did you mean {' or '.join(close)}?" if close else f"known are: {', '.join(known)}."
