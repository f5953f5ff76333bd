"""What a cache is to hold, planned before the first forward pass, and how two plans differ."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from lsmprobe.cache.codecs import codec_of
from lsmprobe.cache.layout import (
    LABELS,
    NUMBERS,
    PAGE,
    PLANNED,
    TEXT,
    Member,
    as_bytes,
    checksum,
    members,
)
from lsmprobe.cache.selection import Selection, selection_of
from lsmprobe.errors import CacheError, counted

# Of an identity: what decides no feature. The values of the weights do, not the files they are in.
BESIDE = ("versions", "part", "labels", "files_sha256")


@dataclass(frozen=True, eq=False)
class CachePlan:
    """Everything that decides what a cache file looks like, known before the first forward pass."""

    utterances: pd.DataFrame
    """The table of docs/design.md with samples, seconds and the frames that are stored (0: the clip
    is unreadable)."""
    n_layers: int
    """That are stored; layer 0 counts."""
    dim: int
    store: Literal["frames", "pooled"]
    dtype: str
    """How frames are stored, a row of codecs.py; the pooled statistics are always float32."""
    identity: dict
    """Model, preprocessing, layer convention, versions: what JSON can hold. Where only some layers,
    or means of frames are stored, it says so; see selection.py."""
    means_checksum: bool = True
    """Whether frames have a checksum of means beside them; False: as before there was one."""

    def __post_init__(self) -> None:
        assert self.n_layers > 0
        assert self.dim > 0
        assert len(json.dumps(self.identity)) < 60_000  # an HDF5 attribute ends at 64 KiB
        assert self.utterances["key"].is_unique
        if not self.utterances["frames"].any():
            raise CacheError(
                f"Not one of {counted(len(self.utterances), 'utterance')} has a frame to store; "
                "expected readable clips. Check --data-dir."
            )

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns that are known in advance, as they are stored."""
        # As objects, which are walked through ten times faster than Arrow's strings.
        text = {name: as_bytes(np.asarray(self.utterances[name], object)) for name in TEXT}
        numbers = {name: self.utterances[name].to_numpy(kind) for name, kind in NUMBERS.items()}
        offset = np.cumsum(numbers["frames"]) - numbers["frames"]
        return text | numbers | {"offset": offset}

    @cached_property
    def members(self) -> dict[str, Member]:
        """Every dataset of the file."""
        n_frames = int(self.columns["frames"].sum()) if self.store == "frames" else 0
        widths = [self.columns[name].itemsize for name in TEXT]
        shape = len(self.utterances), n_frames, self.selection.layers, self.dim
        return members(*shape, self.dtype, widths, means_checksum=self.means_checksum)

    @cached_property
    def selection(self) -> Selection:
        """Which of the model's states are stored."""
        return selection_of(self.identity, self.n_layers)

    @property
    def is_all(self) -> bool:
        """Whether every frame of every layer is stored, rounded value by value if at all."""
        return self.selection.is_all and not codec_of(self.dtype).levels

    @property
    def frames_nbytes(self) -> int:
        """Bytes of all frames of all stored layers, which a pooled cache goes without."""
        codec = codec_of(self.dtype)
        frame = self.n_layers * self.dim * codec.dtype.itemsize
        scales = self.pooled_nbytes // 2 if codec.levels else 0
        return int(self.columns["frames"].sum()) * frame + scales

    @property
    def pooled_nbytes(self) -> int:
        """Bytes of the means and standard deviations."""
        return 2 * self.members["pooled/mean"].nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of the file, at most."""
        # Each dataset and each of its pieces of HDF5 metadata starts on a page.
        return sum(member.nbytes + 4 * PAGE for member in self.members.values()) + 32 * PAGE


def differences(stored: Any, plan: CachePlan, but: Iterable[str] = ()) -> list[str]:
    """What is stored and what is planned differently; where the audio lies does not matter.

    Args:
        stored: a CacheFile, or all of a cache: what has a plan's attributes.
        plan: what there should be.
        but: what may differ: `new`, `gone`, `changed` utterances, those `in another place`.
    """
    old, new = settings(stored), settings(plan)
    found = [
        f"{name} was {old.get(name)!r}, is now {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if all(map(np.array_equal, _compared(stored.columns), _compared(plan.columns))):
        return found  # without an object for each utterance
    had, has = _rows(stored.columns), _rows(plan.columns)
    differing = {
        "new": has.keys() - had.keys(),
        "gone": had.keys() - has.keys(),
        "changed": [key for key, row in had.items() if has.get(key, row) != row],
        "in another place": [a for a, b in zip(had, has, strict=False) if a != b]
        if had.keys() == has.keys()
        else [],
    }
    changes = [
        f"{len(keys)} {how} ({os.fsdecode(min(keys))!r} first)"
        for how, keys in differing.items()
        if keys and how not in but
    ]
    return found + ([f"utterances: {', '.join(changes)}"] if changes else [])


def settings(planned: Any) -> dict[str, Any]:
    """What is the same for all utterances of a plan, a file or a cache, by dotted names."""
    identity = json.loads(json.dumps(decisive(planned.identity)))
    names = ("store", "dtype", "n_layers", "dim")
    return _flat(identity) | {name: getattr(planned, name) for name in names}


def decisive(identity: dict) -> dict:
    """The identity less versions of libraries (reported, never compared), the part, and
    that there is a table of labels.

    An upgrade must not turn away a finished cache; another model or preprocessing must.
    """
    return {name: value for name, value in identity.items() if name not in BESIDE}


def plan_hash(planned: Any, *, with_labels: bool = False) -> str:
    """What a plan, a file or a cache is to hold: every setting and utterance, by one hash.

    Whatever else is the same on every machine; not where the audio lies, nor what may be
    corrected. `with_labels`: as it was computed before labels had a table of their own.
    """
    text = json.dumps(settings(planned), sort_keys=True)
    left_out = {"path", "offset", *(() if with_labels else LABELS)}
    columns = [planned.columns[name] for name in PLANNED if name not in left_out]
    return f"{checksum([np.frombuffer(text.encode(), np.uint8), *columns]):016x}"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts as one: `{"model.revision": ...}`."""
    if not isinstance(value, dict):
        return {name: value}
    inner = [_flat(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()]
    return {key: item for items in inner for key, item in items.items()}


def _compared(columns: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The columns that may not differ."""
    return [
        values.view("<i8") if values.dtype == "<f8" else values  # by its bits: NaN equals NaN
        for name, values in columns.items()
        if name not in ("path", "offset", *LABELS)
    ]


def _rows(columns: Mapping[str, np.ndarray]) -> dict[bytes, tuple]:
    """What was planned for each key."""
    rows = zip(*(values.tolist() for values in _compared(columns)), strict=True)
    return dict(zip(columns["key"].tolist(), rows, strict=True))


def plan_checksum(identity: dict, columns: Mapping[str, np.ndarray]) -> str:
    """Guards what was planned: the identity and the planned columns, as 16 hexadecimal digits."""
    text = np.frombuffer(json.dumps(identity, sort_keys=True).encode(), np.uint8)
    return f"{checksum([text, *(columns[name] for name in PLANNED)]):016x}"
