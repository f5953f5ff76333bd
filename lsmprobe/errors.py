"""The errors a user can act on; the scripts print them as one line.

A message says what was found, what was expected and what to do.
"""

import difflib
from collections.abc import Iterable
from typing import SupportsIndex


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


def counted(n: SupportsIndex, what: str, does: str = "", *, of: SupportsIndex | None = None) -> str:
    """A number of things, and what they do, as a message says it.

    >>> counted(1, "run"), counted(2, "run"), counted(2, "process|processes")
    ('1 run', '2 runs', '2 processes')
    >>> counted(1, "clip", "is", of=5), counted(1, "clip", of=1)
    ('1 of 5 clips is', '1 of 1 clip')

    Args:
        n: how many.
        what: one of them; `one|several` where an s does not make the plural.
        does: the verb that follows, as of one.
        of: how many there are of them in all.
    """
    one, _, several = what.partition("|")
    thing = one if (n if of is None else of) == 1 else several or f"{one}s"
    said = f"{n} {thing}" if of is None else f"{n} of {of} {thing}"
    return f"{said} {agreeing(n, does)}" if does else said


def agreeing(n: SupportsIndex, does: str) -> str:
    """A verb as of `n` things, from the one as of one.

    >>> agreeing(1, "has"), agreeing(2, "has"), agreeing(0, "learns")
    ('has', 'have', 'learn')
    """
    several = {"is": "are", "has": "have", "was": "were"}
    return does if n == 1 else several.get(does, does.removesuffix("s"))
