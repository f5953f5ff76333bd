"""What a file beside the audio says of a clip, and how it finds its audio."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Labelled:
    """One clip, as a label file has it; what is empty the path may say."""

    path: str
    """The end of the audio's path, with `/`; its suffix does not matter, since users convert."""
    label: str = ""  # the corpus's own
    speaker: str = ""
    gender: str = ""
    sentence: str = ""
    split: str = ""
    start_s: float = 0.0
    end_s: float = float("inf")
    further: Mapping[str, str] = field(default_factory=dict)


LabelReader = Callable[[Mapping[str, str]], list[Labelled]]
"""Files below the corpus (path inside -> path on the disk) -> what its label files say.

Empty where it finds none of its files.
"""


class Joined(NamedTuple):
    """Which rows of labels belong to which audio."""

    rows_of: dict[str, list[Labelled]]  # key of the audio -> its rows
    without_audio: list[Labelled]
    without_labels: list[str]


def join(labelled: Sequence[Labelled], keys: Iterable[str]) -> Joined:
    """Each row to the audio whose path it ends in, by the fewest folders that leave no doubt.

    A base name is enough where neither the rows nor the files have it twice; otherwise as many
    folders are compared as it takes for one row (or the rows of one file) to be meant.

    >>> join([Labelled("dev/a.mp4", "joy")], ["x/dev/a.wav"]).rows_of["x/dev/a.wav"][0].label
    'joy'
    """
    keys = list(keys)
    parts_of_key = {key: _parts(key) for key in keys}
    parts_of_row = {row.path: _parts(row.path) for row in labelled}
    n_files = _tails(parts_of_key.values())
    n_rows = _tails(parts_of_row.values())
    ends: dict[tuple[str, ...], str] = {}
    for key, parts in parts_of_key.items():
        for n in range(1, len(parts) + 1):
            ends[parts[-n:]] = key
    found: dict[str, list[Labelled]] = {}
    orphans = []
    for row in labelled:
        parts = parts_of_row[row.path]
        tails = (parts[-n:] for n in range(1, len(parts) + 1))
        unique = next((tail for tail in tails if n_rows[tail] == 1 and n_files[tail] <= 1), ())
        if unique in ends:
            found.setdefault(ends[unique], []).append(row)
        else:
            orphans.append(row)
    return Joined(found, orphans, [key for key in keys if key not in found])


def _parts(path: str) -> tuple[str, ...]:
    """Folders and the base name without its suffix, in any case."""
    stem, dot, suffix = path.rpartition(".")
    bare = stem if dot and "/" not in suffix and len(suffix) <= 4 else path
    return tuple(part for part in bare.casefold().split("/") if part not in ("", "."))


def _tails(paths: Iterable[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """How many paths end in each tail."""
    return Counter(parts[-n:] for parts in set(paths) for n in range(1, len(parts) + 1))
